"""Training examples: what an operator is shown and what it should answer, drawn from histories and its own runs.

The host draws and reads, ahead of time; the device computes. Which examples a step gets follows from the seed and the
step alone, so that a resumed training sees the same.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import chex
import grain
import numpy as np

from metaimprove import policies
from metaimprove.asks import SAME, Ask, augmentation, explore
from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import Dataset
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.memory import Memory, blank
from metaimprove.rng import generator
from metaimprove.training.augmentation import augmented, draw_augmentations
from metaimprove.training.explored import Explored
from metaimprove.training.pairs import describe_pairs, draw_sizes, own_pairs, pairs_of
from metaimprove.training.rewiring import draw_wirings, rewired_logits, rewired_memory
from metaimprove.training.rounds import Runs
from metaimprove.training.settings import TrainingSettings
from metaimprove.training.shown import as_watched, memory_of_levels
from metaimprove.trees import concatenate, take
from metaimprove.types import Params, Trajectory

_READERS = max(1, min(8, (os.cpu_count() or 1) // 2))
_PREFETCHED = 4 * _READERS
_FEW, _EPOCHS = 256, 256
"""Fewer rows than this are shuffled here, so many times: of 16 rows grain takes 7 ms to find one in its shuffled order,
of 1024 it takes 0.1 ms."""
ANY_ANSWER = -1
"""Of an example that does not say which of the operator's answers is to be the right one."""
Share = tuple[int, int]
"""(which, of how many): the part of a batch that is read here, for one process of several."""


@chex.dataclass(frozen=True)
class Example:
  """What an operator is shown and the answer; shapes of one example.

  Attributes:
    memory: what is remembered when θⁿ has acted.
    ask: what is asked for.
    states: [S, O] observations: some that θⁿ⁺ᵏ visited, and, where the answer is known everywhere, some of the memory.
    answer: [S, 2A] logits of θⁿ⁺ᵏ there.
    weight: [S] float32, 1 for a state that counts and 0 where a policy has visited none.
    which_answer: [] int32, the number of the operator's answer that is to be this one, of an explorer its own number;
      `ANY_ANSWER` where any may be.
    key_data: [2] uint32, for what is drawn while the loss is computed.
  """

  memory: Memory
  ask: Ask
  states: chex.Array
  answer: chex.Array
  weight: chex.Array
  which_answer: chex.Array
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
      rng = generator(seed, f'order of {name}')
      if len(rows) < _FEW:
        ordered = grain.MapDataset.source(np.concatenate([rng.permutation(rows) for _ in range(_EPOCHS)]))
      else:
        ordered = grain.MapDataset.source(rows).seed(int(rng.integers(2**32))).shuffle()
      sequences.append(ordered.repeat())
  return grain.MapDataset.mix(sequences)


