"""The size of the improvement: how many levels better the next policy is to be.

k = 0 asks for the policy that is shown, k = 1, 2, 4, ... for one that many levels better, or the best one where there
are not so many, and `BEST` for the best one. Levels that are one and the same policy count once.
"""

from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.asks.ask import SAME, Ask, Kind, Pairs
from metaimprove.errors import UnknownNameError

NAME = 'steps'
BEST = -1
"""The size that stands for 'best'."""
SIZES = (0, 1, 2, 4, 8, BEST)
"""The sizes that pairs for training are drawn by."""
SHARES = (0.1, 0.15, 0.15, 0.15, 0.15, 0.3)
"""How often each size is drawn, unless the training settings say otherwise."""
NUM_FEATURES = 3


def target_level(level: np.ndarray, size: np.ndarray, rank: np.ndarray) -> np.ndarray:
  """The level that is the answer to an ask for a size of improvement.

  Args:
    level: [B] of the policy shown.
    size: [B] of the improvement.
    rank: [B, N + 1] of the levels of its history; see `Pairs`.

  Returns:
    [B] the first level whose rank is `size` higher, or that of the best policy where there is none or `size` is `BEST`;
    `SAME` where `size` is 0.
  """
  best = rank[:, -1]
  wanted = np.where(size == BEST, best, np.minimum(_rank_at(rank, level) + size, best))
  return np.where(size == 0, SAME, (rank >= wanted[:, None]).argmax(axis=1))


def _rank_at(rank, level):
  return np.take_along_axis(rank, level[:, None], axis=1)[:, 0]


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B] int, a size that leads from the policy shown to the answer.

  Several sizes may be true: to the best policy lead `BEST` and all sizes that would go beyond it. One of those in
  `SIZES` is drawn, in proportion to their shares. Where none of these is true, or only ones that are never drawn, it is
  the difference of the ranks.
  """
  targets = np.stack([target_level(pairs.level, np.full_like(pairs.level, size), pairs.rank) for size in SIZES], axis=1)
  # The answer may be any of the levels that are one policy.
  ranks = np.take_along_axis(pairs.rank, np.maximum(targets, 0), axis=1)
  on_level = (targets >= 0) & (pairs.target >= 0)[:, None] & (ranks == pairs.of_target(pairs.rank)[:, None])
  true = (targets == pairs.target[:, None]) | on_level
  weight = true * np.asarray(pairs.size_shares)
  total = weight.sum(axis=1, keepdims=True)
  drawn = np.argmax(np.cumsum(weight, axis=1) > rng.random((len(total), 1)) * total, axis=1)
  same = pairs.target == SAME
  target = np.where(pairs.target < 0, pairs.level, pairs.target)  # `SAME` and `OWN` are no levels
  difference = _rank_at(pairs.rank, target) - _rank_at(pairs.rank, pairs.level)
  return np.where(total[:, 0] > 0, np.asarray(SIZES)[drawn], np.where(same, 0, np.maximum(difference, 1)))


def features(size: chex.Array) -> chex.Array:
  """[] int to [3] float32: is it 'best', is it more than nothing, log2(1 + k) / 3."""
  k = jnp.maximum(size, 0)
  return jnp.stack([size == BEST, size != 0, jnp.log2(1.0 + k) / 3]).astype(jnp.float32)


def value(given: Any) -> np.ndarray:
  """'best', a number of levels such as 4 or '4', or an array of numbers; raises `UnknownNameError` for others."""
  if isinstance(given, str):
    if given == 'best':
      return np.int32(BEST)
    number = int(given) if given.isdecimal() else None
  else:
    number = given
  array = np.asarray(number)
  if array.dtype.kind not in 'iu' or (array < BEST).any():
    raise UnknownNameError(f"An ask is 'best' or a number of levels such as 0, 1 or 4, not {given!r}.")
  return array.astype(np.int32)


def words(size: Any) -> str:
  """'best' or the number."""
  return 'best' if int(size) == BEST else str(int(size))


def is_same(ask: Ask) -> chex.Array:
  """[...] bool, whether an ask is for the very policy that is shown (k = 0)."""
  if NAME not in ask.values:
    return jnp.zeros((), bool)
  return jnp.asarray(ask.given[NAME]) & (jnp.asarray(ask.values[NAME]) == 0)


def best_instead(ask: Ask, where: np.ndarray) -> Ask:
  """Asks [B] for the best, and nothing else, where `where` [B] holds; elsewhere as they are."""
  values = {**ask.values, NAME: np.where(where, BEST, ask.values[NAME])}
  return Ask(values=values, given={name: np.where(where, name == NAME, given) for name, given in ask.given.items()})


def is_known(pairs: Pairs) -> np.ndarray:
  """[B] bool, whether the answer is the policy shown, a better level, or the best one."""
  target = pairs.of_target(pairs.rank)
  better = (target > _rank_at(pairs.rank, pairs.level)) | (target == pairs.rank[:, -1])
  return (pairs.target == SAME) | ((pairs.target >= 0) & better)


KIND = Kind(
  name=NAME, value=value, words=words, num_features=NUM_FEATURES, features=features, describe=describe,
  is_known=is_known,
)
