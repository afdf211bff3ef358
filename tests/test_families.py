"""One contract for every family on every backend it declares, and what is particular to each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.errors import UnknownNameError
from metaimprove.tasks import ant, dynamics, half_cheetah, hopper, humanoid, inverted_pendulum, pusher, reacher
from metaimprove.tasks.registry import backends_of, family_names, make_family
from metaimprove.types import Task
from tests.compilations import counted

NUM_TASKS, NUM_STEPS = 4, 4
COMBINATIONS = [(name, backend) for name in family_names() for backend in backends_of(name)]


class Bench:
  """A family on a backend with everything randomised that is real there, and a short run of it.

  Steps are taken one by one, so that what is compiled is the robot's physics, once for all families on it.
  """

  def __init__(self, name, backend):
    self.name, self.backend = name, backend
    self.parameters = backends_of(name)[backend]
    self.family = make_family(name, backend, self.parameters)
    keys = jax.random.split(jax.random.key(0), NUM_TASKS)
    self.tasks = jax.jit(jax.vmap(self.family.sample))(keys)
    self.keys = jax.random.split(jax.random.key(1), NUM_TASKS)
    self.actions = jax.random.uniform(
      jax.random.key(2), (NUM_STEPS, NUM_TASKS, self.family.action_size), minval=-1, maxval=1
    )
    self.ones = self.tasks.replace(dynamics=jax.tree.map(jnp.ones_like, self.tasks.dynamics))

  def run(self, tasks, keys=None):
    """(start, [step] of states)"""
    state = start = jax.vmap(self.family.reset)(tasks, self.keys if keys is None else keys)
    after = []
    for action in self.actions:
      state = jax.vmap(self.family.step)(tasks, state, action)
      after.append(state)
    return start, jax.tree.map(lambda *x: jnp.stack(x), *after)

  @functools.cached_property
  def stock(self):
    return self.run(self.ones)


@pytest.fixture(scope='module', params=COMBINATIONS, ids='-'.join)
def bench(request):
  return Bench(*request.param)


def test_shapes_and_sizes(bench):
  family = bench.family
  start, after = bench.stock
  assert start.observation.shape == (NUM_TASKS, family.observation_size)
  assert after.observation.shape == (NUM_STEPS, NUM_TASKS, family.observation_size)
  assert after.reward.shape == after.terminated.shape == (NUM_STEPS, NUM_TASKS)
  assert after.terminated.dtype == bool
  assert np.isfinite(after.observation).all() and np.isfinite(after.reward).all()
  task = jax.tree.map(lambda x: x[0], bench.tasks)
  privileged = family.privileged(task)
  assert privileged.shape == (family.privileged_size,) and np.abs(privileged).max() <= 1.01
  picture = family.picture(task, start.physics.q[0])
  assert picture['lines'].shape[1:] == (2, 2) and picture['goal'].shape == (2,)
  assert len(picture['lines']) > 1 and np.isfinite(picture['lines']).all()


def test_other_tasks_and_true_resets_in_the_same_program(bench):
  """New goals, dynamics and starts compile nothing, and every key gives another start."""
  first, _ = bench.stock
  with counted() as compilations:
    tasks = jax.tree.map(lambda x: x[::-1], bench.tasks)
    other, _ = bench.run(tasks, jax.random.split(jax.random.key(5), NUM_TASKS))
    again, _ = bench.run(bench.ones)
  assert not [name for name in compilations if 'step' in name or 'start' in name], compilations
  np.testing.assert_array_equal(first.observation, again.observation)
  assert (np.abs(first.observation - other.observation).max(axis=1) > 0).all()


def test_the_goal_is_hidden_and_matters(bench):
  """Another goal changes the rewards, and neither the first observation nor, in free motion, the following ones."""
  if not bench.tasks.goal.shape[1]:
    pytest.skip('tasks differ in dynamics only')
  moved = bench.ones.replace(goal=-bench.ones.goal)
  start, after = bench.stock
  start_moved, after_moved = bench.run(moved)
  np.testing.assert_array_equal(start.observation, start_moved.observation)
  np.testing.assert_allclose(after.observation, after_moved.observation, atol=1e-5)
  if bench.name != 'reacher_goal_sparse':  # by hand, below: hardly any first steps are rewarded
    assert np.abs(after.reward - after_moved.reward).max() > 1e-3


def test_each_dynamics_parameter_is_real(bench):
  """From the same state and actions, another value moves the robot beyond rounding; the others stay stock."""
  stock = bench.stock[1].physics.qd
  for name in bench.parameters:
    # Smaller: what is heavier or rougher than what already sticks would not slide any less.
    changed = {**bench.ones.dynamics, name: bench.ones.dynamics[name] * jnp.float32(0.6)}
    after = bench.run(bench.ones.replace(dynamics=changed))[1].physics.qd
    moved = np.abs(after - stock).max(axis=(0, 2)) / np.abs(stock).max(axis=(0, 2))
    assert np.isfinite(after).all(), name
    assert moved.max() > 1e-4, (name, moved)


def test_describe_names_what_is_odd(bench):
  task = jax.tree.map(lambda x: x[0], bench.ones)
  said = bench.family.describe(task.replace(dynamics={**task.dynamics, 'gear': jnp.asarray(0.5)}))
  assert 'weak motors (x0.50)' in said and 'joints' not in said
  assert bench.family.definition.strip() and 'Reward per step' in bench.family.definition
