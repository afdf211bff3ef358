"""Operators that are asked for one thing after the other, and the figures of it."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from experiments import ask_methods, ask_page, ask_rows
from experiments.jobs import Job
from metaimprove.asks import ask
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation.evaluate import Bounds, Evaluation
from metaimprove.evaluation.report import write_ask_page
from metaimprove.methods.asked import asked_method
from metaimprove.methods.method import Curve, initial_policies
from metaimprove.methods.operator import operator_method, other_tasks_of
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import make_operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.types import silent

NUM_TASKS = 6


@pytest.fixture(scope='module')
def play(operator, point):
  return make_play(point, operator.policy, num_episodes=2)


def acting(play):
  """The play, and a list of the policies that it is given."""
  acted = []

  def noted(params, tasks, rng_key):
    acted.append(params)
    return play(params, tasks, rng_key)

  return noted, acted


def assert_alike(first, second):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), first, second)


@pytest.mark.parametrize('another_task', [False, True])
def test_each_ask_is_answered_from_the_same_experience(operator, operator_params, point, play, another_task):
  """Asked for the best it gives what the operator itself comes to; the same two asks give the same policies twice."""
  tasks, key = sample_tasks(point, 0, NUM_TASKS, 'heldout'), stream(0, 'asked')
  plain, expected = acting(play)
  operator_method(
    operator, operator_params, plain, ask=ask(steps='best'), num_applications=2, num_episodes=2
  ).run(tasks, key, silent)
  measure, asked = acting(play)
  wanted = [ask(steps='best'), ask(steps=1), ask(steps='best')]
  curve = asked_method(
    operator, operator_params, play, (measure, 2), wanted, num_applications=2, num_episodes=2,
    another_task=another_task, name='asked', title='asked',
  ).run(tasks, key, silent)
  assert len(asked) == 3 and curve.returns.shape == (3, NUM_TASKS)
  np.testing.assert_array_equal(curve.episodes, [4, 4, 4])
  np.testing.assert_array_equal(curve.env_steps, [4 * point.episode_length] * 3)
  whose = other_tasks_of(tasks) if another_task else np.arange(NUM_TASKS)
  assert_alike(asked[0], take(expected[2], whose))
  assert_alike(asked[0], asked[2])
  with pytest.raises(AssertionError):
    assert_alike(asked[0], asked[1])


def test_without_experience_only_the_ask_counts(operator, operator_params, point, play):
  """The same goal gives the same policy on every task, and another one another policy; experience makes them differ."""
  config = dataclasses.replace(operator.config, asks=('steps', 'goal'), goal_size=1)
  knows = make_operator(config)
  params = knows.init(jax.random.key(0), operator_params['statistics'])
  tasks, key = sample_tasks(point, 0, NUM_TASKS, 'heldout'), stream(0, 'asked')

  def asked(num_applications, **options):
    measure, policies = acting(play)
    curve = asked_method(
      knows, params, play, (measure, 2), [ask(goal=[0.5]), ask(goal=[-0.5]), ask(steps='best')], num_episodes=2,
      num_applications=num_applications, name='asked', title='asked', **options,
    ).run(tasks, key, silent)
    return curve, [np.asarray(found['mlp/~/linear_0']['w']) for found in policies]

  curve, (first, second, _) = asked(0)
  np.testing.assert_array_equal(curve.env_steps, 0)
  np.testing.assert_allclose(first, np.broadcast_to(first[:1], first.shape), atol=1e-5)
  assert np.abs(first - second).max() > 1e-3
  _, (known, *_) = asked(1)
  assert np.abs(known - known[:1]).max() > 1e-3
  _, (_, _, own) = asked(0, goal_of='own')
  _, (_, _, others) = asked(0, goal_of='another')
  np.testing.assert_allclose(others, own[other_tasks_of(tasks)], atol=1e-5)
  assert np.abs(own - own[:1]).max() > 1e-3
  with pytest.raises(IncompatibleError, match='A goal of point is 1 numbers, not 2'):
    make_improve(knows, params, ask(goal=[0.1, 0.2]))(*some_experience(knows, play, tasks), jax.random.key(0))


def some_experience(operator, play, tasks):
  """Random policies, and what is remembered of them."""
  params = initial_policies(operator.policy, NUM_TASKS, jax.random.key(0))
  return params, make_remember(operator)(None, params, play(params, tasks, jax.random.key(1)))


def test_figures_by_hand():
  """Two tasks and three asks inside of the range, one beyond it, which does not count."""
  inside, beyond = [index for index, value in enumerate(ask_methods.ASKED) if value <= 1], len(ask_methods.ASKED)
  asked = [list(ask_methods.ASKED)]
  exact = np.tile(np.array(ask_methods.ASKED)[:, None], (1, 2))
  exact[len(inside):] = -5.0
  assert ask_rows.rank_correlation(asked, [exact]) == pytest.approx(1)
  assert ask_rows.rank_correlation(asked, [-exact]) == pytest.approx(-1)
  assert ask_rows.rank_correlation(asked, [np.ones((beyond, 2))]) == 0
  assert ask_rows.mean_error(asked, [exact + [[0.1, 0.3]]]) == pytest.approx(0.2)
  # A skill ends at 1, so nothing is left out of it.
  assert ask_rows.mean_error([asked[0][:len(inside)]], [exact[:len(inside)] + 0.1]) == pytest.approx(0.1)


def test_what_is_asked_for(dataset):
  """Returns between the mean worst and the mean best level of the histories, and beyond; skills up to 1."""
  asked = ask_methods.asked_of('mean_return', dataset)
  assert asked[0] == pytest.approx(dataset.returns.min(axis=1).mean(), abs=1e-3)
  assert asked[ask_methods.ASKED.index(1.0)] == pytest.approx(dataset.returns.max(axis=1).mean(), abs=1e-3)
  assert max(asked) > asked[ask_methods.ASKED.index(1.0)]
  assert max(ask_methods.asked_of('skill', dataset)) == 1 < max(ask_methods.asked_of('score', dataset))


def test_what_sizes_lead_to_in_histories(dataset):
  """By hand: two histories, of returns 0, 1, 2, 4 and of two levels that are one policy."""
  returns, rank = np.array([[0.0, 1, 2, 4], [2, 2, 3, 4]]), np.array([[0, 1, 2, 3], [0, 0, 1, 2]])
  told = dataclasses.replace(dataset, returns=returns, rank=rank)
  assert ask_methods.score_of_sizes(told) == pytest.approx([(0.25 + 0.5) / 2, (0.5 + 1) / 2, 1, 1, 1])


def judged_of(curves, family, dataset):
  """Figures of one seed with these curves: returns that are scores."""
  bounds = Bounds(initial=np.zeros(2), reference=np.ones(2), usable=np.ones(2, bool))
  made = {name: Curve(episodes=np.zeros(len(x), int), env_steps=np.zeros(len(x), int), returns=np.array(x))
          for name, x in curves.items()}
  found = Evaluation(
    family=family.name, backend=family.backend, seed=0, reference='the best', curves={'heldout': made},
    bounds={'heldout': bounds}, far_parameter=np.zeros(0, str),
  )
  return ask_rows.Judged(
    job=Job(family='reacher_goal', num_applications=1), family=family, seeds=[0], command='a command', plain=[found],
    asked=[found], datasets=[dataset],
  )


def test_rows_by_hand(point, dataset):
  """Two tasks: what was asked of each and what came of it."""
  num = len(ask_methods.ASKED)
  numbers = {name: np.linspace(0, 1, num)[:, None] + [0, 0.1] for kind in ask_methods.OF_NUMBERS
             for name in (kind, f'{kind}_shuffled')}
  behave = {f'behave_as_{name}': [[0.5, 0.7], [0.4, 0.7], [0.3, 0.7], [0.2, 0.7], [0.1, 0.7], [0.5, 0.9], [0.5, 0.6]]
            for name in ask_methods.LEARNED}
  apart = {f'apart_from_{name}': [[0.1, 0.3], [0.2, 0.2]] for name in ask_methods.LEARNED}
  judged = judged_of({
    'operator': [[0.0, 0.0], [0.8, 1.0]], **numbers, 'sizes': np.full((5, 2), 0.5), 'guided': np.full((5, 2), 0.75),
    **behave, **apart, 'goal_own_and_score_1': [[0.2, 0.4]] * 4 + [[0.9, 1.0]],
    'goal_another_and_score_1': [[0.0, 0.2]] * 5,
  }, point, dataset)
  found = {(row.ask, row.metric): row for row in ask_rows.rows_of(judged)}
  assert found['best', 'IQM of the score after 1'].value == pytest.approx(0.9)
  assert found['steps', 'mean score, k = best'].control_value == pytest.approx(1)
  assert found['score', 'IQM of the score, guided by 2'].value == 0.75
  both = [row for (kind, _), row in found.items() if kind == 'goal and score']
  assert [row.value for row in both] == pytest.approx([0.3] * 4 + [0.95])
  assert both[4].metric == 'mean score, asked for the goal and 1.5 after 1 policies'
  assert both[4].control_value == pytest.approx(0.1)
  assert found['behave as', 'mean score, as expert'].value == pytest.approx(0.55)
  off = {metric.removeprefix('mean absolute difference of scores, as expert, '): row.value
         for (_, metric), row in found.items() if 'scores, as expert' in metric}
  assert off == pytest.approx({
    'imitated 1 times': 0.05, 'imitated 4 times': 0.1, 'imitated 30 times': 0.15, 'imitated without rewards': 0.2,
    'of itself, measured again': 0.05,
  })
  row = found['behave as', 'mean absolute difference of scores, as expert, imitated 1 times']
  assert row.control_value == pytest.approx(0.1)
  actions = found['behave as', 'mean absolute difference of actions, as expert']
  assert (actions.value, actions.control_value) == pytest.approx((0.2, 0.2)) and actions.low <= 0.2 <= actions.high


def test_a_page_shows_what_was_answered_to_each_ask(operator, operator_params, point, tmp_path):
  """Films of the answers, each with its ask and what it did; the words are chosen in the page."""
  task = take(sample_tasks(point, 0, 1, 'validation'), 0)
  films = ask_page.answered(operator, operator_params, point, task, 'steps', (1, 4), 1, 0)
  assert [film['asked'] for film in films] == ['1', '4'] and all(film['lines'] for film in films)
  assert all(re.match(r'return -\d', film['did']) for film in films)
  said = ask_page.sentences(make_family('point_goal_sparse_h20'))
  assert 'to the right' in said and len(set(said)) == len(said)
  path = tmp_path / 'page.html'
  write_ask_page(path, point, point.describe(task), 2, [], [{**film, 'asked': 'to the <right>'} for film in films])
  page = path.read_text()
  assert point.describe(task) in page and 'to the &lt;right&gt;' in page and 'id="scores"' not in page
  assert json.dumps(films[0]['lines'][0][0]).replace(' ', '') in page.replace(' ', '')
