"""Applying an operator again and again, checked against doing it by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.asks import ask
from metaimprove.iteration import iterate
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import make_operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.types import Task, Trajectory
from tests.compilations import counted

NUM_TASKS = 6


@pytest.fixture(scope='module')
def play(operator, point):
  return make_play(point, operator.policy, num_episodes=2)


@pytest.fixture(scope='module')
def start(operator, point):
  tasks = sample_tasks(point, 0, NUM_TASKS, 'heldout')
  return jax.vmap(operator.policy.init)(jax.random.split(jax.random.key(0), NUM_TASKS)), tasks


@pytest.fixture(scope='module')
def remember(operator):
  return make_remember(operator)


@pytest.mark.parametrize('neighbour, sample', [(None, False), (np.array([5, 0, 1, 2, 3, 4]), True)])
def test_iterate_is_act_remember_improve_act(operator, operator_params, play, remember, start, neighbour, sample):
  params, tasks = start
  key, best = jax.random.key(1), ask(steps='best')
  improve = make_improve(operator, operator_params, best, sample=sample, experience_of=neighbour)
  iterates = list(iterate(improve, remember, play, params, tasks, key, num_applications=2))
  assert len(iterates) == 3
  read = np.arange(NUM_TASKS) if neighbour is None else neighbour
  memories = [None] * NUM_TASKS
  remember_one, improve_one = jax.jit(operator.remember), jax.jit(operator.improve)
  for index, found in enumerate(iterates):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), found.params, params)
    trajectory = play(params, tasks, stream(key, f'application {index}'))
    np.testing.assert_allclose(found.trajectory.reward, trajectory.reward, atol=1e-3)
    memories = [remember_one(m, *take((params, trajectory), row)) for row, m in enumerate(memories)]
    keys = jax.random.split(stream(key, f'improve {index}'), NUM_TASKS)
    following = [
      improve_one(operator_params, take(params, row), memories[row], best, keys[place] if sample else None)
      for place, row in enumerate(read.tolist())
    ]
    params = jax.tree.map(lambda *x: jnp.stack(x), *following)


def test_asked_for_nothing_policies_stay_as_they_are(operator, operator_params, play, remember, start):
  """Each policy has an ask of its own: the first ones are to stay, the others are to become better."""
  sizes = np.array([0, 0, 1, 2, 4, -1])
  improve = make_improve(operator, operator_params, ask(steps=sizes))
  *_, last = iterate(improve, remember, play, *start, jax.random.key(0), num_applications=2)
  for before, after in zip(*map(jax.tree.leaves, (start[0], last.params))):
    np.testing.assert_array_equal(before[:2], after[:2])
    assert (np.abs(before[2:] - after[2:]).reshape(4, -1).max(axis=1) > 1e-4).all()


def test_the_experience_is_any_play_and_the_memory_any_memory():
  """No simulator and no operator: a policy is a number, which improves by the sum of all rewards remembered so far."""
  def play(params, tasks, rng_key):
    one = params[:, None, None]
    shape = (*one.shape, 1)
    return Trajectory(
      observation=np.zeros(shape), action=np.zeros(shape), reward=one * tasks.goal[:, :, None],
      next_observation=np.zeros(shape), outcome=np.zeros((*one.shape, 0)), terminated=np.zeros(one.shape, bool),
      valid=np.ones(one.shape, bool), finite=np.ones(one.shape[:2], bool),
    )

  def remember(memory, params, trajectory):
    return (0 if memory is None else memory) + trajectory.reward.sum(axis=(1, 2))

  tasks = Task(goal=np.array([[1.0], [10.0]]), dynamics={})
  made = iterate(
    lambda params, memory, rng_key: params + memory, remember, play, np.array([1.0, 2.0]), tasks, jax.random.key(0),
    num_applications=2,
  )
  # 1, remembered 1; 2, remembered 3; 5. And 2, remembered 20; 22, remembered 240; 262.
  np.testing.assert_array_equal([iterate.params for iterate in made], [[1, 2], [2, 22], [5, 262]])


def test_nothing_is_compiled_for_the_second_application(operator, operator_params, point, start):
  """But what begins a memory and what continues one: these are two programs. The operator is one that no other test
  uses, so nothing is compiled before."""
  operator = make_operator(dataclasses.replace(operator.config, capacity=operator.config.capacity + 1))
  improve = make_improve(operator, operator_params, ask(steps='best'))
  play = make_play(point, operator.policy, num_episodes=3)
  run = functools.partial(iterate, improve, make_remember(operator), play, *start, num_applications=3)
  iterates = run(jax.random.key(0))
  with counted() as compiled:
    next(iterates), next(iterates)
  assert {'jit(_remember)', 'jit(_improve)'} < set(compiled)
  with counted() as compiled:
    next(iterates)
  assert compiled == ['jit(_remember)']
  with counted() as compiled:
    list(iterates)
    list(run(jax.random.key(1)))
  assert compiled == []
