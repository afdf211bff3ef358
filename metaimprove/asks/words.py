"""Words: what a person would say of the next policy, such as 'forward slowly, with little effort'.

The description of an answer is a true sentence about some of what was measured of its episodes, drawn anew each time
(Lynch et al., arXiv:1903.01973 and arXiv:2005.07648). The text is read by `language.reader`, a small network that comes
with the package, so nothing has to be downloaded.
"""

import functools
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from metaimprove.asks.ask import Kind, Pairs, is_on_level
from metaimprove.errors import UnknownNameError
from metaimprove.language import ngrams, reader
from metaimprove.language.grammar import sentence

NAME = 'words'
_REMEMBERED = 100_000


def value(given: Any) -> np.ndarray:
  """A text, or an array of texts, to its letters [..., LONGEST]; raises `UnknownNameError` for what is no text, or
  holds no words."""
  array = np.asarray(given)
  if array.dtype.kind == 'u' and array.shape[-1:] == (ngrams.LONGEST,):
    return array
  if array.dtype.kind != 'U':
    raise UnknownNameError(f"An ask in words is a text such as 'forward slowly', not {given!r}.")
  return np.stack([_letters(str(text)) for text in array.ravel()]).reshape(*array.shape, ngrams.LONGEST)


def _letters(text: str) -> np.ndarray:
  clean = text.strip()
  if not any(letter.isalnum() for letter in clean):
    raise UnknownNameError("An ask in words holds no word; say what is wanted, such as words=forward slowly.")
  if len(clean) > ngrams.LONGEST - 2:
    raise UnknownNameError(f'An ask in words has {len(clean)} letters; say it in at most {ngrams.LONGEST - 2}.')
  return ngrams.letters(clean)


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B, LONGEST] uint8, a true sentence about each answer; any where nothing is known."""
  return np.stack([ngrams.letters(sentence(pairs.properties, row, rng)) for row in pairs.measured])


def is_known(pairs: Pairs) -> np.ndarray:
  """[B] bool, whether anything was measured of the answer."""
  return is_on_level(pairs) & np.isfinite(pairs.measured).any(axis=1)


KIND = Kind(
  name=NAME, value=value, words=ngrams.text_of, num_features=reader.NUM_FEATURES, features=reader.features,
  describe=describe, is_known=is_known, ndim=1, of_levels=True, says_all=True,
)


def embedded(name: str, embed: Callable[[str], np.ndarray], size: int) -> Kind:
  """The same kind with a sentence encoder of yours instead of `language.reader`; see `asks.register`.

  Args:
    name: of the kind.
    embed: a text to its vector [size] float32, of order 1. The newest texts are remembered.
    size: of the vector.
  """
  known = functools.lru_cache(_REMEMBERED)(lambda text: np.asarray(embed(text), np.float32))

  def of_texts(given):
    array = np.asarray(given)
    if array.dtype.kind == 'f' and array.shape[-1:] == (size,):
      return array.astype(np.float32)
    texts = [ngrams.text_of(letters) for letters in value(given).reshape(-1, ngrams.LONGEST)]
    return np.stack([known(text) for text in texts]).reshape(*array.shape, size)

  def describe_by(pairs, rng):
    return np.stack([known(ngrams.text_of(letters)) for letters in describe(pairs, rng)])

  return Kind(
    name=name, value=of_texts, num_features=size,
    words=lambda vector: f'a text with the embedding {zlib.crc32(vector.tobytes()):08x}',
    features=lambda vector: vector, describe=describe_by, is_known=is_known, ndim=1, of_levels=True, says_all=True,
  )
