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
  ('to the right', 'rightward', 'towards the right', 'off to the right-hand side'),
  ('to the upper right', 'up and to the right', 'towards the top right', 'into the top right-hand corner'),
  ('straight up', 'upward', 'towards the top', 'up to the top side'),
  ('to the upper left', 'up and to the left', 'towards the top left', 'into the top left-hand corner'),
  ('to the left', 'leftward', 'towards the left', 'off to the left-hand side'),
  ('to the lower left', 'down and to the left', 'towards the bottom left', 'into the bottom left-hand corner'),
  ('straight down', 'downward', 'towards the bottom', 'down to the bottom side'),
  ('to the lower right', 'down and to the right', 'towards the bottom right', 'into the bottom right-hand corner'),
)
_WINDS = (
  ('east', 'due east', 'eastward', 'towards the east'),
  ('north-east', 'north and east', 'northeastward', 'towards the north-east'),
  ('north', 'due north', 'northward', 'towards the north'),
  ('north-west', 'north and west', 'northwestward', 'towards the north-west'),
  ('west', 'due west', 'westward', 'towards the west'),
  ('south-west', 'south and west', 'southwestward', 'towards the south-west'),
  ('south', 'due south', 'southward', 'towards the south'),
  ('south-east', 'south and east', 'southeastward', 'towards the south-east'),
)
_METRES = ('{} metres away', '{} metres out', '{} m from the start', 'at a distance of {} metres')


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
  name='speed', measure=lambda t: _mean(t.outcome[:, 0], t.valid),
  clauses=(
    Clause(-jnp.inf, -0.5, ('backward fast', 'backward at speed', 'in reverse and fast', 'quickly, backward')),
    Clause(-0.5, -0.15, ('backward slowly', 'slowly backward', 'gently in reverse', 'backward at a crawl')),
    Clause(-0.15, 0.15, ('nowhere', 'on the spot', 'without getting anywhere', 'standing about')),
    Clause(0.15, 0.6, ('forward slowly', 'slowly forward', 'ahead at a gentle pace', 'forward at a crawl')),
    Clause(0.6, 1.2, ('forward at a walk', 'ahead at a walking pace', 'forward unhurriedly', 'at an easy walk')),
    Clause(1.2, 2.0, ('forward at a trot', 'ahead quickly', 'forward at a good pace', 'briskly forward')),
    Clause(2.0, jnp.inf, ('forward fast', 'ahead at a run', 'forward at high speed', 'forward as quickly as can be')),
  ),
  number=Number(
    ('at {} metres a second', 'at {} m/s', 'at a speed of {} metres per second', 'doing about {} metres every second'),
    decimals=1, tolerance=0.25,
  ),
)
"""Along x, in m/s, of robots that run in the plane."""

HEADING = Property(
  name='heading', measure=lambda t: _angle(_mean(t.outcome[:, :2], t.valid), _SLOWEST), clauses=_octants(_WINDS),
  number=Number(('heading {} degrees', 'at {} degrees', 'on a course of {} degrees', 'along {} degrees'), 0, 15.0),
  period=360.0,
)
"""Degrees from x, east, to y, north, of the mean velocity."""

PACE = Property(
  name='speed', measure=lambda t: jnp.linalg.norm(_mean(t.outcome[:, :2], t.valid)),
  clauses=(
    Clause(0.0, 0.3, ('slowly', 'at a crawl', 'at a gentle pace', 'without hurry')),
    Clause(0.3, 1.0, ('at a walk', 'at a walking pace', 'at an easy pace', 'neither fast nor slowly')),
    Clause(1.0, jnp.inf, ('fast', 'at a run', 'at high speed', 'as quickly as can be')),
  ),
  number=SPEED.number,
)
"""Whichever way it goes, in m/s, of the mean velocity."""

