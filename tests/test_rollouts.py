"""The scan over an environment, by hand on the point family."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import policies, rollouts
from metaimprove.trees import take
from metaimprove.types import Task, episode_return
from tests.compilations import counted
from tests.point_family import point_family

TASK = Task(goal=jnp.array([0.5]), dynamics={'gear': jnp.asarray(1.0)})


def act_always(value):
  return lambda observation, key: (jnp.array([value]), observation)


def test_rewards_and_observations_by_hand(point):
  trajectory, seen, _ = rollouts.unroll(point, act_always(0.25), TASK, jax.random.key(0), num_episodes=2)
  x0 = trajectory.observation[:, 0, 0]
  x = x0[:, None] + 0.25 * np.arange(9)
  np.testing.assert_allclose(trajectory.observation[..., 0], x[:, :-1], atol=1e-6)
  np.testing.assert_allclose(trajectory.next_observation[..., 0], x[:, 1:], atol=1e-6)
  np.testing.assert_allclose(trajectory.reward, -np.abs(x[:, 1:] - 0.5), atol=1e-6)
  np.testing.assert_allclose(episode_return(trajectory), -np.abs(x[:, 1:] - 0.5).sum(axis=1), atol=1e-5)
  np.testing.assert_array_equal(seen, trajectory.observation)
  assert trajectory.valid.all() and not trajectory.terminated.any() and trajectory.finite.all()
  assert x0[0] != x0[1], 'each episode begins anew'


def test_after_an_early_end_steps_do_not_count(point):
  """|x| exceeds 3 in the fourth step of size 0.8 from about 0: 0.8, 1.6, 2.4, 3.2."""
  trajectory, _, _ = rollouts.unroll(point, act_always(0.8), TASK, jax.random.key(0), num_episodes=1)
  np.testing.assert_array_equal(trajectory.valid[0], [1, 1, 1, 1, 0, 0, 0, 0])
  np.testing.assert_array_equal(trajectory.terminated[0], [0, 0, 0, 1, 0, 0, 0, 0])
  np.testing.assert_array_equal(trajectory.reward[0, 4:], 0)
  assert trajectory.next_observation[0, 3, 0] > 3, 'the last observation is not overwritten'


def test_auto_reset_begins_another_episode(point):
  trajectory, _, _ = rollouts.unroll(
    point, act_always(0.8), TASK, jax.random.key(0), num_episodes=1, auto_reset=True
  )
  assert trajectory.valid.all()
  np.testing.assert_array_equal(trajectory.terminated[0], [0, 0, 0, 1, 0, 0, 0, 1])
  assert trajectory.next_observation[0, 3, 0] > 3
  assert abs(trajectory.observation[0, 4, 0]) <= 0.1
  assert trajectory.observation[0, 4, 0] != trajectory.observation[0, 0, 0], 'from a new start, not the first one'


def test_a_simulation_that_blows_up_is_held_and_marked():
  family = point_family(blow_up_beyond=1.0)
  trajectory, _, _ = rollouts.unroll(family, act_always(0.4), TASK, jax.random.key(0), num_episodes=2)
  np.testing.assert_array_equal(trajectory.finite, [False, False])
  np.testing.assert_array_equal(trajectory.valid[0], [1, 1, 0, 0, 0, 0, 0, 0])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(trajectory))
  calm, _, _ = rollouts.unroll(family, act_always(0.0), TASK, jax.random.key(0), num_episodes=2)
  assert calm.finite.all() and calm.valid.all()


@pytest.mark.parametrize('num_tasks', [1, 3, 8, 11])
def test_play_in_chunks_is_the_rollout_of_each(point, num_tasks):
  """Chunks of 4 policies on each of 2 devices: one that is not full, a full one, and a second one that is not full."""
  policy = policies.make_policy(1, 1, (4,))
  params = jax.vmap(policy.init)(jax.random.split(jax.random.key(0), num_tasks))
  tasks = jax.vmap(point.sample)(jax.random.split(jax.random.key(1), num_tasks))
  key = jax.random.key(2)
  played = rollouts.make_play(point, policy, num_episodes=2, environments=8)(params, tasks, key)
  one_by_one = jax.jit(functools.partial(rollouts.rollout, point, policy, num_episodes=2))
  keys = jax.random.split(key, num_tasks)
  for index in range(num_tasks):
    wanted = one_by_one(*take((params, tasks), index), keys[index])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), take(played, index), wanted)


def test_one_program_plays_any_number_of_tasks(point):
  policy = policies.make_policy(1, 1, (4,))
  play = rollouts.make_play(point, policy, num_episodes=1, environments=4)

  def run(num_tasks):
    keys = jax.random.split(jax.random.key(0), num_tasks)
    return play(jax.vmap(policy.init)(keys), jax.vmap(point.sample)(keys), jax.random.key(1))

  run(9)
  with counted() as compiled:
    run(31)
  assert not any('rollout' in name or 'batched' in name for name in compiled), compiled


def test_outcomes_are_recorded_and_not_observed(point):
  """The point's outcome is where it is after the step."""
  trajectory, _, _ = rollouts.unroll(point, act_always(0.8), TASK, jax.random.key(0), num_episodes=1)
  np.testing.assert_allclose(trajectory.outcome[0, :4], trajectory.next_observation[0, :4], atol=1e-6)
  np.testing.assert_array_equal(trajectory.outcome[0, 4:], 0)


