"""Episodes: the only scan over an environment, and `make_play`, which batches it over policies and tasks."""

import functools
import time
from typing import Any
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from metaimprove import parallel
from metaimprove.policies import Policy
from metaimprove.tasks.family import State, TaskFamily
from metaimprove.trees import batch_size, take
from metaimprove.types import Act, Params, Play, Task, Trajectory

_CPU_ENVIRONMENTS = 256
"""Environments simulated at once on a device that is a CPU core: more are no faster, and may fall out of its cache."""
_ACCELERATOR_ENVIRONMENTS = 8192

def unroll(
  family: TaskFamily, act: Act, task: Task, rng_key: chex.PRNGKey, *, num_episodes: int, auto_reset: bool = False,
  record: Callable[[State], Any] = lambda state: None,
) -> tuple[Trajectory, Any, Any]:
  """Acts for `num_episodes` episodes of one task.

  Args:
    family: the task family.
    act: the policy.
    task: one task; batch with `jax.vmap`.
    rng_key: for starts and actions.
    num_episodes: E; each takes T = family.episode_length steps and begins with a true reset.
    auto_reset: where an episode terminates early, begin another from a new start in the steps that are left (a learner
      wants every step) instead of padding them.
    record: what to keep of the state before each step, for drawing.

  Returns:
    The trajectory [E, T, ...]; what `act` returned beside the action, [E, T, ...]; what `record` kept, [E, T, ...].
  """

  def select(use_first, first, second):
    return jax.tree.map(lambda x, y: jnp.where(use_first, x, y), first, second)

  def one_step(carry, step_key):
    state, alive = carry
    key_action, key_reset = jax.random.split(step_key)
    action, extras = act(state.observation, key_action)
    after = family.step(task, state, action)
    finite = jnp.isfinite(after.observation).all() & jnp.isfinite(after.reward)
    valid = alive & finite
    # A state that is over or not finite is held where it was: nothing undefined reaches an average.
    after = select(valid, after, state)
    transition = Trajectory(
      observation=state.observation, action=action, reward=jnp.where(valid, after.reward, 0.0),
      next_observation=after.observation, outcome=jnp.where(valid, after.outcome, 0.0),
      terminated=valid & after.terminated, valid=valid, finite=finite | ~alive,
    )
    if auto_reset and family.can_terminate:
      following = select(after.terminated | ~finite, family.reset(task, key_reset), after)
      alive = jnp.ones((), bool)
    else:
      following, alive = after, valid & ~after.terminated
    return (following, alive), (transition, extras, record(state))

  def one_episode(episode_key):
    key_reset, key_steps = jax.random.split(episode_key)
    start = (family.reset(task, key_reset), jnp.ones((), bool))
    # Whatever is carried depends on the key, and so is batched from the first step on. `jax.vmap` would otherwise go
    # through the simulator once more for what becomes batched later, and that takes seconds.
    drawn = jax.random.key_data(episode_key)[0] >= 0
    start = select(drawn, start, start)
    return jax.lax.scan(one_step, start, jax.random.split(key_steps, family.episode_length))[1]

  trajectory, extras, recorded = jax.vmap(one_episode)(jax.random.split(rng_key, num_episodes))
  return trajectory.replace(finite=trajectory.finite.all(axis=-1)), extras, recorded


def rollout(
  family: TaskFamily, policy: Policy, params: Params, task: Task, rng_key: chex.PRNGKey, *, num_episodes: int
) -> Trajectory:
  """The experience [E, T, ...] of a policy on a task in `num_episodes` episodes; see `unroll`."""
  return unroll(family, functools.partial(policy.sample, params), task, rng_key, num_episodes=num_episodes)[0]


def make_play(
  family: TaskFamily, policy: Policy, *, num_episodes: int, environments: int | None = None
) -> Play:
  """`rollout` for any number of policies, each on its own task, spread over the local devices.

  Batches are cut into chunks of one size, so that all are one compiled program, whatever their number.

  Args:
    family: the task family.
    policy: the policies.
    num_episodes: E of each policy.
    environments: simulated at once on a device; by default what suits a CPU core or an accelerator.
  """
  one_task = functools.partial(rollout, family, policy, num_episodes=num_episodes)
  compiled = jax.jit(parallel.vmap(one_task))
  if environments is None:
    environments = _CPU_ENVIRONMENTS if jax.default_backend() == 'cpu' else _ACCELERATOR_ENVIRONMENTS
  largest = max(1, environments // num_episodes) * jax.local_device_count()

  def play(params, tasks, rng_key):
    num = batch_size(tasks)
    size = min(largest, 1 << (num - 1).bit_length())  # few programs also where there are few tasks
    arguments = parallel.spread((params, tasks, jax.random.split(rng_key, num)))
    if num == size:
      return compiled(*arguments)
    parts = [compiled(*_rows(arguments, start, size)) for start in range(0, num, size)]
    return _join(parts, num)

  return play


@functools.partial(jax.jit, static_argnames='size')
def _rows(tree, start, size):
  """`size` rows of a tree from `start` on, the first ones again after the last."""
  return take(tree, (start + jnp.arange(size)) % batch_size(tree))


@functools.partial(jax.jit, static_argnames='num')
def _join(parts, num):
  """The first `num` rows of trees one after the other."""
  return jax.tree.map(lambda *x: jnp.concatenate(x)[:num], *parts)


def raw_stepping_rate(
  family: TaskFamily, tasks: Task, actions: chex.Array, rng_key: chex.PRNGKey
) -> float:
  """Environment steps a second of bare stepping, nothing computed or recorded besides: what rollouts are measured by.

  Args:
    family: the task family.
    tasks: [B] tasks, the batch.
    actions: [N, T, B, A] to take in N episodes. They matter: where joints meet their limits a simulator works harder,
      so only the actions of the rollouts themselves make a fair comparison.
    rng_key: for the starts.
  """
  def one_task(task, task_actions, keys):
    def one_episode(_, inputs):
      episode_actions, key = inputs
      step = lambda state, action: (family.step(task, state, action), None)
      return None, jax.lax.scan(step, family.reset(task, key), episode_actions)[0].reward

    return jax.lax.scan(one_episode, None, (task_actions, keys))[1]

  num_episodes, _, num_tasks = actions.shape[:3]
  keys = jax.random.split(rng_key, (num_tasks, num_episodes))
  by_task = jnp.moveaxis(jnp.asarray(actions), 2, 0)
  run = jax.jit(lambda keys: parallel.vmap(one_task)(tasks, by_task, keys))
  jax.block_until_ready(run(keys))
  began = time.perf_counter()
  jax.block_until_ready(run(keys))
  return actions[..., 0].size / (time.perf_counter() - began)
