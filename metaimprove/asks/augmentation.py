"""Augmentation: by what the experience that is read was changed on purpose, and with it what is wanted.

It describes no pair of policies: training changes the experience of some examples, and tells so (Distribution
Augmentation: Jun et al., "Distribution Augmentation for Generative Modeling", ICML 2020). What is told need not be a
symmetry of the family. Tests ask for none, which is what every ask does that does not speak of it.
"""

from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.asks.ask import Ask, Kind, Pairs
from metaimprove.errors import UnknownNameError

NAME = 'augmentation'
NAMES = ('none', 'mirrored', 'rotated', 'warped', 'noisy', 'hidden')
"""Their numbers are part of what operators have learned: append new ones, and leave the order alone."""
NONE = 0


def value(given: Any) -> np.ndarray:
  """One of `NAMES` or its number, or an array of these; raises `UnknownNameError` for others."""
  array = np.asarray(given)
  if array.dtype.kind == 'U' and np.isin(array, NAMES).all():
    array = (array[..., None] == np.array(NAMES)).argmax(axis=-1)
  if array.dtype.kind not in 'iu' or not ((array >= 0) & (array < len(NAMES))).all():
    raise UnknownNameError(f'An augmentation is one of: {", ".join(NAMES)}, not {given!r}.')
  return array.astype(np.int32)


def words(number: Any) -> str:
  """Its name."""
  return NAMES[int(number)]


def features(number: chex.Array) -> chex.Array:
  """[] int to [5] float32: which one it is; zeros for none."""
  return (jnp.arange(1, len(NAMES)) == number).astype(jnp.float32)


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B] int32, none."""
  del rng
  return np.full(len(pairs.level), NONE, np.int32)


def is_known(pairs: Pairs) -> np.ndarray:
  """[B] bool, nowhere: a pair does not say how it will be shown."""
  return np.zeros(len(pairs.level), bool)


def told(ask: Ask, number: np.ndarray) -> Ask:
  """Asks [B] that also tell by what the experience was changed, `number` [B]."""
  return Ask(values={**ask.values, NAME: number}, given={**ask.given, NAME: number != NONE})


KIND = Kind(
  name=NAME, value=value, words=words, num_features=len(NAMES) - 1, features=features, describe=describe,
  is_known=is_known, nothing=NONE,
)
