"""Methods beside one another: figures by hand, rows, and the page."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import acting_cost, compare
from experiments.tabulate_results import comparison_tables
from metaimprove.evaluation import comparison, comparison_page, rows
from metaimprove.evaluation.comparison import Cost, comparison_row, probability_above, scores_after
from metaimprove.evaluation.evaluate import Bounds, Evaluation
from metaimprove.methods.baseline import matched_size
from metaimprove.methods.method import Curve

EPISODES = [0, 2, 4, 16, 20]


def evaluation(seed=0, family='reacher_goal', **returns):
  """Of methods with returns [P, B] that are scores, on held-out tasks; the operator's are on far tasks too."""
  def curve(values):
    values = np.asarray(values, float)
    used = np.array(EPISODES[:len(values)])
    return Curve(episodes=used, env_steps=50 * used, returns=values)

  curves = {name: curve(values) for name, values in returns.items()}
  num = curves['operator'].returns.shape[1]
  bounds = Bounds(initial=np.zeros(num), reference=np.ones(num), usable=np.ones(num, bool))
  return Evaluation(
    family=family, backend='mjx', seed=seed, reference='the best', bounds={'heldout': bounds, 'far': bounds},
    curves={'heldout': curves, 'far': {'operator': curves['operator']}}, far_parameter=np.zeros(0, str),
  )


def flat(*values):
  """A curve that is the same at all points."""
  return [list(values)] * len(EPISODES)


def row_of(**options):
  one = evaluation(operator=[[0, 0], [0.1, 0.3], [0.5, 0.7], [0.9, 0.9], [1, 1]], other=[[0.6, 0.6]], **options)
  return comparison_row(
    [one], {'operator': 'operator', 'other': 'another one'},
    {'operator': Cost(params=10, act_ms=1.0, act_ratio=1.0, between_ms=2.0), 'other': Cost(params=11, examples=5)},
    budget='examples', source='a source', commands=['a command'],
  )


def test_the_last_point_that_used_no_more_episodes_counts():
  one = evaluation(operator=[[0], [1], [2], [3], [4]], ppo=[[0.5]])
  assert [scores_after(one, 'heldout', 'operator', n).tolist() for n in (0, 3, 4, 15, 16, 99)] == [
    [0], [1], [2], [2], [3], [4]
  ]
  assert scores_after(one, 'heldout', 'ppo', 16).tolist() == [0.5]


def test_how_often_one_is_above_another():
  """Above on one task, equal on another, below on two: 1.5 of 4; and only tasks that both were judged on count."""
  value, low, high = probability_above(
    [np.array([1.0, 0.5, 0.1]), np.array([0.2, 9.0])], [np.array([0.5, 0.5, 0.2]), np.array([0.9])]
  )
  assert value == 1.5 / 4 and low <= value <= high
  assert probability_above([np.ones(8)], [np.zeros(8)]) == [1, 1, 1]
  assert probability_above([np.ones(3)], [np.zeros(0)]) is None and comparison.profile([np.zeros(0)]) is None


def test_a_profile_is_the_share_above():
  shares = dict(zip(comparison.THRESHOLDS, comparison.profile([np.array([0.1, 0.5]), np.array([1.0])])))
  assert [shares[threshold] for threshold in (0.0, 0.1, 0.45, 0.5, 1.0)] == [1, 0.6667, 0.6667, 0.3333, 0]


def test_a_row_by_hand():
  row = row_of()
  assert row.tasks == 2 and row.flaw() is None
  ours = row.methods['operator']
  assert ours['mean'] == [0, 0.2, 0.6, 0.9, 1] and ours['ours_above'] == [None, None]
  # Below on one of two tasks after 4 episodes, above on both after 16.
  assert [one[0] for one in row.methods['other']['ours_above']] == [0.5, 1]
  assert row.methods['operator']['far']['mean'][-1] == 1 and row.methods['other']['far'] is None
  assert row.methods['other']['params'] == 11


