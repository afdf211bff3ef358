"""One contract for every family, and what is particular to each."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.errors import UnknownNameError
from metaimprove.tasks import dynamics, physics, reacher
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.types import Task

NUM_TASKS, NUM_STEPS = 8, 6


class Bench:
  """A family with what every test of it shares: one compiled program, and tasks, starts and actions for it."""

  def __init__(self, name):
    self.family = make_family(name)
    self.traces = 0
    keys = jax.random.split(jax.random.key(0), NUM_TASKS)
    self.tasks = jax.jit(jax.vmap(self.family.sample))(keys)
    self.keys = jax.random.split(jax.random.key(1), NUM_TASKS)
    self.actions = jax.random.uniform(
      jax.random.key(2), (NUM_STEPS, NUM_TASKS, self.family.action_size), minval=-1, maxval=1
    )

    @jax.jit
    def run(tasks, keys, actions):
      self.traces += 1
      start = jax.vmap(self.family.reset)(tasks, keys)

      def step(states, action):
        after = jax.vmap(self.family.step)(tasks, states, action)
        return after, after

      return start, jax.lax.scan(step, start, actions)[1]

    self.run = run


@pytest.fixture(scope='module', params=family_names())
def bench(request):
  return Bench(request.param)


def with_multipliers(tasks: Task, **multipliers) -> Task:
  ones = {name: jnp.ones(NUM_TASKS) for name in tasks.dynamics}
  given = {name: jnp.full(NUM_TASKS, value, jnp.float32) for name, value in multipliers.items()}
  return Task(goal=tasks.goal, dynamics={**ones, **given})


def test_shapes_and_sizes(bench):
  family = bench.family
  start, after = bench.run(bench.tasks, bench.keys, bench.actions)
  assert start.observation.shape == (NUM_TASKS, family.observation_size)
  assert after.observation.shape == (NUM_STEPS, NUM_TASKS, family.observation_size)
  assert after.reward.shape == after.terminated.shape == (NUM_STEPS, NUM_TASKS)
  assert after.terminated.dtype == bool
  assert np.isfinite(after.observation).all() and np.isfinite(after.reward).all()
  task = jax.tree.map(lambda x: x[0], bench.tasks)
  assert family.privileged(task).shape == (family.privileged_size,)
  picture = family.picture(task, start.physics.q[0])
  assert picture['lines'].shape[1:] == (2, 2) and picture['goal'].shape == (2,)


def test_other_tasks_run_in_the_same_program(bench):
  bench.run(bench.tasks, bench.keys, bench.actions)
  other = jax.vmap(bench.family.sample_far)(jax.random.split(jax.random.key(9), NUM_TASKS))
  bench.run(other, bench.keys, bench.actions)
  assert bench.traces == 1


def test_reset_is_a_true_reset(bench):
  first, _ = bench.run(bench.tasks, bench.keys, bench.actions)
  again, _ = bench.run(bench.tasks, bench.keys, bench.actions)
  other, _ = bench.run(bench.tasks, jax.random.split(jax.random.key(5), NUM_TASKS), bench.actions)
  np.testing.assert_array_equal(first.observation, again.observation)
  assert (np.abs(first.observation - other.observation).max(axis=1) > 0).all()


def test_the_goal_is_hidden_and_matters(bench):
  """Another goal changes the rewards, and neither the first observation nor, in free motion, the following ones."""
  tasks = with_multipliers(bench.tasks)
  moved = tasks.replace(goal=jnp.roll(tasks.goal, 1, axis=0))
  start, after = bench.run(tasks, bench.keys, bench.actions)
  start_moved, after_moved = bench.run(moved, bench.keys, bench.actions)
  np.testing.assert_array_equal(start.observation, start_moved.observation)
  np.testing.assert_allclose(after.observation, after_moved.observation, atol=1e-6)
  assert np.abs(after.reward - after_moved.reward).max() > 1e-2


@pytest.mark.parametrize('name', ['gear', 'damping', 'mass', 'inertia'])
def test_each_dynamics_parameter_is_real(bench, name):
  """From the same state and actions, doubling it moves the robot beyond rounding."""
  stock = bench.run(with_multipliers(bench.tasks), bench.keys, bench.actions)[1].physics
  changed = bench.run(with_multipliers(bench.tasks, **{name: 2.0}), bench.keys, bench.actions)[1].physics
  assert (np.abs(stock.qd - changed.qd).max(axis=(0, 2)) > 1e-4 * np.abs(stock.qd).max(axis=(0, 2))).mean() > 0.5


def test_training_and_far_ranges(bench):
  keys = jax.random.split(jax.random.key(3), 500)
  near = jax.vmap(bench.family.sample)(keys).dynamics
  far = jax.vmap(bench.family.sample_far)(keys).dynamics
  low, high = dynamics.TRAIN_RANGE
  assert all(((m >= low * 0.999) & (m <= high * 1.001)).all() for m in near.values())
  outside = np.stack([(m < low) | (m > high) for m in far.values()])
  np.testing.assert_array_equal(outside.sum(axis=0), 1)
  assert (outside.mean(axis=1) > 0.1).all(), 'every parameter is the far one now and then'
  everything = np.stack(list(far.values()))
  assert everything.min() > dynamics.FAR_RANGE[0] * 0.999 and everything.max() < dynamics.FAR_RANGE[1] * 1.001


def test_describe_names_what_is_odd(bench):
  task = jax.tree.map(lambda x: x[0], with_multipliers(bench.tasks, gear=0.5))
  assert 'weak motors' in bench.family.describe(task)
  assert 'joints' not in bench.family.describe(task)


@pytest.mark.parametrize(
  ('name', 'robot'), [('reacher_goal', 'reacher'), ('inverted_pendulum_balance', 'inverted_pendulum')]
)
def test_multiplier_one_is_stock_brax(name, robot):
  """Step for step, but for rounding, Brax's own environment with the same start and control."""
  from brax import envs

  from metaimprove import quiet_brax

  bench = Bench(name)
  with quiet_brax.known_warnings_ignored():
    env = envs.get_environment(robot, backend='mjx')
  start, after = bench.run(with_multipliers(bench.tasks), bench.keys, bench.actions)
  stock = jax.jit(jax.vmap(env.pipeline_init))(start.physics.q, start.physics.qd)

  @jax.jit
  def stock_run(state, actions):
    def step(s, action):
      s = jax.vmap(env.pipeline_step)(s, action)
      return s, (s.q, s.qd)

    return jax.lax.scan(step, state, actions)[1]

  q, qd = stock_run(stock, bench.actions)
  np.testing.assert_allclose(after.physics.q, q, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(after.physics.qd, qd, rtol=1e-5, atol=1e-5)


def test_reacher_reward_by_hand():
  """The stretched arm's tip is at (0.21, 0): 0.01 m from a goal at (0.2, 0), which costs 0.1."""
  np.testing.assert_allclose(reacher._fingertip(jnp.zeros(4)), [0.21, 0.0], atol=1e-7)
  np.testing.assert_allclose(reacher._fingertip(jnp.array([jnp.pi / 2, 0, 0, 0])), [0.0, 0.21], atol=1e-7)
  family = make_family('reacher_goal')
  task = Task(goal=jnp.array([0.2, 0.0]), dynamics={name: jnp.ones(()) for name in reacher.DYNAMICS})
  state = family.reset(task, jax.random.key(0))
  still = dataclasses.replace(state.physics, q=jnp.array([0.0, 0.0, 0.2, 0.0]), qd=jnp.zeros(4))
  after = jax.jit(functools.partial(family.step, task))(state.replace(physics=still), jnp.zeros(2))
  np.testing.assert_allclose(after.reward, -0.1, atol=1e-4)


def test_reacher_goals_are_uniform_over_the_annulus():
  family = make_family('reacher_goal')
  goals = jax.vmap(family.sample)(jax.random.split(jax.random.key(0), 4000)).goal
  radius = np.linalg.norm(goals, axis=1)
  near, wide = reacher.GOAL_RADII
  assert near <= radius.min() and radius.max() <= wide
  # Half the area lies within sqrt((near² + wide²) / 2); Brax's own radius U(0, 0.2) would put 71% there.
  assert abs((radius < np.sqrt((near**2 + wide**2) / 2)).mean() - 0.5) < 0.03


def test_pendulum_falls():
  family = make_family('inverted_pendulum_balance')
  task = jax.tree.map(lambda x: x, family.sample(jax.random.key(0)))
  state = family.reset(task, jax.random.key(0))
  step = jax.jit(functools.partial(family.step, task))
  for tilt, falls in ((0.15, False), (0.25, True)):
    leaning = dataclasses.replace(state.physics, q=jnp.array([0.0, tilt]), qd=jnp.zeros(2))
    assert bool(step(state.replace(physics=leaning), jnp.zeros(1)).terminated) == falls


def test_unknown_names():
  with pytest.raises(UnknownNameError, match='reacher_goal'):
    make_family('reacher')
  with pytest.raises(UnknownNameError, match='mjx'):
    make_family('reacher_goal', backend='spring')
  with pytest.raises(UnknownNameError, match='gear'):
    dynamics.apply(physics.load('reacher', 'mjx').system, {'colour': jnp.ones(())})
