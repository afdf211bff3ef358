"""What baselines share that learn from pairs of stored policies, as an operator does: which pairs, and by which loss.

As of an operator's examples, any level of a history is shown and the answer is so much better, every source is shown
equally often, and the loss is the mean divergence from the answer at states half of which the answer visited, and half
the policy shown. An operator's own rounds, and examples rewired or augmented, are not among them.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import chex
import grain
import jax
import numpy as np

from metaimprove import files, policies
from metaimprove.asks import SAME, steps
from metaimprove.methods.baseline import Lessons
from metaimprove.rng import generator
from metaimprove.training.examples import endless, some_states
from metaimprove.training.fit import Init, fit
from metaimprove.training.loss import mean_divergence
from metaimprove.training.pairs import draw_sizes, pairs_of
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import concatenate
from metaimprove.types import Params, Progress

_PREFETCHED = 4
ONLY_BEST = tuple(float(size == steps.BEST) for size in steps.SIZES)
"""Shares of sizes of improvement: the answer is always the best policy."""
LARGEST = 4096
"""Units of a layer whose number is chosen by the number of parameters."""


@chex.dataclass(frozen=True)
class Pair:
  """A policy that is shown, and one that is the answer; shapes of one pair.

  Attributes:
    history: [] int, which they are from.
    shown: θⁿ.
    is_fresh: [] bool, it is a fresh random policy that is meant instead, of a key that `key_data` holds.
    size: [] int, a size of improvement that leads to the answer; see `asks.steps`.
    states: [S, O] observations: half of them θⁿ⁺ᵏ visited, half θⁿ.
    answer: [S, 2A] logits of θⁿ⁺ᵏ there.
    weight: [S] float32, 1 for a state that counts.
    key_data: [2] uint32.
  """

  history: chex.Array
  shown: Params
  is_fresh: chex.Array
  size: chex.Array
  states: chex.Array
  answer: chex.Array
  weight: chex.Array
  key_data: chex.Array


class Logits(Protocol):
  """What a baseline does at the states of a pair, logits [S, 2A]; traced by `jax.jit`."""

  def __call__(self, params: Params, pair: Pair, /) -> chex.Array: ...


def made_with(lessons: Lessons) -> dict[str, Any]:
  """Plain data that says what is learned from, and beside which operator."""
  return {
    'histories': lessons.dataset.checksum, 'trained_on': files.checksum(np.asarray(lessons.histories).tobytes()),
    'operator': dataclasses.asdict(lessons.config), 'num_params': lessons.num_params,
  }


def settings_of(lessons: Lessons, **settings: Any) -> dict[str, Any]:
  """Plain data that determines a baseline: of its training, and `settings` of its own."""
  return {**made_with(lessons), **dataclasses.asdict(lessons.settings), 'seed': lessons.seed, **settings}


def learn_from_pairs(
  name: str, lessons: Lessons, init: Init, logits: Logits, progress: Progress, *,
  size_shares: Sequence[float] = steps.SHARES, fresh_share: float = 0.0, **settings: Any
) -> Params:
  """The parameters of a baseline; a training that was stopped goes on, one that is done is only read.

  Args:
    name: of the baseline.
    lessons: what it learns from.
    init: gives the first parameters.
    logits: what it does.
    progress: told of every step.
    size_shares: how often each size of `asks.steps.SIZES` leads to the answer.
    fresh_share: share of the pairs that show a fresh random policy, which counts as the first level.
    **settings: plain data that determines the baseline besides.
  """
  policy = lessons.dataset.policy

  def loss(params: Params, pairs: Pair) -> chex.Array:
    def one(pair):
      return mean_divergence(policy, pair.answer, logits(params, pair), pair.weight)

    return jax.vmap(one)(pairs).mean()

  histories = endless(lessons.dataset, lessons.histories, lessons.seed)
  draw = functools.partial(draw_pairs, name, lessons, histories, tuple(size_shares), fresh_share)
  return fit(
    init, loss, functools.partial(_batches, draw), lessons.settings, seed=lessons.seed, folder=lessons.folder / name,
    made_with={**made_with(lessons), **settings}, stage=f'train: {name}', progress=progress,
  )


def _batches(draw: Any, first: int, last: int) -> Iterator[Pair]:
  drawn = grain.MapDataset.range(first, last).map(lambda step: draw(int(step)))
  return iter(drawn.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED)))


def draw_pairs(
  name: str, lessons: Lessons, histories: grain.MapDataset, size_shares: tuple[float, ...], fresh_share: float,
  step: int,
) -> Pair:
  """The pairs [B] of a step, of an endless sequence of histories; see `learn_from_pairs`."""
  dataset, num = lessons.dataset, lessons.settings.batch_size
  settings = TrainingSettings(size_shares=size_shares)
  rng = generator(lessons.seed, f'pairs: {name}', step)
  history = np.array([histories[step * num + index] for index in range(num)])
  level, size = rng.integers(dataset.num_checkpoints, size=num), draw_sizes(settings, num, rng)
  is_fresh = rng.random(num) < fresh_share
  # A fresh policy is nowhere stored: instead of it, one level better is the answer.
  level, size = np.where(is_fresh, 0, level), np.where(is_fresh & (size == 0), 1, size)
  pairs = pairs_of(dataset, history, level, size, settings, rng)
  shown, seen = dataset.read(history, level)
  answer, visited = dataset.read(history, np.where(pairs.target == SAME, level, pairs.target))
  rngs = rng.spawn(num)
  states, weight = concatenate([
    some_states(trajectory, settings.num_states // 2, rngs, trajectory.reward)[::2] for trajectory in (visited, seen)
  ], axis=1)
  return Pair(
    history=history, shown=shown, is_fresh=is_fresh, size=steps.describe(pairs, rng), states=states,
    answer=policies.apply_numpy(answer, states), weight=weight,
    key_data=np.stack([one.integers(2**32, size=2, dtype=np.uint32) for one in rngs]),
  )
