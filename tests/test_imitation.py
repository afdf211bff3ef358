"""Behaving as the one that is watched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import scripts
from metaimprove import asks
from metaimprove.adapters.improve import improve
from metaimprove.episodes import episodes_of
from metaimprove.methods import imitation
from metaimprove.methods.imitation import AGAIN, Watched, apart, cloned, imitated, watched_script
from metaimprove.methods.method import initial_policies
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.types import mean_return, silent

NUM_TASKS = 4


@pytest.fixture(scope='module')
def play(operator, point):
  return make_play(point, operator.policy, num_episodes=2)


@pytest.fixture(scope='module')
def tasks(point):
  return sample_tasks(point, 0, NUM_TASKS, 'validation')


def steady(goal, observation):
  """Half of the way to the goal."""
  return jnp.clip(0.5 * (goal - observation[:1]), -1.0, 1.0)


def test_it_reads_what_was_done_alone(operator, operator_params, play, tasks):
  """As `improve` does, asked for k = 0 of a policy of which nothing else is known."""
  params = initial_policies(operator.policy, NUM_TASKS, jax.random.key(0))
  trajectory = play(params, tasks, jax.random.key(1))
  found = imitated(operator, operator_params, trajectory)
  episodes = episodes_of(take(jax.device_get(trajectory), 2))
  expected = improve((operator, operator_params), None, episodes, asks.ask(steps=0))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x[2], y, atol=1e-4), found, expected.params)


def test_rewards_can_be_hidden(operator, operator_params, play, tasks):
  """Nothing else of what was done changes, and the answer does."""
  shown = play(initial_policies(operator.policy, NUM_TASKS, jax.random.key(0)), tasks, jax.random.key(1))
  hidden = imitation.without_rewards(shown)
  assert np.asarray(shown.reward).any() and not np.asarray(hidden.reward).any()
  jax.tree.map(np.testing.assert_array_equal, hidden.replace(reward=shown.reward), shown)
  seen, unseen = (imitated(operator, operator_params, one)['mlp/~/linear_0']['w'] for one in (shown, hidden))
  assert np.abs(np.asarray(seen) - np.asarray(unseen)).max() > 1e-4


def test_a_clone_does_what_it_saw(operator, point, play, tasks):
  """Of two policies, each clone is near its own and far from the other's."""
  watched = watched_script(point, steady, 'script')
  shown = watched.play(tasks, jax.random.key(0), 2)
  clone = cloned(operator.policy, shown, jax.random.key(1))
  act, of_watched = functools.partial(imitation.mean_action, operator.policy), functools.partial(watched.act, tasks)
  own, other = (
    apart(functools.partial(act, params), of_watched, shown) for params in (clone, take(clone, np.array([1, 2, 3, 0])))
  )
  assert own.max() < 0.05 and (other > own).all()


def test_how_far_apart_by_hand(point, tasks):
  """Actions 0 and 0.5 at the steps that count; none counts where nothing was done."""
  shown = watched_script(point, steady, 'script').play(tasks, jax.random.key(0), 1)
  shown = shown.replace(valid=shown.valid & (np.arange(NUM_TASKS) > 0)[:, None, None])
  found = apart(lambda seen: jnp.zeros((*seen.shape[:2], 1)), lambda seen: jnp.full((*seen.shape[:2], 1), -0.5), shown)
  np.testing.assert_allclose(found, [0, 0.5, 0.5, 0.5])


def test_curves_of_who_is_watched_and_of_imitations(operator, operator_params, point, play, tasks):
  """The first and the last point are of the one that is watched, the one before of its clone."""
  watched = watched_script(point, steady, 'script', gain=0.5)
  shared = {'num_episodes': 2, 'name': 'behave', 'title': 'behave'}
  arguments = operator, operator_params, watched, play
  curve = imitation.imitation_method(*arguments, (play, 2), **shared).run(tasks, jax.random.key(0), silent)
  assert curve.returns.shape == (4 + len(AGAIN), NUM_TASKS) and np.isfinite(curve.returns).all()
  best = mean_return(watched.play(tasks, jax.random.key(5), 8))
  np.testing.assert_allclose(curve.returns[0], best, atol=0.3)
  np.testing.assert_allclose(curve.returns[-1], best, atol=0.5)
  assert np.abs(curve.returns[-2] - best).mean() < 0.5
  differences = imitation.divergence_method(*arguments, **shared).run(tasks, jax.random.key(0), silent).returns
  assert differences.shape == (2, NUM_TASKS) and (differences[1] < 0.2).all() and (differences >= 0).all()
  assert isinstance(watched, Watched) and watched.settings == {'controller': 'steady', 'gain': 0.5}


@pytest.mark.parametrize('name', ['point_goal_sparse_h20', 'reacher_goal'])
def test_scripts_reach_their_goals(name):
  """They end near the goal on the stock robot, whichever it is."""
  family = make_family(name, dynamics='none')
  tasks = sample_tasks(family, 0, NUM_TASKS, 'validation')
  played = watched_script(family, scripts.script_of(name), 'script').play(tasks, jax.random.key(0), 1)
  away = np.linalg.norm(played.outcome[:, 0, -1] - tasks.goal, axis=-1)
  assert (away < 0.03).all(), away
  assert scripts.script_of('half_cheetah_vel') is None
