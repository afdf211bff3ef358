"""Levels: which of the candidates on a learning curve become the checkpoints of a history, for each task on its own.

A learning curve tells how good a source's policies are on the tasks it practises on, and not which of them is better on
one task. So candidates are taken from the curve, each is measured on the task, and what is noise in the measured
returns is smoothed away under the assumption that a source improves: the levels are evenly spaced in the monotone curve
that fits the measured returns best.
"""

import numpy as np
from scipy import optimize


def choose_levels(returns: np.ndarray, num_levels: int) -> np.ndarray:
  """Picks the checkpoints of a history on one task.

  Args:
    returns: [K] measured mean returns of the candidates, in the order in which they were learned; NaN where every
      episode blew up. Such a candidate is not picked, unless it is the first.
    num_levels: N + 1.

  Returns:
    [num_levels] indices of candidates in rising order. The fit is constant on blocks of candidates, whose returns it
    pools. The first index is the first candidate; each other one is the middle candidate of the block whose value is
    nearest to a level, and the levels are evenly spaced from the first value of the fit to the last. Where the fit
    jumps over a level, an index is there more than once.
  """
  returns = np.asarray(returns, float)
  known = np.flatnonzero(~np.isnan(returns))
  if not known.size:
    return np.zeros(num_levels, int)
  if known[0] != 0:  # the first candidate has no return: it counts as no better than the worst
    known = np.concatenate([[0], known])
    returns = np.where(np.arange(len(returns)) == 0, np.nanmin(returns), returns)
  fit = optimize.isotonic_regression(returns[known]).x
  levels = np.linspace(fit[0], fit[-1], num_levels)
  begins = np.flatnonzero(np.diff(fit, prepend=-np.inf))
  values = fit[begins]
  nearest = np.searchsorted((values[1:] + values[:-1]) / 2, levels)
  return known[_middles(begins, len(fit))[nearest]]


def _middles(begins: np.ndarray, num: int) -> np.ndarray:
  """The middle one of each block of candidates, and of the first block, where learning begins, the first.

  The first candidates of a block have higher returns than its mean by chance, or they would be in a block before it,
  and the last ones lower returns. So the one in the middle is taken, which is measured with the least bias; between two
  in the middle the even one, which is the earlier one as often as the later one.
  """
  middle = np.rint((begins + np.append(begins[1:], num) - 1) / 2).astype(int)
  middle[0] = 0
  return middle


def standard_error(returns: np.ndarray, finite: np.ndarray) -> np.ndarray:
  """The standard error of each candidate's mean return.

  A few episodes tell the variance of a return badly. Neighbours on a learning curve behave alike, so the variance is
  pooled over the candidate and the ones before and after it, on the same task: the sum of the squared deviations from
  each one's own mean, over the sum of their degrees of freedom.

  Args:
    returns: [K, ..., M] returns of M episodes of each of K candidates.
    finite: [K, ..., M] bool, the episodes that count.

  Returns:
    [K, ...]; NaN where all episodes of a candidate blew up, or where no two of the pooled ones are of one candidate.
  """
  count = finite.sum(axis=-1)
  mean = np.where(finite, returns, 0.0).sum(axis=-1) / np.maximum(count, 1)
  squares = (np.where(finite, returns - mean[..., None], 0.0) ** 2).sum(axis=-1)
  freedom = _with_neighbours(np.maximum(count - 1, 0))
  known = (count > 0) & (freedom > 0)
  variance = _with_neighbours(squares) / np.where(known, freedom, 1)
  return np.where(known, np.sqrt(variance / np.maximum(count, 1)), np.nan)


def _with_neighbours(values: np.ndarray) -> np.ndarray:
  """Each value of the leading axis plus the one before and the one after it."""
  padded = np.pad(values, [(1, 1)] + [(0, 0)] * (values.ndim - 1))
  return padded[:-2] + padded[1:-1] + padded[2:]
