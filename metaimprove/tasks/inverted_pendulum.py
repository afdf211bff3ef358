"""`inverted_pendulum_balance`: a cart has to balance its pole at a place on the rail that it is not told.

The robot is Brax's `inverted_pendulum`. Differences from the stock task: the reward depends on a hidden place, actions
in [-1, 1] are the motor's control (stock stretches them to [-3, 3], which tips the pole in a few random steps), and the
episode has 100 steps.
"""

import functools

import jax
import jax.numpy as jnp

from metaimprove.tasks import dynamics, physics
from metaimprove.tasks.family import State, TaskFamily
from metaimprove.types import Task

EPISODE_LENGTH = 100
GOAL_LIMIT = 0.5
"""Metres: goals are uniform in [-0.5, 0.5]; the rail ends at 1."""
FALL_ANGLE = 0.2
"""Radians from upright at which the episode ends, as stock."""
POLE_LENGTH = 0.6
DYNAMICS = ('gear', 'damping', 'mass', 'inertia')


def inverted_pendulum_balance(backend: str = 'mjx') -> TaskFamily:
  """The family.

  - Task: a place in metres on the rail, U(-0.5, 0.5); multipliers of motor gear, damping, mass and inertia, each
    log-uniform in [1/2, 2].
  - Observation [4]: cart position in m, pole angle in units of 0.1 rad, cart velocity in m/s, pole velocity in rad/s.
  - Start: all of them U(-0.01, 0.01), as stock.
  - Reward per step: 1 - |cart - goal| / 0.5 m (stock: 1).
  - Ends: when the pole leans more than 0.2 rad; else after 100 steps of 0.04 s.
  """
  robot = physics.load('inverted_pendulum', backend)

  def observe(state):
    return jnp.concatenate([state.q, state.qd]) * jnp.array([1.0, 10.0, 1.0, 1.0])

  def sample(rng_key, far):
    key_goal, key_dynamics = jax.random.split(rng_key)
    goal = jax.random.uniform(key_goal, (1,), minval=-GOAL_LIMIT, maxval=GOAL_LIMIT)
    return Task(goal=goal, dynamics=dynamics.sample(key_dynamics, DYNAMICS, far))

  def reset(task, rng_key):
    del task
    key_q, key_qd = jax.random.split(rng_key)
    start = robot.init(*(jax.random.uniform(key, (2,), minval=-0.01, maxval=0.01) for key in (key_q, key_qd)))
    return State(physics=start, observation=observe(start), reward=jnp.zeros(()), terminated=jnp.zeros((), bool))

  def step(task, state, action):
    after = robot.step(dynamics.apply(robot.system, task.dynamics), state.physics, action)
    reward = 1 - jnp.abs(after.q[0] - task.goal[0]) / GOAL_LIMIT
    return State(
      physics=after, observation=observe(after), reward=reward, terminated=jnp.abs(after.q[1]) > FALL_ANGLE
    )

  def privileged(task):
    return jnp.concatenate([task.goal / GOAL_LIMIT, dynamics.privileged(task.dynamics)])

  def describe(task):
    place = float(task.goal[0])
    side = 'right' if place > 0 else 'left'
    return f'balance {100 * abs(place):.0f} cm {side} of the middle, {dynamics.describe(task.dynamics)}'

  def picture(task, q):
    tip = jnp.stack([q[0] + POLE_LENGTH * jnp.sin(q[1]), POLE_LENGTH * jnp.cos(q[1])])
    cart = jnp.stack([q[0], jnp.zeros(())])
    half = jnp.array([0.1, 0.0])
    lines = jnp.stack([jnp.stack([cart - half, cart + half]), jnp.stack([cart, tip])])
    return {'lines': lines, 'goal': jnp.stack([task.goal[0], jnp.zeros(())])}

  return TaskFamily(
    name='inverted_pendulum_balance', backend=backend, sample=functools.partial(sample, far=False),
    sample_far=functools.partial(sample, far=True), reset=reset, step=step, privileged=privileged, describe=describe,
    picture=picture, view=(-1.1, 1.1, -0.4, 0.8), observation_size=4, action_size=1,
    privileged_size=1 + len(DYNAMICS), episode_length=EPISODE_LENGTH,
  )
