"""`inverted_pendulum_balance` and `inverted_pendulum_swingup`: a cart and its pole."""

import functools

import jax
import jax.numpy as jnp

from metaimprove import quiet_brax
from metaimprove.tasks import hindsight
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.parameters import Range
from metaimprove.tasks.goal import Goal, no_goal
from metaimprove.tasks.robots import physics, starts
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family

EPISODE_LENGTH = 100
SWINGUP_LENGTH = 150
GOAL_LIMIT, FAR_LIMIT = 0.5, 0.7
"""Metres: goals are uniform in ±0.5; far ones between 0.5 and 0.7 on either side. The rail ends at ±1."""
FALL_ANGLE = 0.2
"""Radians from upright at which balancing ends, as stock."""
_ALL = ('gear', 'damping', 'mass', 'inertia', 'length', 'gravity')
BACKENDS = {'mjx': _ALL, 'generalized': _ALL}
_BALANCE = ('gear', 'damping', 'mass', 'inertia')
_SWINGUP = ('gear', 'mass', 'length')
_VIEW = (-1.1, 1.1, -0.8, 0.8)


def inverted_pendulum_balance(backend: str = 'mjx', preset: Preset = 'default') -> TaskFamily:
  """Balance the pole at a hidden position on the rail, U(-0.5, 0.5) m (far: ±U(0.5, 0.7)). Reward per step:
  1 - |cart - goal| / 0.5 m (stock: 1). Ends when the pole leans more than 0.2 rad; else after 100 steps of 0.04 s.
  Actions in [-1, 1] are the motor's control (stock stretches them to [-3, 3], which tips the pole in a few random
  steps).
  Observation [4]: cart position in m, pole angle in 0.1 rad, their velocities in m/s and rad/s. Start: U(±0.01), as
  stock."""
  def describe(goal):
    position = float(goal[0])
    return f'balance {100 * abs(position):.0f} cm {"right" if position > 0 else "left"} of the middle'

  def sample_far(rng_key):
    key_distance, key_side = jax.random.split(rng_key)
    distance = jax.random.uniform(key_distance, (1,), minval=GOAL_LIMIT, maxval=FAR_LIMIT)
    return distance * jax.random.rademacher(key_side, (1,), jnp.float32)

  robot = physics.load('inverted_pendulum', backend)
  goal = Goal(
    sample=lambda key: jax.random.uniform(key, (1,), minval=-GOAL_LIMIT, maxval=GOAL_LIMIT), scale=GOAL_LIMIT,
    sample_far=sample_far, is_far=lambda goal: jnp.abs(goal[0]) > GOAL_LIMIT, describe=describe,
    achieved=hindsight.last_outcome, position=lambda goal, q: jnp.stack([goal[0] - q[0], jnp.zeros(())]),
  )
  ranges = choose_ranges(
    preset, {n: Range() for n in _BALANCE}, BACKENDS[backend], f'inverted_pendulum_balance ({backend})'
  )
  return make_family(
    'inverted_pendulum_balance', robot, definition=inverted_pendulum_balance.__doc__, goal=goal,
    start=starts.near_initial(robot.system, q_noise=0.01, qd_uniform=0.01),
    observe=lambda s: jnp.concatenate([s.q, s.qd]) * jnp.array([1.0, 10.0, 1.0, 1.0]),
    reward=lambda goal, position, action: 1 - jnp.abs(position[0] - goal[0]) / GOAL_LIMIT,
    outcome=lambda before, after: after.q[:1], terminated=lambda s: jnp.abs(s.q[1]) > FALL_ANGLE, ranges=ranges,
    far_only=preset == 'far', episode_length=EPISODE_LENGTH, view=_VIEW,
  )


@functools.cache
def _free_pendulum(backend: str) -> physics.Physics:
  """Brax's robot with a hinge that turns all the way round."""
  physics.check_backend(backend)
  import importlib.resources

  from brax import envs
  from brax.io import mjcf

  xml = (importlib.resources.files('brax') / 'envs/assets/inverted_pendulum.xml').read_text()
  limited = 'name="hinge" pos="0 0 0" range="-90 90"'
  assert limited in xml, 'brax changed its inverted_pendulum.xml'
  with quiet_brax.making():
    env = envs.get_environment('inverted_pendulum', backend=backend)
    env.sys = mjcf.loads(xml.replace(limited, 'name="hinge" pos="0 0 0" limited="false"'))
    return physics.of_env(env)


def inverted_pendulum_swingup(backend: str = 'mjx', preset: Preset = 'default') -> TaskFamily:
  """Swing the hanging pole up and hold it, with hidden motor, mass and length. Reward per step:
  (1 + cos(angle)) / 2 - 0.1 (cart / 1 m)², angle from upright. 150 steps of 0.04 s, never ended early.
  The robot is Brax's inverted_pendulum, whose hinge stops at ±90°, with a free hinge (no stock task is like it). The
  motor's control is three times the action, all of its range, as stock. With a third of that the pole cannot be
  lifted: its hinge is damped, and the rail is short.
  Observation [5]: cart position in m, cosine and sine of the angle, velocities in m/s and 10 rad/s. Start: the cart
  U(±0.1) m, the angle π + U(±0.1), velocities U(±0.1)."""
  robot = _free_pendulum(backend)

  def start(goal, rng_key):
    key_q, key_qd = jax.random.split(rng_key)
    q = jnp.array([0.0, jnp.pi]) + jax.random.uniform(key_q, (2,), minval=-0.1, maxval=0.1)
    return q, jax.random.uniform(key_qd, (2,), minval=-0.1, maxval=0.1)

  def reward(goal, position_and_angle, action):
    position, angle = position_and_angle
    return (1 + jnp.cos(angle)) / 2 - 0.1 * jnp.square(position)

  def observe(state):
    position, angle = state.q
    return jnp.stack([position, jnp.cos(angle), jnp.sin(angle), state.qd[0], state.qd[1] / 10])

  ranges = choose_ranges(
    preset, {n: Range() for n in _SWINGUP}, BACKENDS[backend], f'inverted_pendulum_swingup ({backend})'
  )
  return make_family(
    'inverted_pendulum_swingup', robot, definition=inverted_pendulum_swingup.__doc__, goal=no_goal('swing the pole up'),
    start=start, observe=observe, reward=reward, outcome=lambda before, after: after.q,
    control=lambda action: 3 * action, ranges=ranges, far_only=preset == 'far', episode_length=SWINGUP_LENGTH,
    view=_VIEW,
  )