@dataclasses.dataclass(frozen=True)
class Examples:
  """Draws examples.

  Attributes:
    dataset: the histories.
    histories: those to train on, an endless sequence; see `endless`.
    config: of the operator.
    settings: of the training.
    seed: of all that is drawn.
    explored: the answers to asks to explore; None: the operator's own tries.
    statistics: of the operator, `reading.experience_statistics`; needed where examples are augmented.
  """

  dataset: Dataset
  histories: grain.MapDataset
  config: OperatorConfig
  settings: TrainingSettings
  seed: int
  explored: Explored | None = None
  statistics: Mapping[str, np.ndarray] | None = None

  def of_histories(
    self, history: np.ndarray, size: np.ndarray, rng: np.random.Generator, share: slice = slice(None),
    watched_share: float = 0.0,
  ) -> Example:
    """Examples of stored policies of histories [B], to be improved by the sizes [B]; the levels are random, so that
    none dominates. A share of them is watched and imitated instead. Only the `share` of all is made."""
    level = rng.integers(self.dataset.num_checkpoints, size=len(history))
    is_watched, is_hidden = np.zeros((2, len(history)), bool)
    if watched_share:
      is_watched, is_hidden = rng.random((2, len(history))) < np.array([[watched_share], [0.5]])
    size = np.where(is_watched, 0, size)
    pairs, ask = self._pairs(history, level, size, rng)
    rngs = rng.spawn(len(history))[share]
    history, level, target = history[share], level[share], pairs.target[share]
    memory = memory_of_levels(self.dataset, self.config, history, level, rngs)
    memory = as_watched(memory, is_watched[share], is_hidden[share])
    answer = self.dataset.read(history, np.where(target == SAME, level, target))
    example = self._example(memory, take(ask, share), *answer, rngs)
    if not self.settings.blank_share:
      return example
    is_blank = np.array([rng.random() < self.settings.blank_share for rng in rngs])
    return example.replace(memory=blank(example.memory, is_blank & ~is_watched[share]))

  def of_runs(
    self, runs: Runs, size: np.ndarray, rng: np.random.Generator, share: slice = slice(None)
  ) -> Example:
    """Examples [B] of random moments of runs, to be improved by the sizes [B]."""
    rows = runs.draw(len(size), rng, self.settings.early_share)
    history, level = runs.history[rows[0]], runs.draw_levels(rows, rng)
    # θⁿ itself is not stored: instead of it, one level better is the answer.
    pairs, ask = self._pairs(history, level, np.where(size == 0, 1, size), rng)
    rngs = rng.spawn(len(history))[share]
    memory = runs.memory(take(rows, (slice(None), share)))
    answer = self.dataset.read(history[share], pairs.target[share])
    return self._example(memory, take(ask, share), *answer, rngs)

  def of_tries(self, runs: Runs, num: int, rng: np.random.Generator, share: slice = slice(None)) -> Example:
    """Examples [num] of moments of runs whose answer is what the operator gave then, described by what it led to."""
    if self.explored is not None:
      return self._of_explorers(runs, num, rng, share)
    moments = runs.draw_tries(num, rng)
    history, level = runs.history[moments[0]], runs.draw_levels(moments, rng)
    pairs = own_pairs(self.dataset, history, level, runs.gain[moments[0], moments[1] + 1], self.settings)
    ask = describe_pairs(pairs, self.config.asks, self.settings, rng)
    rngs = rng.spawn(num)[share]
    tried = runs.following(take(moments, (slice(None), share)))
    states, answer, weight = some_states(tried.trajectory, self.settings.num_states, rngs, tried.behaviour)
    return self._changed(Example(
      memory=runs.memory(take(moments, (slice(None), share))), ask=take(ask, share), states=states, answer=answer,
      weight=weight, which_answer=_any_answer(rngs), key_data=_key_data(rngs),
    ), rngs)

  def _of_explorers(self, runs: Runs, num: int, rng: np.random.Generator, share: slice) -> Example:
    """Examples [num] of moments of runs at which nothing had been met; the answer is the first explorer that would."""
    moments = runs.draw_unmet(num, rng)
    history, level = runs.history[moments[0]], runs.draw_levels(moments, rng)
    pairs = own_pairs(self.dataset, history, level, np.full(num, explore.MOST), self.settings)
    ask = describe_pairs(pairs, self.config.asks, self.settings, rng)
    which, *answer = take(self.explored.draw(history, rng), share)
    rngs = rng.spawn(num)[share]
    memory = runs.memory(take(moments, (slice(None), share)))
    return self._example(memory, take(ask, share), *answer, rngs, which)

  def _example(
    self, memory: Memory, ask: Ask, params: Params, trajectory: Trajectory, rngs: Sequence[np.random.Generator],
    which_answer: np.ndarray | None = None,
  ) -> Example:
    """Examples [B] whose answer is the policies `params` [B, ...], which visited `trajectory` [B, E, T, ...]."""
    halves = [
      some_states(visited, self.settings.num_states // 2, rngs, visited.reward)[::2]
      for visited in (trajectory, memory.trajectory)
    ]
    states, weight = concatenate(halves, axis=1)
    return self._changed(Example(
      memory=memory, ask=ask, states=states, answer=policies.apply_numpy(params, states), weight=weight,
      which_answer=_any_answer(rngs) if which_answer is None else which_answer, key_data=_key_data(rngs),
    ), rngs)

  def _changed(self, example: Example, rngs: Sequence[np.random.Generator]) -> Example:
    """Examples [B] as they are shown: some rewired, some augmented."""
    return self._augmented(self._rewired(example, rngs), rngs)

  def _rewired(self, example: Example, rngs: Sequence[np.random.Generator]) -> Example:
    """A share of the examples [B] changed to another wiring."""
    if not self.settings.rewired_share:
      return example
    change = draw_wirings(self.config.action_size, self.settings.rewired_share, rngs)
    return example.replace(
      memory=rewired_memory(example.memory, change), answer=rewired_logits(example.answer, change)
    )

  def _augmented(self, example: Example, rngs: Sequence[np.random.Generator]) -> Example:
    """A share of the examples [B] changed on purpose, and their asks tell so."""
    if not self.settings.augmented_share:
      return example
    number = draw_augmentations(self.settings.augmented_share, rngs)
    memory, states, answer = augmented(
      example.memory, example.states, example.answer, number, self.statistics, rngs
    )
    return example.replace(memory=memory, states=states, answer=answer, ask=augmentation.told(example.ask, number))

  def _pairs(self, history, level, size, rng):
    pairs = pairs_of(self.dataset, history, level, size, self.settings, rng)
    return pairs, describe_pairs(pairs, self.config.asks, self.settings, rng)

  def draw(self, step: int, rounds: Sequence[Runs] = (), share: Share = (0, 1)) -> Example:
    """The examples of a step: of histories, and a share of a random round of runs once there are any."""
    rng, size = generator(self.seed, 'examples', step), self.settings.batch_size
    sizes = draw_sizes(self.settings, size, rng)
    which, num = share
    shown_runs = num * round(size * self.settings.runs_share / num) if rounds else 0
    explores = explore.NAME in self.config.asks
    # In the first round the operator was untrained.
    tried = [runs for runs in rounds[1:] if explores and (self.explored is not None or runs.has_tries())]
    tries = num * round(shown_runs * self.settings.tries_share / num) if tried else 0
    shown_levels, shown_runs = size - shown_runs, shown_runs - tries
    parts = []
    if shown_levels:
      history = np.array([self.histories[step * size + index] for index in range(shown_levels)])
      parts.append(self.of_histories(
        history, sizes[:shown_levels], rng, _part(shown_levels, which, num), self.settings.watched_share
      ))
    if shown_runs:
      runs = rounds[rng.integers(len(rounds))]
      parts.append(self.of_runs(runs, sizes[shown_levels:][:shown_runs], rng, _part(shown_runs, which, num)))
    if tries:
      runs = tried[rng.integers(len(tried))]
      parts.append(self.of_tries(runs, tries, rng, _part(tries, which, num)))
    return concatenate(parts)

  def stream(
    self, first: int, last: int, rounds: Sequence[Runs] = (), share: Share = (0, 1)
  ) -> Iterator[Example]:
    """The examples of the steps `first` to `last` - 1, read ahead by threads; see `draw`."""
    drawn = grain.MapDataset.range(first, last).map(lambda step: self.draw(int(step), rounds, share))
    return iter(drawn.to_iter_dataset(grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=_PREFETCHED)))


