"""Rewards that nobody gave: learned from ranks of noise, and histories ranked by them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark_ranked, stages
from metaimprove.evaluation.evaluate import Bounds, Evaluation
from metaimprove.evaluation.metrics import rank_correlations
from metaimprove.histories.ranked import RankedHistories, ranked_histories, ranked_play
from metaimprove.histories.ranking import RankingSettings, play_ladder, rank, with_rewards
from metaimprove.methods.method import Curve, initial_policies
from metaimprove.methods.ranked import Demonstrator, levels_method, ranked_method
from metaimprove.policies import layer_names
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.types import episode_return, mean_return, silent
from tests.point_histories import make_sources

SETTINGS = RankingSettings(num_rungs=4, num_steps=150, hidden_sizes=(8,), piece_length=5)
LINEAR = {'mlp/~/linear_0': {'w': np.array([[[2.0, 0.0]]]), 'b': np.array([[-1.0, 0.0]])}}
"""The reward of a state x is 2 x - 1."""


def constant_states(levels, num_episodes=2, length=10):
  """Episodes [L, E, T, 1] that stay at one place each."""
  return np.broadcast_to(np.asarray(levels, np.float32)[:, None, None, None], (len(levels), num_episodes, length, 1))


def test_states_of_less_noise_have_higher_rewards():
  """Beyond the last rung too; and states that no rung visits more than another have rewards in between."""
  states = constant_states([-1.0, -0.5, 0.0, 0.5])
  rewards = rank(states, np.ones(states.shape[:3], bool), jax.random.key(0), SETTINGS)
  found = np.asarray(SETTINGS.network(1).apply(rewards, np.array([[-1.0], [-0.5], [0.0], [0.5], [0.8]])))[:, 0]
  assert (np.diff(found) > 0).all()


def test_rewards_have_mean_0_and_deviation_1_over_what_counts():
  """Steps that were not taken are not seen, wherever they are."""
  states = np.array(constant_states([0.0, 1.0, 2.0, 3.0]))
  valid = np.ones(states.shape[:3], bool)
  valid[:, 0, 5:] = False
  seen = np.where(valid[..., None], states, 1e6)
  rewards = rank(seen, valid, jax.random.key(0), SETTINGS)
  found = np.asarray(SETTINGS.network(1).apply(rewards, states))[..., 0][valid]
  np.testing.assert_allclose([found.mean(), found.std()], [0, 1], atol=1e-2)


def test_a_ladder_is_noisy_first_and_the_policy_itself_last(point, operator):
  """A policy that always does the same: all its actions on the last rung, no more than chance on the first one."""
  params = jax.tree.map(jnp.zeros_like, operator.policy.init(jax.random.key(0)))
  last = layer_names(params)[-1]
  params[last] = {**params[last], 'b': jnp.array([np.arctanh(0.5), -10.0])}
  task = take(sample_tasks(point, 0, 1, 'train'), 0)
  settings = dataclasses.replace(SETTINGS, num_episodes=8)
  ladder = play_ladder(point, operator.policy, params, task, jax.random.key(0), settings)
  same = [float(np.mean(np.abs(rung - 0.5)[valid] < 0.01)) for rung, valid in zip(ladder.action, ladder.valid)]
  assert same[-1] == 1 and same[0] < 0.2 and (np.diff(same) > 0).all()


def test_learned_rewards_replace_the_familys(dataset):
  """By hand: 2 x - 1 at the state after each step, and nothing where no step was taken."""
  _, trajectory = dataset.read(np.array([0]), np.array([1]))
  valid = trajectory.valid.copy()
  valid[0, 0, 3:] = False
  found = with_rewards(LINEAR, trajectory.replace(valid=valid))
  np.testing.assert_allclose(found.reward, np.where(valid, 2 * trajectory.next_observation[..., 0] - 1, 0), rtol=1e-5)


@pytest.fixture(scope='module')
def rewards(dataset):
  """Of each history another one: plus or minus the position."""
  sign = np.where(np.arange(dataset.num_histories) % 2, -1.0, 1.0)
  return {'mlp/~/linear_0': {
    'w': sign[:, None, None] * np.array([[[1.0, 0.0]]]), 'b': np.zeros((dataset.num_histories, 2)),
  }}


def test_levels_are_ranked_by_learned_rewards(dataset, rewards):
  """What is read from a level has the reward and the return that the level says, and returns rise."""
  ranked = ranked_histories(dataset, rewards)
  assert (np.diff(ranked.returns, axis=1) >= 0).all()
  assert (ranked.order != np.arange(ranked.num_checkpoints)).any()
  for history in range(dataset.num_histories):
    every = np.full(ranked.num_checkpoints, history), np.arange(ranked.num_checkpoints)
    params, trajectory = ranked.read(*every)
    found = mean_return(trajectory)
    for group in np.unique(ranked.rank[history]):
      where = ranked.rank[history] == group
      np.testing.assert_allclose(ranked.returns[history][where], found[where].mean(), rtol=1e-4, atol=1e-4)
    stored = dataset.read_params(every[0], ranked.order[history])
    jax.tree.map(np.testing.assert_array_equal, params, stored)
    jax.tree.map(np.testing.assert_array_equal, ranked.read_params(*every), stored)


def test_levels_of_one_policy_stay_together(dataset, rewards):
  """They have one rank, and the best level is the first one of the best policy."""
  alike = dataclasses.replace(dataset, rank=np.broadcast_to(np.array([0, *range(dataset.num_checkpoints - 1)]),
                                                            dataset.rank.shape))
  ranked = ranked_histories(alike, rewards)
  for history in range(dataset.num_histories):
    places = np.argsort(ranked.order[history])[:2]  # where the first two stored levels are
    assert abs(np.diff(places)) == 1 and len(set(ranked.rank[history][places])) == 1
    assert len(set(ranked.rank[history])) == dataset.num_checkpoints - 1
    best = ranked.best[history]
    assert ranked.rank[history][best] == ranked.rank[history][-1]
    assert best == 0 or ranked.rank[history][best - 1] < ranked.rank[history][best]


def test_other_rewards_are_another_dataset(dataset, rewards):
  """So that a training on them is never taken for one on the family's rewards."""
  more = jax.tree.map(lambda x: x + 1, rewards)
  found = {dataset.checksum, ranked_histories(dataset, rewards).checksum, ranked_histories(dataset, more).checksum}
  assert len(found) == 3


