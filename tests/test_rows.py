"""Rows of figures in files: what is kept, what is refused, and the tables made of them."""

import dataclasses
import json

import pytest

from experiments import tabulate_results
from experiments.tabulate_results import ablation_table, families_table, naming_is_enough, operators_table
from metaimprove.errors import DamagedDataError
from metaimprove.evaluation import rows


def figures(values, sparse=True):
  kept = {name: list(values) for name in ('iqm', 'low', 'high', 'mean')}
  return {**kept, 'found': list(values)} if sparse else kept


OPERATOR = rows.OperatorRow(
  family='point_goal_sparse_h20', backend='kinematic', seeds=[0, 1], tasks=9, episodes=[0, 1, 2],
  need={'experience': 0.9, 'dynamics': 0.05, 'second_look': None}, training_env_steps=None, commands=['a command'],
  methods={
    'operator': figures([0, 0.25, 0.75]), 'operator_far': figures([0, 0.1, 0.2]), 'told_goal': figures([0.95]),
    'ppo': {**figures([0.0, 0.1, 0.2, 0.3]), 'episodes': [0, 10, 20, 30]},
  },
)
NEEDS = rows.NeedsRow(
  family='reacher_goal', backend='mjx', seeds=[0], tasks=9, need=dict.fromkeys(rows.NEEDS, 0.05),
  low=dict.fromkeys(rows.NEEDS, 0.04), high=dict.fromkeys(rows.NEEDS, 0.06), oracle=-14.7, initial=None,
  identify_reads='histories', commands=[],
)
ABLATION = rows.AblationRow(
  family='point_goal_sparse_h20', backend='kinematic', variant='one_answer', changes={'num_answers': 1}, seeds=[0],
  tasks=9, episodes=[0, 1, 2], methods={'operator': figures([0, 0.25, 0.75])}, milliseconds=[1.5, 1.625],
  answers={'loss': 0.5, 'divergence': 0.5, 'in_use': 1.0}, commands=[],
)


ASK = rows.AskRow(
  ask='mean_return', family='reacher_goal', backend='mjx', seeds=[0, 1], tasks=9, metric='rank correlation',
  value=0.975, low=0.9, high=1.0,
  control="another task's experience", control_value=0.25, command='a command',
)


def test_a_row_replaces_that_of_its_family_and_leaves_others(tmp_path):
  path = tmp_path / 'results' / 'operators.json'
  other = dataclasses.replace(
    OPERATOR, family='reacher_goal', methods={'operator': figures([0, 1, 1], sparse=False)}
  )
  for row in (OPERATOR, other, dataclasses.replace(OPERATOR, tasks=10)):
    rows.add(path, row)
  assert rows.read(path, rows.OperatorRow) == [dataclasses.replace(OPERATOR, tasks=10), other]
  assert set(json.loads(path.read_text())[0]) == {
    'family', 'backend', 'seeds', 'tasks', 'need', 'episodes', 'methods', 'training_env_steps', 'commands'
  }


@pytest.mark.parametrize(('changes', 'says'), [
  ({'methods': {'operator': figures([0, 1])}}, 'operator'),  # of another length than episodes
  ({'methods': {'operator': figures([0, 1, 1], sparse=False)}}, 'operator'),  # a sparse family has found
  ({'methods': {'operator': figures([0, 1, 'x'])}}, 'operator'),
  ({'methods': {'ppo': figures([0, 1, 1])}}, 'methods'),
  ({'methods': {**OPERATOR.methods, 'ppo': {**figures([0.0, 1.0]), 'episodes': [0]}}}, 'ppo'),
  ({'need': {'experience': 1.0}}, 'need'), ({'episodes': 3}, 'a field'),
])
def test_a_damaged_row_is_named(tmp_path, changes, says):
  path = tmp_path / 'operators.json'
  path.write_text(json.dumps([dataclasses.asdict(OPERATOR), {**dataclasses.asdict(OPERATOR), **changes}]))
  with pytest.raises(DamagedDataError, match=f'Row 1 of .*operators.json is damaged at .*{says}'):
    rows.read(path, rows.OperatorRow)


@pytest.mark.parametrize('content', ['{}', '[1]', '[{"family": "point"}]', 'nothing'])
def test_other_files_hold_no_rows(tmp_path, content):
  path = tmp_path / 'operators.json'
  path.write_text(content)
  with pytest.raises(DamagedDataError, match='operators.json'):
    rows.read_any(path)


