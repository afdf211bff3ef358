"""Families of the reacher: a two-link arm has to bring its fingertip to a hidden position.

The robot is Brax's `reacher` (two links of 0.1 m and 0.11 m to the fingertip, one motor a joint). Differences from the
stock task: the target is hidden from the observation, the episode has 50 steps, and the reward is the distance alone,
so that acting less is not rewarded in itself.
"""

import math
import types
from typing import Any
from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp

from metaimprove.language.properties import GROUND, REACH, SIDE
from metaimprove.tasks import hindsight
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.parameters import Parameter, Range
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots import dynamics, physics
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family
from metaimprove.tasks.robots.wiring import Wiring

EPISODE_LENGTH = 50
LINK_LENGTHS = (0.1, 0.11)
"""Metres: shoulder to elbow, elbow to the fingertip's centre."""
GOAL_RADII = (0.02, 0.2)
"""Metres: goals are uniform over the area between these circles. The arm reaches from 0.018 (elbow at its limit of 3
rad) to 0.21, so every goal can be reached, and there are no far goals."""
LENGTH_UNIT = 0.1
"""Metres: the dense reward is the distance in this unit."""
SPARSE_RADIUS = 0.03
"""Metres: where the sparse reward is 1."""
_ALL = ('gear', 'damping', 'mass', 'inertia')
BACKENDS = {'mjx': _ALL, 'generalized': _ALL, 'spring': ('gear', 'damping', 'inertia')}


def _fingertip(q: chex.Array) -> chex.Array:
  """[2] position in metres, by forward kinematics: MJX's own body positions lag half a step behind q."""
  shoulder, elbow = q[0], q[0] + q[1]
  upper, lower = LINK_LENGTHS
  return jnp.stack([
    upper * jnp.cos(shoulder) + lower * jnp.cos(elbow),
    upper * jnp.sin(shoulder) + lower * jnp.sin(elbow),
  ])


def _observe(physics_state: Any) -> chex.Array:
  """[8]: cosine and sine of both joints, their velocities in 10 rad/s, the fingertip in units of 0.1 m."""
  angles = physics_state.q[:2]
  return jnp.concatenate([
    jnp.cos(angles), jnp.sin(angles), physics_state.qd[:2] / 10, _fingertip(physics_state.q) / LENGTH_UNIT
  ])


def _sample_goal(rng_key: chex.PRNGKey) -> chex.Array:
  key_radius, key_angle = jax.random.split(rng_key)
  near, wide = GOAL_RADII
  radius = jnp.sqrt(jax.random.uniform(key_radius, minval=near**2, maxval=wide**2))
  angle = jax.random.uniform(key_angle, maxval=2 * jnp.pi)
  return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _describe_goal(goal: chex.Array) -> str:
  x, y = (float(v) for v in goal)
  return f'reach the point {100 * math.hypot(x, y):.0f} cm from the shoulder at {math.degrees(math.atan2(y, x)):.0f}°'


_GOAL = Goal(
  sample=_sample_goal, scale=LENGTH_UNIT, describe=_describe_goal, position=lambda goal, q: goal,
  achieved=hindsight.last_outcome,
)

_SHARED = """
  Task: a goal (x, y) in metres, uniform over the annulus `GOAL_RADII`: r = sqrt(U(0.02², 0.2²)), angle U(0, 2π). Link
  mass changes little on mjx and generalized, where nearly all inertia is the rotors', and nothing on spring.
  Observation [8]: cosine and sine of both joints, their velocities in 10 rad/s, the fingertip in units of 0.1 m. Start:
  joint angles U(±0.1) rad and velocities U(±0.005) rad/s, as stock. 50 steps of 0.02 s, never ended early.
"""


def _dense(distance: chex.Array) -> chex.Array:
  return -distance / LENGTH_UNIT


def _family(
  name: str, backend: str, preset: Preset, definition: str, reward: Callable[[chex.Array], chex.Array],
  more: Mapping[str, Parameter] = types.MappingProxyType({}),
  practice: Callable[[chex.Array], chex.Array] | None = None,
) -> TaskFamily:
  """A family whose rewards are those of the fingertip's distance [] from the goal, in m, with `more` randomised."""
  robot = physics.load('reacher', backend)
  default = {**{n: Range() for n in BACKENDS[backend]}, **more}

  def start(goal, rng_key):
    key_q, key_qd = jax.random.split(rng_key)
    angles = jax.random.uniform(key_q, (2,), minval=-0.1, maxval=0.1)
    velocities = jax.random.uniform(key_qd, (2,), minval=-0.005, maxval=0.005)
    return jnp.concatenate([angles, goal]), jnp.concatenate([velocities, jnp.zeros(2)])

  def of_distance(function):
    return lambda goal, fingertip, action: function(jnp.linalg.norm(fingertip - goal))

  return make_family(
    name, robot, definition=definition + _SHARED, goal=_GOAL, start=start, observe=_observe,
    reward=of_distance(reward), practice_reward=None if practice is None else of_distance(practice),
    outcome=lambda before, after: _fingertip(after.q),
    ranges=choose_ranges(preset, default, BACKENDS[backend], f'{name} ({backend})'),
    far_only=preset == 'far', episode_length=EPISODE_LENGTH, camera='top', view=(-0.24, 0.24, -0.24, 0.24),
    properties=(SIDE, REACH, GROUND),
  )


def reacher_goal(backend: str = 'mjx', preset: Preset = 'default') -> TaskFamily:
  """Bring the fingertip to a hidden position. Reward per step: minus the distance in units of 0.1 m (stock: metres, and
  minus Σa²)."""
  return _family('reacher_goal', backend, preset, reacher_goal.__doc__, _dense)


def reacher_goal_sparse(backend: str = 'mjx', preset: Preset = 'default') -> TaskFamily:
  """Bring the fingertip to a hidden position. Reward per step: 1 within 0.03 m of it, else 0."""
  return _family(
    'reacher_goal_sparse', backend, preset, reacher_goal_sparse.__doc__,
    lambda distance: (distance < SPARSE_RADIUS).astype(jnp.float32), practice=_dense,
  )


def reacher_wiring(backend: str = 'mjx', preset: Preset = 'default') -> TaskFamily:
  """Bring the fingertip to a hidden position with an arm that is wired in an unknown way: which command drives which
  motor, and with which sign, differs from task to task. Of the 8 wirings, 6 are drawn, all alike probable; the 2 in
  which both motors are reversed are those of far tasks. Reward per step: as in reacher_goal."""
  return _family('reacher_wiring', backend, preset, reacher_wiring.__doc__, _dense, {'wiring': Wiring(2)})


def reacher_lag(backend: str = 'mjx', preset: Preset = 'default') -> TaskFamily:
  """Bring the fingertip to a hidden position with motors that get each action a number of steps late: 0, 2, 3, 4 or 5,
  all alike probable (far: 6 or 7). A policy that does not remember its actions has to be the slower, the later they
  come. Reward per step: as in reacher_goal."""
  lag = dynamics.IMPERFECTIONS['action_lag']
  return _family('reacher_lag', backend, preset, reacher_lag.__doc__, _dense, {'action_lag': lag})