def test_what_is_measured_over_other_episodes_is_not_compared_by_task():
  one = evaluation(operator=flat(1.0), ppo=[[0.6]], other=[[0.6]])
  titles = {name: name for name in ('operator', 'ppo', 'other')}
  methods = comparison_row([one], titles, {}, budget='time', source='s', commands=[]).methods
  assert methods['ppo']['ours_above'] == methods['ppo']['profile'] == [None, None]
  assert methods['other']['ours_above'][0][0] == 1


def test_several_seeds_are_joined():
  first = evaluation(0, operator=flat(1.0, 1.0), other=flat(0.0, 0.0))
  second = evaluation(1, operator=flat(0.0, 0.0), other=flat(1.0, 1.0))
  row = comparison_row(
    [first, second], {'operator': 'operator', 'other': 'other'}, {}, budget='time', source='s', commands=[]
  )
  assert row.seeds == [0, 1] and row.tasks == 4
  assert row.methods['operator']['mean'][0] == 0.5 and row.methods['other']['ours_above'][0][0] == 0.5


@pytest.mark.parametrize(('family', 'after_4'), [('reacher_goal', 0.6), ('point_goal_sparse_h20', 0.6)])
def test_where_the_operator_is_behind(family, after_4):
  row = row_of(family=family)
  assert comparison_page.score_after(row, 'operator', 4) == after_4
  assert comparison_page.behind(row) == []  # equal is not behind
  better = {**row.methods['other'], 'iqm': [0.75], 'mean': [0.7]}  # the mean counts where rewards are sparse
  behind = comparison_page.behind(dataclasses.replace(row, methods={**row.methods, 'other': better}))
  theirs = {'reacher_goal': '0.750', 'point_goal_sparse_h20': '0.700'}[family]
  assert behind == [f'another one, after 4 episodes: {theirs}, the operator 0.600']


def test_rows_are_kept_and_damaged_ones_refused(tmp_path):
  path, row = tmp_path / 'comparison.json', row_of()
  rows.add(path, row)
  assert rows.read_any(path) == [row]
  for change in ({'profile': [[]]}, {'iqm': [0.1]}, {'env_steps': []}):
    flawed = dataclasses.replace(row, methods={**row.methods, 'operator': {**row.methods['operator'], **change}})
    assert flawed.flaw() is not None


def test_methods_that_were_not_judged_again_stay(tmp_path):
  path, row = tmp_path / 'comparison.json', row_of()
  rows.add(path, row)
  only_ours = {'operator': {**row.methods['operator'], 'title': 'newer'}}
  again = compare.joined(dataclasses.replace(row, methods=only_ours, commands=['another']), path)
  assert [one['title'] for one in again.methods.values()] == ['newer', 'another one']
  assert again.commands == ['a command', 'another']
  assert compare.joined(dataclasses.replace(row, methods=only_ours, seeds=[7]), path).methods == only_ours
  another = {'operator': {**row.methods['operator'], 'mean': [0.0, 0.1, 0.6, 0.9, 1.0]}}  # is another operator
  assert compare.joined(dataclasses.replace(row, methods=another), path).methods == another


def test_tables_and_page(tmp_path):
  row = row_of()
  text = '\n'.join(comparison_tables([row]))
  assert '| another one | 2 | 0.600 [0.600, 0.600] |' in text and '| operator | 10 |' in text
  comparison_page.write_comparison(tmp_path / 'page.html', [row, row_of(family='point_goal_sparse_h20')])
  page = (tmp_path / 'page.html').read_text()
  assert not re.search(r'(src|href)="(?!#)', page) and page.count('<svg') == 8 and 'another one' in page


def test_the_size_that_comes_nearest():
  assert matched_size(lambda width: width * width, 90, range(1, 20)) == 9


def test_acting_costs_are_of_what_is_compiled():
  """Many products of matrices take longer, and have more memory, than none."""
  def many(x):
    for _ in range(50):
      x = x @ x / 100
    return x

  found = acting_cost.acting_costs(
    {'plain': (lambda x: x + 1, (jnp.ones(()),)), 'many': (many, (jnp.ones((100, 100)),))}, 'plain'
  )
  assert found['plain'].act_ratio == 1 and found['many'].act_ratio > 5 and found['many'].act_kib > 30
