"""Families as `dm_env` environments, and an actor that improves in them."""

import types

import dm_env
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import specs, test_utils

from metaimprove.adapters.dm_env import Actor, FamilyEnvironment
from metaimprove.adapters.gymnasium import FamilyEnv, ImprovingAgent
from metaimprove.errors import ExperienceError, IncompatibleError
from tests.point_family import point_family


class FamilyEnvironmentTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
  """`dm_env`'s own test of an environment."""

  def make_object_under_test(self):
    return FamilyEnvironment(point_family())

  def make_action_sequence(self):
    for _ in range(20):
      yield np.full(1, 0.3, np.float32)


def test_ends_are_told_apart():
  """At the time limit the discount is 1, where the task ends it is 0; then the next step is a reset."""
  env = FamilyEnvironment(point_family())
  for action, discount in ((0.0, 1.0), (1.0, 0.0)):
    step = env.step(np.ones(1))
    assert step.first() and step.reward is None
    while not step.last():
      step = env.step(np.full(1, action))
    assert step.discount == discount


def test_seeds_reproduce_and_tasks_are_drawn():
  def goals(seed):
    env = FamilyEnvironment(point_family(), seed=seed, episodes_per_task=1)
    return [float((env.reset(), env.task.goal[0])[1]) for _ in range(3)]

  assert goals(0) == goals(0) != goals(1) and len(set(goals(0))) == 3


def run_episode(actor, environment):
  time_step, total = environment.reset(), 0.0
  actor.observe_first(time_step)
  while not time_step.last():
    action = actor.select_action(time_step.observation)
    time_step = environment.step(action)
    actor.observe(action, time_step)
    total += time_step.reward
  return total


def test_an_actor_improves_as_an_agent_in_gymnasium_does(operator, operator_params):
  """On the same task from the same seeds; after as many episodes as in training."""
  loaded = operator, operator_params
  env = FamilyEnv(point_family())
  expected = ImprovingAgent(loaded, env, seed=6).run(1)[0]
  environment = FamilyEnvironment(point_family(), seed=6)
  environment._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(6)))
  actor = Actor(loaded, environment, seed=6)
  found = [run_episode(actor, environment) for _ in range(4)]
  assert actor.agent.num_applications == 2
  np.testing.assert_allclose(np.reshape(found, (2, 2)), expected, rtol=1e-5)


def test_an_actor_that_waits_is_improved_by_hand(operator, operator_params):
  environment = FamilyEnvironment(point_family())
  actor = Actor((operator, operator_params), environment, num_episodes=0)
  for _ in range(3):
    run_episode(actor, environment)
  assert actor.agent.num_finished == 3 and actor.agent.num_applications == 0
  actor.agent.improve()
  assert actor.agent.num_applications == 1
  with pytest.raises(ExperienceError, match='first time step'):
    actor.observe_first(dm_env.transition(0.0, np.zeros(1)))


def test_episodes_that_blow_up_are_not_taken_for_good_ones(operator, operator_params):
  environment = FamilyEnvironment(point_family(blow_up_beyond=0.9))
  actor, finite = Actor((operator, operator_params), environment, num_episodes=0), []
  for _ in range(8):
    run_episode(actor, environment)
    finite.append(environment.finite)
  assert len(set(finite)) == 2 and [episode.finite for episode in actor.agent._episodes] == finite
  step = environment.reset()
  actor.observe_first(step)
  for says in (None, False):  # that it blew up can be told by hand too
    actor.select_action(step.observation)
    step = environment.step(np.zeros(1))
    actor.observe(None, step, finite=says)
  assert len(actor.agent._episodes) == 9 and not actor.agent._episodes[-1].finite


ARRAY = specs.BoundedArray((1,), np.float32, -1, 1)


@pytest.mark.parametrize('observation, action, message', [
  ({'camera': ARRAY}, ARRAY, 'wrap the environment'),
  (ARRAY, specs.DiscreteArray(3), 'wrap the environment'),
  (ARRAY, specs.BoundedArray((2,), np.float32, -1, 1), 'has 2 actions'),
  (specs.Array((2,), np.float32), ARRAY, 'say by observation_indices'),
  (ARRAY, specs.BoundedArray((1,), np.float32, -np.inf, np.inf), 'range of actions is not known'),
])
def test_specs_that_do_not_fit(operator, operator_params, observation, action, message):
  environment = types.SimpleNamespace(observation_spec=lambda: observation, action_spec=lambda: action)
  with pytest.raises(IncompatibleError, match=message):
    Actor((operator, operator_params), environment)