def test_bare_stepping_simulates_every_step(point):
  """Warming up and measured: of 32 tasks, 2 episodes and 8 steps each, every step leads as far as its number says."""
  steps, action = [], 0.8

  def step(task, state, taken):
    after = point.step(task, state, taken)
    gone = after.observation[0] / (action * task.dynamics['gear'])  # but for the start, within 0.1
    jax.debug.callback(lambda x: steps.extend(np.rint(np.ravel(x)).astype(int).tolist()), gone)
    return after

  tasks = jax.vmap(point.sample)(jax.random.split(jax.random.key(0), 32))
  actions = jnp.full((2, point.episode_length, 32, 1), action)
  rollouts.raw_stepping_rate(dataclasses.replace(point, step=step), tasks, actions, jax.random.key(0))
  jax.effects_barrier()
  np.testing.assert_array_equal(np.bincount(steps), [0] + [2 * 2 * 32] * 8)


def test_raw_stepping_rate_counts_all_tasks(point, monkeypatch):
  clock = iter([10.0, 12.0])
  monkeypatch.setattr(rollouts.time, 'perf_counter', lambda: next(clock))
  tasks = jax.vmap(point.sample)(jax.random.split(jax.random.key(0), 32))
  actions = jnp.zeros((2, point.episode_length, 32, 1))
  rate = rollouts.raw_stepping_rate(point, tasks, actions, jax.random.key(0))
  assert rate == 2 * point.episode_length * 32 / 2.0


def test_an_agent_carries_its_state_across_episodes(point):
  """It goes by 0.1 for each episode that is over and 0.01 for each step that it saw."""
  agent = rollouts.Agent(
    begin=lambda params: (0.0, 0.0), see=lambda params, state, seen: (state[0], state[1] + seen.valid),
    act=lambda params, state, observation, key: (jnp.array([0.1 * state[0] + params * state[1]]), state),
    end_episode=lambda params, state: (state[0] + 1.0, state[1]),
  )
  trajectory = rollouts.across_episodes(point, agent, jnp.asarray(0.01), TASK, jax.random.key(0), num_episodes=3)
  wanted = 0.1 * np.arange(3)[:, None] + 0.01 * np.arange(24).reshape(3, 8)
  np.testing.assert_allclose(trajectory.action[..., 0], wanted, atol=1e-6)
  starts = trajectory.observation[:, 0, 0]
  assert len(set(starts.tolist())) == 3 and (np.abs(starts) <= 0.1).all()
  assert trajectory.finite.tolist() == [True, True, True]
