"""Memories of stored policies: as if an operator had led from level to level of a history."""

from collections.abc import Sequence

import jax
import numpy as np

from metaimprove import policies
from metaimprove.histories.dataset import Dataset
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.memory import EMPTY, Memory, recorded_behaviour, thinned
from metaimprove.types import episode_return

MOST_LEVELS = 4


def memory_of_levels(
  dataset: Dataset, config: OperatorConfig, history: np.ndarray, level: np.ndarray,
  rngs: Sequence[np.random.Generator], num_episodes: np.ndarray | None = None,
) -> Memory:
  """Memories [B, C, ...] of histories [B], whose latest policy is at the levels [B].

  Half of them hold that policy's experience alone; the others up to `MOST_LEVELS` - 1 lower levels as well, at random.

  Args:
    dataset: the histories.
    config: of the operator that remembers.
    history: [B].
    level: [B].
    rngs: [B], of what is drawn.
    num_episodes: [B] of each level, at most as many as are stored; by default those before an application.
  """
  batch, stored = len(history), dataset.header['num_episodes']
  wanted = np.full(batch, min(config.num_episodes, stored)) if num_episodes is None else num_episodes
  most = max(1, min(MOST_LEVELS, config.capacity // int(wanted.max())))
  levels, count = np.repeat(level[:, None], most, axis=1), np.ones(batch, int)
  for row, rng in enumerate(rngs):
    lower = rng.integers(most) if rng.random() < 0.5 else 0
    earlier = np.sort(rng.choice(level[row], size=min(lower, level[row]), replace=False))
    count[row] = 1 + len(earlier)
    levels[row, :len(earlier)] = earlier
  shown = (np.arange(most) < count[:, None]).reshape(-1)  # others are neither read nor computed, which takes longest
  params, trajectory = dataset.read(np.repeat(history, most)[shown], levels.reshape(-1)[shown])
  chosen = np.stack([
    [rng.permutation(stored) for _ in range(most)] for rng in rngs
  ]).reshape(batch * most, -1)[shown, :int(wanted.max())]
  trajectory = jax.tree.map(lambda x: x[np.arange(len(x))[:, None], chosen], trajectory)
  short, time = thinned(trajectory, config.steps_kept)
  memory = Memory(
    trajectory=short, behaviour=policies.apply_numpy(params, short.observation), time=time,
    episode_return=episode_return(trajectory), largest_reward=np.maximum(trajectory.reward.max(axis=-1), 0),
    application=None, number=None,
  )
  memory = jax.tree.map(lambda x: _at(shown, x), memory)
  places = np.arange(most)[None, :, None], np.arange(chosen.shape[1])[None, None, :]
  there = (places[0] < count[:, None, None]) & (places[1] < wanted[:, None, None])
  return _filled(memory, there, np.broadcast_to(places[0], there.shape), config.capacity)


def as_watched(memory: Memory, is_watched: np.ndarray, is_hidden: np.ndarray) -> Memory:
  """Memories [B, C, ...] of which some [B] are seen from outside: what the policies would do is told by their actions
  alone, and of those that are hidden [B] too, no reward is seen."""
  if not is_watched.any():
    return memory
  behaviour = np.where(
    is_watched[:, None, None, None], recorded_behaviour(memory.trajectory.action), memory.behaviour
  ).astype(np.float32)
  seen = ~(is_watched & is_hidden)[:, None]
  trajectory = memory.trajectory.replace(reward=memory.trajectory.reward * seen[..., None])
  return memory.replace(
    trajectory=trajectory, behaviour=behaviour, episode_return=memory.episode_return * seen,
    largest_reward=memory.largest_reward * seen,
  )


def _at(places: np.ndarray, x: np.ndarray) -> np.ndarray:
  """[N, ...] with the rows of x at the places [N] bool, and zeros elsewhere."""
  result = np.zeros((len(places), *x.shape[1:]), x.dtype)
  result[places] = x
  return result


def _filled(memory: Memory, there: np.ndarray, application: np.ndarray, capacity: int) -> Memory:
  """Memories [B, C, ...] from [B * L, E, ...], of which the episodes `there` [B, L, E] count."""
  batch, num = len(there), there[0].size
  there, application = there.reshape(batch, num), application.reshape(batch, num)

  def padded(x):
    x = x.reshape(batch, num, *x.shape[2:])
    return np.concatenate([x, np.zeros((batch, capacity - num, *x.shape[2:]), x.dtype)], axis=1)

  filled = jax.tree.map(padded, memory)
  there, application = (padded(x) for x in (there, application))
  number = np.where(there, np.cumsum(there, axis=1) - 1, EMPTY).astype(np.int32)
  valid = filled.trajectory.valid & there[..., None]
  return filled.replace(
    trajectory=filled.trajectory.replace(valid=valid), number=number, application=application.astype(np.int32)
  )
