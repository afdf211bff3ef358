"""Families as Brax environments, and policies as where Brax's PPO begins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import quiet_brax  # noqa: F401  (before brax)
from brax.training.agents.ppo import train as ppo
from metaimprove.adapters.brax import FamilyBraxEnv, warm_start, wrap_for_training
from metaimprove.adapters.numpy_policy import NumpyPolicy
from metaimprove.errors import IncompatibleError
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from tests.point_family import point_family

SMALL = {
  'episode_length': 8, 'num_envs': 4, 'batch_size': 4, 'num_minibatches': 1, 'num_updates_per_batch': 1,
  'unroll_length': 8, 'wrap_env_fn': wrap_for_training, 'max_devices_per_host': 1, 'run_evals': False, 'num_evals': 2,
}


def test_a_step_is_that_of_the_family(point):
  task = take(sample_tasks(point, 0, 2, 'heldout'), 1)
  env = FamilyBraxEnv(point, task, tells_task=True)
  state = env.reset(jax.random.key(0))
  told = point.privileged(task)
  assert env.observation_size == 1 + len(told) and env.backend == 'none'
  np.testing.assert_array_equal(state.obs[1:], told)
  after = env.step(state, jnp.full(1, 3.0))
  expected = point.step(task, state.pipeline_state, jnp.ones(1))  # actions are clipped
  np.testing.assert_allclose(after.obs[:1], expected.observation)
  np.testing.assert_allclose(after.reward, expected.reward)
  hidden = FamilyBraxEnv(point, task)
  assert hidden.reset(jax.random.key(0)).obs.shape == (hidden.observation_size,) == (1,)


def test_every_episode_has_a_task_and_a_start_of_its_own(point):
  """At the time limit and where the task ends; rewards are those of the task until then, and times begin anew."""
  env = wrap_for_training(FamilyBraxEnv(point), 8)
  step, state = jax.jit(env.step), jax.jit(env.reset)(jax.random.split(jax.random.PRNGKey(0), 4))
  action, goals, dones = jnp.array([[0.0], [0.1], [1.0], [1.0]]), [], []
  for _ in range(16):
    before = state.info['task'].goal[:, 0]
    state = step(state, action)
    ended = np.asarray(state.done, bool)
    moved = np.where(ended, np.nan, -np.abs(np.asarray(state.obs[:, 0] - before)))
    np.testing.assert_allclose(np.where(ended, np.nan, state.reward), moved, rtol=1e-5)
    assert (np.asarray(before != state.info['task'].goal[:, 0]) == ended).all()
    assert (np.abs(state.obs[ended, 0]) <= 0.1).all()
    goals.append(before), dones.append(ended)
  assert np.sum(dones, axis=0)[:2].tolist() == [2, 2] and (np.sum(dones, axis=0)[2:] > 2).all()
  assert len(np.unique(np.asarray(goals)[:, 0])) == 2
  with pytest.raises(IncompatibleError, match='randomization_fn'):
    wrap_for_training(FamilyBraxEnv(point), 8, 1, lambda system: system)


def test_a_blow_up_is_an_end_without_a_reward():
  """So that no learner meets a number that is infinite."""
  env = FamilyBraxEnv(point_family(blow_up_beyond=0.5))
  state, step = env.reset(jax.random.PRNGKey(0)), jax.jit(env.step)
  for _ in range(3):
    state = step(state, jnp.ones(1))
  assert np.isfinite(state.obs).all() and state.reward == 0 and state.done == 1


def test_brax_begins_with_a_policy_and_gives_it_back_bit_for_bit(point, operator):
  """And acts as it does; parameters of Brax are read bit for bit as well."""
  policy = NumpyPolicy.of(operator.policy.init(jax.random.key(0)))
  make_policy, params, _ = ppo.train(FamilyBraxEnv(point), num_timesteps=0, **warm_start(policy), **SMALL)
  jax.tree.map(np.testing.assert_array_equal, params[1], policy.to_brax())
  jax.tree.map(np.testing.assert_array_equal, NumpyPolicy.of(params[1]).params, policy.params)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), NumpyPolicy.of(params).params, policy.params)
  observation = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
  act = jax.vmap(functools.partial(make_policy(params, deterministic=True), key_sample=jax.random.key(0)))
  np.testing.assert_allclose(act(observation)[0], policy(observation), atol=1e-6)


def test_brax_learns_on_a_family_from_a_policy(point, operator):
  policy = NumpyPolicy.of(operator.policy.init(jax.random.key(0)))
  _, params, _ = ppo.train(FamilyBraxEnv(point), num_timesteps=64, **warm_start(policy), **SMALL)
  change = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), params[1], policy.to_brax())
  assert 0 < max(jax.tree.leaves(change)) < 0.1
