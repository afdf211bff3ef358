"""The return: what the next policy's mean return is to be, in the family's units.

The description of an answer is the mean return that was measured of it (Reward-Conditioned Policies, Kumar et al.,
arXiv:1912.13465; upside-down reinforcement learning, Schmidhuber, arXiv:1912.02875; for policies as answers, Faccio et
al., arXiv:2207.01570). Families have returns of any size, so a return is read through its symmetric logarithm,
sign(R) ln(1 + |R|) (Hafner et al., arXiv:2301.04104).
"""

from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.asks.ask import Kind, Pairs, bumps, is_on_level, numbers

NAME = 'mean_return'
_CENTRES = np.arange(-9.0, 10.0)
"""Along the logarithm; they reach returns of ±8,000."""


def value(given: Any) -> np.ndarray:
  """A number such as -20 or '-20', or an array of numbers; raises `UnknownNameError` for what is none."""
  return numbers(given, -1e9, 1e9, 'A mean return is a number such as -20')


def words(wanted: Any) -> str:
  """The number."""
  return f'{float(wanted):.6g}'


def features(wanted: chex.Array) -> chex.Array:
  """[] to [20] float32."""
  log = jnp.sign(wanted) * jnp.log1p(jnp.abs(wanted))
  return jnp.concatenate([log[None] / 4, bumps(log, _CENTRES)])


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B] float32, the mean return of each answer; 0 where it was not measured."""
  del rng
  return np.where(is_on_level(pairs), pairs.of_target(pairs.returns), 0).astype(np.float32)


KIND = Kind(
  name=NAME, value=value, words=words, num_features=1 + len(_CENTRES), features=features, describe=describe,
  is_known=is_on_level,
  of_levels=True,
)
