"""Collecting, storing and reading histories; nothing lost, doubled or torn."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest

from metaimprove.errors import DamagedDataError, IncompatibleError, NonFiniteSimulationError
from metaimprove import rollouts
from metaimprove.histories import learning, storage
from metaimprove.histories.collect import collect
from metaimprove.histories.header import open_header
from metaimprove.histories.layout import layout_of
from metaimprove.histories.rates import collecting_rates
from metaimprove.improvers import run as runs
from metaimprove.tasks.splits import sample_tasks
from metaimprove.histories.dataset import load_dataset
from metaimprove.tasks.family import TASK_SUITE_VERSION
from tests.conftest import Killed
from tests.point_family import point_family
from tests.point_histories import collect_point_histories, make_sources

SHARDS = [
  'independent_ppo-0-00000000.safetensors', 'task_conditioned_ppo-0-00000000.safetensors',
  'task_conditioned_ppo-0-00000004.safetensors',
]


def contents(folder):
  """What is in the shards, byte for byte."""
  return {path.name: path.read_bytes() for path in (folder / 'shards').iterdir()}


def flip_a_bit(path, place=-1):
  content = bytearray(path.read_bytes())
  content[place] ^= 1
  path.write_bytes(content)


@pytest.fixture
def copy(histories, tmp_path):
  return shutil.copytree(histories, tmp_path / 'copy')


def test_what_is_stored(dataset, histories):
  assert sorted(contents(histories)) == SHARDS
  assert dataset.num_histories == 6 + 4 and dataset.num_checkpoints == 4
  np.testing.assert_array_equal(dataset.source, [0] * 6 + [1] * 4)
  np.testing.assert_array_equal(dataset.task_index, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3])
  tasks = dataset.read_tasks(np.arange(10))
  np.testing.assert_array_equal(tasks.goal[:4], tasks.goal[6:])
  assert (dataset.returns[:, -1] > dataset.returns[:, 0]).mean() > 0.8
  rates = collecting_rates(histories)
  assert rates['env_steps_per_second'] > 0 and rates['raw_env_steps_per_second'] > 0
  assert sorted(path.name for path in (histories / 'learning').rglob('*') if path.is_file())  # of the shared source
  assert not list((histories / 'learning').glob('independent_ppo-0/*'))  # of no use once recorded


def test_what_is_read_is_what_is_stored(dataset, histories):
  """Rows across shards, in any order, with repeats, against whole shards read at once."""
  order = [SHARDS[1], SHARDS[2], SHARDS[0]]
  shards = [storage.read_shard(histories / 'shards' / name, dataset.header) for name in order]
  whole = jax.tree.map(lambda *x: np.concatenate(x), *shards)
  history, level = np.array([9, 0, 5, 5, 3]), np.array([3, 1, 0, 0, 2])
  params, trajectory = dataset.read(history, level)
  wanted = jax.tree.map(lambda x: x[history, level], (whole.params, whole.trajectory))
  jax.tree.map(np.testing.assert_array_equal, (params, trajectory), wanted)
  np.testing.assert_array_equal(dataset.returns, whole.returns)
  np.testing.assert_array_equal(dataset.return_error, whole.return_error)


def test_stored_actions_are_those_of_the_stored_policy(dataset, every):
  """The actions of each checkpoint are likelier under its own θ than under that of any other level or history, but for
  chance: a few of the others are nearly the same policy."""
  params, trajectory = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), every)  # [40, ...]
  raw = np.arctanh(np.clip(trajectory.action, -1 + 1e-6, 1 - 1e-6))

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(0, None, None, None))
  @functools.partial(jax.vmap, in_axes=(None, 0, 0, 0))
  def likelihood(theta, observation, raw, valid):
    log_prob = dataset.policy.distribution.log_prob(dataset.policy.apply(theta, observation), raw)
    return (log_prob * valid).sum() / valid.sum()

  table = np.asarray(likelihood(params, trajectory.observation, raw, trajectory.valid))  # [θ, experience]
  lead = np.diag(table) - table
  rows = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(params)], axis=1)
  other = (rows[:, None] != rows).any(axis=-1)  # levels that are one policy are left out
  assert (lead[other] < 0).mean() < 0.1 and np.quantile(lead[other], 0.01) > -0.2 and np.median(lead[other]) > 0.2


def test_ranks_tell_which_levels_are_one_policy(dataset, every):
  """So that a step of one rank never leads to the same policy."""
  rows = np.concatenate([np.asarray(x).reshape(*dataset.rank.shape, -1) for x in jax.tree.leaves(every[0])], axis=-1)
  same = (rows[:, :, None] == rows[:, None]).all(axis=-1)
  np.testing.assert_array_equal(same, dataset.rank[:, :, None] == dataset.rank[:, None])
  np.testing.assert_array_equal(dataset.best, same[:, :, -1].argmax(axis=1))


def test_numbers_that_are_not_given_are_those_of_the_folder(histories, point, tmp_path):
  """Another number of candidates, episodes or hidden units than a new dataset has."""
  conditioned, independent = make_sources(point)
  collect_point_histories(tmp_path, point, source_list=[conditioned])
  collect(tmp_path, point, [independent], seed=0)
  assert contents(tmp_path) == contents(histories)


def test_another_simulator_is_recorded(point, tmp_path):
  """Any that plays policies: this one gives every step a reward of 7. Its bare speed is not measured."""
  def make_play(policy, *, num_episodes):
    play = rollouts.make_play(point, policy, num_episodes=num_episodes)

    def sevens(params, tasks, rng_key):
      trajectory = play(params, tasks, rng_key)
      return trajectory.replace(reward=7.0 * trajectory.valid)

    return sevens

  collect_point_histories(tmp_path, point, make_sources(point)[:1], make_play=make_play)
  dataset = load_dataset(tmp_path, point)
  trajectory = dataset.read(np.arange(6), np.zeros(6, int))[1]
  np.testing.assert_array_equal(trajectory.reward, 7.0 * trajectory.valid)
  rates = collecting_rates(tmp_path)
  assert rates['env_steps_per_second'] > 0 and rates['raw_env_steps_per_second'] is None


def test_collecting_again_changes_nothing(copy, point):
  def everything():
    return {path: path.read_bytes() for path in copy.rglob('*') if path.is_file()}

  before = everything()
  collect_point_histories(copy, point)
  assert before == everything()


@pytest.mark.parametrize('kill', ['one shard', 'all shards', 'half a shard'])
def test_what_a_kill_left_out_is_made_again_bit_for_bit(copy, histories, point, kill):
  for name in SHARDS if kill == 'all shards' else SHARDS[1:2]:
    (copy / 'shards' / name).unlink()
  if kill == 'half a shard':
    (copy / 'shards' / f'.{SHARDS[1]}.host.1.tmp').write_bytes(b'half a shard')
  collect_point_histories(copy, point)
  made = contents(copy)
  assert {name: made[name] for name in SHARDS} == contents(histories)
  again, before = load_dataset(copy, point), load_dataset(histories, point)
  np.testing.assert_array_equal(again.returns, before.returns)
  np.testing.assert_array_equal(again.source, before.source)


def test_several_workers_make_the_same(histories, point, tmp_path, monkeypatch):
  """Three workers, one after the other. The second runs no source that serves all, and finds it learned; the third has
  nothing to do."""
  monkeypatch.setattr(learning, '_POLL_SECONDS', 0.01)
  for worker in range(3):
    if worker < 2:
      with pytest.raises(DamagedDataError, match='incomplete|holds no histories'):
        load_dataset(tmp_path, point)
    collect_point_histories(tmp_path, point, worker=worker, num_workers=3)
  assert contents(tmp_path) == contents(histories)
  assert len(list((tmp_path / 'workers').iterdir())) == 2


def test_a_worker_waits_for_the_one_that_learns(histories, point, tmp_path, monkeypatch):
  """Worker 1 begins first, and finds the run of the shared source when worker 0 has made it."""
  waits = []

  def copy_the_run(seconds):
    waits.append(seconds)
    shutil.copytree(histories / 'learning', tmp_path / 'learning', dirs_exist_ok=True)

  monkeypatch.setattr(learning.time, 'sleep', copy_the_run)
  collect_point_histories(tmp_path, point, worker=1, num_workers=2)
  assert len(waits) == 1
  assert set(contents(tmp_path)) == {SHARDS[0], SHARDS[2]}
  assert contents(tmp_path).items() <= contents(histories).items()


def test_a_worker_that_does_not_exist(point, tmp_path):
  with pytest.raises(IncompatibleError, match='less than num_workers=2'):
    collect_point_histories(tmp_path, point, worker=2, num_workers=2)


def test_tasks_and_sources_are_added(histories, point, tmp_path):
  """First four tasks of one source, then two more, whose shard is filled up, and then another source."""
  conditioned, independent = make_sources(point)
  collect_point_histories(tmp_path, point, source_list=[(conditioned[0], 4)])
  first = contents(tmp_path)
  collect_point_histories(tmp_path, point, source_list=[(conditioned[0], 5)])
  collect_point_histories(tmp_path, point, source_list=[conditioned])
  collect_point_histories(tmp_path, point, source_list=[independent])
  assert contents(tmp_path) == contents(histories) and first.items() <= contents(histories).items()
  assert load_dataset(tmp_path, point).num_histories == 10


def test_what_a_source_makes_does_not_depend_on_those_before_it(histories, point, tmp_path):
  conditioned, independent = make_sources(point)
  collect_point_histories(tmp_path, point, source_list=[independent])
  collect_point_histories(tmp_path, point, source_list=[conditioned])
  assert contents(tmp_path) == contents(histories)


def test_learners_of_a_last_shard_are_not_taken_for_those_of_a_fuller_one(point, tmp_path, monkeypatch):
  """Stopped while its spare rows are the learners of the first tasks, it goes on with more tasks."""
  monkeypatch.setattr(runs, '_SAVE_SECONDS', 0.0)
  independent = make_sources(point)[1][0]

  def stop_in_the_second_shard(stage, done, total, figures):
    if stage.startswith('learn') and done == 25:
      raise Killed

  with pytest.raises(Killed):
    collect_point_histories(
      tmp_path / 'grown', point, source_list=[(independent, 6)], progress=stop_in_the_second_shard
    )
  for folder in ('grown', 'fresh'):
    collect_point_histories(tmp_path / folder, point, source_list=[(independent, 8)])
  assert contents(tmp_path / 'grown') == contents(tmp_path / 'fresh')
  assert not list((tmp_path / 'grown' / 'learning').rglob('*.safetensors'))


def test_sources_need_names_of_their_own(point, tmp_path):
  independent = make_sources(point)[1]
  with pytest.raises(IncompatibleError, match="named 'independent_ppo'.*its own name"):
    collect_point_histories(tmp_path, point, source_list=[independent, independent])
  with pytest.raises(IncompatibleError, match='nothing to collect'):
    open_header(tmp_path, {'sources': []})
  assert not list(tmp_path.iterdir())


def test_tasks_of_a_sources_own_are_other_tasks(histories, point, tmp_path):
  """Their places say nothing about those of the family's."""
  conditioned = make_sources(point)[0][0]
  own = dataclasses.replace(conditioned, name='own', tasks=sample_tasks(point, 7, 3, 'train'))
  collect_point_histories(tmp_path, point, source_list=[(conditioned, 4), (own, 3)])
  mixed = load_dataset(tmp_path, point)
  assert len(set(mixed.task_index)) == 7
  assert len(np.unique(mixed.read_tasks(np.arange(7)).goal)) == 7


