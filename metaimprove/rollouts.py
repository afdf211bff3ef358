"""The only scan over an environment."""

import functools
import time
from typing import Any
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from metaimprove.policies import Policy
from metaimprove.tasks.family import State, TaskFamily
from metaimprove.types import Params, Task, Trajectory

Act = Callable[[chex.Array, chex.PRNGKey], tuple[chex.Array, Any]]
"""(observation [O], rng_key) -> (action [A], anything to record of the step)."""


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
      next_observation=after.observation, terminated=valid & after.terminated, valid=valid, finite=finite | ~alive,
    )
    if auto_reset:
      following = select(after.terminated | ~finite, family.reset(task, key_reset), after)
      alive = jnp.ones((), bool)
    else:
      following, alive = after, valid & ~after.terminated
    return (following, alive), (transition, extras, record(state))

  def one_episode(_, episode_key):
    key_reset, key_steps = jax.random.split(episode_key)
    start = (family.reset(task, key_reset), jnp.ones((), bool))
    _, outputs = jax.lax.scan(one_step, start, jax.random.split(key_steps, family.episode_length))
    return None, outputs

  _, (trajectory, extras, recorded) = jax.lax.scan(one_episode, None, jax.random.split(rng_key, num_episodes))
  return trajectory.replace(finite=trajectory.finite.all(axis=-1)), extras, recorded


def rollout(
  family: TaskFamily, policy: Policy, params: Params, task: Task, rng_key: chex.PRNGKey, *, num_episodes: int
) -> Trajectory:
  """The experience [E, T, ...] of a policy on a task in `num_episodes` episodes; see `unroll`."""
  return unroll(family, functools.partial(policy.sample, params), task, rng_key, num_episodes=num_episodes)[0]


def raw_stepping_rate(
  family: TaskFamily, tasks: Task, rng_key: chex.PRNGKey, *, seconds: float = 2.0
) -> float:
  """Environment steps a second of bare stepping with random actions, nothing recorded: what a rollout is measured by.

  Args:
    family: the task family.
    tasks: [B] tasks, the batch.
    rng_key: for starts and actions.
    seconds: how long to measure, after compiling.
  """
  num_tasks = tasks.goal.shape[0]
  key_reset, key_action = jax.random.split(rng_key)
  states = jax.jit(jax.vmap(family.reset))(tasks, jax.random.split(key_reset, num_tasks))
  shape = (family.episode_length, num_tasks, family.action_size)
  actions = jax.random.uniform(key_action, shape, minval=-1, maxval=1)

  @jax.jit
  def run(states):
    return jax.lax.scan(lambda s, a: (jax.vmap(family.step)(tasks, s, a), None), states, actions)[0]

  jax.block_until_ready(run(states))
  num_runs, began = 0, time.perf_counter()
  while time.perf_counter() - began < seconds:
    jax.block_until_ready(run(states))
    num_runs += 1
  return num_runs * num_tasks * family.episode_length / (time.perf_counter() - began)
