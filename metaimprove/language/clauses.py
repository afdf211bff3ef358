"""Clauses: what a person says of one property of an episode, such as its speed.

A clause says that a measured number lies in a range, and there are several ways to say so. The last way of each clause
is never used in training, so that tests can ask in words that are new.
"""

import dataclasses
from collections.abc import Callable

import chex
import numpy as np

from metaimprove.types import Trajectory

SPELLED = {0: 'zero', 1: 'one', 2: 'two', 3: 'three', 4: 'four', 5: 'five', 6: 'six'}
_EVERY, _KEPT_OUT = 7, 3
"""Of the numbers, without sign and point, those that leave this when divided by so many are never said in training."""
_SPELL_RATE = 0.5
_TOLERANCE = 1.5
"""In units of the last digit that is said, and no less than `Number.tolerance`: so far a number may be off."""


@dataclasses.dataclass(frozen=True)
class Clause:
  """One thing that can be said of a property.

  Attributes:
    low, high: of the property's numbers, those from `low` up to `high` are meant. An angle's range may go beyond 360.
    ways: texts that say it.
  """

  low: float
  high: float
  ways: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Number:
  """How a property is said as a number.

  Attributes:
    ways: texts with '{}' for the number.
    decimals: that are said.
    tolerance: how far off what is done may be.
  """

  ways: tuple[str, ...]
  decimals: int
  tolerance: float


@dataclasses.dataclass(frozen=True)
class Property:
  """What is measured of an episode, and what is said of it.

  Attributes:
    name: in English.
    span: the least and the greatest number that is expected; of an angle, one turn.
    measure: (an episode's trajectory, leaves [T, ...]) -> [] float32; NaN where the property is not defined.
    clauses: in words, of rising numbers; they need not cover all numbers.
    number: as a number; None: it is only said in words.
    period: of an angle, 360; None for others.
  """

  name: str
  span: tuple[float, float]
  measure: Callable[[Trajectory], chex.Array]
  clauses: tuple[Clause, ...] = ()
  number: Number | None = None
  period: float | None = None

  def holds(self, clause: Clause, values: np.ndarray) -> np.ndarray:
    """[...] bool, whether a clause is true of measured values [...]; never of NaN."""
    if self.period is not None:
      values = clause.low + (values - clause.low) % self.period
    return (clause.low <= values) & (values < clause.high)

  def middle(self, clause: Clause) -> float:
    """The middle of what a clause means, within what is expected."""
    if self.period is not None:
      return (clause.low + clause.high) / 2 % self.period
    return (max(clause.low, self.span[0]) + min(clause.high, self.span[1])) / 2

  def clause_of(self, value: float) -> int | None:
    """Which of the clauses is true of a value; None where none is."""
    return next((index for index, clause in enumerate(self.clauses) if self.holds(clause, np.float64(value))), None)

  def numeral(self, value: float) -> str:
    """The number that is said for a value."""
    return f'{value:.{self.number.decimals}f}'

  def said_number(self, value: float) -> Clause:
    """The clause that says a number."""
    numeral, reach = self.numeral(value), max(self.number.tolerance, _TOLERANCE * 10.0**-self.number.decimals)
    ways = tuple(way.format(numeral) for way in self.number.ways)
    return Clause(low=float(numeral) - reach, high=float(numeral) + reach, ways=ways)


def is_kept_out(numeral: str) -> bool:
  """Whether a number is never said in training."""
  return int(numeral.replace('.', '').replace('-', '')) % _EVERY == _KEPT_OUT


def spelled(numeral: str, rng: np.random.Generator) -> str:
  """A number as digits, or sometimes as a word where it has one."""
  whole = float(numeral)
  if whole in SPELLED and rng.random() < _SPELL_RATE:
    return SPELLED[whole]
  return numeral
