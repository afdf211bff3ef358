"""Normalised returns and their statistics.

Interquartile mean and bootstrap intervals over tasks: Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", arXiv:2108.13264.
"""

import numpy as np
from scipy import stats


def normalise(returns: np.ndarray, initial: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """0 is the initial policy's return on a task, 1 the reference policy's on that very task.

  Args:
    returns: [..., B].
    initial: [B].
    reference: [B], each above `initial`.
  """
  return (returns - initial) / (reference - initial)


def iqm(scores: np.ndarray) -> np.ndarray:
  """Interquartile mean over the last axis."""
  return stats.trim_mean(scores, 0.25, axis=-1)


def iqm_with_interval(
  scores: np.ndarray, seed: int = 0, num_resamples: int = 2000, confidence: float = 0.95
) -> dict[str, list[float]]:
  """Interquartile means with percentile bootstrap intervals, tasks resampled within each stratum.

  Args:
    scores: [P, S, B]: P points of a curve, S strata (evaluation seeds), B tasks.
    seed: of the resampling.
    num_resamples: bootstrap samples.
    confidence: of the interval.

  Returns:
    {'iqm': [P], 'low': [P], 'high': [P]}.
  """
  num_points, num_strata, num_tasks = scores.shape
  index = np.random.default_rng(seed).integers(num_tasks, size=(num_resamples, num_strata, num_tasks))
  tail = 100 * (1 - confidence) / 2
  low, high = [], []
  for point in scores:
    resampled = np.take_along_axis(point[None], index, axis=-1).reshape(num_resamples, -1)
    bounds = np.percentile(iqm(resampled), [tail, 100 - tail])
    low.append(float(bounds[0]))
    high.append(float(bounds[1]))
  return {'iqm': iqm(scores.reshape(num_points, -1)).tolist(), 'low': low, 'high': high}


def first_at_least(values: np.ndarray, level: float) -> int | None:
  """Index of the first value that reaches a level, or None."""
  reached = np.flatnonzero(np.asarray(values) >= level)
  return int(reached[0]) if len(reached) else None
