"""How a memory is read: its steps, and its episodes as wholes, as vectors of order 1."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.operators.memory import EMPTY, Memory
from metaimprove.types import Trajectory, episode_return

NUM_EPISODE_FEATURES = 5


@chex.dataclass(frozen=True)
class Reading:
  """What a network reads of a memory.

  Attributes:
    steps: [C, K, F] features of each step, and of what its policy would do there.
    valid: [C, K] bool, which steps are there.
    episodes: [C, `NUM_EPISODE_FEATURES`] features of each episode as a whole.
    there: [C] bool, which episodes are there.
  """

  steps: chex.Array
  valid: chex.Array
  episodes: chex.Array
  there: chex.Array


def experience_statistics(trajectory: Trajectory) -> dict[str, np.ndarray]:
  """Means and standard deviations by which an operator scales what it reads; leading axes are averaged over."""
  def moments(rows):
    return np.float32(rows.mean(axis=0)), np.float32(rows.std(axis=0) + 1e-6)

  change = trajectory.next_observation - trajectory.observation
  result, valid = {}, np.asarray(trajectory.valid)
  for name, value in (('observation', trajectory.observation), ('change', change), ('reward', trajectory.reward)):
    result[f'{name}_mean'], result[f'{name}_std'] = moments(np.asarray(value)[valid])
  returns = np.asarray(episode_return(trajectory))[np.asarray(trajectory.finite)]
  result['return_mean'], result['return_std'] = moments(returns)
  return result


def statistics_structure(observation_size: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of `experience_statistics`."""
  sizes = {'observation': (observation_size,), 'change': (observation_size,), 'reward': (), 'return': ()}
  return {
    f'{name}_{moment}': jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in sizes.items() for moment in ('mean', 'std')
  }


def num_step_features(observation_size: int, action_size: int) -> int:
  """F, the size of what is read of a step."""
  return 2 * observation_size + 3 * action_size + 3


def empty_reading(observation_size: int, action_size: int) -> Reading:
  """A reading of the least size, to make a network's parameters with."""
  return Reading(
    steps=jnp.zeros((2, 2, num_step_features(observation_size, action_size))), valid=jnp.ones((2, 2), bool),
    episodes=jnp.zeros((2, NUM_EPISODE_FEATURES)), there=jnp.ones(2, bool),
  )


def read(memory: Memory, statistics: dict[str, chex.Array], *, episode_length: int) -> Reading:
  """What a network reads of a memory.

  Args:
    memory: of C episodes of K steps.
    statistics: of `experience_statistics`, by which it is scaled.
    episode_length: the time limit, which times are relative to.
  """
  trajectory, there = memory.trajectory, memory.number != EMPTY

  def scale(name, value):
    return jnp.clip((value - statistics[f'{name}_mean']) / statistics[f'{name}_std'], -5, 5)

  location, raw_scale = jnp.split(memory.behaviour, 2, axis=-1)
  time = memory.time / episode_length
  steps = jnp.concatenate([
    scale('observation', trajectory.observation),
    scale('change', trajectory.next_observation - trajectory.observation),
    trajectory.action, jnp.tanh(location), jnp.clip(raw_scale, -5, 5) / 2,
    scale('reward', trajectory.reward)[..., None], time[..., None],
    trajectory.terminated[..., None].astype(jnp.float32),
  ], axis=-1)
  latest = jnp.max(memory.application, where=there, initial=EMPTY)
  age = (latest - memory.application).astype(jnp.float32)
  best = jnp.max(memory.episode_return, where=there & trajectory.finite, initial=-jnp.inf)
  episodes = jnp.stack([
    scale('return', memory.episode_return), scale('return', memory.episode_return) - scale('return', best),
    (age == 0).astype(jnp.float32), jnp.log1p(age) / 3,
    jnp.max(time, axis=-1, where=trajectory.valid, initial=0.0),
  ], axis=-1)
  return Reading(
    steps=steps, valid=trajectory.valid & there[:, None], episodes=jnp.where(there[:, None], episodes, 0.0),
    there=there & trajectory.valid.any(axis=-1),
  )