def test_a_play_sees_learned_rewards_alone(dataset, rewards, point, operator):
  """On pairs of tasks and rewards, which ranked histories give."""
  history = np.array([0, 1])
  pairs = ranked_histories(dataset, rewards).read_tasks(history)
  play = make_play(point, operator.policy, num_episodes=2)
  params = initial_policies(operator.policy, 2, jax.random.key(0))
  found = ranked_play(play)(params, pairs, jax.random.key(1))
  own = play(params, pairs[0], jax.random.key(1))
  expected = np.array([1.0, -1.0])[:, None, None] * np.asarray(own.next_observation)[..., 0]
  np.testing.assert_allclose(found.reward, np.where(own.valid, expected, 0), rtol=1e-5)


def to_the(goal, policy):
  """θ of a policy that steps to a goal: swish(z) - swish(-z) = z, and its location is 2 (goal - x)."""
  params = jax.tree.map(jnp.zeros_like, policy.init(jax.random.key(0)))
  first, last = layer_names(params)
  params[first] = {'w': params[first]['w'].at[0, :2].set(jnp.array([1.0, -1.0])),
                   'b': params[first]['b'].at[:2].set(jnp.array([-1.0, 1.0]) * goal)}
  params[last] = {'w': params[last]['w'].at[:2, 0].set(jnp.array([-2.0, 2.0])), 'b': jnp.array([0.0, -3.0])}
  return params


@pytest.fixture(scope='module')
def demonstrator(point, operator):
  """It knows the goal."""
  (source, _), _ = make_sources(point)
  source = dataclasses.replace(source, params=lambda _, task: to_the(task.goal[0], operator.policy))
  settings = dataclasses.replace(SETTINGS, num_steps=300, num_episodes=8)
  return Demonstrator(point, operator.policy, source, {'learned': np.zeros(1)}, settings)


def test_rewards_are_learned_on_each_task(demonstrator, point):
  """They are highest at the goal of the task, which only the ladder of the task can tell."""
  tasks = sample_tasks(point, 0, 3, 'validation')
  rewards = demonstrator.rewards(tasks, jax.random.key(0), silent)
  states = np.asarray(tasks.goal)[:, :1] + np.array([-1.5, 0.0, 1.5])
  found = np.asarray(jax.vmap(demonstrator.settings.network(1).apply)(rewards, states[..., None]))[..., 0]
  assert (found.argmax(axis=1) == 1).all()


def test_an_operator_improves_by_learned_rewards_and_is_judged_by_true_ones(
  demonstrator, point, operator, operator_params
):
  """The returns are the family's; the operator's answers change with the rewards that it reads."""
  tasks, play = sample_tasks(point, 0, 3, 'validation'), make_play(point, operator.policy, num_episodes=2)
  shared = {'num_applications': 2, 'num_episodes': 2, 'name': 'ranked', 'title': 'ranked'}
  own, other = (
    ranked_method(operator, operator_params, demonstrator, play, another_task=another, **shared).run(
      tasks, jax.random.key(0), silent
    ) for another in (False, True)
  )
  assert own.returns.shape == (3, 3) and (own.returns < 0).all()  # learned rewards have mean 0
  np.testing.assert_array_equal(own.returns[0], other.returns[0])
  assert (own.returns[1:] != other.returns[1:]).any()
  blind, also_blind = (
    ranked_method(operator, operator_params, demonstrator, play, no_rewards=True, another_task=another, **shared).run(
      tasks, jax.random.key(0), silent
    ) for another in (False, True)
  )
  np.testing.assert_array_equal(blind.returns, also_blind.returns)  # whatever was learned, nothing of it is seen
  assert (blind.returns[1:] != own.returns[1:]).any()
  begun = ranked_method(operator, operator_params, demonstrator, play, from_demonstrator=True, **shared).run(
    tasks, jax.random.key(0), silent
  )
  assert begun.returns[0].mean() > own.returns[0].mean()  # it knows the goal
  assert own.episodes.tolist() == [32, 34, 36] and own.env_steps.tolist() == [256, 272, 288]


