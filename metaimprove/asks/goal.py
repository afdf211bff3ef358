"""The goal: what the next policy is to achieve, as numbers: a place in metres, a velocity, a direction.

The description of an answer is what its episodes achieved in hindsight (`tasks.hindsight`), whatever was wanted of them
(Andrychowicz et al., arXiv:1707.01495; goal-conditioned supervised learning, Ghosh et al., arXiv:1912.06088).
"""

from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.asks.ask import Kind, Pairs, is_on_level
from metaimprove.errors import UnknownNameError

NAME = 'goal'
LARGEST = 3
"""Numbers that a goal has at most."""
_SCALES = (1.0, 4.0, 16.0)
"""Goals are metres or metres a second: between a hundredth and ten."""
_SEPARATOR = ':'


def value(given: Any) -> np.ndarray:
  """Numbers [G], one number, text such as '0.1:-0.05', or an array [..., G]; raises `UnknownNameError` for others."""
  try:
    array = np.asarray(given.split(_SEPARATOR) if isinstance(given, str) else given, np.float32)
  except (TypeError, ValueError):
    array = np.float32('nan')
  array = np.atleast_1d(array)
  if not 1 <= array.shape[-1] <= LARGEST or not np.isfinite(array).all():
    raise UnknownNameError(f"A goal is one to {LARGEST} numbers, such as '0.1{_SEPARATOR}-0.05', not {given!r}.")
  return array


def words(wanted: Any) -> str:
  """The numbers."""
  return _SEPARATOR.join(f'{float(number):.4g}' for number in np.asarray(wanted).tolist())


def features(wanted: chex.Array) -> chex.Array:
  """[G] to [21] float32: each number, and sines and cosines of it at a few scales; zeros for numbers that it lacks."""
  scaled = [scale * wanted for scale in _SCALES]
  parts = jnp.stack([wanted, *map(jnp.sin, scaled), *map(jnp.cos, scaled)], axis=-1).astype(jnp.float32)
  return jnp.pad(parts, ((0, LARGEST - parts.shape[0]), (0, 0))).reshape(-1)


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B, G] float32, what each answer achieved; 0 where it is not known."""
  del rng
  return np.where(is_known(pairs)[:, None], pairs.achieved, 0).astype(np.float32)


def is_known(pairs: Pairs) -> np.ndarray:
  """[B] bool, whether the answer is a level, and it is known what it achieved."""
  return is_on_level(pairs) & np.isfinite(pairs.achieved).all(axis=1)


KIND = Kind(
  name=NAME, value=value, words=words, num_features=LARGEST * (1 + 2 * len(_SCALES)), features=features,
  describe=describe, is_known=is_known, ndim=1, of_levels=True, says_all=True,
)
