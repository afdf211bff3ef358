"""`hopper_rand_params` and `walker_rand_params`: run forward on a body whose parts all differ from stock.

Definitions are those of rand_param_envs, which PEARL uses (Rakelly et al., arXiv:1903.08254): mass, inertia and
friction times 1.5^U(-3, 3), damping times 1.3^U(-3, 3), for each element. Here an element is a link for mass and
inertia (the original draws each axis of inertia for itself, of which a planar robot uses one), a geom for friction
(the original draws its rolling and torsional coefficients too, which condim 3 does not use), and a joint for damping.

A step is 4 times 0.002 s, the models' own time step; since 2018 the original's is 4 times 0.004 s. So its 200 steps are
twice as long, and returns are not comparable.
"""

from typing import Any

import chex
import jax.numpy as jnp

from metaimprove.language.properties import FALL, HEIGHT, SPEED
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.goal import no_goal
from metaimprove.tasks.robots import physics, starts
from metaimprove.tasks.robots.build import Preset, Terminated, choose_ranges, make_family
from metaimprove.tasks.robots.dynamics import per_element

EPISODE_LENGTH = 200
HOPPER_MIN_Z, HOPPER_MAX_ANGLE = 0.7, 0.2
WALKER_Z, WALKER_MAX_ANGLE = (0.8, 2.0), 1.0
_ALL = ('mass', 'inertia', 'friction', 'damping', 'gear', 'gravity')
BACKENDS = {'spring': _ALL, 'mjx': _ALL, 'mjx_fast': _ALL}
_DEFAULT = {'mass': 1.5, 'inertia': 1.5, 'friction': 1.5, 'damping': 1.3}

_SHARED = """
Reward per step: v + 1 - 1e-3 Σa², v the root's over the step. Velocities are observed clipped to ±10, as stock. Start:
the model's pose + U(±0.005), velocities U(±0.005). 200 steps of 0.008 s; the original's are twice as long."""


def _height(state: Any) -> chex.Array:
  return state.q[1] + 1.25  # the model's pose has the torso there, and rootz at 0


def _elements(robot: physics.Physics, name: str) -> int:
  system = robot.system
  if name == 'friction':
    return len(system.geom_bodyid)
  if name == 'damping' and robot.backend != 'spring':
    return system.qd_size()
  return system.num_links()


def _family(
  name: str, brax_name: str, backend: str, preset: Preset, definition: str, terminated: Terminated,
  view: tuple[float, float, float, float],
) -> TaskFamily:
  robot = physics.load(brax_name, backend)
  default = {name: per_element(base, _elements(robot, name)) for name, base in _DEFAULT.items()}

  def reward(goal, velocity, action):
    return velocity[0] + 1.0 - 1e-3 * jnp.sum(jnp.square(action))

  return make_family(
    name, robot, definition=definition + _SHARED, goal=no_goal('run forward'),
    start=starts.near_initial(robot.system, q_noise=5e-3, qd_uniform=5e-3),
    observe=lambda s: jnp.concatenate([_height(s)[None], s.q[2:], jnp.clip(s.qd, -10, 10)]), reward=reward,
    outcome=physics.root_velocity(robot, 1), terminated=terminated,
    ranges=choose_ranges(preset, default, BACKENDS[backend], f'{name} ({backend})'), far_only=preset == 'far',
    episode_length=EPISODE_LENGTH, view=view, properties=(SPEED, HEIGHT, FALL),
  )


def hopper_rand_params(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Hop forward on an altered body. Ends when the torso sinks to 0.7 m, leans more than 0.2 rad or some number leaves
  ±100. Observation [11]: height, pitch, three joint angles; all velocities."""
  def terminated(s):
    numbers = jnp.concatenate([s.q[2:], s.qd])
    falls = (_height(s) <= HOPPER_MIN_Z) | (jnp.abs(s.q[2]) >= HOPPER_MAX_ANGLE)
    return falls | (jnp.abs(numbers) >= 100).any()

  return _family(
    'hopper_rand_params', 'hopper', backend, preset, hopper_rand_params.__doc__, terminated, (-1.0, 1.0, -0.1, 1.6)
  )


def walker_rand_params(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Walk forward on an altered body. Ends when the torso's height leaves (0.8, 2) m or it leans more than 1 rad.
  Observation [17]: height, pitch, six joint angles; all velocities."""
  def terminated(s):
    height = _height(s)
    return (height <= WALKER_Z[0]) | (height >= WALKER_Z[1]) | (jnp.abs(s.q[2]) >= WALKER_MAX_ANGLE)

  return _family(
    'walker_rand_params', 'walker2d', backend, preset, walker_rand_params.__doc__, terminated, (-1.0, 1.0, -0.1, 1.6)
  )
