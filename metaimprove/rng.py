"""Random streams by name.

Each purpose has its own stream, so that two purposes never share a key, and what is drawn for one does not change when
another is added.
"""

import zlib

import chex
import jax
import numpy as np


def stream(rng_key: chex.PRNGKey | int, name: str) -> chex.PRNGKey:
  """The key of the stream `name` of a key, or of a seed."""
  if isinstance(rng_key, int):
    rng_key = jax.random.key(rng_key)
  return jax.random.fold_in(rng_key, zlib.crc32(name.encode()))


def generator(seed: int, name: str, *index: int) -> np.random.Generator:
  """The numpy generator of the stream `name` of a seed; one for each index, such as a step."""
  return np.random.default_rng([seed, zlib.crc32(name.encode()), *index])