def test_other_settings_are_refused(copy, point):
  with pytest.raises(IncompatibleError, match='seed=0.*seed=1.*merge_histories'):
    collect_point_histories(copy, point, seed=1)
  with pytest.raises(IncompatibleError, match='num_episodes=2.*num_episodes=1'):
    collect_point_histories(copy, point, num_episodes=1)
  conditioned, num_tasks = make_sources(point)[0]
  other = dataclasses.replace(conditioned, settings={**conditioned.settings, 'num_updates': 29})
  with pytest.raises(IncompatibleError, match='task_conditioned_ppo.*num_updates=30.*num_updates=29'):
    collect_point_histories(copy, point, source_list=[(other, num_tasks)])


@pytest.mark.parametrize('place', [-1, 300, 12], ids=['data', 'metadata', 'names'])
def test_damage_is_refused_with_what_to_do(copy, point, place):
  path = copy / 'shards' / SHARDS[1]
  flip_a_bit(path, place)
  with pytest.raises(DamagedDataError, match='00000.safetensors is damaged; delete it and run'):
    load_dataset(copy, point)
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(DamagedDataError, match='damaged'):
    load_dataset(copy, point, verify=False)
  path.unlink()
  with pytest.raises(DamagedDataError, match=f'incomplete: 6 of 10.*{SHARDS[1]} is missing or.*run the collection'):
    load_dataset(copy, point)


