"""Levels of a history are better and better on its own task, whatever the mean learning curve says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import policies
from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import best_level, load_dataset, ranks
from metaimprove.histories.levels import choose_levels, standard_error
from metaimprove.improvers.source import Source
from metaimprove.rollouts import make_play
from metaimprove.types import mean_return
from tests.point_histories import HIDDEN_SIZES, collect_point_histories

# How far a policy goes towards the goal after each update, as a share. On tasks whose goal is to the right nothing is
# left to gain after two updates; on the others it first goes the wrong way. The mean rises all the way.
TO_THE_RIGHT = np.array([0.2, 0.6, 1.0, 1.0, 1.0, 1.0], np.float32)
TO_THE_LEFT = np.array([0.1, 0.0, -0.2, 0.4, 0.7, 1.0], np.float32)


def towards(share, goal, gear, spread):
  """θ that goes to `share` of the way to the goal: swish(z) - swish(-z) = z makes it linear before tanh."""
  gain, ends = 0.8 / gear, jnp.array([1.0, -1.0])
  first = {'w': jnp.zeros((1, 8)).at[0, :2].set(-ends), 'b': jnp.zeros(8).at[:2].set(ends * share * goal)}
  last = {'w': jnp.zeros((8, 2)).at[:2, 0].set([gain, -gain]), 'b': jnp.array([0.0, spread])}
  return {'mlp/~/linear_0': first, 'mlp/~/linear_1': last}


def disagreeing_source(spread):
  """One learner for all tasks, whose policies tasks disagree about; `spread` is that of the actions before softplus."""
  curve = jnp.asarray((TO_THE_RIGHT + TO_THE_LEFT) / 2)

  def params(update, task):
    share = jnp.where(task.goal[0] > 0, jnp.asarray(TO_THE_RIGHT)[update], jnp.asarray(TO_THE_LEFT)[update])
    return towards(share, task.goal, task.dynamics['gear'], spread)

  return Source(
    name='disagreeing', shared=True, init=lambda rng_key, _: jnp.zeros((), jnp.int32),
    update=lambda state, _, rng_key: (state + 1, curve[state] + 0.0 * jax.random.uniform(rng_key)),
    snapshot=lambda state: state, params=params, num_updates=6, env_steps_per_update=8,
  )


def collected(folder, point, spread, num_tasks, **changes):
  source = disagreeing_source(spread)
  collect_point_histories(
    folder, point, [(source, num_tasks)], num_candidates=12, num_measured=4, shard_size=32, **changes
  )
  return source, load_dataset(folder, point)


def test_levels_are_those_of_each_task(point, tmp_path):
  """With hardly any noise: the last level of each task is its own best policy, and no level is worse than the one
  before. To the right, with shares 0.2, 0.6 and 1, the second level is at 0.6; on the mean curve it would be at 1."""
  _, dataset = collected(tmp_path, point, -20.0, 32)
  goal = dataset.read_tasks(np.arange(32)).goal[:, 0]
  assert (goal > 0.3).sum() >= 3 and (goal < -0.3).sum() >= 3
  clear = np.abs(goal) > 0.3  # the start, within 0.1, counts for little
  assert (np.diff(dataset.returns[clear], axis=1) > -0.3).all()
  second, last = (
    dataset.read_params(np.arange(32), np.full(32, level))['mlp/~/linear_0']['b'][:, 0] / goal for level in (1, 3)
  )
  np.testing.assert_allclose(last[clear], 1.0, atol=1e-5)
  np.testing.assert_allclose(second[goal > 0.3], 0.6, atol=1e-5)
  assert (dataset.returns[clear, 3] > dataset.returns[clear, 0] + 1.0).all()


def test_targets_are_better_though_returns_are_noisy(point, tmp_path):
  """Actions are spread widely. Measured anew, a next level is hardly ever worse by more than chance."""
  _, dataset = collected(tmp_path, point, 0.0, 64)
  policy = policies.make_policy(1, 1, HIDDEN_SIZES)
  play = make_play(point, policy, num_episodes=64)
  tasks, means, errors = dataset.read_tasks(np.arange(64)), [], []
  for level in range(4):
    trajectory = play(dataset.read_params(np.arange(64), np.full(64, level)), tasks, jax.random.key(level))
    means.append(np.asarray(mean_return(trajectory)))
    errors.append(np.std(trajectory.reward.sum(axis=-1), axis=-1) / np.sqrt(64))
  fall, chance = -np.diff(means, axis=0), np.hypot(errors[1:], errors[:-1])
  assert (fall > 2 * chance).mean() < 0.08
  # What is stored is a measurement of the same, with an error that says how good it is.
  z = (dataset.returns.T - means) / np.hypot(dataset.return_error.T, errors)
  assert 0.7 < np.sqrt(np.mean(z**2)) < 1.6


def test_levels_by_hand():
  """Pooled, the fit is 0, 2, 2, 2, 7, 7, 7: nearest to the levels 0, 7/3, 14/3 and 7 are the blocks of 0, 2, 7 and 7,
  whose middles are 0, 2, 5 and 5. Of blocks of two the even one is the middle."""
  np.testing.assert_array_equal(choose_levels(np.array([0.0, 3, 2, 1, 8, 7, 6]), 4), [0, 2, 5, 5])
  np.testing.assert_array_equal(choose_levels(np.array([0.0, 3, 1, 6, 6]), 3), [0, 2, 4])
  np.testing.assert_array_equal(choose_levels(np.array([2.0, 1, 5, 4]), 2), [0, 2])
  np.testing.assert_array_equal(choose_levels(np.array([5.0, 4, 3]), 3), [0, 0, 0])


@pytest.mark.parametrize('rise', [5.0, 10.0, 30.0])
@pytest.mark.parametrize('shape', [lambda x: x, lambda x: 1 - np.exp(-4 * x), lambda x: np.minimum(1, 2 * x)])
def test_measured_returns_of_levels_are_without_bias(rise, shape):
  """In standard errors, over curves of 24 candidates with noise. The first candidate of each block, or the first block
  that reaches a level, are biased by 0.5 to 0.9 and by 0.2 to 0.3. The last level is chosen as the best of all, which
  leaves a half."""
  rng, truth, bias = np.random.default_rng(0), rise * shape(np.linspace(0, 1, 24)), []
  for _ in range(300):
    measured = truth + rng.normal(size=24)
    chosen = choose_levels(measured, 11)
    bias.append(measured[chosen] - truth[chosen])
  bias = np.mean(bias, axis=0)
  assert abs(bias[1:].mean()) < 0.12 and abs(bias[0]) < 0.2 and bias[-1] < 0.75


def test_the_final_policy_is_a_candidate(point, tmp_path):
  """Though the curve never measures it: here it is the only one that goes to the goal."""
  source = disagreeing_source(-20.0)
  source = dataclasses.replace(
    source, update=lambda state, _, rng_key: (state + 1, 0.0 * jax.random.uniform(rng_key)),
    params=lambda update, task: towards(jnp.where(update == 6, 1.0, 0.0), task.goal, task.dynamics['gear'], -20.0),
  )
  collect_point_histories(tmp_path, point, [(source, 4)])
  dataset = load_dataset(tmp_path, point)
  last = dataset.read_params(np.arange(4), np.full(4, 3))['mlp/~/linear_0']['b'][:, 0]
  np.testing.assert_allclose(last, dataset.read_tasks(np.arange(4)).goal[:, 0], rtol=1e-5)
  np.testing.assert_array_equal(dataset.rank[:, -1], 1)


def test_candidates_that_blew_up_are_no_levels():
  np.testing.assert_array_equal(choose_levels(np.array([0.0, np.nan, 1, np.nan, 2]), 3), [0, 2, 4])
  np.testing.assert_array_equal(choose_levels(np.array([np.nan, 1.0, 2]), 2), [0, 2])
  np.testing.assert_array_equal(choose_levels(np.full(3, np.nan), 2), [0, 0])


def test_standard_error_by_hand():
  """Deviations of the first are ±1, of the second ±3, of the third 0; the variances pool over neighbours: (2 + 18) / 2,
  (2 + 18 + 0) / 3 and (18 + 0) / 2, each over two episodes."""
  returns = np.array([[1.0, 3.0], [0.0, 6.0], [5.0, 5.0]])
  np.testing.assert_allclose(standard_error(returns, np.ones((3, 2), bool)) ** 2, [5.0, 20 / 6, 4.5])
  finite = np.array([[True, True], [True, False], [False, False]])
  error = standard_error(returns, finite)
  np.testing.assert_allclose(error[:2] ** 2, [2 / 2, 2 / 1])  # the second and third say nothing of the variance
  assert np.isnan(error[2])


def test_the_best_level_is_the_first_of_its_policy():
  np.testing.assert_array_equal(best_level(np.array([[0, 5, 9, 9], [0, 1, 2, 3], [4, 4, 4, 4]])), [2, 3, 0])


def test_levels_of_one_policy_have_one_rank():
  np.testing.assert_array_equal(
    ranks(np.array([[0, 5, 9, 9], [0, 1, 2, 3], [4, 4, 4, 4], [0, 0, 3, 7]])),
    [[0, 1, 2, 2], [0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 1, 2]],
  )


def test_too_few_candidates_or_episodes(point, tmp_path):
  for changes in ({'num_candidates': 3}, {'num_measured': 1}, {'num_episodes': 4}):
    with pytest.raises(IncompatibleError, match='must be at least'):
      collect_point_histories(tmp_path, point, **changes)
  assert not list(tmp_path.iterdir())


def test_experience_is_the_first_of_the_measured_episodes(point, tmp_path):
  """Stored with all measured episodes as experience, returns are the means of that experience, and its beginning is the
  experience of a dataset that stores fewer."""
  _, all_of_it = collected(tmp_path / 'all', point, 0.0, 4, num_episodes=4)
  _, some = collected(tmp_path / 'some', point, 0.0, 4, num_episodes=1)
  history, level = np.array([0, 1, 3]), np.array([3, 0, 2])
  trajectory = all_of_it.read(history, level)[1]
  np.testing.assert_allclose(all_of_it.returns[history, level], mean_return(trajectory), rtol=1e-5)
  np.testing.assert_array_equal(all_of_it.returns, some.returns)
  first = jax.tree.map(lambda x: x[:, :1], trajectory)
  jax.tree.map(np.testing.assert_array_equal, first, some.read(history, level)[1])
