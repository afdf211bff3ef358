"""Families of the ant: go in a hidden direction, or to a hidden position.

Definitions are those of the reference code of PEARL (Rakelly et al., arXiv:1903.08254). VariBAD's own copy of the
direction task passes ±1.0 as if it were a direction where the code expects an angle in radians; here angles cover the
circle.
"""

from typing import Any

import jax
import jax.numpy as jnp

from metaimprove.tasks import hindsight
from metaimprove.tasks.family import Range, TaskFamily
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots import physics, starts
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family
from metaimprove.tasks.robots.directions import direction_goal, sample_direction

EPISODE_LENGTH = 200
HEALTHY_Z = (0.2, 1.0)
"""Metres: the direction task ends when the torso's height leaves this range."""
GOAL_RADIUS, FAR_RADIUS = 3.0, 4.0
"""Metres: goals are uniform in a disc of the first radius; far ones between it and the second."""
_ALL = ('gear', 'damping', 'mass', 'inertia', 'friction', 'gravity')
BACKENDS = {'spring': _ALL, 'mjx': _ALL}
_DEFAULT = ('gear', 'friction', 'gravity')

_SHARED = """
The backends give no contact forces between steps, so the original's cost of contacts, 5e-4 Σclip(force, -1, 1)², is
left out (stock Brax leaves it out as well). Start: the model's pose + U(±0.1), velocities
N(0, 0.1²), as stock. 200 steps of 0.05 s."""


def _family(name: str, backend: str, preset: Preset, robot: physics.Physics, **parts: Any) -> TaskFamily:
  ranges = choose_ranges(preset, {n: Range() for n in _DEFAULT}, BACKENDS[backend], f'{name} ({backend})')
  return make_family(
    name, robot, start=starts.near_initial(robot.system, q_noise=0.1, qd_normal=0.1), ranges=ranges,
    far_only=preset == 'far', episode_length=EPISODE_LENGTH, **parts,
  )


def ant_dir(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Go in a hidden direction, angle ~ U(0, 2π), given as its cosine and sine. Reward per step: v·dir + 1 -
  0.5 Σa², v the torso's over the step. Ends when the torso's height leaves [0.2, 1] m.
  Observation [27]: height, orientation (quaternion), eight joint angles; all velocities."""
  robot = physics.load('ant', backend)

  def reward(goal, velocity, action):
    return velocity @ goal + 1.0 - 0.5 * jnp.sum(jnp.square(action))

  return _family(
    'ant_dir', backend, preset, robot, definition=ant_dir.__doc__ + _SHARED, goal=direction_goal('go'),
    reward=reward, outcome=physics.root_velocity(robot, 2), observe=lambda s: jnp.concatenate([s.q[2:], s.qd]),
    camera='oblique', view=(-1.5, 1.5, -0.6, 1.2),
    terminated=lambda s: (s.q[2] < HEALTHY_Z[0]) | (s.q[2] > HEALTHY_Z[1]),
  )


def ant_goal(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Go to a hidden position, uniform in a disc of radius 3 m (r = 3 sqrt(U); far: uniform between the radii 3 and 4 m).
  Reward per step: -‖p - goal‖₁ - 0.1 Σa², p the torso's position in m. Never ended early.
  Observation [29]: position, height, orientation (quaternion), eight joint angles; all velocities."""
  def sample(rng_key):
    key_radius, key_direction = jax.random.split(rng_key)
    return GOAL_RADIUS * jnp.sqrt(jax.random.uniform(key_radius)) * sample_direction(key_direction)

  def sample_far(rng_key):
    key_radius, key_direction = jax.random.split(rng_key)
    radius = jnp.sqrt(jax.random.uniform(key_radius, minval=GOAL_RADIUS**2, maxval=FAR_RADIUS**2))
    return radius * sample_direction(key_direction)

  def reward(goal, position, action):
    return -jnp.sum(jnp.abs(position - goal)) - 0.1 * jnp.sum(jnp.square(action))

  goal = Goal(
    sample=sample, sample_far=sample_far, is_far=lambda goal: jnp.linalg.norm(goal) > GOAL_RADIUS * (1 + 1e-6),
    scale=GOAL_RADIUS, position=lambda goal, q: goal, achieved=hindsight.last_outcome,
    describe=lambda goal: (
      f'go to the position {abs(float(goal[0])):.1f} m {"ahead" if goal[0] > 0 else "behind"} and '
      f'{abs(float(goal[1])):.1f} m to the {"left" if goal[1] > 0 else "right"}'
    ),
  )
  return _family(
    'ant_goal', backend, preset, physics.load('ant', backend), definition=ant_goal.__doc__ + _SHARED, goal=goal,
    reward=reward, outcome=lambda before, after: after.q[:2], observe=lambda s: jnp.concatenate([s.q, s.qd]),
    camera='top', view=(-3.5, 3.5, -3.5, 3.5),
  )