def _part(size: int, which: int, num: int) -> slice:
  """The rows of one process of `num`, of `size` rows."""
  return slice(which * size // num, (which + 1) * size // num)


def _any_answer(rngs: Sequence[np.random.Generator]) -> np.ndarray:
  """[B] int32, of examples of which any answer of the operator may be the right one."""
  return np.full(len(rngs), ANY_ANSWER, np.int32)


def _key_data(rngs: Sequence[np.random.Generator]) -> np.ndarray:
  """[B, 2] uint32, the data of a key each."""
  return np.stack([rng.integers(2**32, size=2, dtype=np.uint32) for rng in rngs])


def some_states(
  trajectory: Trajectory, num: int, rngs: Sequence[np.random.Generator], also: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """`num` random observations [B, num, O] of those that were visited, the same steps of `also`, and weights
  [B, num]."""
  valid = trajectory.valid.reshape(len(rngs), -1)
  observation = trajectory.observation.reshape(*valid.shape, -1)
  visited_first = np.argsort(~valid, axis=1, kind='stable')
  count = valid.sum(axis=1)
  drawn = np.stack([rng.integers(max(n, 1), size=num) for n, rng in zip(count, rngs)])
  index = np.take_along_axis(visited_first, drawn, axis=1)
  states = np.take_along_axis(observation, index[..., None], axis=1)
  also = np.take_along_axis(also.reshape(*valid.shape, -1), index[..., None], axis=1)
  return states, also, np.broadcast_to(count[:, None] > 0, index.shape).astype(np.float32)
