"""Figures in documents are those of the files they are made from."""

import pathlib
import re

import pytest

from experiments.tabulate_results import operator_tables, operators_table
from metaimprove.evaluation import rows

ROOT = pathlib.Path(__file__).parents[1]
ROWS = ROOT / 'docs/results/operators.json'


def between_markers(document, name):
  found = re.search(rf'<!-- {re.escape(name)} -->\n(.*?)\n?<!-- end -->', (ROOT / document).read_text(), re.DOTALL)
  assert found, f'{document} has no part between <!-- {name} --> and <!-- end -->'
  return found.group(1)


@pytest.mark.parametrize('document, tables', [('docs/operators.md', operator_tables), ('README.md', operators_table)])
def test_tables_are_made_from_the_kept_rows(document, tables):
  assert between_markers(document, 'operators.json') == '\n'.join(tables(rows.read(ROWS, rows.OperatorRow)))
