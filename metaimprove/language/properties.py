"""What can be measured and said of episodes: direction, speed, height, distance, effort, smoothness, ground, a fall.

Each measures one episode, leaves [T, ...], from what a trajectory stores. Which of them a family has is said where its
robot is defined.
"""

import jax.numpy as jnp

from metaimprove.language.clauses import Clause, Number, Property

_SLOWEST = 0.05
"""Slower than this, in m/s, nothing has a direction."""
_NEAREST = 0.005
"""Nearer to the middle than this, in m, no place has a direction."""
_SIDES = (
  ('to the right', 'towards the right', 'on the right side', 'rightward'),
  ('to the upper right', 'up and to the right', 'into the top right corner', 'towards the top right'),
  ('straight up', 'to the top', 'to the upper side', 'upward'),
  ('to the upper left', 'up and to the left', 'into the top left corner', 'towards the top left'),
  ('to the left', 'towards the left', 'on the left side', 'leftward'),
  ('to the lower left', 'down and to the left', 'into the bottom left corner', 'towards the bottom left'),
  ('straight down', 'to the bottom', 'to the lower side', 'downward'),
  ('to the lower right', 'down and to the right', 'into the bottom right corner', 'towards the bottom right'),
)
_WINDS = (
  ('due east', 'to the east', 'towards the east', 'eastward'),
  ('to the north-east', 'towards the north-east', 'north and east', 'northeastward'),
  ('due north', 'to the north', 'towards the north', 'northward'),
  ('to the north-west', 'towards the north-west', 'north and west', 'northwestward'),
  ('due west', 'to the west', 'towards the west', 'westward'),
  ('to the south-west', 'towards the south-west', 'south and west', 'southwestward'),
  ('due south', 'to the south', 'towards the south', 'southward'),
  ('to the south-east', 'towards the south-east', 'south and east', 'southeastward'),
)
_METRES = ('{} metres away', '{} metres out', '{} m from the start', '{} metres from the start')


def _octants(ways) -> tuple[Clause, ...]:
  return tuple(Clause(45 * index - 22.5, 45 * index + 22.5, of_side) for index, of_side in enumerate(ways))


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
  clauses=(
    Clause(-jnp.inf, -0.5, ('backward fast', 'backward at speed', 'in reverse and fast', 'fast in reverse')),
    Clause(-0.5, -0.15, ('backward slowly', 'slowly backward', 'gently in reverse', 'slowly in reverse')),
    Clause(-0.15, 0.15, ('nowhere', 'on the spot', 'without getting anywhere', 'not getting anywhere')),
    Clause(0.15, 0.6, ('forward slowly', 'slowly forward', 'ahead at a gentle pace', 'slowly ahead')),
    Clause(0.6, 1.2, ('forward at a walk', 'ahead at a walking pace', 'forward unhurriedly', 'walking ahead')),
    Clause(1.2, 2.0, ('forward at a trot', 'ahead quickly', 'forward at a good pace', 'quickly forward')),
    Clause(2.0, jnp.inf, ('forward fast', 'ahead at a run', 'forward at high speed', 'fast ahead')),
  ),
  number=Number(
    ('at {} metres a second', 'at {} m/s', 'at a speed of {} metres per second', 'with a speed of {} metres a second'),
    decimals=1, tolerance=0.25,
  ),
)
"""Along x, in m/s, of robots that run in the plane."""

HEADING = Property(
  name='heading', span=(0.0, 360.0), clauses=_octants(_WINDS),
  measure=lambda t: _angle(_mean(t.outcome[:, :2], t.valid), _SLOWEST),
  number=Number(
    ('heading {} degrees', 'at {} degrees', 'on a course of {} degrees', 'heading for {} degrees'), 0, 15.0,
  ),
  period=360.0,
)
"""Degrees from x, east, to y, north, of the mean velocity."""

PACE = Property(
  name='speed', span=(0.0, 2.5), measure=lambda t: jnp.linalg.norm(_mean(t.outcome[:, :2], t.valid)),
  clauses=(
    Clause(0.0, 0.3, ('slowly', 'at a crawl', 'at a gentle pace', 'crawling gently')),
    Clause(0.3, 1.0, ('at a walk', 'at a walking pace', 'at an easy pace', 'walking easily')),
    Clause(1.0, jnp.inf, ('fast', 'at a run', 'at high speed', 'at running speed')),
  ),
  number=SPEED.number,
)
"""Whichever way it goes, in m/s, of the mean velocity."""

