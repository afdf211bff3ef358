"""`pusher_goal`: a seven-joint arm has to push an object to a hidden position on the table."""

import functools

import chex
import jax
import jax.numpy as jnp

from metaimprove.tasks import hindsight
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.parameters import Range
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots import physics
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family

EPISODE_LENGTH = 100
ORIGIN = (0.45, -0.05)
"""Metres: the position on the table where the object's and the goal's sliding joints are at zero."""
_GOAL_LOW, _GOAL_HIGH = (-0.2, -0.15), (0.15, 0.15)
"""Metres from the origin, along y and x, in the order of the sliding joints."""
BACKENDS = {'mjx': ('gear', 'damping', 'mass', 'inertia')}
_DEFAULT = ('gear', 'damping', 'mass')


def _on_table(goal: chex.Array) -> chex.Array:
  """[2] metres: the position (x, y) on the table of a goal (y, x) relative to the origin."""
  return jnp.array(ORIGIN) + goal[::-1]


def _object_start(key_y: chex.PRNGKey, key_x: chex.PRNGKey) -> chex.Array:
  """[2] metres, (y, x) from the origin: where the object lies at first, at least 0.17 m away."""
  position = jnp.stack([
    jax.random.uniform(key_y, minval=-0.3, maxval=-1e-6), jax.random.uniform(key_x, minval=-0.2, maxval=0.2)
  ])
  distance = jnp.linalg.norm(position)
  return position * jnp.where(distance < 0.17, 0.17 / distance, 1.0)


def pusher_goal(backend: str = 'mjx', preset: Preset = 'default') -> TaskFamily:
  """Push an object to a hidden position. Reward per step: -|object - goal| - 0.5 |object - wrist| - 0.1 Σu², in m after
  the step, u the control: actions in [-1, 1] stretched to the motors' range of ±2. Stock measures before the step, and
  the first distance in three dimensions, of which the third never changes. Stock's goal is always the same
  position; here it is U(-0.2, 0.15) by U(-0.15, 0.15) m from there. There are no far goals, because the arm reaches
  little further. 100 steps of 0.05 s, never ended early.
  Observation [22]: seven joint angles, their velocities, wrist and object in m, the object's velocity (stock also shows
  the goal, and not that velocity). Start, as stock: the model's pose, joint velocities U(±0.005), the object
  U(-0.3, 0) by U(-0.2, 0.2) m from the middle, and at least 0.17 m from it (stock: at least 0.17 m from the goal).
  """
  from brax import kinematics, math

  robot = physics.load('pusher', backend)
  system = robot.system
  limits = system.actuator.ctrl_range
  links = [system.link_names.index(name) for name in ('r_wrist_flex_link', 'object')]

  @functools.partial(jax.jit, inline=True)
  def positions(q):
    """[2, 3] metres: centres of wrist and object."""
    x, _ = kinematics.forward(system, q, jnp.zeros(system.qd_size()))
    index = jnp.array(links)
    offset = system.link.inertia.transform.pos[index]
    return x.pos[index] + jax.vmap(math.rotate)(offset, x.rot[index])

  def control(action):
    return limits[:, 0] + (action + 1) / 2 * (limits[:, 1] - limits[:, 0])

  def start(goal, rng_key):
    key_y, key_x, key_qd = jax.random.split(rng_key, 3)
    position = _object_start(key_y, key_x)
    velocities = jax.random.uniform(key_qd, (system.qd_size(),), minval=-0.005, maxval=0.005)
    return system.init_q.at[-4:].set(jnp.concatenate([position, goal])), velocities.at[-4:].set(0.0)

  def observe(state):
    return jnp.concatenate([state.q[:7], state.qd[:7], positions(state.q).ravel(), state.qd[-4:-2]])

  def outcome(before, after):
    wrist, thing = positions(after.q)
    return jnp.append(thing[:2], math.safe_norm(thing - wrist))

  def reward(goal, outcome, action):
    position, distance_to_wrist = outcome[:2], outcome[2]
    return (
      -math.safe_norm(position - _on_table(goal)) - 0.5 * distance_to_wrist
      - 0.1 * jnp.sum(jnp.square(control(action)))
    )

  goal = Goal(
    sample=lambda key: jax.random.uniform(key, (2,), minval=jnp.array(_GOAL_LOW), maxval=jnp.array(_GOAL_HIGH)),
    scale=0.2, position=lambda goal, q: _on_table(goal),
    achieved=lambda outcome, valid: (hindsight.last_outcome(outcome, valid)[:2] - jnp.array(ORIGIN))[::-1],
    describe=lambda goal: f'push the object to the position {100 * float(goal[1]):.0f} cm across and '
                          f'{100 * float(goal[0]):.0f} cm along the table',
  )
  return make_family(
    'pusher_goal', robot, definition=pusher_goal.__doc__, goal=goal, start=start, observe=observe, reward=reward,
    outcome=outcome, control=control, episode_length=EPISODE_LENGTH, camera='top', view=(-0.4, 1.0, -0.9, 0.5),
    ranges=choose_ranges(preset, {n: Range() for n in _DEFAULT}, BACKENDS[backend], f'pusher_goal ({backend})'),
    far_only=preset == 'far',
  )
