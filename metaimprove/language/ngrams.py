"""Text as numbers: its letters, and how often it has which short strings of letters (Bojanowski et al.,
arXiv:1607.04606). Nothing is downloaded, and words that are new share strings with words that are known.
"""

import jax
import jax.numpy as jnp
import numpy as np

LONGEST = 160
"""Letters of a text at most."""
SIZE = 512
"""Numbers that strings of letters are hashed to."""
_LENGTHS = (2, 3, 4, 5)
_PRIME = 16777619  # of the hash FNV-1a


def letters(text: str) -> np.ndarray:
  """[LONGEST] uint8: the text in small letters, with a space at either end, and zeros after it."""
  clean = ' ' + ' '.join(text.lower().split()) + ' '
  found = np.frombuffer(clean.encode('ascii', 'replace'), np.uint8)[:LONGEST]
  return np.pad(found, (0, LONGEST - len(found)))


def text_of(found: np.ndarray) -> str:
  """The text of its letters, in small letters."""
  return bytes(np.asarray(found, np.uint8)[np.asarray(found) > 0]).decode('ascii').strip()


def counts(found: jax.Array) -> jax.Array:
  """[LONGEST] uint8 to [SIZE] float32 of length 1, how often each hashed string of 2 to 5 letters occurs; zeros for no
  text."""
  codes = jnp.asarray(found, jnp.uint32)
  there = codes > 0
  total = jnp.zeros(SIZE)
  for length in _LENGTHS:
    num = LONGEST - length + 1
    hashed, whole = jnp.full(num, 2166136261, jnp.uint32), jnp.ones(num, bool)
    for place in range(length):
      hashed = (hashed ^ codes[place:place + num]) * jnp.uint32(_PRIME)
      whole &= there[place:place + num]
    hashed = hashed ^ (hashed >> 15)
    total = total.at[(hashed % SIZE).astype(jnp.int32)].add(whole.astype(jnp.float32))
  return total / jnp.maximum(jnp.linalg.norm(total), 1e-6)