def test_other_family_other_version_and_nothing(copy, point, tmp_path):
  with pytest.raises(IncompatibleError, match="'point', not 'line'"):
    load_dataset(copy, point_family(name='line'))
  with pytest.raises(DamagedDataError, match='holds no histories'):
    load_dataset(tmp_path / 'nowhere', point)
  header = json.loads((copy / 'header.json').read_text())
  for change, message in (
    ({'task_suite_version': TASK_SUITE_VERSION - 1}, 'task suite version'),
    ({'dynamics': {'gear': {}, 'mass': {}}}, 'randomised gear, mass, and this family randomises gear'),
    ({'dynamics': {'gear': {**header['dynamics']['gear'], 'high': 4.0}}}, 'other ranges'),
    ({'far_only': True}, 'other ranges'),
    ({'format_version': 99}, 'format version 99'),
  ):
    (copy / 'header.json').write_text(json.dumps({**header, **change}))
    with pytest.raises(IncompatibleError, match=message):
      load_dataset(copy, point)
  (copy / 'header.json').unlink()
  (copy / 'manifest.json').write_text('{}')
  with pytest.raises(IncompatibleError, match='format version 1'):
    load_dataset(copy, point)


def test_simulations_that_blow_up_stop_the_collection(tmp_path):
  family = point_family(blow_up_beyond=0.5)
  with pytest.raises(NonFiniteSimulationError, match='narrow the ranges'):
    collect_point_histories(tmp_path, family)


