"""The score: what the next policy's normalised return is to be: 0 is the worst level of the task's history, 1 the best.

It asks for a return by a number that means about the same on every task, though nobody knows the returns of the task
when asking. The description of an answer is the measured return of its level between those two; the best is that of the
answer's own source.
"""

from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.asks.ask import Kind, Pairs, bumps, is_on_level, numbers

NAME = 'score'
_CENTRES = np.linspace(0.0, 1.0, 11)
_LEAST = 1e-9


def value(given: Any) -> np.ndarray:
  """A number such as 0.5, or an array of numbers; 1 is the best that was seen, and more may be asked for. Raises
  `UnknownNameError` for what is no number from -1 to 3."""
  return numbers(given, -1.0, 3.0, 'A score is a number from -1 to 3 such as 0.5')


def words(wanted: Any) -> str:
  """The number."""
  return f'{float(wanted):.3g}'


def features(wanted: chex.Array) -> chex.Array:
  """[] to [12] float32."""
  wanted = jnp.asarray(wanted, jnp.float32)
  return jnp.concatenate([wanted[None], bumps(wanted, _CENTRES)])


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B] float32, the score of each answer; 0 where it was not measured."""
  del rng
  lowest, highest = pairs.returns.min(axis=1), pairs.returns.max(axis=1)
  score = (pairs.of_target(pairs.returns) - lowest) / np.maximum(highest - lowest, _LEAST)
  return np.where(is_on_level(pairs), score, 0).astype(np.float32)


KIND = Kind(
  name=NAME, value=value, words=words, num_features=1 + len(_CENTRES), features=features, describe=describe,
  is_known=is_on_level,
  of_levels=True,
)
