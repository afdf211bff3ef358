"""Learning curves: what counts of them, candidates evenly spaced in return, and how evenly they rise."""

import numpy as np
from scipy import stats

_PLATEAU = 0.01


def without_gaps(returns: np.ndarray) -> np.ndarray:
  """Learning curves [U, ...] in which NaN, where every episode blew up, is the worst known return of its curve."""
  returns = np.asarray(returns)
  worst = np.nan_to_num(np.fmin.reduce(returns, axis=0))
  return np.where(np.isnan(returns), worst, returns)


def num_updates_counted(returns: np.ndarray, patience: int | None) -> int:
  """How many updates of a learner count: those until its return has stopped rising, or all of them.

  The curve is averaged over patience / 4 updates, and its best value so far is followed. The return has stopped rising
  when at most 1% of the growth of that value since the first update was made in the last `patience` updates. Where
  learners run side by side, one that has stopped goes on beside the others; its later updates do not count, so its
  history does not depend on the others.

  Args:
    returns: [U] its learning curve.
    patience: see `Source`.
  """
  if patience is None:
    return len(returns)
  returns = without_gaps(returns)
  width = max(1, patience // 4)
  padded = np.pad(returns, (width - 1, 0), mode='edge')
  best = np.maximum.accumulate(np.convolve(padded, np.ones(width) / width, 'valid'))  # of what is known by then
  stalled = best[patience:] - best[:-patience] <= _PLATEAU * (best[patience:] - best[0])
  return patience + int(stalled.argmax()) if stalled.any() else len(returns)


def choose_candidates(returns: np.ndarray, num_candidates: int, patience: int | None = None) -> np.ndarray:
  """Picks snapshots evenly spaced in return, and the final one.

  Args:
    returns: [U] learning curve of the first U snapshots.
    num_candidates: how many to pick; at least 2.
    patience: see `num_updates_counted`.

  Returns:
    [num_candidates] indices in rising order: evenly spaced in return from the first snapshot to the one with the best
    return, then the snapshot after all updates that count. On one task it may be the best of them, whatever the curve
    says. Where the curve jumps over a level, an index is there more than once.
  """
  counted = num_updates_counted(returns, patience)
  returns = without_gaps(returns)[:counted]
  width = max(1, len(returns) // 40)
  padded = np.pad(returns, (width // 2, width - 1 - width // 2), mode='edge')
  smooth = np.convolve(padded, np.ones(width) / width, 'valid')
  best_so_far = np.maximum.accumulate(smooth)
  levels = np.linspace(best_so_far[0], best_so_far[-1], num_candidates - 1)
  return np.append(np.minimum(np.searchsorted(best_so_far, levels), len(returns) - 1), counted)


def rank_correlation(returns: np.ndarray) -> float:
  """Spearman's correlation of order and return, the mean over curves [H, C]; 0 for a curve that is flat."""
  return float(np.mean([
    0.0 if np.ptp(curve) == 0 else stats.spearmanr(np.arange(len(curve)), curve).statistic for curve in returns
  ]))
