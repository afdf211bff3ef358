"""Text as numbers: its letters, and how often it has which short strings of letters (Bojanowski et al.,
arXiv:1607.04606). Nothing is downloaded, and words that are new share strings with words that are known.
"""

import jax
import jax.numpy as jnp
import numpy as np

LONGEST = 160
"""Letters of a text at most."""
STRINGS, PLACES = 4096, 1024
SIZE = STRINGS + PLACES
"""Numbers that strings of letters, and digits, are hashed to."""
_DIGIT = 0.2
_LENGTHS = (2, 3, 4, 5)
_PRIME = 16777619


def letters(text: str) -> np.ndarray:
  """[LONGEST] uint8: the text in small letters, with a space at either end, and zeros after it."""
  words = text.lower().split()
  clean = f' {" ".join(words)} ' if words else ''
  found = np.frombuffer(clean.encode('ascii', 'replace'), np.uint8)[:LONGEST]
  return np.pad(found, (0, LONGEST - len(found)))


def text_of(found: np.ndarray) -> str:
  """The text of its letters, in small letters."""
  return bytes(np.asarray(found, np.uint8)[np.asarray(found) > 0]).decode('ascii').strip()


def counts(found: jax.Array) -> jax.Array:
  """[LONGEST] uint8 to [SIZE] float32: how often each hashed string of 2 to 5 letters occurs, of length 1 together; and
  which digits occur at which place of numbers of which unit. Zeros for no text."""
  codes = jnp.asarray(found, jnp.uint32)
  strings = _strings(codes)
  return jnp.concatenate([strings / jnp.maximum(jnp.linalg.norm(strings), 1e-6), _DIGIT * _digits(codes)])


def _strings(codes: jax.Array) -> jax.Array:
  there = (codes > 0) & ~_is_digit(codes)  # a number is read by its digits, or each would have to be learned by heart
  total = jnp.zeros(STRINGS)
  for length in _LENGTHS:
    num = LONGEST - length + 1
    windows = [codes[place:place + num] for place in range(length)]
    whole = jnp.stack([there[place:place + num] for place in range(length)]).all(axis=0)
    total = total.at[_hashed(windows) % STRINGS].add(whole.astype(jnp.float32))
  return total


def _digits(codes: jax.Array) -> jax.Array:
  """Of each digit what it is, how many digits and whether a point follow, whether it comes after a point, and the first
  letters of the next word, so that numbers that are new are made of what is known."""
  is_digit = _is_digit(codes)
  is_point = codes == ord('.')
  _, following = jax.lax.scan(lambda run, digit: (jnp.where(digit, run + 1, 0), run), 0, is_digit, reverse=True)
  at = lambda x, places: x[jnp.clip(places, 0, LONGEST - 1)]
  places = jnp.arange(LONGEST)
  has_fraction = at(is_point, places + following + 1) & at(is_digit, places + following + 2)
  end = places + following + jnp.where(has_fraction, 2, 0)
  features = [
    codes, following.astype(jnp.uint32), has_fraction.astype(jnp.uint32), at(is_point, places - 1).astype(jnp.uint32),
    at(codes, end + 2), at(codes, end + 3),
  ]
  return jnp.zeros(PLACES).at[_hashed(features) % PLACES].add(is_digit.astype(jnp.float32))


def _is_digit(codes: jax.Array) -> jax.Array:
  return (codes >= ord('0')) & (codes <= ord('9'))


def _hashed(values) -> jax.Array:
  """FNV-1a of values that are each smaller than 256."""
  hashed = jnp.uint32(2166136261)
  for value in values:
    hashed = (hashed ^ value) * jnp.uint32(_PRIME)
  return ((hashed ^ (hashed >> 15)) & 0x7FFFFFFF).astype(jnp.int32)
