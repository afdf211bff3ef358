"""Figures in documents are those of the files they are made from."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest

from experiments.tabulate_results import DOCUMENTS, document_with_tables, with_tables
from metaimprove import asks
from metaimprove.errors import UnknownNameError
from metaimprove.training.examples import Examples
from metaimprove.training.pairs import draw_sizes
from metaimprove.training.settings import TrainingSettings
from tests.point_family import point_family

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


@pytest.mark.filterwarnings('ignore:Brax System')  # the notice of Brax to who calls it
def test_the_examples_of_using_an_operator_run(tmp_path, monkeypatch, capsys):
  """All on the page, one after the other; in the first loop the hidden place is found."""
  monkeypatch.chdir(tmp_path)
  text = (ROOT / 'docs' / 'import.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert len(blocks) == 7
  names = {}
  for block in blocks:
    exec(block, names)
  first = [line.split() for line in capsys.readouterr().out.splitlines() if re.fullmatch(r'\d \d+\.\d+', line)]
  assert [int(trial) for trial, _ in first] == list(range(10)) and max(float(total) for _, total in first) > 8
  assert names['actor'].agent.num_applications == 3 and names['returns'].shape == (1, 9, 1)
  assert (tmp_path / 'export' / 'policy.json').exists()


def test_the_example_of_a_kind_of_ask_runs(dataset, operator):
  """What it describes is true of the answers of training, of which some are worse than the policy shown."""
  block, = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'asks.md').read_text(), re.DOTALL)
  names = {}
  try:
    exec(block, names)
    assert 'at_least' in names['operator'].config.asks and names['wanted'].values == {'at_least': 5.0}
    config = dataclasses.replace(operator.config, asks=('steps', 'at_least'))
    settings = TrainingSettings.of(point_family(), 8, asks=config.asks, drop_rate=0.0)
    examples = Examples(dataset=dataset, histories=None, config=config, settings=settings, seed=0)
    history, rng = np.zeros(200, int), np.random.default_rng(0)
    found = examples.of_histories(history, draw_sizes(settings, 200, rng), rng).ask
    given, returns = found.given['at_least'], dataset.returns[0]
    assert given.mean() > 0.6 and not found.given['steps'].all()
    values = found.values['at_least'][given]
    assert values.min() >= returns.min() - 1e-3 and values.max() <= returns.max() + 1e-3
    assert np.ptp(values) > np.ptp(returns) / 2
    with pytest.raises(UnknownNameError, match='already'):
      asks.register(dataclasses.replace(asks.KINDS['steps'], num_features=1))
  finally:
    asks.KINDS.pop('at_least', None)


@pytest.mark.filterwarnings('ignore:Brax System')  # the notice of Brax to who calls it
@pytest.mark.parametrize('notebook', sorted(path.stem for path in (ROOT / 'docs' / 'notebooks').glob('*.py')))
def test_notebooks_run_from_top_to_bottom(notebook, tmp_path, monkeypatch):
  """And improve something."""
  monkeypatch.chdir(tmp_path)
  code = (ROOT / 'docs' / 'notebooks' / f'{notebook}.py').read_text()
  assert 'format_name: percent' in code and code.count('# %%') >= 6
  for more, fewer in (('num_steps=200', 'num_steps=60'), ('num_updates=40', 'num_updates=20')):
    code = code.replace(more, fewer)
  names = {}
  exec(code, names)
  assert names['returns'][-1] > names['returns'][0]
  if 'evaluation' in names:
    scores = names['evaluation'].scores('heldout', 'operator').mean(axis=1)
    assert len(scores) == 5 and scores[-1] > 0.3 > abs(scores[0])


def test_links_lead_somewhere():
  """Within the repository, from all documents."""
  for document in (*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')):
    for target in re.findall(r'\]\(([^)#\s]+)', document.read_text()):
      if not target.startswith(('http://', 'https://')):
        assert (document.parent / target).exists(), f'{document.name}: {target}'
