"""Explorers: what they practise, on which tasks, and that they are learned once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import policies
from metaimprove.improvers import explorers, tuned
from metaimprove.improvers.explorers import explorer, finding_family, first_policy, learn_explorers
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take

HIDDEN_SIZES = (8,)


@pytest.fixture(scope='module')
def family():
  return make_family('point_goal_sparse_h20')


@pytest.fixture(scope='module')
def settings(family):
  return dataclasses.replace(tuned.explorer_settings(family), num_envs=16, num_minibatches=2, num_epochs=1)


@pytest.fixture(scope='module')
def snapshot(family):
  """Of a task-conditioned source that has not learned yet."""
  source = tuned.make_source('task_conditioned_ppo', family, HIDDEN_SIZES)
  return jax.device_get(source.snapshot(source.init(jax.random.key(0), None)))


def test_an_episode_ends_with_one_when_the_first_reward_is_met(family):
  """Straight to the goal, 0.1 m a step at most: the point is within 0.2 m of the circle of 1 m after 7 to 10 steps."""
  task = take(sample_tasks(family, 0, 1, 'train'), 0)
  finding = finding_family(family)
  state, rewards = finding.reset(task, jax.random.key(0)), []
  while not bool(state.terminated) and len(rewards) < 20:
    state = finding.step(task, state, task.goal / jnp.linalg.norm(task.goal))
    rewards.append(float(state.reward))
  assert rewards == [0.0] * (len(rewards) - 1) + [1.0] and 7 <= len(rewards) <= 10
  assert finding.practice_reward is None and finding.can_terminate


def test_it_begins_as_the_conditioned_policy_told_the_first_task(family, snapshot):
  """Of the same locations, and of wider scales."""
  task = take(sample_tasks(family, 0, 1, 'train'), 0)
  told = {**snapshot, 'policy': jax.tree.map(lambda x: x + 0.1, snapshot['policy'])}
  found = first_policy(family, told, task)
  observation = np.linspace(-1, 1, family.observation_size)[None]
  inputs = np.concatenate([observation, np.asarray(family.privileged(task))[None, :family.told_size]], axis=1)
  apply = lambda params, x: policies.make_policy(x.shape[1], family.action_size, HIDDEN_SIZES).apply(params, x)
  wanted = np.split(np.asarray(apply(told['policy'], inputs)), 2, axis=1)
  location, raw_scale = np.split(np.asarray(apply(found, observation)), 2, axis=1)
  np.testing.assert_allclose(location, wanted[0], rtol=1e-5)
  np.testing.assert_allclose(raw_scale, wanted[1] + explorers.WIDER, rtol=1e-5)


def test_it_practises_on_the_tasks_that_are_left_only(family, settings, snapshot):
  """Nothing is found on tasks 1 to 3, whose goals are out of reach; task 0's goal is where the point begins."""
  tasks = sample_tasks(family, 0, 4, 'train')
  tasks = tasks.replace(goal=jnp.array([[0.0, 0.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]))
  returns = []
  for num_left in (1, 4):
    source = explorer(family, snapshot, settings, 1, tasks, num_left, HIDDEN_SIZES)
    state = source.init(jax.random.key(0), None, jax.tree.map(jnp.asarray, source.data))
    returns.append(float(jax.jit(source.update)(state, None, jax.random.key(1))[1]))
  assert returns[0] == 1.0 and 0 < returns[1] < 0.6


def test_explorers_are_learned_once(family, settings, snapshot, tmp_path, monkeypatch):
  """Each on the tasks that are left by those before it, so what is found does not shrink. A second call only reads."""
  monkeypatch.setattr(explorers, 'NUM_TASKS', 64)
  calls = []

  def learned():
    return learn_explorers(
      family, snapshot, settings, 2, num_explorers=2, seed=0, folder=tmp_path, hidden_sizes=HIDDEN_SIZES,
      progress=lambda *told: calls.append(told[0]),
    )

  first = learned()
  assert calls == ['learn explorer 1'] * 2 + ['learn explorer 2'] * 2 and first.env_steps == 2 * (2 * 16 + 64) * 20
  second = learned()
  assert len(calls) == 4 and (np.diff(first.found) >= 0).all() and first.found.shape == (2,)
  jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
  assert {leaf.shape[0] for leaf in jax.tree.leaves(first.params)} == {2}