def test_histories_that_blew_up_are_left_out(copy, point, dataset):
  path = copy / 'shards' / SHARDS[1]
  entry, shard = storage.read_entry(path), storage.read_shard(path, dataset.header)
  finite = shard.finite.copy()
  finite[1, 2] = False
  storage.write_shard(copy, entry, layout_of(dataset.header), shard.replace(finite=finite))
  left = load_dataset(copy, point)
  assert left.num_left_out == 1 and left.num_histories == 9
  np.testing.assert_array_equal(left.task_index, [0, 2, 3, 4, 5, 0, 1, 2, 3])
  jax.tree.map(np.testing.assert_array_equal, left.read([1], [0]), dataset.read([2], [0]))


def test_splits_share_no_task(point):
  splits = {split: sample_tasks(point, 0, 50, split) for split in ('train', 'heldout', 'far')}
  for name in ('goal', 'dynamics'):
    values = [np.ravel(jax.tree.leaves(getattr(tasks, name))) for tasks in splits.values()]
    assert len(np.unique(np.concatenate(values))) == 150
  longer = sample_tasks(point, 0, 60, 'train')
  np.testing.assert_array_equal(longer.goal[:50], splits['train'].goal)
  play = functools.partial(sample_tasks, point, 1, 50)
  assert not np.isin(play('train').goal, splits['train'].goal).any()
