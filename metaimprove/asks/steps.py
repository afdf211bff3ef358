"""The size of the improvement: how many checkpoints better the next policy is to be.

k = 0 asks for the policy that is shown, k = 1, 2, 4, ... for one that many checkpoints better, or the best one where
there are not so many, and `BEST` for the best one.
"""

from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.asks.ask import SAME, Ask, Kind, Pairs
from metaimprove.errors import UnknownNameError

NAME = 'steps'
BEST = -1
SIZES = (0, 1, 2, 4, 8, BEST)
"""The sizes that pairs for training are drawn by."""
SHARES = (0.1, 0.15, 0.15, 0.15, 0.15, 0.3)
"""How often each size is drawn, unless the training settings say otherwise."""
NUM_FEATURES = 3


def draw_target(level: np.ndarray, size: np.ndarray, best: np.ndarray) -> np.ndarray:
  """[B] the answer `size` further on than `level`, at most the best checkpoint; `SAME` for 0, the best for `BEST`.

  A policy that is as good as the best checkpoint or better is to become the best one.
  """
  further = np.where(size == BEST, best, np.minimum(level + size, best))
  return np.where(size == 0, SAME, further)


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B] int, a size that leads from the policy shown to the answer.

  Several sizes may be true: to the best checkpoint lead `BEST` and all sizes that would go beyond it. One of those in
  `SIZES` is drawn, in proportion to their shares. Where none of these is true, it is the difference of the levels.
  """
  targets = [draw_target(pairs.level, np.full_like(pairs.level, size), pairs.best) for size in SIZES]
  true = np.stack(targets, axis=1) == pairs.target[:, None]
  weight = true * np.asarray(SHARES)
  total = weight.sum(axis=1, keepdims=True)
  drawn = np.argmax(np.cumsum(weight, axis=1) > rng.random((len(total), 1)) * total, axis=1)
  return np.where(total[:, 0] > 0, np.asarray(SIZES)[drawn], np.maximum(pairs.target - pairs.level, 1))


def features(size: chex.Array) -> chex.Array:
  """[] int to [3] float32: is it 'best', is it more than nothing, log2(1 + k) / 3."""
  k = jnp.maximum(size, 0)
  return jnp.stack([size == BEST, size != 0, jnp.log2(1.0 + k) / 3]).astype(jnp.float32)


def value(given: Any) -> np.ndarray:
  """'best', a number of checkpoints such as 4 or '4', or an array of numbers; raises `UnknownNameError` for others."""
  if isinstance(given, str):
    if given == 'best':
      return np.int32(BEST)
    given = int(given) if given.isdecimal() else None
  array = np.asarray(given)
  if array.dtype.kind not in 'iu' or (array < BEST).any():
    raise UnknownNameError(f"An ask is 'best' or a number of checkpoints such as 0, 1 or 4, not {given!r}.")
  return array.astype(np.int32)


def words(size: Any) -> str:
  """'best' or the number."""
  return 'best' if int(size) == BEST else str(int(size))


def is_same(ask: Ask) -> chex.Array:
  """[...] bool, whether an ask is for the very policy that is shown (k = 0)."""
  if NAME not in ask.values:
    return jnp.zeros((), bool)
  return jnp.asarray(ask.given[NAME]) & (jnp.asarray(ask.values[NAME]) == 0)


KIND = Kind(name=NAME, value=value, words=words, num_features=NUM_FEATURES, features=features, describe=describe)
