"""How sources are run, and PPO's particulars; the contract of all sources is in test_sources."""

import dataclasses
import itertools
import json

import hypothesis
import hypothesis.strategies as st
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError, UnknownNameError
from metaimprove.tasks.splits import sample_tasks
from metaimprove.improvers import curves
from metaimprove.improvers import run as runs
from metaimprove.improvers import tuned
from metaimprove.improvers.independent_ppo import independent_ppo
from metaimprove.improvers.ppo import PPOSettings, make_learner, make_networks
from metaimprove.types import Task
from tests.conftest import Killed, kill_at
from tests.point_family import point_family
from tests.point_histories import HIDDEN_SIZES, PPO, make_sources


@pytest.fixture(scope='module')
def run(point):
  """A source, its tasks and a finished run of it."""
  source, num_tasks = make_sources(point)[1]
  tasks = sample_tasks(point, 0, num_tasks, 'train')
  return source, tasks, runs.learn(source, tasks, jax.random.key(0))


def test_initial_policies_say_nothing_about_the_task(point):
  source, num_tasks = make_sources(point)[0]
  tasks = sample_tasks(point, 0, num_tasks, 'train')
  params = source.params_of(source.snapshot(source.init(jax.random.key(0), None)), tasks)
  for leaf in jax.tree.leaves(params):
    np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


def test_returns_are_those_of_whole_episodes(point):
  """With early ends: as the first episode of each environment counts, not the fragments after it."""
  learner = make_learner(point, PPO, task_conditioned=False, shared=False, hidden_sizes=(1,))
  state = learner.init(jax.random.key(0))
  bias = jax.tree.map(np.zeros_like, state.params.policy)
  bias['mlp/~/linear_1']['b'] = np.array([1.0986, -20.0], np.float32)  # tanh(1.0986) = 0.8, hardly any noise
  state = state.replace(params=state.params.replace(policy=bias))
  tasks = Task(goal=np.zeros((16, 1), np.float32), dynamics={'gear': np.ones(16, np.float32)})
  # 0.8 + 1.6 + 2.4 + 3.2 from a start within 0.1, and then it ends.
  np.testing.assert_allclose(learner.update(state, tasks, jax.random.key(1))[1], -8.0, atol=0.2)


def test_the_learning_rate_halves_in_so_many_updates(point):
  settings = dataclasses.replace(PPO, learning_rate_half_life=2)
  learner = make_learner(point, settings, task_conditioned=False, shared=False, hidden_sizes=(1,))
  state, update = learner.init(jax.random.key(0)), jax.jit(learner.update)
  tasks = Task(goal=np.zeros((16, 1), np.float32), dynamics={'gear': np.ones(16, np.float32)})
  paths = [jax.flatten_util.ravel_pytree(state.params)[0]]
  for index in range(21):
    state, _ = update(state, tasks, jax.random.key(index))
    paths.append(jax.flatten_util.ravel_pytree(state.params)[0])
  moved = np.abs(np.diff(np.stack(paths), axis=0)).max(axis=1)
  # Adam moves by the learning rate at first, in each of 2 epochs of 4 minibatches, and by not much more later.
  assert 0.3 < moved[0] / (8 * PPO.learning_rate) < 1.0
  assert 0 < moved[20] / (8 * PPO.learning_rate) < 2 * 0.5**10


@pytest.mark.parametrize(('ends', 'value'), [(False, 2.0), (True, 1.0)])
def test_a_time_limit_is_not_learned_as_an_end(point, ends, value):
  """Every step is rewarded by 1, discounted by a half. What goes on for ever is worth 1 + 1/2 + 1/4 + ... = 2, though
  episodes are cut after 8 steps: taken for an end, the limit would make it 7/4 on average. What ends at once is worth
  1."""
  def step(task, state, action):
    after = point.step(task, state, 0.0 * action)
    return after.replace(reward=jnp.ones(()), terminated=jnp.full((), ends))

  family = dataclasses.replace(point, step=step)
  settings = dataclasses.replace(PPO, discounting=0.5, learning_rate=2e-2)
  learner = make_learner(family, settings, task_conditioned=False, shared=False, hidden_sizes=(1,))
  state, update = learner.init(jax.random.key(0)), jax.jit(learner.update)
  tasks = Task(goal=np.zeros((16, 1), np.float32), dynamics={'gear': np.ones(16, np.float32)})
  for index in range(60):
    state, _ = update(state, tasks, jax.random.key(index))
  networks = make_networks(family, settings, False, (1,))
  at = jnp.linspace(-0.08, 0.08, 9)[:, None]  # where episodes begin, and stay
  np.testing.assert_allclose(
    networks.ppo.value_network.apply(state.statistics, state.params.value, at).mean(), value, atol=0.08
  )


