"""How precise the estimate of a gradient is: its relative variance, and its cosine with the true gradient."""

import dataclasses

import numpy as np

_ERRORS = 2.0
"""So many standard errors are the ends of an interval."""


@dataclasses.dataclass(frozen=True)
class Precision:
  """Of an estimate.

  Attributes:
    relative_variance: E|g - E g|² / |E g|²; None where |E g| is not told apart from 0.
    low, high: the ends of its interval, two standard errors of |E g|² away.
    cosine: the mean cosine of an estimate with the mean of all others.
  """

  relative_variance: float | None
  low: float | None
  high: float | None
  cosine: float


def precision(gradients: np.ndarray) -> Precision:
  """The precision of independent estimates [N, D] of one gradient, N at least 3.

  |E g|² is the mean product of two different estimates, and its standard error that of the jackknife.
  """
  gradients = np.asarray(gradients, np.float64)
  num, products = len(gradients), gradients @ gradients.T
  rows, own = products.sum(axis=1), np.diagonal(products)
  total = products.sum() - own.sum()
  squared = total / (num * (num - 1))
  without = (total - 2 * (rows - own)) / ((num - 1) * (num - 2))
  error = np.sqrt((num - 1) / num * np.square(without - without.mean()).sum())
  variance = own.mean() - squared
  others = (rows - own) / (num - 1)
  lengths = np.sqrt(own * (products.sum() - 2 * rows + own)) / (num - 1)
  cosine = float(np.mean(others / np.where(lengths > 0, lengths, np.inf)))
  low, high = squared - _ERRORS * error, squared + _ERRORS * error
  if low <= 0:
    return Precision(relative_variance=None, low=None, high=None, cosine=cosine)
  return Precision(
    relative_variance=float(variance / squared), low=float(variance / high), high=float(variance / low), cosine=cosine
  )
