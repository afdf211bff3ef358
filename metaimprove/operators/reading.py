"""How a memory is read: transitions as vectors of order 1, evenly thinned out where there are too many."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.operators.memory import Memory
from metaimprove.types import Trajectory


def experience_statistics(trajectory: Trajectory) -> dict[str, np.ndarray]:
  """Means and standard deviations by which an operator scales what it reads; leading axes are averaged over."""
  def moments(x, valid):
    rows = np.asarray(x)[np.asarray(valid)]
    return np.float32(rows.mean(axis=0)), np.float32(rows.std(axis=0) + 1e-6)

  change = trajectory.next_observation - trajectory.observation
  result = {}
  for name, value in (('observation', trajectory.observation), ('change', change), ('reward', trajectory.reward)):
    result[f'{name}_mean'], result[f'{name}_std'] = moments(value, trajectory.valid)
  return result


def statistics_structure(observation_size: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of `experience_statistics`."""
  sizes = {'observation': (observation_size,), 'change': (observation_size,), 'reward': ()}
  return {
    f'{name}_{moment}': jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in sizes.items() for moment in ('mean', 'std')
  }


def num_transition_features(observation_size: int, action_size: int) -> int:
  """F, the size of what is read of a transition."""
  return 2 * observation_size + 3 * action_size + 3


def read(
  memory: Memory, statistics: dict[str, chex.Array], *, episode_length: int, max_transitions: int
) -> tuple[chex.Array, chex.Array]:
  """What an encoder reads of a memory.

  Args:
    memory: E episodes of T steps.
    statistics: of `experience_statistics`, by which it is scaled.
    episode_length: the time limit, which time stamps are relative to.
    max_transitions: of more, evenly spaced ones of those that were really taken are read.

  Returns:
    [M, F] features of M transitions, and [M] bool, which of them count; M is at most `max_transitions`.
  """
  features, valid = _features(memory, statistics, episode_length), memory.trajectory.valid.reshape(-1)
  features = features.reshape(len(valid), -1)
  if len(valid) > max_transitions:
    taken_first = jnp.argsort(~valid, stable=True)
    span = jnp.maximum(valid.sum(), max_transitions)  # padding is read only where too few steps were taken
    kept = taken_first[jnp.arange(max_transitions) * span // max_transitions]
    features, valid = features[kept], valid[kept]
  return features, valid


def _features(memory, statistics, episode_length):
  """[E, T, F]: each transition and what the policy would do there."""
  def scale(name, value):
    return jnp.clip((value - statistics[f'{name}_mean']) / statistics[f'{name}_std'], -5, 5)

  trajectory = memory.trajectory
  location, raw_scale = jnp.split(memory.behaviour, 2, axis=-1)
  shape = trajectory.reward.shape
  time = jnp.broadcast_to(jnp.arange(shape[-1]) / episode_length, shape)
  return jnp.concatenate([
    scale('observation', trajectory.observation),
    scale('change', trajectory.next_observation - trajectory.observation),
    trajectory.action, jnp.tanh(location), jnp.clip(raw_scale, -5, 5) / 2,
    scale('reward', trajectory.reward)[..., None], time[..., None],
    trajectory.terminated[..., None].astype(jnp.float32),
  ], axis=-1)
