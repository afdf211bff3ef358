"""What an operator remembers: episodes of all policies that acted, each step with what its policy would do there.

A memory has room for a fixed number of episodes, so that reading it costs the same after any number of applications.
When it is full, episodes are forgotten that are most like another one; the newest and the best one stay.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.policies import Policy
from metaimprove.types import Params, Trajectory, episode_return, hide_outcome

_LARGEST_ACTION = 0.999
"""Of a location that stands for an action: tanh reaches 1 nowhere."""
_RECORDED_RAW_SCALE = -1.0
"""What stands for the raw scale of a policy of which only actions are known. Of -4, -2, -1, 0 and 1, -2 and -1 cost
least on 48 validation tasks each of `reacher_wiring` and `point_goal_sparse_h20`."""
EMPTY = -1
"""The number of an episode that is not there."""


@chex.dataclass(frozen=True)
class Memory:
  """C places for episodes, each thinned out to at most K steps.

  Attributes:
    trajectory: [C, K, ...], without outcomes. Nothing is `valid` in an empty place.
    behaviour: [C, K, 2A] float32, the logits (location and raw scale of the normal before tanh) of the policy that took
      each step, at its observation.
    time: [C, K] int32, which step of its episode each is.
    episode_return: [C] float32, of the whole episode.
    largest_reward: [C] float32, of the whole episode; 0 where no reward is above it.
    application: [C] int32, how many applications of the operator came before the policy that acted.
    number: [C] int32, how many episodes came before; `EMPTY` for an empty place.
  """

  trajectory: Trajectory
  behaviour: chex.Array
  time: chex.Array
  episode_return: chex.Array
  largest_reward: chex.Array
  application: chex.Array
  number: chex.Array


def thinned(trajectory: Trajectory, num_steps: int) -> tuple[Trajectory, chex.Array]:
  """A trajectory [..., E, T, ...] of numpy or JAX arrays, without outcomes and with at most `num_steps` steps an
  episode, evenly spaced ones of those that were taken; and [..., E, K] int32, which those are."""
  valid, array = trajectory.valid, trajectory.valid.__array_namespace__()
  finite, rest = trajectory.finite, hide_outcome(trajectory).replace(finite=None)
  length = valid.shape[-1]
  if length <= num_steps:
    kept = array.broadcast_to(array.arange(length), valid.shape)
    return rest.replace(finite=finite), kept.astype(array.int32)
  # Steps that were taken come first; padding is kept only where they are too few.
  span = array.maximum(valid.sum(axis=-1, keepdims=True), num_steps)
  kept = array.arange(num_steps) * span // num_steps

  def keep(x):
    return array.take_along_axis(x, kept.reshape(*kept.shape, *[1] * (x.ndim - kept.ndim)), axis=kept.ndim - 1)

  return jax.tree.map(keep, rest).replace(finite=finite), kept.astype(array.int32)


def first_memory(policy: Policy, params: Params, trajectory: Trajectory, num_steps: int) -> Memory:
  """The memory of the experience [E, T, ...] of one policy, with room for no more."""
  short, time = thinned(trajectory, num_steps)
  return _memory_of(trajectory, short, time, policy.apply(params, short.observation))


def watched_memory(behaviour: chex.Array, trajectory: Trajectory, num_steps: int) -> Memory:
  """The same of a policy of any make, of which `behaviour` [E, T, 2A] is known at the steps it took."""
  short, time = thinned(trajectory, num_steps)
  return _memory_of(trajectory, short, time, jnp.take_along_axis(behaviour, time[..., None], axis=1))


def recorded_behaviour(action: chex.Array) -> chex.Array:
  """[..., 2A], what stands for the behaviour of somebody of whom only actions [..., A] are known; numpy or JAX."""
  array = action.__array_namespace__()
  location = array.arctanh(array.clip(action, -_LARGEST_ACTION, _LARGEST_ACTION))
  return array.concatenate([location, array.full_like(location, _RECORDED_RAW_SCALE)], axis=-1)


def _memory_of(trajectory: Trajectory, short: Trajectory, time: chex.Array, behaviour: chex.Array) -> Memory:
  """From the experience [E, T, ...], the steps of it that are kept, and the behaviour there."""
  num_episodes = trajectory.reward.shape[0]
  return Memory(
    trajectory=short, behaviour=behaviour, time=time,
    episode_return=episode_return(trajectory), largest_reward=jnp.maximum(trajectory.reward.max(axis=-1), 0.0),
    application=jnp.zeros(num_episodes, jnp.int32),
    number=jnp.arange(num_episodes, dtype=jnp.int32),
  )


def remember(
  policy: Policy, capacity: int, num_steps: int, memory: Memory | None, params: Params, trajectory: Trajectory
) -> Memory:
  """What is remembered after a policy has acted.

  Args:
    policy: its shape.
    capacity: C.
    num_steps: the most that is kept of an episode.
    memory: what was remembered before; None at first.
    params: θ of the policy.
    trajectory: its experience [E, T, ...].

  Returns:
    The memory [C, K, ...]: of more than C episodes, those that `forget` leaves.
  """
  return join(memory, first_memory(policy, params, trajectory, num_steps), capacity)


def join(memory: Memory | None, new: Memory, capacity: int) -> Memory:
  """The memory [C, K, ...] of what was remembered before, None at first, and of the experience of one more policy."""
  if memory is None:
    memory = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), new)
    memory = memory.replace(number=jnp.full(capacity, EMPTY, jnp.int32))
  there = memory.number != EMPTY
  new = new.replace(
    application=new.application + jnp.max(memory.application, where=there, initial=EMPTY) + 1,
    number=new.number + jnp.max(memory.number) + 1,
  )
  return forget(jax.tree.map(lambda *x: jnp.concatenate(x), memory, new), capacity)


def empty_memory(capacity: int, num_steps: int, observation_size: int, action_size: int) -> Memory:
  """The memory [C, K, ...] of a policy that has not acted yet."""
  def zeros(*shape, dtype=np.float32):
    return np.zeros((capacity, *shape), dtype)

  trajectory = Trajectory(
    observation=zeros(num_steps, observation_size), action=zeros(num_steps, action_size), reward=zeros(num_steps),
    next_observation=zeros(num_steps, observation_size), outcome=zeros(num_steps, 0),
    terminated=zeros(num_steps, dtype=bool), valid=zeros(num_steps, dtype=bool), finite=zeros(dtype=bool),
  )
  return Memory(
    trajectory=trajectory, behaviour=zeros(num_steps, 2 * action_size), time=zeros(num_steps, dtype=np.int32),
    episode_return=zeros(), largest_reward=zeros(), application=zeros(dtype=np.int32),
    number=np.full(capacity, EMPTY, np.int32),
  )


def blank(memory: Memory, where: np.ndarray) -> Memory:
  """Memories [..., C, K, ...] that hold no episode where `where` [...] holds, and are as they were elsewhere; numpy."""
  kept = ~where[..., None]
  trajectory = memory.trajectory.replace(valid=memory.trajectory.valid & kept[..., None])
  return memory.replace(trajectory=trajectory, number=np.where(kept, memory.number, EMPTY).astype(np.int32))


def newest_met_nothing(memory: Memory) -> chex.Array:
  """[...] bool, whether the newest policy met no reward above 0."""
  there = memory.number != EMPTY
  newest = jnp.max(memory.application, axis=-1, keepdims=True, where=there, initial=EMPTY)
  return jnp.max(memory.largest_reward, axis=-1, where=there & (memory.application == newest), initial=0.0) <= 0


def forget(memory: Memory, capacity: int) -> Memory:
  """A memory of more than C places cut to C.

  Empty places go first. Then, one at a time, goes the episode that is most like a newer one, but none of the newest
  policy, and not the one of highest return among those that did not blow up. Episodes are alike whose observations and
  rewards are near each other at the same steps.
  """
  count = memory.number.shape[0]
  there = memory.number != EMPTY
  unlike = _unlikeness(memory)
  # An episode that blew up lacks the rewards of its remaining steps, which would look good where they are negative.
  best = jnp.argmax(jnp.where(there & memory.trajectory.finite, memory.episode_return, -jnp.inf))
  newest = there & (memory.application == jnp.max(memory.application, where=there, initial=EMPTY))
  protected = newest | (jnp.arange(count) == best)
  newer = memory.number[None, :] > memory.number[:, None]

  def drop(_, stays):
    value = jnp.min(jnp.where(newer & stays[None, :], unlike, jnp.inf), axis=1)
    value = jnp.where(there, jnp.where(protected, jnp.inf, value), -1.0)
    # Where all are protected, because the newest policy played C episodes or more, the oldest go.
    value = jnp.where(jnp.isinf(value), 1e30 * (1.0 + memory.number), value)
    return stays.at[jnp.argmin(jnp.where(stays, value, jnp.inf))].set(False)

  stays = jax.lax.fori_loop(0, max(count - capacity, 0), drop, jnp.ones(count, bool))
  kept = jnp.argsort(~stays, stable=True)[:capacity]
  return jax.tree.map(lambda x: x[kept], memory)


def _unlikeness(memory: Memory) -> chex.Array:
  """[C, C] squared distance of episodes, the mean over steps, in deviations of all that is remembered; where an episode
  has no step, it counts as the mean of all."""
  trajectory, valid = memory.trajectory, memory.trajectory.valid.astype(jnp.float32)
  values = jnp.concatenate([trajectory.observation, trajectory.reward[..., None]], axis=-1) * valid[..., None]
  num = jnp.maximum(valid.sum(), 1)
  mean = values.sum(axis=(0, 1)) / num
  centred = (values - mean) * valid[..., None]
  deviation = jnp.sqrt(jnp.square(centred).sum(axis=(0, 1)) / num)
  scaled = (centred / jnp.maximum(deviation, 1e-6)).reshape(len(valid), -1)
  squares = jnp.square(scaled).sum(axis=1)
  return jnp.maximum(squares[:, None] + squares[None, :] - 2 * scaled @ scaled.T, 0) / valid.shape[1]