SIDE = Property(
  name='side', measure=lambda t: _angle(_last(t), _NEAREST), clauses=_octants(_SIDES), period=360.0,
  number=Number(
    ('at {} degrees', 'at an angle of {} degrees', 'in the direction of {} degrees', 'along {} degrees'), 0, 15.0,
  ),
)
"""Degrees from x, right, to y, up, of the last place."""


def distance(near: float, far: float, number: Number, unit: float = 1.0) -> Property:
  """How far the last place is from the middle, in units of so many metres: near below `near`, far above `far`."""
  return Property(
    name='distance', measure=lambda t: jnp.linalg.norm(_last(t)) / unit,
    clauses=(
      Clause(0.0, near, ('close in', 'near the middle', 'not far out', 'staying near')),
      Clause(near, far, ('halfway out', 'part of the way out', 'at a middling distance', 'some way out')),
      Clause(far, jnp.inf, ('far out', 'a long way out', 'well away from the middle', 'as far as can be reached')),
    ),
    number=number,
  )


CENTIMETRES = Number(
  ('{} centimetres out', '{} cm from the middle', '{} centimetres from the centre', 'at a distance of {} centimetres'),
  decimals=0, tolerance=2.0,
)
METRES = Number(_METRES, decimals=1, tolerance=0.2)

GROUND = Property(
  name='ground', measure=_ground,
  clauses=(
    Clause(0.0, 0.5, ('covering little ground', 'with short ways', 'without roaming', 'sparing every step')),
    Clause(0.5, 1.2, ('covering some ground', 'with ways of some length', 'roaming a little', 'wandering a bit')),
    Clause(1.2, jnp.inf, ('covering much ground', 'with long ways', 'roaming a lot', 'wandering far and wide')),
  ),
)
"""Metres of the way that was gone, of robots whose place is known."""

EFFORT = Property(
  name='effort', measure=lambda t: _mean(jnp.square(t.action).mean(axis=-1), t.valid),
  clauses=(
    Clause(0.0, 0.24, ('wasting little effort', 'with little effort', 'sparing its strength', 'without straining')),
    Clause(0.24, 0.38, ('with some effort', 'with moderate effort', 'using some strength', 'working a fair amount')),
    Clause(0.38, jnp.inf, ('with much effort', 'with great effort', 'using all its strength', 'working very hard')),
  ),
)
"""Mean squared action, from 0 to 1; what a policy's noise adds counts."""

SMOOTHNESS = Property(
  name='smoothness', measure=_change,
  clauses=(
    Clause(0.0, 0.42, ('smoothly', 'with smooth movements', 'steadily', 'in one fluid motion')),
    Clause(0.42, 0.58, ('a little unsteadily', 'not quite smoothly', 'with some jerks', 'somewhat roughly')),
    Clause(0.58, jnp.inf, ('jerkily', 'with jerky movements', 'shakily', 'in fits and starts')),
  ),
)
"""Mean absolute change of an action from one step to the next."""

HEIGHT = Property(
  name='height', measure=lambda t: _mean(t.observation[:, 0], t.valid),
  clauses=(
    Clause(0.0, 0.9, ('crouching', 'low over the ground', 'bent low', 'keeping its head down')),
    Clause(0.9, 1.15, ('at half its height', 'a little bent', 'not quite upright', 'with bent knees')),
    Clause(1.15, jnp.inf, ('standing tall', 'upright', 'at its full height', 'with its head up')),
  ),
)
"""Metres of the torso above the ground, where it is the first number that is observed."""

FALL = Property(
  name='fall', measure=lambda t: (t.terminated & t.valid).any().astype(jnp.float32),
  clauses=(
    Clause(-0.5, 0.5, ('without falling', 'staying on its feet', 'keeping its balance', 'and never tumbling')),
    Clause(0.5, 1.5, ('until it falls', 'and falling over', 'losing its balance', 'and tumbling in the end')),
  ),
)
"""Whether the episode ended before its time; the mean over episodes is how often."""
