"""Experience that is changed on purpose, and told to be, so that few tasks teach more.

Each change makes another problem of an example; the ask tells which, so that it need not be a symmetry of the family,
as a change of wiring is (`rewiring`), and nothing of it has to hold at test time, when none is asked for (Jun et al.,
"Distribution Augmentation for Generative Modeling", ICML 2020):

  mirrored  observations, about their means, and actions have the other sign; so has what the answer does there
  rotated   observations, in their deviations, are turned, the same way in all examples, and the answer with them
  warped    a film at double speed: every second step is there, and what changes in one is twice as much
  noisy     observations are read with noise, and so are their changes; the answer is that to what they were
  hidden    a random half of the steps of each episode is not there

Returns and rewards stay as they are. So do other asks, for a goal or in words: they speak of what was not changed.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from metaimprove.asks import augmentation
from metaimprove.operators.memory import Memory
from metaimprove.rng import generator
from metaimprove.trees import take

_NOISE = 0.3
"""Of what is read, as a share of its deviation."""
_SPEED = 2
_CONSTANT = 1e-5
"""An observation of a smaller deviation is the same everywhere."""
Statistics = Mapping[str, np.ndarray]
Parts = tuple[Memory, np.ndarray, np.ndarray]
"""What is changed of examples: memories [B, C, K, ...], states [B, S, O], and the logits of the answer there."""


def draw_augmentations(share: float, rngs: Sequence[np.random.Generator]) -> np.ndarray:
  """[B] int32, for a share of the examples any augmentation of `asks.augmentation.NAMES`, each as often, for the others
  none."""
  drawn = [
    rng.integers(1, len(augmentation.NAMES)) if rng.random() < share else augmentation.NONE for rng in rngs
  ]
  return np.array(drawn, np.int32)


def augmented(
  memory: Memory, states: np.ndarray, answer: np.ndarray, number: np.ndarray, statistics: Statistics,
  rngs: Sequence[np.random.Generator],
) -> Parts:
  """Examples changed by the augmentations that are drawn; numpy.

  Args:
    memory: [B, C, K, ...].
    states: [B, S, O] at which the answer is known.
    answer: [B, S, 2A] its logits there.
    number: [B] int, which of `asks.augmentation.NAMES`.
    statistics: of `reading.experience_statistics`.
    rngs: [B], of what is drawn.

  Returns:
    memory, states and answer.
  """
  parts = memory, states, answer
  result = jax.tree.map(np.array, parts)
  for name, change in _CHANGES.items():
    rows = np.flatnonzero(number == augmentation.NAMES.index(name))
    if len(rows):
      changed = change(take(parts, rows), statistics, [rngs[row] for row in rows])
      jax.tree.map(lambda whole, some: _put(whole, rows, some), result, changed)
  return result


def _put(whole: np.ndarray, rows: np.ndarray, some: np.ndarray) -> None:
  whole[rows] = some


def _mirrored(parts: Parts, statistics: Statistics, rngs: Sequence[np.random.Generator]) -> Parts:
  """About the mean, not 0: an operator reads observations that lie far from their means as no different."""
  return _turned(parts, lambda observation: 2 * statistics['observation_mean'] - observation, -1)


def _rotated(parts: Parts, statistics: Statistics, rngs: Sequence[np.random.Generator]) -> Parts:
  mean, std = statistics['observation_mean'], statistics['observation_std']
  rotation = rotation_of(std)
  return _turned(parts, lambda observation: mean + std * ((observation - mean) / std @ rotation), 1)


def rotation_of(deviation: np.ndarray) -> np.ndarray:
  """[O, O] float32, always the same random orthogonal matrix; observations [O] that are constant are not turned."""
  varies = np.flatnonzero(deviation > _CONSTANT)
  rotation = np.eye(len(deviation), dtype=np.float32)
  normal = generator(0, 'rotation').normal(size=(len(varies), len(varies)))
  rotation[np.ix_(varies, varies)] = np.linalg.qr(normal)[0]
  return rotation


def _turned(parts: Parts, turn: Callable[[np.ndarray], np.ndarray], sign: int) -> Parts:
  """Examples in which observations are turned, and actions have another sign; what was answered is answered there."""
  memory, states, answer = parts
  trajectory = memory.trajectory
  trajectory = trajectory.replace(
    observation=turn(trajectory.observation), next_observation=turn(trajectory.next_observation),
    action=sign * trajectory.action,
  )
  return memory.replace(trajectory=trajectory, behaviour=_signed(memory.behaviour, sign)), turn(states), _signed(
    answer, sign
  )


def _signed(logits: np.ndarray, sign: int) -> np.ndarray:
  """Logits [..., 2A] of policies whose actions have another sign."""
  location, raw_scale = np.split(logits, 2, axis=-1)
  return np.concatenate([sign * location, raw_scale], axis=-1)


def _warped(parts: Parts, statistics: Statistics, rngs: Sequence[np.random.Generator]) -> Parts:
  memory, *others = parts
  trajectory, valid = memory.trajectory, memory.trajectory.valid
  stays = valid & ((np.cumsum(valid, axis=-1) - 1) % _SPEED == 0)
  # Of long episodes not all steps are remembered, so what came one step later is not known, but about this.
  later = trajectory.observation + _SPEED * (trajectory.next_observation - trajectory.observation)
  trajectory = trajectory.replace(valid=stays, next_observation=later)
  return memory.replace(trajectory=trajectory, time=memory.time // _SPEED), *others


def _noisy(parts: Parts, statistics: Statistics, rngs: Sequence[np.random.Generator]) -> Parts:
  memory, *others = parts
  trajectory = memory.trajectory
  observation, change = (
    _NOISE * statistics[f'{name}_std'] * np.stack([rng.normal(size=trajectory.observation.shape[1:]) for rng in rngs])
    for name in ('observation', 'change')
  )
  trajectory = trajectory.replace(
    observation=trajectory.observation + observation,
    next_observation=trajectory.next_observation + observation + change,
  )
  return memory.replace(trajectory=trajectory), *others


def _hidden(parts: Parts, statistics: Statistics, rngs: Sequence[np.random.Generator]) -> Parts:
  memory, *others = parts
  valid = memory.trajectory.valid
  order = np.where(valid, np.stack([rng.random(valid.shape[1:]) for rng in rngs]), 1.0).argsort(axis=-1)
  place = order.argsort(axis=-1)  # among the steps of its episode; those that were not taken come last
  stays = 2 * place < valid.sum(axis=-1, keepdims=True)
  return memory.replace(trajectory=memory.trajectory.replace(valid=stays)), *others


_CHANGES = {'mirrored': _mirrored, 'rotated': _rotated, 'warped': _warped, 'noisy': _noisy, 'hidden': _hidden}
