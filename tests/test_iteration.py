"""Applying an operator again and again, checked against doing it by hand."""

import functools

import jax
import numpy as np
import pytest

from metaimprove.tasks.splits import sample_tasks
from metaimprove.iteration import iterate, make_iterate
from metaimprove.asks import steps as asks
from metaimprove.rollouts import rollout
from metaimprove.types import episode_return

NUM_TASKS = 6


@pytest.fixture(scope='module')
def start(operator, point):
  tasks = sample_tasks(point, 0, NUM_TASKS, 'heldout')
  return tasks, jax.vmap(operator.policy.init)(jax.random.split(jax.random.key(0), NUM_TASKS))


@pytest.mark.parametrize('shuffle', [False, True])
def test_iterate_is_act_improve_act(operator, operator_params, point, start, shuffle):
  tasks, params = start
  key = jax.random.key(1)
  neighbour = [5, 0, 1, 2, 3, 4] if shuffle else list(range(NUM_TASKS))
  curve = jax.jit(functools.partial(
    iterate, operator, family=point, num_applications=2, num_episodes=2
  ))(
    operator_params, tasks=tasks, params=params, rng_key=key, ask=np.int32(asks.BEST),
    reads_from=np.array(neighbour) if shuffle else None,
  )
  play = functools.partial(rollout, point, operator.policy, num_episodes=2)
  for point_index, step_key in enumerate(jax.random.split(key, 3)):
    jax.tree.map(lambda x, y, n=point_index: np.testing.assert_allclose(x[n], y, atol=1e-4), curve.params, params)
    trajectory = jax.vmap(play)(params, tasks, jax.random.split(step_key, NUM_TASKS))
    np.testing.assert_allclose(curve.returns[point_index], episode_return(trajectory).mean(axis=1), atol=1e-3)
    seen = jax.tree.map(lambda x: x[np.array(neighbour)], (params, trajectory))
    params = jax.vmap(operator.improve, in_axes=(None, 0, 0, None))(operator_params, *seen, asks.BEST)


def test_asked_for_nothing_policies_stay_as_they_are(operator, operator_params, point, start):
  tasks, params = start
  run = make_iterate(operator, point, num_applications=3, num_episodes=1, chunk=NUM_TASKS)
  curve = run(operator_params, tasks, params, jax.random.key(0), 0)
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[-1], y), curve.params, params)


def test_shuffled_it_reads_the_neighbour(operator, operator_params, point, start):
  tasks, params = start
  run = make_iterate(operator, point, num_applications=2, num_episodes=1, chunk=NUM_TASKS)
  own, shuffled = (
    run(operator_params, tasks, params, jax.random.key(0), asks.BEST, shuffle_experience=s) for s in (False, True)
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(np.roll(x[1], 1, axis=0), y[1], atol=1e-5), own.params, shuffled.params
  )


def test_chunks_are_filled_up_and_cut(operator, operator_params, point, start):
  tasks, params = start
  run = make_iterate(operator, point, num_applications=2, num_episodes=1, chunk=4)
  done = []
  curve = run(operator_params, tasks, params, jax.random.key(0), np.arange(NUM_TASKS), progress=done.append)
  assert curve.returns.shape == (3, NUM_TASKS) and done == [4, 6]
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), curve.params, params)
  # Task 0 asks for k = 0.
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[-1, 0], y[0]), curve.params, params)
