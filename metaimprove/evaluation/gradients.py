"""How precise the estimate of a gradient is: its relative variance, and its cosine with the true gradient."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Precision:
  """Of an estimate.

  Attributes:
    relative_variance: E|g - E g|² / |E g|²; infinite where |E g| is not told apart from 0.
    cosine: the mean cosine of an estimate with the mean of all others.
  """

  relative_variance: float
  cosine: float


def precision(gradients: np.ndarray) -> Precision:
  """The precision of independent estimates [N, D] of one gradient, N at least 2.

  The squared length of their mean is too large by the variance of that mean, which is taken off.
  """
  gradients = np.asarray(gradients, np.float64)
  num, mean = len(gradients), gradients.mean(axis=0)
  variance = float(np.square(gradients - mean).sum() / (num - 1))
  squared = float(np.square(mean).sum()) - variance / num
  others = (num * mean - gradients) / (num - 1)
  products = (gradients * others).sum(axis=1)
  lengths = np.linalg.norm(gradients, axis=1) * np.linalg.norm(others, axis=1)
  cosine = float(np.mean(products / np.where(lengths > 0, lengths, np.inf)))
  return Precision(relative_variance=variance / squared if squared > 0 else np.inf, cosine=cosine)