def test_predicted_returns_are_of_the_same_episodes(demonstrator, point, operator):
  """Of the same policies, by the learned rewards: worked out again from one play."""
  tasks, play = sample_tasks(point, 0, 3, 'validation'), make_play(point, operator.policy, num_episodes=2)
  shared = {'num_episodes': 2, 'name': 'levels', 'title': 'levels'}
  true, predicted, another = (
    levels_method(demonstrator, [demonstrator.snapshot], play, **kind, **shared).run(tasks, jax.random.key(0), silent)
    for kind in ({}, {'predicted': True}, {'predicted': True, 'another_task': True})
  )
  params = demonstrator.source.params_of(demonstrator.snapshot, tasks)
  played = play(params, tasks, stream(jax.random.key(0), 'level 0'))
  np.testing.assert_allclose(true.returns[0], mean_return(played), rtol=1e-5)
  rewards = demonstrator.rewards(tasks, stream(jax.random.key(0), 'demonstrator'), silent)
  np.testing.assert_allclose(predicted.returns[0], mean_return(with_rewards(rewards, played)), rtol=1e-4, atol=1e-4)
  assert (predicted.returns != another.returns).all()


def test_rank_correlations_by_hand():
  """Of what is known in both; of fewer than two values, or equal ones, nothing is known."""
  predicted = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [np.nan, 1.0, 2.0], [1.0, 1.0, 1.0], [np.nan, np.nan, 1.0]])
  found = rank_correlations(predicted, np.broadcast_to([5.0, 6.0, 7.0], predicted.shape))
  np.testing.assert_allclose(found, [1, -1, 1, np.nan, np.nan])


def test_a_training_on_learned_rewards_sees_no_others(histories, rewards, point, operator, tmp_path, monkeypatch):
  """Neither in the histories nor where it plays its own rounds."""
  found = {}

  def seen(operator, play, dataset, settings, **options):
    found.update(play=play, dataset=dataset, options=options)
    raise Seen

  monkeypatch.setattr(stages, 'make_family', lambda *_: point)
  monkeypatch.setattr(stages.loop, 'train', seen)
  with pytest.raises(Seen):
    stages.train_operator(
      tmp_path, histories, family='point', backend=None, seed=0, config={'num_episodes': 2}, settings={},
      rewards=rewards,
    )
  assert isinstance(found['dataset'], RankedHistories) and found['options']['explorers'] is None
  pairs = found['dataset'].read_tasks(np.array([0]))
  played = found['play'](initial_policies(operator.policy, 1, jax.random.key(0)), pairs, jax.random.key(1))
  position = np.asarray(played.next_observation)[..., 0]
  np.testing.assert_allclose(played.reward, np.where(played.valid, position, 0), rtol=1e-5)


class Seen(Exception):
  """Raised instead of training."""


def test_errors_of_learned_returns_are_those_of_levels(dataset, rewards):
  """As of the family's returns, pooled over neighbours; by hand, of the first stored level and the next."""
  ranked = ranked_histories(dataset, rewards)
  at = int(np.flatnonzero(ranked.order[0] == 0)[0])
  _, trajectory = dataset.read(np.zeros(2, int), np.array([0, 1]))
  returns = episode_return(with_rewards(take(rewards, np.zeros(2, int)), trajectory))
  squares = np.square(returns - returns.mean(axis=1, keepdims=True)).sum()
  np.testing.assert_allclose(ranked.return_error[0, at], np.sqrt(squares / 2 / 2), rtol=1e-4)


def test_correlations_are_of_the_levels_that_count():
  """Two tasks, three levels and the demonstrator last: all levels, and only those better than it."""
  true = np.array([[1.0, 1.0], [2.0, 3.0], [3.0, 4.0], [1.5, 3.5]])
  predicted = np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 9.0], [0.0, 0.0]])
  curves = {
    name: Curve(episodes=np.zeros(4), env_steps=np.zeros(4), returns=x)
    for name, x in (('levels', true), ('predicted', predicted))
  }
  bounds = Bounds(initial=np.zeros(2), reference=np.ones(2), usable=np.ones(2, bool))
  judged = Evaluation(
    family='point', backend='none', seed=0, reference='', curves={'heldout': curves}, bounds={'heldout': bounds},
    far_parameter=np.zeros(0, str),
  )
  np.testing.assert_allclose(benchmark_ranked.correlations(judged, 'predicted', False), [[-0.5, 1.0]])
  np.testing.assert_allclose(benchmark_ranked.correlations(judged, 'predicted', True), [[1.0]])  # of the second: one
