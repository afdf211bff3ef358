"""How the observations and actions of an environment correspond to those that an operator knows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaimprove.episodes import Episode
from metaimprove.errors import ExperienceError, IncompatibleError
from metaimprove.operators.config import OperatorConfig


@dataclasses.dataclass(frozen=True)
class Spaces:
  """An environment's observations and actions, in terms of an operator's.

  The operator's observation is `observation_scale * observation[observation_indices] + observation_offset`, and its
  action -1 is the environment's `action_low`, 1 its `action_high`.

  Attributes:
    observation_size: of the environment, N.
    observation_indices: [O] int, which numbers of the environment's observation the operator reads, in its order.
    observation_scale, observation_offset: [O].
    action_low, action_high: [A].
  """

  observation_size: int
  observation_indices: np.ndarray
  observation_scale: np.ndarray
  observation_offset: np.ndarray
  action_low: np.ndarray
  action_high: np.ndarray

  @classmethod
  def of(
    cls, observation_size: int, action_size: int, *, observation_indices: Sequence[int] | None = None,
    observation_scale: float | Sequence[float] = 1.0, observation_offset: float | Sequence[float] = 0.0,
    action_low: float | Sequence[float] = -1.0, action_high: float | Sequence[float] = 1.0,
  ) -> 'Spaces':
    """Spaces from numbers or sequences.

    Args:
      observation_size: of the environment.
      action_size: of both.
      observation_indices, observation_scale, observation_offset, action_low, action_high: see `Spaces`.

    Raises:
      IncompatibleError: for indices that are not there, and for ranges that are unknown, infinite or empty.
    """
    indices = np.arange(observation_size) if observation_indices is None else np.asarray(observation_indices)
    if indices.ndim != 1 or indices.dtype.kind not in 'iu' or not ((0 <= indices) & (indices < observation_size)).all():
      raise IncompatibleError(
        f'observation_indices must be whole numbers from 0 to {observation_size - 1}, the places in an observation.'
      )
    arrays = {}
    for name, value, size in (
      ('observation_scale', observation_scale, len(indices)), ('observation_offset', observation_offset, len(indices)),
      ('action_low', action_low, action_size), ('action_high', action_high, action_size),
    ):
      array = np.asarray(value, np.float32)
      if array.shape not in ((), (size,)):
        raise IncompatibleError(f'{name} must be one number or {size}, not an array of shape {list(array.shape)}.')
      arrays[name] = np.broadcast_to(array, (size,))
    low, high = arrays['action_low'], arrays['action_high']
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
      raise IncompatibleError(
        f'The range of actions is not known (low {low.tolist()}, high {high.tolist()}); say which actions the '
        "operator's -1 and 1 stand for: action_low=..., action_high=..."
      )
    if not all(np.isfinite(array).all() for array in arrays.values()):
      raise IncompatibleError('observation_scale and observation_offset must be finite.')
    return cls(observation_size=observation_size, observation_indices=indices, **arrays)

  @classmethod
  def fitting(cls, config: OperatorConfig, observation_size: int, action_size: int, **mapping: Any) -> 'Spaces':
    """The spaces of an environment of these sizes, for an operator.

    Args:
      config: of the operator.
      observation_size, action_size: of the environment.
      mapping: what `of` takes, where observations and actions are not those of the operator.

    Raises:
      IncompatibleError: if they do not fit; says how to make them fit.
    """
    if action_size != config.action_size:
      raise IncompatibleError(
        f'This environment has {action_size} actions, and the operator, trained on {config.family}, '
        f'{config.action_size}.'
      )
    if 'observation_indices' not in mapping and observation_size != config.observation_size:
      raise IncompatibleError(
        f'This environment has {observation_size} observations, and the operator, trained on {config.family}, '
        f'{config.observation_size}; say by observation_indices=[...] which of them it is to read, in its order.'
      )
    found = cls.of(observation_size, action_size, **mapping)
    if len(found.observation_indices) != config.observation_size:
      raise IncompatibleError(
        f'observation_indices names {len(found.observation_indices)} numbers, and the operator reads '
        f'{config.observation_size}.'
      )
    return found

  def observation(self, observation: np.ndarray) -> np.ndarray:
    """The operator's observation [..., O] of the environment's [..., N]."""
    read = np.asarray(observation, np.float32)[..., self.observation_indices]
    return read * self.observation_scale + self.observation_offset

  def action(self, action: np.ndarray) -> np.ndarray:
    """The operator's action [..., A] of the environment's; what lies outside its range is clipped."""
    share = (np.asarray(action, np.float32) - self.action_low) / (self.action_high - self.action_low)
    return np.clip(2 * share - 1, -1, 1)

  def environment_action(self, action: np.ndarray) -> np.ndarray:
    """The environment's action [..., A] of the operator's."""
    return self.action_low + (action + 1) / 2 * (self.action_high - self.action_low)

  def episode(self, episode: Any) -> Episode:
    """An episode of the environment in the operator's terms; missing fields stay missing, for `read_episode` to say.

    Raises:
      ExperienceError: for observations or actions of another size.
    """
    get = episode.get if isinstance(episode, Mapping) else lambda name: getattr(episode, name, None)
    observations, actions, finite = get('observations'), get('actions'), get('finite')
    try:
      return Episode(
        observations=None if observations is None else self.observation(observations),
        actions=None if actions is None else self.action(actions), rewards=get('rewards'),
        terminations=get('terminations'), finite=True if finite is None else finite,
      )
    except (IndexError, TypeError, ValueError):
      raise ExperienceError(
        f'Observations must be rows of {self.observation_size} numbers, and actions of {len(self.action_low)}.'
      ) from None
