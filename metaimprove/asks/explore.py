"""Exploration: how much better later policies are to be, because of what the next one finds.

It is the description of a policy that was once tried in a run of an operator, by what that led to: by how much later
policies beat everything before the try, as a share of what can be gained on the task. 0 describes a try that led to
nothing, `MOST` one after which all was gained. Asked for `MOST` before the task is known, an operator gives policies
like those that led furthest (return-conditioned learning, as in Schmidhuber, arXiv:1912.02875, of what a policy is good
for later).
"""

from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.asks.ask import Ask, Kind, Pairs, numbers

NAME = 'explore'
MOST = 1.0
_WORD = 'most'
_LEAST = 0.01
"""A try has met more than all before it if by this share of what can be gained."""


def value(given: Any) -> np.ndarray:
  """'most', a share from 0 to 1 such as 0.5 or '0.5', or an array of shares; raises `UnknownNameError` for others."""
  is_word = isinstance(given, str) and given == _WORD
  return numbers(MOST if is_word else given, 0.0, 1.0, "An ask to explore is 'most' or a share from 0 to 1")


def words(share: Any) -> str:
  """'most' or the share."""
  return _WORD if float(share) == MOST else f'{float(share):.3g}'


def features(share: chex.Array) -> chex.Array:
  """[] to [1] float32."""
  return jnp.asarray(share, jnp.float32)[None]


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B] float32, what each answer led to; 0 where that is not known."""
  del rng
  return np.nan_to_num(pairs.gain).astype(np.float32)


def is_known(pairs: Pairs) -> np.ndarray:
  """[B] bool, whether it is known what the answer led to."""
  return np.isfinite(pairs.gain)


def gain(returns: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
  """What each policy of a run led to.

  A try leads to what later policies gain only if it met more itself than all before it: else they owe it to another.

  Args:
    returns: [R, P] mean return of each policy; NaN where it is not known.
    lowest, highest: [R] least and greatest mean return of a known policy on the task.

  Returns:
    [R, P] by how much the best later policy beats the best before the try, as a share of `highest` - `lowest`, from 0
    to 1. NaN for the first policy, which no operator gave, and for the last one, which none follows.
  """
  known = np.maximum(np.where(np.isfinite(returns), returns, -np.inf), lowest[:, None])
  before = np.maximum.accumulate(known, axis=1)[:, :-2]
  tried, later = known[:, 1:-1], np.maximum.accumulate(known[:, ::-1], axis=1)[:, ::-1][:, 2:]
  range_ = np.maximum(highest - lowest, 1e-9)[:, None]
  met = tried > before + _LEAST * range_
  result = np.full(returns.shape, np.nan)
  result[:, 1:-1] = np.where(met, np.clip((later - before) / range_, 0, 1), 0.0)
  return result


def instead(ask: Ask, where: chex.Array) -> Ask:
  """Asks [...] for `MOST` where `where` [...] holds, and nothing else; elsewhere as they are, without exploring."""
  values = {**ask.values, NAME: jnp.full(where.shape, MOST, jnp.float32)}
  given = {name: jnp.broadcast_to(given, where.shape) & ~where for name, given in ask.given.items()}
  return Ask(values=values, given={**given, NAME: where})


KIND = Kind(
  name=NAME, value=value, words=words, num_features=1, features=features, describe=describe, is_known=is_known
)