def test_tables_hold_the_figures_of_the_rows():
  """A family whose second look was not measured is not said to be one where naming the task is enough."""
  lines = operators_table([OPERATOR])
  assert lines[2].startswith('| `point_goal_sparse_h20` | 9, 2; 1 episode each | IQM | 0.250 | 0.750 |')
  assert lines[2].endswith('| 0.200 |') and [line.split('|')[3].strip() for line in lines[3:]] == ['mean', 'found']
  assert not naming_is_enough(OPERATOR) and naming_is_enough(NEEDS)
  assert families_table([NEEDS])[2] == (
    '| `reacher_goal` (naming the task is enough) | mjx | 9 | 0.050 [0.040, 0.060] | 0.050 [0.040, 0.060] | '
    '0.050 [0.040, 0.060] | - | -14.7 |'
  )


def test_an_ablation_tells_of_answers_once():
  drawn = dataclasses.replace(ABLATION, methods={**ABLATION.methods, 'operator_sampled': figures([0, 0.5, 0.5])})
  first, second = ablation_table([drawn])[2:]
  assert first.startswith('| `one_answer` | most likely answer | 0.250 (0.25) | 0.750 (0.75) |')
  assert first.endswith('| 0.50 | 0.50 | 1.00 | 1.50, 1.62 |') and second.startswith('|  | drawn answer | 0.500 (0.50)')


@pytest.mark.parametrize('flawed', [{'answers': {'loss': 0.5}}, {'milliseconds': [1.0]}])
def test_a_damaged_ablation_is_refused(tmp_path, flawed):
  rows.add(tmp_path / 'rows.json', dataclasses.replace(ABLATION, **flawed))
  with pytest.raises(DamagedDataError, match='answers or milliseconds'):
    rows.read_any(tmp_path / 'rows.json')


def test_kinds_of_rows_are_told_apart(tmp_path, capsys):
  rows.add(tmp_path / 'needs.json', NEEDS)
  tabulate_results.print_rows(tmp_path / 'needs.json', None)
  rows.add(tmp_path / 'ablations.json', ABLATION)
  tabulate_results.print_rows(tmp_path / 'ablations.json', None)
  assert '-14.7' in (printed := capsys.readouterr().out) and 'one_answer' in printed
  rows.add(tmp_path / 'operators.json', OPERATOR)
  tabulate_results.print_rows(tmp_path / 'operators.json', str(tmp_path / 'operators.png'))
  assert '0.750' in capsys.readouterr().out and (tmp_path / 'operators.png').read_bytes().startswith(b'\x89PNG')


def test_asks_are_shown_beside_their_controls(tmp_path, capsys):
  got = [dataclasses.replace(ASK, metric=f'{rows.GOT}{value}', value=value / 2, control_value=-1) for value in (4, 8)]
  for row in (ASK, *got):
    rows.add(tmp_path / 'asks.json', row)
  tabulate_results.print_rows(tmp_path / 'asks.json', None)
  printed = capsys.readouterr().out
  first = '| mean return | `reacher_goal` | 9, 2 | rank correlation | 0.975 [0.900, 1.000] |'
  assert f"{first} another task's experience | 0.250 |" in printed
  assert '| mean return | `reacher_goal` | 4, 8 | 2, 4 | -1, -1 |' in printed


def test_a_damaged_ask_is_refused(tmp_path):
  rows.add(tmp_path / 'asks.json', ASK)
  text = (tmp_path / 'asks.json').read_text()
  (tmp_path / 'asks.json').write_text(text.replace('0.975', '"much"'))
  with pytest.raises(DamagedDataError, match='damaged at value'):
    rows.read(tmp_path / 'asks.json', rows.AskRow)


def test_rows_of_a_family_are_replaced_together(tmp_path):
  """What was asked for with other seeds does not stay."""
  path = tmp_path / 'asks.json'
  other = dataclasses.replace(ASK, family='point')
  first = [dataclasses.replace(ASK, metric=f'{rows.GOT}{value}') for value in (1, 2)]
  rows.replace(path, [*first, other], lambda row: False)
  second = [dataclasses.replace(ASK, metric=f'{rows.GOT}{value}', seeds=[0, 1, 2]) for value in (1.5, 2.5)]
  rows.replace(path, second, lambda row: row.family == ASK.family)
  assert rows.read(path, rows.AskRow) == [*second, other]
