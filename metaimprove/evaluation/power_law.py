"""Power laws: how a figure falls with the amount of data (Hestness et al., arXiv:1712.00409)."""

import dataclasses

import numpy as np

from metaimprove.errors import IncompatibleError

FEWEST = 4
"""Amounts of data that a fit needs: it finds three numbers."""
_EXPONENTS = np.linspace(0.0, 3.0, 301)[1:]


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """floor + scale * (n / n₀) ** -exponent, n₀ being the smallest n of the fit.

  Attributes:
    floor: what remains with endless data.
    scale: what else there is at n₀, at least 0.
    exponent: how fast that falls, at most 3; 0 where nothing falls.
  """

  floor: float
  scale: float
  exponent: float


def fit_power_law(sizes: np.ndarray, values: np.ndarray, lowest: float = 0.0) -> PowerLaw:
  """The law of least squares.

  Args:
    sizes: [T] different amounts of data, at least `FEWEST`.
    values: [T] of a figure that falls with them.
    lowest: that the floor may be.

  Raises:
    IncompatibleError: for fewer amounts.
  """
  if len(np.unique(sizes)) < FEWEST:
    raise IncompatibleError(f'A power law needs at least {FEWEST} different amounts of data, not {len(sizes)}.')
  values, falls = np.asarray(values, float), (np.asarray(sizes) / np.min(sizes)) ** -_EXPONENTS[:, None]
  falling = falls - falls.mean(axis=1, keepdims=True)
  free = (falling @ values) / (falling ** 2).sum(axis=1)
  scales = np.maximum(0.0, np.concatenate([free, falls @ (values - lowest) / (falls ** 2).sum(axis=1), [0.0]]))
  # With the best floor, with the lowest one, and without anything that falls.
  floors = np.concatenate([values.mean() - free * falls.mean(axis=1), np.full(len(falls), lowest), [values.mean()]])
  floors = np.maximum(lowest, floors)
  exponents = np.concatenate([_EXPONENTS, _EXPONENTS, [0.0]])
  fitted = floors[:, None] + scales[:, None] * np.concatenate([falls, falls, falls[:1]])
  best = np.argmin(np.round(((fitted - values) ** 2).sum(axis=1), 12))
  exponent = exponents[best] if scales[best] > 0 else 0.0
  return PowerLaw(floor=float(floors[best]), scale=float(scales[best]), exponent=float(exponent))
