"""Normalised returns (scores) and their statistics.

Interquartile mean and bootstrap intervals over tasks: Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", arXiv:2108.13264.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

FOUND = 0.2
"""A task counts as found where the score is above this."""
_FLAT = 0.01


def normalise(returns: np.ndarray, initial: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Scores: 0 is the initial policy's return on a task, 1 the reference policy's on that very task.

  Args:
    returns: [..., B].
    initial: [B].
    reference: [B], each above `initial`.
  """
  return (returns - initial) / (reference - initial)


def returns_of(scores: np.ndarray, initial: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """The inverse of `normalise`."""
  return initial + scores * (reference - initial)


def iqm(scores: np.ndarray) -> np.ndarray:
  """Interquartile mean over the last axis."""
  return stats.trim_mean(scores, 0.25, axis=-1)


def iqm_with_interval(
  strata: Sequence[np.ndarray], seed: int = 0, num_resamples: int = 2000, confidence: float = 0.95
) -> dict[str, list[float | None]]:
  """Interquartile means with percentile bootstrap intervals, tasks resampled within each stratum.

  Args:
    strata: scores [P, B_s] of each stratum (seed): P points of a curve, B_s tasks that have a score, possibly none.
    seed: of the resampling.
    num_resamples: bootstrap samples.
    confidence: of the interval.

  Returns:
    {'iqm': [P], 'low': [P], 'high': [P]}; None everywhere if no stratum has a task.
  """
  scores = np.concatenate(strata, axis=1)
  num_points, num_tasks = scores.shape
  if num_tasks == 0:
    return {name: [None] * num_points for name in ('iqm', 'low', 'high')}
  rng, start, index = np.random.default_rng(seed), 0, []
  for stratum in strata:
    size = stratum.shape[1]
    if size:
      index.append(start + rng.integers(size, size=(num_resamples, size)))
    start += size
  index = np.concatenate(index, axis=1)
  tail = 100 * (1 - confidence) / 2
  bounds = [np.percentile(iqm(point[index]), [tail, 100 - tail]) for point in scores]
  low, high = (np.array(bounds).T[side].tolist() for side in (0, 1))
  return {'iqm': iqm(scores).tolist(), 'low': low, 'high': high}


def interval_of(
  figure: Callable[[Sequence[np.ndarray]], float], strata: Sequence[np.ndarray], seed: int = 0,
  num_resamples: int = 400, confidence: float = 0.95,
) -> tuple[float, float]:
  """The percentile bootstrap interval of any figure, tasks resampled within each stratum.

  Args:
    figure: of values [..., B_s] of each stratum (seed), tasks last.
    strata: these values.
    seed: of the resampling.
    num_resamples: bootstrap samples.
    confidence: of the interval.
  """
  rng, found = np.random.default_rng(seed), []
  for _ in range(num_resamples):
    found.append(figure([one[..., rng.integers(one.shape[-1], size=one.shape[-1])] for one in strata]))
  tail = 100 * (1 - confidence) / 2
  low, high = np.percentile(found, [tail, 100 - tail])
  return float(low), float(high)


def rank_correlations(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
  """[H] Spearman's correlations of rows [H, L], over what is not NaN in both; NaN where that is less than two
  values, or all are alike."""
  found = []
  for guessed, wanted in zip(predicted, true):
    known = np.isfinite(guessed) & np.isfinite(wanted)
    differ = known.sum() > 1 and np.ptp(guessed[known]) and np.ptp(wanted[known])
    found.append(stats.spearmanr(guessed[known], wanted[known]).statistic if differ else np.nan)
  return np.array(found, np.float64)


def mean_and_found(strata: Sequence[np.ndarray]) -> dict[str, list[float | None]]:
  """What an interquartile mean does not show: {'mean': [P] mean score, 'found': [P] share of tasks above `FOUND`}."""
  scores = np.concatenate(strata, axis=1)
  if scores.shape[1] == 0:
    return {name: [None] * len(scores) for name in ('mean', 'found')}
  return {'mean': scores.mean(axis=1).tolist(), 'found': (scores > FOUND).mean(axis=1).tolist()}


def first_at_least(values: Sequence[float | None], level: float) -> int | None:
  """Index of the first value that reaches a level, or None."""
  return next((index for index, value in enumerate(values) if value is not None and value >= level), None)


def rise_at_end(values: Sequence[float | None]) -> float | None:
  """By how much a curve still rises: the mean of its last tenth, less that of the tenth before; None if unknown."""
  width = max(1, len(values) // 10)
  if len(values) < 2 or any(value is None for value in values):
    return None
  return float(np.mean(values[-width:]) - np.mean(values[-2 * width:-width]))


def is_flat(rise: float | None) -> bool | None:
  """Whether a curve of scores changes by less than 0.01 at its end, up or down; None if that is unknown."""
  return None if rise is None else bool(abs(rise) < _FLAT)
