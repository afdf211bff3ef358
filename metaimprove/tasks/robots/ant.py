"""Families of the ant: go in a hidden direction, or to a hidden position.

Definitions are those of the reference code of PEARL (Rakelly et al., arXiv:1903.08254). VariBAD's own copy of the
direction task passes ±1.0 as if it were a direction where the code expects an angle in radians; here angles cover the
circle.
"""

import types
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp

from metaimprove.language.properties import FALL, FIELD, GROUND, HEADING, PACE, SIDE
from metaimprove.tasks import hindsight
from metaimprove.tasks.family import Reward, TaskFamily
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.parameters import Parameter, Range
from metaimprove.tasks.robots import dynamics, physics, starts
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family
from metaimprove.tasks.robots.directions import direction_goal, sample_direction

EPISODE_LENGTH = 200
HEALTHY_Z = (0.2, 1.0)
"""Metres: the direction task ends when the torso's height leaves this range."""
GOAL_RADIUS, FAR_RADIUS = 3.0, 4.0
"""Metres: goals are uniform in a disc of the first radius; far ones between it and the second."""
SPARSE_RADIUS = 0.75
"""Metres: where the sparse reward tells the distance from the goal."""
_ALL = ('gear', 'damping', 'mass', 'inertia', 'friction', 'gravity')
BACKENDS = {'spring': _ALL, 'mjx': _ALL}
_DEFAULT = ('gear', 'friction', 'gravity')

_SHARED = """
The backends give no contact forces between steps, so the original's cost of contacts, 5e-4 Σclip(force, -1, 1)², is
left out (stock Brax leaves it out as well). Start: the model's pose + U(±0.1), velocities
N(0, 0.1²), as stock. 200 steps of 0.05 s."""


def _family(
  name: str, backend: str, preset: Preset, robot: physics.Physics,
  more: Mapping[str, Parameter] = types.MappingProxyType({}), **parts: Any,
) -> TaskFamily:
  default = {**{n: Range() for n in _DEFAULT}, **more}
  ranges = choose_ranges(preset, default, BACKENDS[backend], f'{name} ({backend})')
  return make_family(
    name, robot, start=starts.near_initial(robot.system, q_noise=0.1, qd_normal=0.1), ranges=ranges,
    far_only=preset == 'far', episode_length=EPISODE_LENGTH, **parts,
  )


def _direction_family(
  name: str, backend: str, preset: Preset, definition: str, more: Mapping[str, Parameter] = types.MappingProxyType({})
) -> TaskFamily:
  robot = physics.load('ant', backend)

  def reward(goal, velocity, action):
    return velocity @ goal + 1.0 - 0.5 * jnp.sum(jnp.square(action))

  return _family(
    name, backend, preset, robot, more, definition=definition + _SHARED, goal=direction_goal('go'), reward=reward,
    outcome=physics.root_velocity(robot, 2), observe=lambda s: jnp.concatenate([s.q[2:], s.qd]),
    camera='oblique', view=(-1.5, 1.5, -0.6, 1.2),
    terminated=lambda s: (s.q[2] < HEALTHY_Z[0]) | (s.q[2] > HEALTHY_Z[1]), properties=(HEADING, PACE, FALL),
  )


def ant_dir(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Go in a hidden direction, angle ~ U(0, 2π), given as its cosine and sine. Reward per step: v·dir + 1 -
  0.5 Σa², v the torso's over the step. Ends when the torso's height leaves [0.2, 1] m.
  Observation [27]: height, orientation (quaternion), eight joint angles; all velocities."""
  return _direction_family('ant_dir', backend, preset, ant_dir.__doc__)


def ant_dir_broken(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Go in a hidden direction on an ant of which one leg does nothing, or none: both motors of the front left, front
  right or back right leg are broken, or no motor is, all alike probable; those of the back left leg in far tasks. The
  crippled leg of Nagabandi et al., arXiv:1803.11347. Goals, observations, ends and Reward per step: as in ant_dir."""
  broken = dynamics.broken_groups(8, groups=[[2, 3], [4, 5], [0, 1]], far_groups=[[6, 7]])
  return _direction_family('ant_dir_broken', backend, preset, ant_dir_broken.__doc__, {'broken': broken})


def _sample_position(rng_key: chex.PRNGKey) -> chex.Array:
  key_radius, key_direction = jax.random.split(rng_key)
  return GOAL_RADIUS * jnp.sqrt(jax.random.uniform(key_radius)) * sample_direction(key_direction)


def _sample_far_position(rng_key: chex.PRNGKey) -> chex.Array:
  key_radius, key_direction = jax.random.split(rng_key)
  radius = jnp.sqrt(jax.random.uniform(key_radius, minval=GOAL_RADIUS**2, maxval=FAR_RADIUS**2))
  return radius * sample_direction(key_direction)


_POSITION = Goal(
  sample=_sample_position, sample_far=_sample_far_position,
  is_far=lambda goal: jnp.linalg.norm(goal) > GOAL_RADIUS * (1 + 1e-6),
  scale=GOAL_RADIUS, position=lambda goal, q: goal, achieved=hindsight.last_outcome,
  describe=lambda goal: (
    f'go to the position {abs(float(goal[0])):.1f} m {"ahead" if goal[0] > 0 else "behind"} and '
    f'{abs(float(goal[1])):.1f} m to the {"left" if goal[1] > 0 else "right"}'
  ),
)

_POSITION_SHARED = """ The goal is uniform in a disc of radius 3 m (r = 3 sqrt(U); far: between the radii 3 and 4 m).
  Never ended early. Observation [29]: position, height, orientation (quaternion), eight joint angles; all velocities.
"""


def _position_family(
  name: str, backend: str, preset: Preset, definition: str, reward: Reward, practice: Reward | None = None
) -> TaskFamily:
  """A family whose rewards are those of the torso's position [2] in m."""
  return _family(
    name, backend, preset, physics.load('ant', backend), definition=definition + _POSITION_SHARED + _SHARED,
    goal=_POSITION, reward=reward, practice_reward=practice, outcome=lambda before, after: after.q[:2],
    properties=(SIDE, FIELD, GROUND),
    observe=lambda s: jnp.concatenate([s.q, s.qd]), camera='top', view=(-3.5, 3.5, -3.5, 3.5),
  )


def ant_goal(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Go to a hidden position. Reward per step: -‖p - goal‖₁ - 0.1 Σa², p the torso's position in m."""
  def reward(goal, position, action):
    return -jnp.sum(jnp.abs(position - goal)) - 0.1 * jnp.sum(jnp.square(action))

  return _position_family('ant_goal', backend, preset, ant_goal.__doc__, reward)


def ant_goal_sparse(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Go to a hidden position, with a reward that tells where it is only near it, as in the code of HyperX (Zintgraf et
  al., arXiv:2010.01062). Reward per step: 1 - d where the distance d from the goal is at most 0.75 m, else -0.75; less
  0.01 Σa²."""
  def cost(action):
    return 0.01 * jnp.sum(jnp.square(action))

  def reward(goal, position, action):
    distance = jnp.linalg.norm(position - goal)
    return jnp.where(distance <= SPARSE_RADIUS, 1.0 - distance, -SPARSE_RADIUS) - cost(action)

  def practice(goal, position, action):
    return -jnp.linalg.norm(position - goal) - cost(action)

  return _position_family('ant_goal_sparse', backend, preset, ant_goal_sparse.__doc__, reward, practice)
