"""What explorers find on training tasks, in hindsight."""

import jax
import numpy as np
import pytest

from metaimprove.operators.apply import make_improve
from metaimprove.rollouts import make_play
from metaimprove.training import rounds
from metaimprove.training.explored import explore_tasks
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import stack, take


def constant(policy, location):
  """θ that does the same everywhere, with hardly any noise."""
  params = jax.tree.map(np.zeros_like, jax.device_get(policy.init(jax.random.key(0))))
  last = sorted(params)[-1]
  return {**params, last: {**params[last], 'b': np.array([location, -9.0], np.float32)}}


def sparse_play(operator, point, num_episodes, near):
  """The point's rewards, which are distances, are made sparse."""
  dense = make_play(point, operator.policy, num_episodes=num_episodes)

  def play(params, tasks, rng_key):
    trajectory = dense(params, tasks, rng_key)
    return trajectory.replace(reward=1.0 * ((trajectory.reward > -near) & trajectory.valid))

  return play


@pytest.fixture(scope='module')
def explored(operator, point, dataset):
  """A goal is met within 0.5."""
  play = sparse_play(operator, point, 1, 0.5)
  explorers = stack([constant(operator.policy, location) for location in (-0.1, 0.1)])
  return explore_tasks(explorers, play, dataset, 0), explorers


def test_explorers_meet_the_goals_on_their_side(explored, dataset):
  """One goes slowly left and the other one right, from 0 to 0.8; no goal is beyond 1."""
  found, _ = explored
  goal = np.asarray(dataset.read_tasks(np.arange(dataset.num_histories)).goal)[:, 0]
  np.testing.assert_array_equal(found.met.any(axis=1), True)
  assert not found.met[goal > 0.7, 0].any() and found.met[goal > 0.7, 1].all()
  assert not found.met[goal < -0.7, 1].any() and found.met[goal < -0.7, 0].all()
  assert found.trajectory.outcome.size == 0 and found.trajectory.reward.shape == (dataset.num_histories, 2, 1, 8)


def test_the_first_that_meets_something_is_drawn(explored):
  """And where none does, any."""
  found, explorers = explored
  met = np.zeros_like(found.met)
  met[0, 1], met[1] = True, True
  history = np.array([0, 1, 2, 2] * 100)
  which, params, trajectory = found.replace(met=met).draw(history, np.random.default_rng(0))
  locations = params[sorted(params)[-1]]['b'][:, 0]
  assert (locations[::4] == np.float32(0.1)).all() and (locations[1::4] == np.float32(-0.1)).all()
  assert 60 < (locations.reshape(-1, 4)[:, 2:] < 0).sum() < 140
  np.testing.assert_array_equal(which, locations > 0)
  np.testing.assert_array_equal(trajectory.reward, found.trajectory.reward[history, which])
  jax.tree.map(np.testing.assert_array_equal, take(params, 0), take(explorers, 1))


@pytest.mark.parametrize(('as_tested', 'first', 'some'), [(0.0, False, True), (1.0, False, False), (1.0, True, True)])
def test_explorers_are_mixed_into_runs_that_are_not_as_tests(
  operator, operator_params, point, dataset, as_tested, first, some
):
  """The first round, of an untrained operator, shows explorers in all its runs."""
  settings = TrainingSettings(round_tasks=8, round_applications=2, round_as_tested=as_tested, round_explores=1.0)
  explorers = stack([constant(operator.policy, 0.7)])
  played = rounds.play_round(
    operator, operator_params, make_play(point, operator.policy, num_episodes=2), dataset,
    np.arange(dataset.num_histories), settings, np.random.default_rng(0), first=first, explorers=explorers,
  )
  location = played['episodes'].behaviour[..., 0]
  assert (np.abs(location - 0.7) < 1e-6).all(axis=-1).any() == some


@pytest.mark.parametrize('as_tested', [1.0, 0.0])
def test_runs_that_are_as_tests_ask_to_explore_where_the_newest_policy_met_nothing(
  operator, operator_params, point, dataset, as_tested, monkeypatch
):
  """And the others ask for it in no application here, because their share is 0."""
  asked = []

  def recorded(operator, operator_params, ask, **kwargs):
    asked.append(ask.given['explore'])
    return make_improve(operator, operator_params, ask, **kwargs)

  monkeypatch.setattr(rounds, 'make_improve', recorded)
  settings = TrainingSettings(round_tasks=16, round_applications=4, round_as_tested=as_tested, round_explores=0.0)
  played = rounds.play_round(
    operator, operator_params, sparse_play(operator, point, 2, 0.1), dataset, np.arange(dataset.num_histories),
    settings, np.random.default_rng(0),
  )
  met = played['episodes'].largest_reward.reshape(16, 5, 2).max(axis=2) > 0
  assert 0 < met.sum() < met.size
  np.testing.assert_array_equal(np.stack(asked, axis=1), as_tested * ~met[:, :4])