def test_settings_that_do_not_divide(point):
  with pytest.raises(IncompatibleError, match='must divide'):
    make_learner(point, PPOSettings(unroll_length=3), task_conditioned=False, shared=False)


def test_ladders_are_made_by_name(point):
  """With the settings that a header would hold; only running one needs a base."""
  for name in tuned.LADDERS:
    source = tuned.make_source(name, point, HIDDEN_SIZES)
    assert source.name == name and source.num_updates == tuned.LADDER_RUNGS
    stored = {'name': name, 'settings': json.loads(json.dumps(source.settings))}
    assert tuned.settings_of(point, stored) == stored['settings']
  assert tuned.settings_of(point, {'name': 'hill_climbing', 'settings': {}}) is None


def test_an_update_is_started_before_the_last_one_is_fetched(point):
  """So that the device always has work. Fetching a value waits; here it must find the next update started."""
  started, source = [], independent_ppo(point, PPO, 5, HIDDEN_SIZES)

  class Value:
    def __init__(self, number):
      self.number = number

    def __array__(self, dtype=None, copy=None):
      assert len(started) >= min(self.number + 2, 5)
      return np.zeros(1)

  def update(state, done):
    started.append(done)
    return state, Value(done)

  run = runs._Run(None)
  runs._make_updates(source, run, np.zeros(1), update, lambda state: state, lambda *told: None)
  assert started == [0, 1, 2, 3, 4] and len(run.returns) == 5


def test_snapshots_are_read_from_the_folder_piece_by_piece(run, tmp_path, monkeypatch):
  """Only the pieces that hold what is asked for; in memory the run keeps none."""
  source, tasks, learning = run
  monkeypatch.setattr(runs, '_SAVE_SECONDS', 0.0)
  stored = runs.learn(source, tasks, jax.random.key(0), folder=tmp_path).snapshots
  assert len(stored) == len(learning.snapshots) == 21 and len(stored.pieces) == 20
  read, load = [], files.load_tree
  monkeypatch.setattr(files, 'load_tree', lambda path, like: read.append(path.name) or load(path, like))
  index = np.array([[0, 3, 19, 20], [20, 3, 0, 0]])
  everything = learning.snapshots[:]
  wanted = jax.tree.map(lambda x: x[index, np.arange(4)], everything)
  jax.tree.map(np.testing.assert_array_equal, stored.of_learners(index), wanted)
  assert read == [f'snapshots_{first:06d}.safetensors' for first in (0, 3, 19, 20)]
  jax.tree.map(np.testing.assert_array_equal, stored[-1], jax.tree.map(lambda x: x[20], everything))
  jax.tree.map(np.testing.assert_array_equal, stored[2:4], jax.tree.map(lambda x: x[2:4], everything))


def test_unknown_source(point):
  with pytest.raises(UnknownNameError, match='no tuned'):
    tuned.settings_for(point)


@hypothesis.given(st.lists(st.floats(-100, 100), min_size=2, max_size=150), st.integers(2, 12))
def test_candidates_rise_from_first_to_best(returns, num):
  chosen = curves.choose_candidates(np.asarray(returns), num)
  assert len(chosen) == num and chosen[0] == 0 and chosen[-1] == len(returns)
  assert all(a <= b for a, b in itertools.pairwise(chosen))
  if len(returns) < 80 and num > 2:  # shorter curves are not smoothed
    assert returns[chosen[-2]] == max(returns)


def test_candidates_by_hand():
  """0, 4 and 8 are first reached at 0, 2 and 4; six updates lead to the final snapshot."""
  np.testing.assert_array_equal(curves.choose_candidates(np.array([0.0, 1, 5, 3, 8, 8]), 4), [0, 2, 4, 6])


def test_updates_in_which_every_episode_blew_up_are_never_the_best():
  """NaN stands for the worst of the others, 1: the last level, 4, is first reached at 3."""
  returns = np.array([2.0, np.nan, 1.0, 4.0, np.nan])
  np.testing.assert_array_equal(curves.without_gaps(returns), [2, 1, 1, 4, 1])
  np.testing.assert_array_equal(curves.choose_candidates(returns, 3), [0, 3, 5])
  assert curves.num_updates_counted(returns, 2) == curves.num_updates_counted(np.array([2.0, 1, 1, 4, 1]), 2)
  np.testing.assert_array_equal(curves.without_gaps(np.full((2, 3), np.nan)), np.zeros((2, 3)))


def test_episodes_that_blew_up_do_not_count():
  """Rewards are negative, and those after a blow-up are missing: counted, they would look good."""
  learner = make_learner(point_family(blow_up_beyond=1.5), PPO, task_conditioned=False, shared=False, hidden_sizes=(1,))
  state = learner.init(jax.random.key(0))
  far = jax.tree.map(np.zeros_like, state.params.policy)
  far['mlp/~/linear_1']['b'] = np.array([1.0986, -20.0], np.float32)
  state = state.replace(params=state.params.replace(policy=far))
  tasks = Task(goal=np.zeros((16, 1), np.float32), dynamics={'gear': np.ones(16, np.float32)})
  assert np.isnan(learner.update(state, tasks, jax.random.key(1))[1])


