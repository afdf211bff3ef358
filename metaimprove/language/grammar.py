"""Sentences: clauses about several properties, put together freely."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from metaimprove.language.clauses import Clause, Property, is_kept_out, spelled
from metaimprove.language.ways import WAYS

_AROUND = {'before': 0.2, 'leads': 0.5, 'after': 0.2}
"""How often something stands around what is said, in this order."""
_JOINTS = (', ', ' and ', ', and ', ' ')
_MOST = 3
"""Clauses of a sentence."""
_NUMBER_RATE = 0.5
"""How often a property that can be said as a number is."""
_EVERY = 5
"""Of the pairs of clauses about two properties, one of so many is never said in training."""


@dataclasses.dataclass(frozen=True)
class Said:
  """A clause that is said: of which property, which one it is, and in which words.

  Attributes:
    property: it is about.
    clause: what is said of it.
    index: of the clause among those of the property; None where a number is said.
    value: the middle of what is meant.
    text: the words.
  """

  property: Property
  clause: Clause
  index: int | None
  value: float
  text: str

  def holds(self, values: np.ndarray) -> np.ndarray:
    """[...] bool, whether it is true of measured values [...]."""
    return self.property.holds(self.clause, values)


def say(
  of: Property, value: float, rng: np.random.Generator, phrasing: str = 'seen', number: bool | None = None,
) -> Said | None:
  """What is true of a value, in words or as a `number` in digits, at random by default; None where there is nothing to
  say. The phrasing is 'seen', as in training, or 'new', the last way, which training never uses."""
  if not np.isfinite(value):
    return None
  asked = number is not None
  if not asked:
    number = of.number is not None and (not of.clauses or rng.random() < _NUMBER_RATE)
  index = None if number else of.clause_of(value)
  if not number and index is None:
    return None
  ways = of.number.ways if number else of.clauses[index].ways
  way = ways[-1] if phrasing == 'new' else ways[rng.integers(len(ways) - 1)]
  if not number:
    return Said(of, of.clauses[index], index, of.middle(of.clauses[index]), way)
  clause = of.said_number(value)
  numeral = of.numeral(value)
  if not asked and '{} ' in way:  # no word stands before 'm/s' without a space
    numeral = spelled(numeral, rng)
  return Said(of, clause, None, float(of.numeral(value)), way.format(numeral))


def is_new_pair(first: Said, second: Said) -> bool:
  """Whether two clauses are never said together in training, in words or as numbers."""
  if first.property is second.property:
    return False
  ordered = sorted((first, second), key=lambda said: said.property.name)
  first, second = (said.property.clause_of(said.value) for said in ordered)
  return None not in (first, second) and (first + 2 * second) % _EVERY == 0


def may_train(said: Sequence[Said], new: Said) -> bool:
  """Whether training may add a clause to those that are said: no number and no pair that are kept for tests."""
  number = new.index is None and is_kept_out(new.property.numeral(new.value))
  return not number and not any(is_new_pair(other, new) for other in said)


def joined(said: Sequence[Said], rng: np.random.Generator) -> str:
  """A sentence of clauses; without any, one that says nothing."""
  text = ''
  for one in said:
    text += (_JOINTS[rng.integers(len(_JOINTS))] if text else '') + one.text
  before, lead, after = (
    WAYS[name][rng.integers(len(WAYS[name]))] if rng.random() < rate else '' for name, rate in _AROUND.items()
  )
  return ' '.join(part for part in (before, lead, text, after) if part)


def clauses(properties: Sequence[Property], values: Sequence[float], rng: np.random.Generator) -> list[Said]:
  """True clauses about some of the measured `values` of the properties, for training; none if nothing can be said."""
  said: list[Said] = []
  most = 1 + rng.integers(_MOST)
  for index in rng.permutation(len(properties)):
    new = say(properties[index], values[index], rng) if len(said) < most else None
    if new is not None and may_train(said, new):
      said.append(new)
  return said


def sentence(properties: Sequence[Property], values: Sequence[float], rng: np.random.Generator) -> str:
  """A sentence of such clauses; '' if nothing can be said."""
  said = clauses(properties, values, rng)
  return joined(said, rng) if said else ''


def description(properties: Sequence[Property], values: Sequence[float]) -> str:
  """All that can be said of measured values, in plain words and numbers."""
  found = []
  for of, value in zip(properties, values):
    index = of.clause_of(value) if np.isfinite(value) else None
    parts = [] if index is None else [of.clauses[index].ways[0]]
    if of.number is not None and np.isfinite(value):
      parts.append(of.number.ways[0].format(of.numeral(value)))
    found += [', '.join(parts)] if parts else []
  return ', '.join(found)
