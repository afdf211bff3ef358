"""What can be measured and said of episodes: direction, speed, height, distance, effort, smoothness, ground, a fall.

Each measures one episode, leaves [T, ...], from what a trajectory stores. Which of them a family has is said where its
robot is defined.
"""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp

from metaimprove.language.clauses import Clause, Number, Property
from metaimprove.language.ways import WAYS

_SLOWEST = 0.05
"""Slower than this, in m/s, nothing has a direction."""
_NEAREST = 0.005
"""Nearer to the middle than this, in m, no place has a direction."""


def _clauses(name: str, bounds: Sequence[float]) -> tuple[Clause, ...]:
  """One clause between each two bounds."""
  between = zip(itertools.pairwise(bounds), WAYS['clauses'][name], strict=True)
  return tuple(Clause(low, high, tuple(ways)) for (low, high), ways in between)


def _number(name: str, decimals: int, tolerance: float) -> Number:
  return Number(tuple(WAYS['numbers'][name]), decimals, tolerance)


_OCTANTS = tuple(45 * index - 22.5 for index in range(9))


def _mean(values, valid):
  valid = valid.reshape(valid.shape + (1,) * (values.ndim - 1))
  return jnp.where(valid, values, 0.0).sum(axis=0) / jnp.maximum(valid.sum(), 1)


def _last(trajectory):
  return trajectory.outcome[jnp.maximum(trajectory.valid.sum() - 1, 0), :2]


def _angle(vector, least):
  return jnp.where(
    jnp.linalg.norm(vector) > least, jnp.degrees(jnp.arctan2(vector[1], vector[0])) % 360, jnp.nan
  )


def _ground(trajectory):
  both = trajectory.valid[1:] & trajectory.valid[:-1]
  moved = jnp.linalg.norm(jnp.diff(trajectory.outcome[:, :2], axis=0), axis=-1)
  return jnp.where(both, moved, 0.0).sum()


def _change(trajectory):
  both = trajectory.valid[1:] & trajectory.valid[:-1]
  change = jnp.abs(jnp.diff(trajectory.action, axis=0)).mean(axis=-1)
  return jnp.where(both, change, 0.0).sum() / jnp.maximum(both.sum(), 1)


SPEED = Property(
  name='speed', span=(-1.5, 3.5), measure=lambda t: _mean(t.outcome[:, 0], t.valid),
  clauses=_clauses('speed', (-jnp.inf, -0.5, -0.15, 0.15, 0.6, 1.2, 2.0, jnp.inf)),
  number=_number('metres_a_second', decimals=1, tolerance=0.25),
)
"""Along x, in m/s, of robots that run in the plane."""

HEADING = Property(
  name='heading', span=(0.0, 360.0), period=360.0, clauses=_clauses('heading', _OCTANTS),
  measure=lambda t: _angle(_mean(t.outcome[:, :2], t.valid), _SLOWEST),
  number=_number('course', decimals=0, tolerance=15.0),
)
"""Degrees from x, east, to y, north, of the mean velocity."""

PACE = Property(
  name='speed', span=(0.0, 2.5), measure=lambda t: jnp.linalg.norm(_mean(t.outcome[:, :2], t.valid)),
  clauses=_clauses('pace', (0.0, 0.3, 1.0, jnp.inf)),
  number=SPEED.number,
)
"""Whichever way it goes, in m/s, of the mean velocity."""

SIDE = Property(
  name='side', span=(0.0, 360.0), period=360.0, clauses=_clauses('side', _OCTANTS),
  measure=lambda t: _angle(_last(t), _NEAREST), number=_number('angle', decimals=0, tolerance=15.0),
)
"""Degrees from x, right, to y, up, of the last place."""


def _distance(near: float, far: float, largest: float, number: Number, unit: float = 1.0) -> Property:
  """How far the last place is from the middle, in units of so many metres: near below `near`, far above `far`."""
  return Property(
    name='distance', span=(0.0, largest), measure=lambda t: jnp.linalg.norm(_last(t)) / unit,
    clauses=_clauses('distance', (0.0, near, far, jnp.inf)), number=number,
  )


REACH = _distance(7.0, 14.0, 21.0, _number('centimetres', decimals=0, tolerance=2.0), unit=0.01)
"""Centimetres that the reacher reaches."""
PLACE = _distance(0.7, 1.05, 1.5, _number('metres', decimals=1, tolerance=0.2))
"""Metres from the start, for the point."""
FIELD = _distance(1.0, 2.0, 4.0, _number('metres', decimals=1, tolerance=0.3))
"""The same for the ant."""

GROUND = Property(
  name='ground', span=(0.0, 2.5), measure=_ground, clauses=_clauses('ground', (0.0, 0.5, 1.2, jnp.inf)),
)
"""Metres of the way that was gone, of robots whose place is known."""

EFFORT = Property(
  name='effort', span=(0.0, 0.8), measure=lambda t: _mean(jnp.square(t.action).mean(axis=-1), t.valid),
  clauses=_clauses('effort', (0.0, 0.24, 0.38, jnp.inf)),
)
"""Mean squared action, from 0 to 1; what a policy's noise adds counts."""

SMOOTHNESS = Property(
  name='smoothness', span=(0.0, 0.9), measure=_change,
  clauses=_clauses('smoothness', (0.0, 0.42, 0.58, jnp.inf)),
)
"""Mean absolute change of an action from one step to the next."""

HEIGHT = Property(
  name='height', span=(0.5, 1.4), measure=lambda t: _mean(t.observation[:, 0], t.valid),
  clauses=_clauses('height', (0.0, 0.9, 1.15, jnp.inf)),
)
"""Metres of the torso above the ground, where it is the first number that is observed."""

FALL = Property(
  name='fall', span=(0.0, 1.0), measure=lambda t: (t.terminated & t.valid).any().astype(jnp.float32),
  clauses=_clauses('fall', (-0.5, 0.5, 1.5)),
)
"""Whether the episode ended before its time; the mean over episodes is how often."""

STANDARD = SPEED, HEADING, PACE, SIDE, REACH, PLACE, FIELD, GROUND, EFFORT, SMOOTHNESS, HEIGHT, FALL
"""All of them, in the order in which `reader` knows them."""
_OF_ALL = EFFORT, SMOOTHNESS
SAID_TOGETHER = tuple((*some, *_OF_ALL) for some in (
  (SPEED,), (HEADING, PACE, FALL), (SIDE, REACH, GROUND), (SIDE, PLACE, GROUND), (SIDE, FIELD, GROUND),
  (SPEED, HEIGHT, FALL),
))
"""Those that one robot has."""