SIDE = Property(
  name='side', span=(0.0, 360.0), measure=lambda t: _angle(_last(t), _NEAREST), clauses=_octants(_SIDES), period=360.0,
  number=Number(
    ('at {} degrees', 'at an angle of {} degrees', 'in the direction of {} degrees', 'along {} degrees'), 0, 15.0,
  ),
)
"""Degrees from x, right, to y, up, of the last place."""


def _distance(near: float, far: float, largest: float, number: Number, unit: float = 1.0) -> Property:
  """How far the last place is from the middle, in units of so many metres: near below `near`, far above `far`."""
  return Property(
    name='distance', span=(0.0, largest), measure=lambda t: jnp.linalg.norm(_last(t)) / unit,
    clauses=(
      Clause(0.0, near, ('close in', 'near the middle', 'staying near', 'close to the middle')),
      Clause(near, far, ('halfway out', 'part of the way out', 'some way out', 'half of the way out')),
      Clause(far, jnp.inf, (
        'a long way out', 'well away from the middle', 'as far out as can be', 'far away from the middle',
      )),
    ),
    number=number,
  )


REACH = _distance(7.0, 14.0, 21.0, unit=0.01, number=Number(
  (
    '{} centimetres out', '{} cm from the middle', '{} centimetres from the centre',
    '{} centimetres away from the middle',
  ), decimals=0, tolerance=2.0,
))
"""Centimetres that the reacher reaches."""
PLACE = _distance(0.7, 1.05, 1.5, Number(_METRES, decimals=1, tolerance=0.2))
"""Metres from the start, for the point."""
FIELD = _distance(1.0, 2.0, 4.0, Number(_METRES, decimals=1, tolerance=0.3))
"""The same for the ant."""

GROUND = Property(
  name='ground', span=(0.0, 2.5), measure=_ground,
  clauses=(
    Clause(0.0, 0.5, ('covering little ground', 'with short ways', 'without roaming', 'with little ground covered')),
    Clause(0.5, 1.2, ('covering some ground', 'with ways of some length', 'roaming a little', 'roaming some')),
    Clause(1.2, jnp.inf, ('covering much ground', 'with long ways', 'roaming a lot', 'covering a lot of ground')),
  ),
)
"""Metres of the way that was gone, of robots whose place is known."""

EFFORT = Property(
  name='effort', span=(0.0, 0.8), measure=lambda t: _mean(jnp.square(t.action).mean(axis=-1), t.valid),
  clauses=(
    Clause(0.0, 0.24, ('wasting little effort', 'with little effort', 'sparing its strength', 'using little strength')),
    Clause(0.24, 0.38, ('with some effort', 'with moderate effort', 'using some strength', 'using moderate strength')),
    Clause(0.38, jnp.inf, ('with much effort', 'with great effort', 'using all its strength', 'using much strength')),
  ),
)
"""Mean squared action, from 0 to 1; what a policy's noise adds counts."""

SMOOTHNESS = Property(
  name='smoothness', span=(0.0, 0.9), measure=_change,
  clauses=(
    Clause(0.0, 0.42, ('smoothly', 'with smooth movements', 'steadily', 'in a smooth way')),
    Clause(0.42, 0.58, ('a little unsteadily', 'not quite smoothly', 'with some jerks', 'somewhat unsteady')),
    Clause(0.58, jnp.inf, ('jerkily', 'with jerky movements', 'shakily', 'in a jerky way')),
  ),
)
"""Mean absolute change of an action from one step to the next."""

HEIGHT = Property(
  name='height', span=(0.5, 1.4), measure=lambda t: _mean(t.observation[:, 0], t.valid),
  clauses=(
    Clause(0.0, 0.9, ('crouching', 'low over the ground', 'bent low', 'low and bent')),
    Clause(0.9, 1.15, ('at half its height', 'a little bent', 'not quite upright', 'at half height')),
    Clause(1.15, jnp.inf, ('standing tall', 'upright', 'at its full height', 'at full height')),
  ),
)
"""Metres of the torso above the ground, where it is the first number that is observed."""

FALL = Property(
  name='fall', span=(0.0, 1.0), measure=lambda t: (t.terminated & t.valid).any().astype(jnp.float32),
  clauses=(
    Clause(-0.5, 0.5, ('without falling', 'staying on its feet', 'keeping its balance', 'keeping on its feet')),
    Clause(0.5, 1.5, ('until it falls', 'and falling over', 'losing its balance', 'and then falling')),
  ),
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
