"""Figures in documents are those of the files they are made from."""

import pathlib

import pytest

from experiments.tabulate_results import DOCUMENTS, document_with_tables, with_tables

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(('document', 'name', 'tables'), DOCUMENTS)
def test_tables_are_made_from_the_kept_rows(document, name, tables):
  """`python -m experiments.tabulate_results --write` puts right what differs."""
  text = (ROOT / document).read_text()
  assert f'<!-- {name} -->' in text and text == document_with_tables(ROOT, document, name, tables)


def test_only_the_part_between_the_comments_is_written():
  text = 'before\n<!-- a.json -->\n| 0.9 |\n<!-- end -->\nafter\n<!-- b.json -->\n<!-- end -->\n'
  assert with_tables(text, 'a.json', ['| 0.8 |', '']) == text.replace('| 0.9 |\n', '| 0.8 |\n\n')
  assert with_tables(text, 'c.json', ['| 0.8 |']) == text
