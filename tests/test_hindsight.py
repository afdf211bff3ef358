"""What trajectories achieved and what other goals would have paid, by hand on the point family and a Brax environment.

The contract that every family keeps is in test_families.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.errors import IncompatibleError
from metaimprove.rollouts import unroll
from metaimprove.tasks import hindsight
from metaimprove.tasks.from_brax import from_brax_env
from metaimprove.tasks.goal import Goal
from metaimprove.types import Task
from tests.point_family import point_family


def play_point(family, action, num_episodes=1):
  task = Task(goal=jnp.array([0.5]), dynamics={'gear': jnp.ones(())})
  act = lambda observation, rng_key: (jnp.array([action]), None)
  return unroll(family, act, task, jax.random.key(0), num_episodes=num_episodes)[0]


def test_hindsight_by_hand(point):
  """x goes up by 1 a step from about 0 and the episode ends beyond 3: after 3 or 4 of the 8 steps."""
  trajectory = play_point(point, 1.0, num_episodes=6)
  start, num_steps = np.asarray(trajectory.observation[:, 0, 0]), np.asarray(trajectory.valid.sum(axis=1))
  assert set(num_steps) == {3, 4}
  x = start[:, None] + np.arange(1, 9)
  taken = np.arange(8) < num_steps[:, None]
  np.testing.assert_allclose(trajectory.outcome[..., 0], np.where(taken, x, 0), atol=1e-5)
  np.testing.assert_allclose(hindsight.achieved(point, trajectory)[:, 0], start + num_steps, atol=1e-5)
  for goal in (0.5, 1.0, -2.0):
    expected = np.where(taken, -np.abs(x - goal), 0)
    np.testing.assert_allclose(hindsight.relabel(point, trajectory, jnp.array([goal])), expected, atol=1e-5)


def test_hindsight_of_an_episode_that_blew_up():
  trajectory = play_point(point_family(blow_up_beyond=1.5), 1.0)
  assert not trajectory.finite.any() and trajectory.valid.sum() == 1
  start = float(trajectory.observation[0, 0, 0])
  np.testing.assert_allclose(hindsight.achieved(point_family(), trajectory), [[start + 1]], atol=1e-5)
  rewards = hindsight.relabel(point_family(), trajectory, jnp.array([0.0]))
  np.testing.assert_allclose(rewards[0], [-(start + 1), *[0] * 7], atol=1e-5)


def test_summaries_of_outcomes_by_hand():
  outcome, valid = jnp.array([[1.0, 0.0], [3.0, 8.0], [9.0, 9.0]]), jnp.array([True, True, False])
  np.testing.assert_allclose(hindsight.last_outcome(outcome, valid), [3, 8])
  np.testing.assert_allclose(hindsight.mean_outcome(outcome, valid), [2, 4])
  np.testing.assert_allclose(hindsight.mean_direction(outcome, valid), np.array([1, 2]) / np.sqrt(5), atol=1e-6)
  nothing = jnp.zeros(3, bool)
  np.testing.assert_allclose(hindsight.mean_direction(outcome, nothing), [1, 0])
  assert all(np.isfinite(f(outcome, nothing)).all() for f in (hindsight.last_outcome, hindsight.mean_outcome))


def test_hindsight_refuses_what_does_not_fit(point):
  trajectory = play_point(point, 0.0)
  with pytest.raises(IncompatibleError, match=r'shape \[1\], not \[2\]'):
    hindsight.relabel(point, trajectory, jnp.zeros(2))
  wider = trajectory.replace(outcome=jnp.zeros((1, 8, 2)))
  for wrong in (lambda: hindsight.relabel(point, wider, jnp.zeros(1)), lambda: hindsight.achieved(point, wider)):
    with pytest.raises(IncompatibleError, match='size 2.*point.*1'):
      wrong()


class Slider:
  """A Brax environment without physics: x moves by a tenth of the action, and pays what it moved."""

  backend, observation_size, action_size = 'none', 1, 1

  @property
  def unwrapped(self):
    return self

  def reset(self, rng_key):
    from brax import envs

    zero = jnp.zeros(())
    return envs.State(pipeline_state=None, obs=jax.random.uniform(rng_key, (1,)), reward=zero, done=zero)

  def step(self, state, action):
    return state.replace(obs=state.obs + action / 10, reward=action[0] / 10)


def test_hindsight_in_a_brax_environment():
  """Relabelling needs a reward of outcomes: one of states can only be played, the environment's own has no goal."""
  goal = Goal(
    sample=lambda key: jax.random.uniform(key, (1,)), describe=lambda goal: f'to {float(goal[0]):.1f}',
    achieved=hindsight.last_outcome,
  )
  make = functools.partial(from_brax_env, Slider(), name='slider', episode_length=4)
  own = make()
  reward_of_states = lambda g, before, action, after: -jnp.abs(after.obs[0] - g[0])
  of_states = make(goal=dataclasses.replace(goal, achieved=None), reward=reward_of_states)
  of_outcomes = make(
    goal=goal, reward=lambda g, x, action: -jnp.abs(x[0] - g[0]), outcome=lambda before, after: after.obs
  )
  task = Task(goal=jnp.array([0.5]), dynamics={})
  act = lambda observation, rng_key: (jnp.ones(1), None)
  play = lambda family, task: unroll(family, act, task, jax.random.key(0), num_episodes=2)[0]
  paid = play(own, task.replace(goal=jnp.zeros(0)))
  np.testing.assert_allclose(paid.reward, 0.1, atol=1e-6)
  np.testing.assert_array_equal(hindsight.relabel(own, paid, jnp.zeros(0)), paid.reward)
  played, told = play(of_states, task), play(of_outcomes, task)
  np.testing.assert_allclose(played.reward, -np.abs(told.observation[..., 0] + 0.1 - 0.5), atol=1e-6)
  np.testing.assert_array_equal(played.reward, told.reward)
  with pytest.raises(IncompatibleError, match='slider.*states of the simulator'):
    hindsight.relabel(of_states, played, task.goal)
  np.testing.assert_allclose(
    hindsight.relabel(of_outcomes, told, jnp.array([2.0])), told.observation[..., 0] + 0.1 - 2, atol=1e-6
  )
  np.testing.assert_allclose(hindsight.achieved(of_outcomes, told), told.observation[:, 0] + 0.4, atol=1e-6)
  with pytest.raises(IncompatibleError, match='outcome.*needs a .reward'):
    make(goal=goal, outcome=lambda before, after: after.obs)
  for reward in (reward_of_states, None):
    with pytest.raises(IncompatibleError, match='achieved.*computed from an .outcome'):
      make(goal=goal, reward=reward)
