"""Training examples: what an operator is shown and what it should answer, drawn from histories and its own iterates.

The host draws and reads, ahead of time; the device picks the states and computes. Which examples a step gets follows
from the seed and the step alone, so that a resumed training sees the same.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import chex
import grain
import jax
import numpy as np

from metaimprove.asks import SAME, Ask
from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import Dataset
from metaimprove.rng import generator
from metaimprove.training.pairs import describe_pairs, draw_sizes, pairs_of
from metaimprove.training.rounds import Iterates
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import batch_size, concatenate, take
from metaimprove.types import Params, Trajectory, hide_outcome

_READERS = max(1, min(8, (os.cpu_count() or 1) // 2))
_PREFETCHED = 4 * _READERS
Share = tuple[int, int]
"""(which, of how many): the part of a batch that is read here, for one process of several."""


@chex.dataclass(frozen=True)
class Example:
  """What an operator is shown and the answer; shapes of one example.

  Attributes:
    params: θⁿ.
    trajectory: its experience τⁿ, [E, T, ...], without outcomes.
    ask: what is asked for.
    target_params: θⁿ⁺ᵏ.
    target_trajectory: its experience, [E, T, ...], without outcomes.
    key_data: [2] uint32, for the choice of the states at which the two are compared.
  """

  params: Params
  trajectory: Trajectory
  ask: Ask
  target_params: Params
  target_trajectory: Trajectory
  key_data: chex.Array


def split_histories(dataset: Dataset, num_validation: int) -> tuple[np.ndarray, np.ndarray]:
  """Histories to train on, and those of the last `num_validation` tasks, which are kept out.

  Raises:
    IncompatibleError: if none are left to train on.
  """
  tasks = np.unique(dataset.task_index)
  kept_out = np.isin(dataset.task_index, tasks[max(0, len(tasks) - num_validation):])
  if kept_out.all():
    raise IncompatibleError(f'No histories are left to train on: {num_validation} tasks are kept out. Collect more.')
  return np.flatnonzero(~kept_out), np.flatnonzero(kept_out)


def endless(dataset: Dataset, histories: np.ndarray, seed: int) -> grain.MapDataset:
  """An endless shuffled sequence of histories, each source equally often, whatever its size."""
  sequences = []
  for index, name in enumerate(dataset.source_names):
    rows = histories[dataset.source[histories] == index]
    if len(rows):
      order = int(generator(seed, f'order of {name}').integers(2**32))
      sequences.append(grain.MapDataset.source(rows).seed(order).shuffle().repeat())
  return grain.MapDataset.mix(sequences)


@dataclasses.dataclass(frozen=True)
class Examples:
  """Draws examples.

  Attributes:
    dataset: the histories.
    histories: those to train on, an endless sequence; see `endless`.
    kinds: of the asks.
    settings: of the training.
    seed: of all that is drawn.
  """

  dataset: Dataset
  histories: grain.MapDataset
  kinds: tuple[str, ...]
  settings: TrainingSettings
  seed: int

  def of_histories(
    self, history: np.ndarray, size: np.ndarray, rng: np.random.Generator, share: slice = slice(None)
  ) -> Example:
    """Examples of stored policies of histories [B], to be improved by the sizes [B]; the levels are random, so that
    none dominates. Only the `share` of them is read."""
    level = rng.integers(self.dataset.num_checkpoints, size=len(history))
    shown = self.dataset.read(history[share], level[share])
    return self._answer(shown, history, level, size, rng, share)

  def of_iterates(
    self, iterates: Iterates, size: np.ndarray, rng: np.random.Generator, share: slice = slice(None)
  ) -> Example:
    """Examples [B] of random iterates, to be improved by the sizes [B]."""
    rows = rng.integers(batch_size(iterates.params), size=len(size))
    shown = take((iterates.params, iterates.trajectory), rows[share])
    return self._answer(shown, iterates.history[rows], iterates.draw_levels(rows, rng), size, rng, share)

  def _answer(self, shown, history, level, size, rng, share) -> Example:
    pairs = pairs_of(self.dataset, history, level, size, self.settings)
    ask = describe_pairs(pairs, self.kinds, self.settings, rng)
    key_data = rng.integers(2**32, size=(len(history), 2), dtype=np.uint32)
    stored = self.dataset.read(history[share], np.maximum(pairs.target, 0)[share])
    shown, stored = ((params, hide_outcome(trajectory)) for params, trajectory in (shown, stored))
    same = pairs.target[share] == SAME
    target = jax.tree.map(lambda x, y: np.where(same.reshape(-1, *[1] * (x.ndim - 1)), x, y), shown, stored)
    return Example(
      params=shown[0], trajectory=shown[1], ask=take(ask, share), target_params=target[0],
      target_trajectory=target[1], key_data=key_data[share],
    )

  def draw(self, step: int, rounds: Sequence[Iterates] = (), share: Share = (0, 1)) -> Example:
    """The examples of a step: half of histories, and half of a random round of iterates once there are any."""
    rng, size = generator(self.seed, 'examples', step), self.settings.batch_size
    sizes = draw_sizes(self.settings, size, rng).reshape(2, -1)
    history = np.array([self.histories[step * size + index] for index in range(size)]).reshape(sizes.shape)
    which, num = share
    part = slice(which * (size // 2) // num, (which + 1) * (size // 2) // num)
    first = self.of_histories(history[0], sizes[0], rng, part)
    if rounds:
      second = self.of_iterates(rounds[rng.integers(len(rounds))], sizes[1], rng, part)
    else:
      second = self.of_histories(history[1], sizes[1], rng, part)
    return concatenate([first, second])

  def stream(
    self, first: int, last: int, rounds: Sequence[Iterates] = (), share: Share = (0, 1)
  ) -> Iterator[Example]:
    """The examples of the steps `first` to `last` - 1, read ahead by threads; see `draw`."""
    drawn = grain.MapDataset.range(first, last).map(lambda step: self.draw(int(step), rounds, share))
    return iter(drawn.to_iter_dataset(grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=_PREFETCHED)))
