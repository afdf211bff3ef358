"""Practice with a dense reward: who gets it, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.improvers import shared_ppo
from metaimprove.improvers.ppo import PPOSettings
from metaimprove.tasks.practice import practice_family
from metaimprove.tasks.registry import make_family
from metaimprove.types import Task


def test_the_dense_reward_by_hand_and_the_same_steps():
  family = make_family('point_goal_sparse_h60')
  task = Task(goal=jnp.array([0.0, 1.0]), dynamics={})
  after, practised = (
    f.step(task, f.reset(task, jax.random.key(0)), jnp.array([1.0, 0.0])) for f in (family, practice_family(family))
  )
  assert float(after.reward) == 0 and float(practised.reward) == pytest.approx(-np.hypot(0.1, 1.0), abs=1e-6)
  np.testing.assert_array_equal(after.observation, practised.observation)
  np.testing.assert_array_equal(after.outcome, practised.outcome)


def test_a_dense_family_is_practised_as_it_is(point):
  assert practice_family(point) is point


@pytest.mark.parametrize(('told', 'reward'), [(True, -1.0), (False, 0.0)])
def test_only_a_learner_that_is_told_the_goal_practises_with_the_dense_reward(monkeypatch, told, reward):
  """The goal is 1 m from the start: told of it, the learner gets -1 for standing still; else it gets 0, as in play."""
  learned_on = []
  make_learner = shared_ppo.make_learner
  monkeypatch.setattr(
    shared_ppo, 'make_learner', lambda family, *args, **kwargs: learned_on.append(family) or make_learner(
      family, *args, **kwargs)
  )
  shared_ppo.shared_ppo(
    'x', make_family('point_goal_sparse_h20'), PPOSettings(num_envs=8, unroll_length=20), 1, (8,), task_conditioned=told
  )
  family = learned_on[0]
  task = Task(goal=jnp.array([0.0, 1.0]), dynamics={})
  after = family.step(task, family.reset(task, jax.random.key(0)), jnp.zeros(2))
  assert float(after.reward) == pytest.approx(reward, abs=1e-6)
