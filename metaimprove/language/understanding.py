"""What a text says: of each property the known phrase that is most like a part of it. For people to read; an operator
reads the text itself."""

import re
from collections.abc import Sequence

import jax
import numpy as np

from metaimprove.language.clauses import SPELLED, Property
from metaimprove.language.grammar import Said
from metaimprove.language.ngrams import counts, letters

_ALIKE = 0.75
"""Cosine of two texts' counts from which on they are taken for the same."""
_LONGER = 0.02
"""A phrase that is one word longer wins if it is less alike by no more than this."""
_EMPTY = {'a', 'about', 'and', 'be', 'go', 'it', 'let', 'move', 'please', 'run', 'the', 'to', 'walk', 'with'}
"""Words that say nothing by themselves."""
_AT_ONCE = 512
_NUMBER = re.compile(r'-?\d+(?:\.\d+)?')
_counts = jax.jit(jax.vmap(counts))


def understood(properties: Sequence[Property], text: str) -> tuple[list[Said], list[str]]:
  """The clauses that a text says, at most one a property, and the words of it that are in none."""
  words = text.lower().replace(',', ' ').split()
  spelled = {word: str(number) for number, word in SPELLED.items()}
  digits = [spelled.get(word, word) for word in words]
  phrases = [phrase for of in properties for phrase in _phrases(of, digits)]
  longest = max((len(way.split()) for *_, way in phrases), default=0)
  windows = [
    (start, start + size) for size in range(1, longest + 1) for start in range(len(words) - size + 1)
  ]
  said, free = [], np.ones(len(words), bool)
  if phrases and windows:
    likeness = _likeness([' '.join(digits[slice(*window)]) for window in windows], [way for *_, way in phrases])
    better = likeness + _LONGER * np.array([end - start for start, end in windows])[:, None]
    better = np.where(likeness >= _ALIKE, better, -np.inf)
    while better.max() > 0:  # what is most alike is taken first, and its words are in no other clause
      window, phrase = np.unravel_index(better.argmax(), better.shape)
      of, clause, index, _ = phrases[phrase]
      said.append(Said(of, clause, index, ' '.join(words[slice(*windows[window])])))
      free[slice(*windows[window])] = False
      better[[not free[slice(*other)].all() for other in windows]] = -np.inf
      better[:, [other[0] is of for other in phrases]] = -np.inf
  return said, [word for word, is_free in zip(words, free) if is_free and word not in _EMPTY]


def _phrases(of: Property, words: Sequence[str]) -> list[tuple]:
  """(property, clause, its index, way) of all that can be said of a property, numbers as they are among the words."""
  found = [(of, clause, index, way) for index, clause in enumerate(of.clauses) for way in clause.ways]
  for number in filter(_NUMBER.fullmatch, words if of.number is not None else ()):
    found += [
      (of, of.said_number(float(number)), None, way.format(number)) for way in of.number.ways
    ]
  return found


def _likeness(texts: Sequence[str], ways: Sequence[str]) -> np.ndarray:
  """[T, W] cosines of texts and ways."""
  every = (*texts, *ways)
  padding = -len(every) % _AT_ONCE  # few sizes, so that few programs are compiled
  vectors = np.asarray(_counts(np.pad([letters(text) for text in every], ((0, padding), (0, 0)))))[:len(every)]
  return vectors[:len(texts)] @ vectors[len(texts):].T
