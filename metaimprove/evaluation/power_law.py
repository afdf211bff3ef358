"""Power laws: how a figure falls with the amount of data (Hestness et al., arXiv:1712.00409)."""

import dataclasses

import numpy as np
from scipy import optimize

_EXPONENTS = np.linspace(0.0, 3.0, 301)[1:]


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """floor + scale * (n / n₀) ** -exponent, n₀ being the smallest n of the fit.

  Attributes:
    floor: what remains with endless data, at least 0.
    scale: what else there is at n₀, at least 0.
    exponent: how fast that falls; above 0, at most 3. It says nothing where `scale` is 0.
  """

  floor: float
  scale: float
  exponent: float


def fit_power_law(sizes: np.ndarray, values: np.ndarray) -> PowerLaw:
  """The law of least squares, whatever the noise.

  Args:
    sizes: [T] amounts of data.
    values: [T] of a figure that falls with them.
  """
  relative, found = np.asarray(sizes) / np.min(sizes), []
  for exponent in _EXPONENTS:
    (floor, scale), error = optimize.nnls(np.stack([np.ones(len(relative)), relative ** -exponent], axis=1), values)
    found.append((error, floor, scale, exponent))
  _, floor, scale, exponent = min(found)
  return PowerLaw(floor=float(floor), scale=float(scale), exponent=float(exponent))
