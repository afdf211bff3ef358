"""`reacher_goal`: a two-link arm has to bring its fingertip to a place it is not told.

The robot is Brax's `reacher` (two links of 0.1 m and 0.11 m to the fingertip, one motor a joint). Differences from the
stock task: the target is hidden from the observation, the episode has 50 steps, and the reward is the distance alone,
so that nothing is gained by merely acting less.
"""

import functools
import math

import jax
import jax.numpy as jnp

from metaimprove.tasks import dynamics, physics
from metaimprove.tasks.family import State, TaskFamily
from metaimprove.types import Task

EPISODE_LENGTH = 50
LINK_LENGTHS = (0.1, 0.11)
"""Metres: shoulder to elbow, elbow to the fingertip's centre."""
GOAL_RADII = (0.02, 0.2)
"""Metres: goals are uniform over the area between these circles. The arm reaches from 0.018 (elbow at its limit of 3
rad) to 0.21, so every goal can be reached."""
LENGTH_UNIT = 0.1
"""Metres: the reward is the distance in this unit."""
DYNAMICS = ('gear', 'damping', 'mass', 'inertia')


def _fingertip(q):
  """[2] position in metres, by forward kinematics: MJX's own body positions lag half a step behind q."""
  shoulder, elbow = q[0], q[0] + q[1]
  upper, lower = LINK_LENGTHS
  return jnp.stack([
    upper * jnp.cos(shoulder) + lower * jnp.cos(elbow),
    upper * jnp.sin(shoulder) + lower * jnp.sin(elbow),
  ])


def _observe(physics_state):
  """[8]: cosine and sine of both joints, their velocities in 10 rad/s, the fingertip in units of 0.1 m."""
  angles = physics_state.q[:2]
  return jnp.concatenate([
    jnp.cos(angles), jnp.sin(angles), physics_state.qd[:2] / 10, _fingertip(physics_state.q) / LENGTH_UNIT
  ])


def reacher_goal(backend: str = 'mjx') -> TaskFamily:
  """The family.

  - Task: a goal (x, y) in metres, uniform over the annulus `GOAL_RADII`: r = sqrt(U(0.02², 0.2²)), angle U(0, 2π).
    Four dynamics multipliers, each log-uniform in [1/2, 2]: motor gear, joint damping, link mass, inertia (links' and
    rotors'). Link mass changes little here: nearly all inertia is the rotors'.
  - Start: joint angles U(-0.1, 0.1) rad and velocities U(-0.005, 0.005) rad/s, as stock.
  - Reward per step: minus the distance of fingertip to goal, in units of 0.1 m (stock: metres, and minus Σa²).
  - Ends: never; 50 steps of 0.02 s.
  """
  robot = physics.load('reacher', backend)

  def sample(rng_key, far):
    key_radius, key_angle, key_dynamics = jax.random.split(rng_key, 3)
    near, wide = GOAL_RADII
    radius = jnp.sqrt(jax.random.uniform(key_radius, minval=near**2, maxval=wide**2))
    angle = jax.random.uniform(key_angle, maxval=2 * jnp.pi)
    goal = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    return Task(goal=goal, dynamics=dynamics.sample(key_dynamics, DYNAMICS, far))

  def reset(task, rng_key):
    key_q, key_qd = jax.random.split(rng_key)
    angles = jax.random.uniform(key_q, (2,), minval=-0.1, maxval=0.1)
    velocities = jax.random.uniform(key_qd, (2,), minval=-0.005, maxval=0.005)
    start = robot.init(jnp.concatenate([angles, task.goal]), jnp.concatenate([velocities, jnp.zeros(2)]))
    return State(physics=start, observation=_observe(start), reward=jnp.zeros(()), terminated=jnp.zeros((), bool))

  def step(task, state, action):
    after = robot.step(dynamics.apply(robot.system, task.dynamics), state.physics, action)
    reward = -jnp.linalg.norm(_fingertip(after.q) - task.goal) / LENGTH_UNIT
    return State(physics=after, observation=_observe(after), reward=reward, terminated=jnp.zeros((), bool))

  def privileged(task):
    return jnp.concatenate([task.goal / LENGTH_UNIT, dynamics.privileged(task.dynamics)])

  def describe(task):
    x, y = (float(v) for v in task.goal)
    where = f'{100 * math.hypot(x, y):.0f} cm from the shoulder at {math.degrees(math.atan2(y, x)):.0f}°'
    return f'reach the point {where}, {dynamics.describe(task.dynamics)}'

  def picture(task, q):
    elbow = LINK_LENGTHS[0] * jnp.stack([jnp.cos(q[0]), jnp.sin(q[0])])
    joints = jnp.stack([jnp.zeros(2), elbow, _fingertip(q)])
    return {'lines': jnp.stack([joints[:-1], joints[1:]], axis=1), 'goal': task.goal}

  return TaskFamily(
    name='reacher_goal', backend=backend, sample=functools.partial(sample, far=False),
    sample_far=functools.partial(sample, far=True), reset=reset, step=step, privileged=privileged, describe=describe,
    picture=picture, view=(-0.24, 0.24, -0.24, 0.24), observation_size=8, action_size=2,
    privileged_size=2 + len(DYNAMICS), episode_length=EPISODE_LENGTH,
  )
