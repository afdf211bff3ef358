"""What explorers find on training tasks, in hindsight."""

import jax
import numpy as np
import pytest

from metaimprove.rollouts import make_play
from metaimprove.training.explored import explore_tasks
from metaimprove.training.rounds import play_round
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import stack, take


def constant(policy, location):
  """θ that does the same everywhere, with hardly any noise."""
  params = jax.tree.map(np.zeros_like, jax.device_get(policy.init(jax.random.key(0))))
  last = sorted(params)[-1]
  return {**params, last: {**params[last], 'b': np.array([location, -9.0], np.float32)}}


@pytest.fixture(scope='module')
def explored(operator, point, dataset):
  """A goal is met within 0.5: the point's rewards, which are distances, are made sparse."""
  dense = make_play(point, operator.policy, num_episodes=1)

  def play(params, tasks, rng_key):
    trajectory = dense(params, tasks, rng_key)
    return trajectory.replace(reward=(trajectory.reward > -0.5) & trajectory.valid)

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
  params, trajectory = found.replace(met=met).draw(history, np.random.default_rng(0))
  locations = params[sorted(params)[-1]]['b'][:, 0]
  assert (locations[::4] == np.float32(0.1)).all() and (locations[1::4] == np.float32(-0.1)).all()
  assert 60 < (locations.reshape(-1, 4)[:, 2:] < 0).sum() < 140
  which = (locations > 0).astype(int)
  np.testing.assert_array_equal(trajectory.reward, found.trajectory.reward[history, which])
  jax.tree.map(np.testing.assert_array_equal, take(params, 0), take(explorers, 1))


@pytest.mark.parametrize(('as_tested', 'first', 'some'), [(0.0, False, True), (1.0, False, False), (1.0, True, True)])
def test_explorers_are_mixed_into_runs_that_are_not_as_tests(
  operator, operator_params, point, dataset, as_tested, first, some
):
  """The first round, of an untrained operator, shows explorers in all its runs."""
  settings = TrainingSettings(round_tasks=8, round_applications=2, round_as_tested=as_tested, round_explores=1.0)
  explorers = stack([constant(operator.policy, 0.7)])
  played = play_round(
    operator, operator_params, make_play(point, operator.policy, num_episodes=2), dataset,
    np.arange(dataset.num_histories), settings, np.random.default_rng(0), first=first, explorers=explorers,
  )
  location = played['episodes'].behaviour[..., 0]
  assert (np.abs(location - 0.7) < 1e-6).all(axis=-1).any() == some
