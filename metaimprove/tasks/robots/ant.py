"""Families of the ant: go in a direction, or to a place, that is not told.

Definitions are those of the reference code of PEARL (Rakelly et al., arXiv:1903.08254). VariBAD's own copy of the
direction task passes ±1.0 as if it were a direction where the code expects an angle in radians; here angles cover the
circle.
"""

import math

import jax
import jax.numpy as jnp

from metaimprove.tasks import hindsight
from metaimprove.tasks.family import Range, TaskFamily
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots import physics, starts
from metaimprove.tasks.robots.build import choose_ranges, make_family

EPISODE_LENGTH = 200
HEALTHY_Z = (0.2, 1.0)
"""Metres: the direction task ends when the torso's height leaves this range."""
GOAL_RADIUS = 3.0
_ALL = ('gear', 'damping', 'mass', 'inertia', 'friction', 'gravity')
BACKENDS = {'spring': _ALL, 'mjx': _ALL}
_DEFAULT = ('gear', 'friction', 'gravity')

_SHARED = """
Contact forces are not among what the backends give between steps (stock Brax leaves their cost out as well), so the
original's cost of them, 5e-4 Σclip(force, -1, 1)², is left out. Start: the model's pose + U(±0.1), velocities
N(0, 0.1²), as stock. 200 steps of 0.05 s."""


def _family(name, backend, preset, **parts) -> TaskFamily:
  robot = physics.load('ant', backend)
  ranges = choose_ranges(preset, {n: Range() for n in _DEFAULT}, BACKENDS[backend], f'{name} ({backend})')
  return make_family(
    name, robot, start=starts.near_initial(robot.system, q_noise=0.1, qd_normal=0.1), ranges=ranges,
    far_only=preset == 'far', episode_length=EPISODE_LENGTH, **parts,
  )


def ant_dir(backend: str = 'spring', preset='default') -> TaskFamily:
  """Go in a hidden direction, angle ~ U(0, 2π), told apart by its cosine and sine. Reward per step: v·dir + 1 -
  0.5 Σa², v the torso's over the step. Ends when the torso's height leaves [0.2, 1] m.
  Observation [27]: height, orientation (quaternion), eight joint angles; all velocities."""
  time_step = physics.load('ant', backend).time_step

  def sample(rng_key):
    angle = jax.random.uniform(rng_key, maxval=2 * jnp.pi)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])

  def reward(goal, velocity, action):
    return velocity @ goal + 1.0 - 0.5 * jnp.sum(jnp.square(action))

  goal = Goal(
    sample=sample, describe=lambda goal: f'go towards {math.degrees(math.atan2(goal[1], goal[0])) % 360:.0f}°',
    position=lambda goal, q: jnp.stack([goal[0] + 0.4 * goal[1], 0.3 * goal[1]]),
    achieved=lambda velocity, valid: hindsight.direction(hindsight.mean_outcome(velocity, valid)),
  )
  return _family(
    'ant_dir', backend, preset, definition=ant_dir.__doc__ + _SHARED, goal=goal, reward=reward,
    outcome=lambda before, after: (after.q[:2] - before.q[:2]) / time_step,
    observe=lambda s: jnp.concatenate([s.q[2:], s.qd]), camera='oblique', view=(-1.5, 1.5, -0.6, 1.2),
    terminated=lambda s: (s.q[2] < HEALTHY_Z[0]) | (s.q[2] > HEALTHY_Z[1]),
  )


def ant_goal(backend: str = 'spring', preset='default') -> TaskFamily:
  """Go to a hidden place, uniform in a disc of radius 3 m (r = 3 sqrt(U)). Reward per step: -‖p - goal‖₁ - 0.1 Σa²,
  p the torso's place in m. Never ended early.
  Observation [29]: place, height, orientation (quaternion), eight joint angles; all velocities."""
  def sample(rng_key):
    key_radius, key_angle = jax.random.split(rng_key)
    angle = jax.random.uniform(key_angle, maxval=2 * jnp.pi)
    return GOAL_RADIUS * jnp.sqrt(jax.random.uniform(key_radius)) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

  def reward(goal, position, action):
    return -jnp.sum(jnp.abs(position - goal)) - 0.1 * jnp.sum(jnp.square(action))

  goal = Goal(
    sample=sample, scale=GOAL_RADIUS, position=lambda goal, q: goal, achieved=hindsight.last_outcome,
    describe=lambda goal: (
      f'go to the place {abs(float(goal[0])):.1f} m {"ahead" if goal[0] > 0 else "behind"} and '
      f'{abs(float(goal[1])):.1f} m to the {"left" if goal[1] > 0 else "right"}'
    ),
  )
  return _family(
    'ant_goal', backend, preset, definition=ant_goal.__doc__ + _SHARED, goal=goal, reward=reward,
    outcome=lambda before, after: after.q[:2], observe=lambda s: jnp.concatenate([s.q, s.qd]),
    camera='top', view=(-3.5, 3.5, -3.5, 3.5),
  )
