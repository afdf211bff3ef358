"""Episodes of anybody's environment, as plain arrays of any length."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaimprove.errors import ExperienceError
from metaimprove.types import Trajectory

_ROUNDING = 1e-4
LARGEST = 1e18
"""Squares of larger numbers overflow in float32."""


_ROWS = ('observation', 'next_observation', 'action', 'reward', 'terminated', 'valid')


@dataclasses.dataclass(frozen=True)
class Episode:
  """What happened in one episode of L steps; the names are those of Minari's `EpisodeData`, which may be given instead.

  Attributes:
    observations: [L + 1, O], one before each action and one after the last.
    actions: [L, A] in [-1, 1].
    rewards: [L].
    terminations: [L] bool, the task ended here; a time limit does not count. None of them by default.
    finite: False if the simulation blew up after the last step.
  """

  observations: np.ndarray
  actions: np.ndarray
  rewards: np.ndarray
  terminations: np.ndarray | None = None
  finite: bool = True


def read_episode(
  episode: Any, what: str, *, observation_size: int, action_size: int, longest: int
) -> Episode:
  """An episode as it was meant: float32 and bool, all shapes right, actions surely within [-1, 1].

  Args:
    episode: an `Episode`, or another object or mapping with its fields.
    what: it is called so in errors.
    observation_size: O.
    action_size: A.
    longest: steps that it may have.

  Raises:
    ExperienceError: if it cannot be read; says why.
  """
  observations = _field(episode, what, 'observations', (None, observation_size))
  length = len(observations) - 1
  if not 1 <= length <= longest:
    raise ExperienceError(
      f'{what} has {max(length, 0)} steps, one less than it has observations, and 1 to {longest} can be read; leave it '
      f'out if nothing was done, or set a time limit of {longest} steps.'
    )
  actions = _field(episode, what, 'actions', (length, action_size))
  if (largest := np.abs(actions).max()) > 1 + _ROUNDING:
    raise ExperienceError(f'{what}: actions are as large as {largest:.3g}; scale them to [-1, 1].')
  rewards = _field(episode, what, 'rewards', (length,))
  ends = _get(episode, 'terminations')
  ends = np.zeros(length, bool) if ends is None else np.asarray(ends)
  if ends.shape != (length,) or ends.dtype != bool:
    raise ExperienceError(f'{what}: terminations must be {length} times True or False, one for each reward.')
  if ends[:-1].any():
    raise ExperienceError(f'{what} goes on after its end: only the last of its terminations can be True; cut it there.')
  finite = _get(episode, 'finite')
  return Episode(
    observations=observations, actions=np.clip(actions, -1, 1), rewards=rewards, terminations=ends,
    finite=finite is None or bool(finite),
  )


def as_trajectory(episodes: Sequence[Episode], episode_length: int) -> Trajectory:
  """The experience [E, T, ...] of E episodes that `read_episode` gave, padded after their end."""
  def padded(rows):
    rows = [np.pad(row, [(0, episode_length - len(row))] + [(0, 0)] * (row.ndim - 1)) for row in rows]
    return np.stack(rows)

  reward = padded([episode.rewards for episode in episodes])
  return Trajectory(
    observation=padded([episode.observations[:-1] for episode in episodes]),
    action=padded([episode.actions for episode in episodes]), reward=reward,
    next_observation=padded([episode.observations[1:] for episode in episodes]),
    outcome=np.zeros((*reward.shape, 0), np.float32),
    terminated=padded([episode.terminations for episode in episodes]),
    valid=padded([np.ones(len(episode.rewards), bool) for episode in episodes]),
    finite=np.array([episode.finite for episode in episodes]),
  )


def episodes_of(trajectory: Trajectory) -> list[Episode]:
  """The inverse: the episodes of one policy's experience [E, T, ...], those that blew up left out."""
  episodes = []
  for row in np.flatnonzero(trajectory.finite):
    one = {name: np.asarray(getattr(trajectory, name)[row]) for name in _ROWS}
    length = int(one['valid'].sum())
    episodes.append(Episode(
      observations=np.concatenate([one['observation'][:length], one['next_observation'][length - 1:length]]),
      actions=one['action'][:length], rewards=one['reward'][:length], terminations=one['terminated'][:length],
    ))
  return episodes


def _get(episode: Any, name: str) -> Any:
  return episode.get(name) if isinstance(episode, Mapping) else getattr(episode, name, None)


def _field(episode: Any, what: str, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
  """A field as a finite float32 array of a shape; None stands for any size."""
  value = _get(episode, name)
  if value is None:
    raise ExperienceError(f'{what} has no {name}; give an `Episode`, or an object or a dict with its fields.')
  try:
    array = np.asarray(value, np.float64)
  except (TypeError, ValueError):
    raise ExperienceError(f'{what}: {name} are no array of numbers.') from None
  if array.ndim != len(shape) or any(size not in (None, found) for size, found in zip(shape, array.shape)):
    wanted = ', '.join('steps + 1' if size is None else str(size) for size in shape)
    raise ExperienceError(f'{what}: {name} have shape {list(array.shape)}; [{wanted}] is needed.')
  if not (np.abs(array) < LARGEST).all():
    raise ExperienceError(f'{what}: {name} are not all finite; leave it out.')
  return array.astype(np.float32)