def test_saved_state_of_another_network_is_refused(run, point, tmp_path):
  source, tasks, learning = run
  runs.learn(source, tasks, jax.random.key(0), folder=tmp_path)
  files.save_tree(tmp_path / 'state.safetensors', {'state': {'other': np.zeros(2)}, 'returns': learning.returns})
  with pytest.raises(IncompatibleError, match='another network'):
    runs.learn(source, tasks, jax.random.key(0), folder=tmp_path)


def test_a_run_of_other_settings_another_key_or_other_tasks_is_not_taken(run, tmp_path):
  source, tasks, learning = run
  runs.learn(source, tasks, jax.random.key(0), folder=tmp_path)
  again = runs.learn(source, tasks, jax.random.key(0), folder=tmp_path)
  np.testing.assert_array_equal(again.returns, learning.returns)
  other = dataclasses.replace(source, settings={**source.settings, 'ppo': {}})
  for source_, tasks_, key, index, says in (
    (other, tasks, 0, None, 'ppo='),
    (dataclasses.replace(source, name='x'), tasks, 0, None, "source='independent_ppo'"),
    (dataclasses.replace(source, num_updates=19), tasks, 0, None, 'num_updates=20'),
    (source, tasks, 1, None, 'rng_key='),
    (source, tasks.replace(goal=tasks.goal + 1), 0, None, 'learners='),
    (source, tasks, 0, [0, 1, 3, 2], 'learners='),
  ):
    with pytest.raises(IncompatibleError, match=f'was made with {says}.*delete this one'):
      runs.learn(source_, tasks_, jax.random.key(key), folder=tmp_path, index=index)
  with pytest.raises(IncompatibleError, match='ppo='):
    runs.load_learning(other, tasks, tmp_path)
  (tmp_path / 'settings.json').write_text('[]')
  with pytest.raises(DamagedDataError, match='does not hold settings.*delete the whole folder'):
    runs.learn(source, tasks, jax.random.key(0), folder=tmp_path)
  (tmp_path / 'settings.json').unlink()  # whose run it is, is not known
  with pytest.raises(DamagedDataError, match='missing'):
    runs.learn(source, tasks, jax.random.key(0), folder=tmp_path)


def test_a_run_with_a_piece_missing_says_what_to_do(run, tmp_path, monkeypatch):
  source, tasks, _ = run
  monkeypatch.setattr(runs, '_SAVE_SECONDS', 0.0)
  with pytest.raises(Killed):
    runs.learn(source, tasks, jax.random.key(0), folder=tmp_path, progress=kill_at(5))
  with pytest.raises(DamagedDataError, match='4 of 20 updates; run the collection again'):
    runs.load_learning(source, tasks, tmp_path)
  (tmp_path / 'snapshots_000003.safetensors').unlink()
  with pytest.raises(DamagedDataError, match='delete the whole folder'):
    runs.learn(source, tasks, jax.random.key(0), folder=tmp_path)


def test_updates_counted_by_hand():
  """The rise ends at 4; three updates later it is known, and what comes after is not part of the history."""
  curve = np.array([0.0, 2, 4, 6, 8, 8, 8, 8, 8, 9, 20])
  assert curves.num_updates_counted(curve, 3) == 7
  assert curves.num_updates_counted(curve, 4) == 8
  assert curves.num_updates_counted(curve[:7], 3) == 7 and curves.num_updates_counted(curve[:6], 3) == 6
  assert curves.num_updates_counted(curve, None) == 11
  np.testing.assert_array_equal(curves.choose_candidates(curve, 4, patience=3), [0, 2, 4, 7])


@hypothesis.given(st.lists(st.floats(-100, 100), min_size=4, max_size=40), st.integers(1, 8))
def test_what_counts_is_known_when_it_happens(returns, patience):
  """A longer curve never changes how much of it counts: learners that go on beside others stay the same."""
  returns = np.asarray(returns)
  counted = curves.num_updates_counted(returns, patience)
  for known in range(counted, len(returns)):
    assert curves.num_updates_counted(returns[:known], patience) == counted


def test_a_source_stops_when_all_its_learners_have(point):
  source = dataclasses.replace(independent_ppo(point, PPO, 200, HIDDEN_SIZES), patience=12)
  learning = runs.learn(source, sample_tasks(point, 0, 2, 'train'), jax.random.key(0))
  counted = [curves.num_updates_counted(curve, 12) for curve in learning.returns.T]
  assert max(counted) == len(learning.returns) - 1 < 199  # one more shows that nothing rose
