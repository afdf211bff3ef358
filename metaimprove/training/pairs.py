"""Draws pairs of policies first, one that is shown and one that is the answer, and then describes them by an ask."""

from typing import Any

import numpy as np

from metaimprove import asks
from metaimprove.asks import steps
from metaimprove.asks.ask import describe, drop
from metaimprove.histories.dataset import Dataset
from metaimprove.training.settings import TrainingSettings


ANY = -4
"""Instead of a size of improvement: the answer is any level, worse ones too."""


def draw_sizes(settings: TrainingSettings, num: int, rng: np.random.Generator) -> np.ndarray:
  """[num] int, random sizes of improvement, or `ANY`."""
  sizes = rng.choice(steps.SIZES, size=num, p=settings.size_shares)
  return np.where(rng.random(num) < settings.any_share, ANY, sizes) if settings.any_share else sizes


def pairs_of(
  dataset: Dataset, history: np.ndarray, level: np.ndarray, size: np.ndarray, settings: TrainingSettings,
  rng: np.random.Generator,
) -> asks.Pairs:
  """The pairs [B] of the policy at a level of a history and the answer that is so much better, or any."""
  rank, is_any = dataset.rank[history], size == ANY
  target = steps.target_level(level, np.where(is_any, 0, size), rank)
  if is_any.any():
    target = np.where(is_any, rng.integers(dataset.num_checkpoints, size=len(history)), target)
  return asks.Pairs(
    level=level, target=target, rank=rank, returns=dataset.returns[history], size_shares=settings.size_shares,
    gain=np.full(len(history), np.nan), **_hindsight(dataset, history, target),
  )


def own_pairs(
  dataset: Dataset, history: np.ndarray, level: np.ndarray, gain: np.ndarray, settings: TrainingSettings
) -> asks.Pairs:
  """The pairs [B] of the policy shown, on a level of a history, and what an operator gave next, which led to a gain."""
  return asks.Pairs(
    level=level, target=np.full(len(history), asks.OWN), rank=dataset.rank[history], returns=dataset.returns[history],
    size_shares=settings.size_shares, gain=gain,
    **_hindsight(dataset, history, np.full(len(history), asks.OWN)),
  )


def _hindsight(dataset: Dataset, history: np.ndarray, target: np.ndarray) -> dict[str, Any]:
  """What the answers achieved, and what was measured of them; NaN where that is not known."""
  def of_target(known, size):
    if known is None:
      return np.full((len(history), size), np.nan)
    return np.where((target >= 0)[:, None], known[history, np.maximum(target, 0)], np.nan)

  return {
    'achieved': of_target(dataset.achieved, 1), 'properties': dataset.properties,
    'measured': of_target(dataset.measured, 0),
  }


def describe_pairs(
  pairs: asks.Pairs, names: tuple[str, ...], settings: TrainingSettings, rng: np.random.Generator
) -> asks.Ask:
  """Asks [B] that describe pairs by the kinds named, some of which are left out at random."""
  return drop(describe(asks.KINDS, names, pairs, rng), settings.drop_rate, rng)
