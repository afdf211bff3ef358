"""Families of a point in the plane: find a hidden position on a half circle, or hold a known one in a hidden wind.

The first is the field's sparse point robot. Two versions are in use, which differ in horizon and reward: that of the
reference code of PEARL (Rakelly et al., arXiv:1903.08254) and that of BOReL (Dorfman et al., arXiv:2008.02598). The
wind is that of pomdp-baselines (Ni et al., arXiv:2110.05038). There are no forces: an action is a step.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp

from metaimprove.language.properties import GROUND, PLACE, SIDE
from metaimprove.tasks import hindsight
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.goal import Goal, no_goal
from metaimprove.tasks.parameters import Range
from metaimprove.tasks.robots import physics
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family

STEP_LENGTH = 0.1
"""Metres that an action of 1 moves the point along its axis in a step."""
GOAL_RADIUS = 1.0
"""Metres: goals are on the upper half circle of this radius about the start."""
FAR_ANGLE = math.pi / 4
"""Radians: far goals are on the same circle, up to so far beyond either end of the half circle."""
SPARSE_RADIUS = 0.2
"""Metres: where the sparse rewards are not 0."""
WIND_TARGET, WIND_RADIUS = (0.0, 1.0), 0.03
"""Metres: where the point is to be in the wind, and how near to be rewarded."""
WIND = Range(low=-0.08, high=0.08, far_low=-0.095, far_high=0.095, elements=2, logarithmic=False)
"""Metres a step along x and y; less than an action can undo, in far tasks too."""
BACKENDS = {'kinematic': ('wind',)}


def _move(parameters: physics.Parameters, state: physics.PhysicsState, control: chex.Array) -> physics.PhysicsState:
  return state.replace(q=state.q + STEP_LENGTH * control + parameters.get('wind', 0.0))


_ROBOT = physics.Physics(
  backend='kinematic', system=physics.NoSystem(action_size=2), time_step=1.0,
  init=lambda parameters, q, qd: physics.PhysicsState(q=q, qd=qd, qacc_warmstart=qd), step=_move,
)


def _on_circle(angle: chex.Array) -> chex.Array:
  return GOAL_RADIUS * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _sample_goal(rng_key: chex.PRNGKey) -> chex.Array:
  return _on_circle(jax.random.uniform(rng_key, maxval=jnp.pi))


def _sample_far_goal(rng_key: chex.PRNGKey) -> chex.Array:
  beyond = jax.random.uniform(rng_key, minval=-FAR_ANGLE, maxval=FAR_ANGLE)
  return _on_circle(jnp.where(beyond < 0, beyond, jnp.pi + beyond))


def _describe_goal(goal: chex.Array) -> str:
  x, y = (float(v) for v in goal)
  return f'go to the point {math.hypot(x, y):.1f} m from the start at {math.degrees(math.atan2(y, x)) % 360:.0f}°'


_GOAL = Goal(
  sample=_sample_goal, sample_far=_sample_far_goal, is_far=lambda goal: goal[1] < -1e-6, scale=GOAL_RADIUS,
  describe=_describe_goal, position=lambda goal, q: goal, achieved=hindsight.last_outcome,
)

_SHARED = """ The goal is on the half circle of radius 1 m about the start: angle U(0, π); far ones are on the same
  circle, up to π/4 beyond either end.
"""
_ALL_SHARED = """  An action in [-1, 1]² moves the point by 0.1 m a step and axis. Observation [2]: the position in m.
  Start: always the origin. Never ended early.
"""


def _lines(q: chex.Array) -> chex.Array:
  """[34, 2, 2]: the half circle, and the point as a small cross."""
  arc = jax.vmap(_on_circle)(jnp.linspace(0.0, jnp.pi, 33))
  arms = 0.05 * jnp.array([[[-1.0, 0.0], [1.0, 0.0]], [[0.0, -1.0], [0.0, 1.0]]])
  return jnp.concatenate([jnp.stack([arc[:-1], arc[1:]], axis=1), q[:2] + arms])


def _family(
  name: str, backend: str, preset: Preset, definition: str, goal: Goal, episode_length: int,
  target: Callable[[chex.Array], chex.Array], reward: Callable[[chex.Array], chex.Array],
  default: Mapping[str, Range] = types.MappingProxyType({}),
) -> TaskFamily:
  """A family whose reward is that of the distance [] in m from the target, (goal) -> [2], with `default` randomised."""
  ranges = choose_ranges(preset, default, BACKENDS[backend], f'{name} ({backend})')

  def distance(goal, position):
    return jnp.sqrt(jnp.sum(jnp.square(position - target(goal))) + 1e-12)

  return make_family(
    name, _ROBOT, definition=definition + _ALL_SHARED, goal=goal,
    start=lambda goal, rng_key: (jnp.zeros(2), jnp.zeros(2)), observe=lambda state: state.q,
    outcome=lambda before, after: after.q, reward=lambda goal, position, action: reward(distance(goal, position)),
    practice_reward=lambda goal, position, action: -distance(goal, position),
    ranges={n: WIND if n == 'wind' else r for n, r in ranges.items()}, far_only=preset == 'far',
    episode_length=episode_length, camera='top', lines=_lines, view=(-1.4, 1.4, -0.9, 1.4),
    properties=(SIDE, PLACE, GROUND),
  )


def point_goal_sparse_h20(backend: str = 'kinematic', preset: Preset = 'default') -> TaskFamily:
  """Find a hidden position, as in PEARL. Reward per step: 1 - distance in m within 0.2 m of it, else 0. 20 steps."""
  return _family(
    'point_goal_sparse_h20', backend, preset, point_goal_sparse_h20.__doc__ + _SHARED, _GOAL, 20, lambda goal: goal,
    lambda distance: jnp.where(distance <= SPARSE_RADIUS, 1.0 - distance, 0.0),
  )


def point_goal_sparse_h60(backend: str = 'kinematic', preset: Preset = 'default') -> TaskFamily:
  """Find a hidden position, as in BOReL. Reward per step: 1 within 0.2 m of it, else 0. 60 steps."""
  return _family(
    'point_goal_sparse_h60', backend, preset, point_goal_sparse_h60.__doc__ + _SHARED, _GOAL, 60, lambda goal: goal,
    lambda distance: (distance <= SPARSE_RADIUS).astype(jnp.float32),
  )


def point_wind(backend: str = 'kinematic', preset: Preset = 'default') -> TaskFamily:
  """Go to the position (0, 1) m and stay there in a hidden wind, U(±0.08) m a step along x and y (far: up to 0.095 m).
  Reward per step: 1 within 0.03 m of it, else 0. 75 steps.
"""
  goal = dataclasses.replace(no_goal('go to the point (0, 1)'), position=lambda goal, q: jnp.array(WIND_TARGET))
  return _family(
    'point_wind', backend, preset, point_wind.__doc__, goal, 75, lambda goal: jnp.array(WIND_TARGET),
    lambda distance: (distance <= WIND_RADIUS).astype(jnp.float32), {'wind': WIND},
  )
