"""Operators that are asked for one thing after the other, and the figures of it."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import ask_methods, ask_rows
from metaimprove.asks import ask
from metaimprove.errors import IncompatibleError
from metaimprove.methods.asked import asked_method
from metaimprove.methods.method import initial_policies
from metaimprove.methods.operator import operator_method, other_tasks_of
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import make_operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
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
