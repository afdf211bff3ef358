"""Collecting, storing and reading histories; nothing lost, doubled or torn."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from metaimprove.errors import DamagedDataError, IncompatibleError, NonFiniteSimulationError
from metaimprove.histories import storage
from metaimprove.histories.collect import collecting_rates, sample_tasks
from metaimprove.histories.dataset import load_dataset
from metaimprove.tasks.family import TASK_SUITE_VERSION
from tests.conftest import collect_point_histories
from tests.point_family import point_family

SHARDS = [
  'independent_ppo-000000.safetensors', 'task_conditioned_ppo-000000.safetensors',
  'task_conditioned_ppo-000004.safetensors',
]


def checksums(folder):
  return {entry['file']: entry['sha256'] for entry in storage.read_manifest(folder)['shards']}


@pytest.fixture
def copy(histories, tmp_path):
  return shutil.copytree(histories, tmp_path / 'copy')


def test_what_is_stored(dataset, histories):
  assert sorted(checksums(histories)) == SHARDS
  assert dataset.num_histories == 6 + 4 and dataset.num_checkpoints == 4
  np.testing.assert_array_equal(dataset.source, [0] * 6 + [1] * 4)
  np.testing.assert_array_equal(dataset.task_index, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3])
  np.testing.assert_array_equal(dataset.histories.task.goal[:4], dataset.histories.task.goal[6:])
  assert (dataset.returns[:, -1] > dataset.returns[:, 0]).mean() > 0.8
  rates = collecting_rates(storage.read_manifest(histories))
  assert rates['env_steps_per_second'] > 0 and rates['raw_env_steps_per_second'] > 0


def test_a_stored_policy_reproduces_its_experience(dataset):
  """At the states it visited, the stored θ takes actions as spread around its mode as its distribution says."""
  history = jax.tree.map(lambda x: x[2], dataset.histories)
  params = jax.tree.map(lambda x: x[3], history.params)
  trajectory = jax.tree.map(lambda x: x[3], history.trajectory)
  normal = dataset.policy.distribution.create_dist(dataset.policy.apply(params, trajectory.observation))
  raw = np.arctanh(np.clip(trajectory.action, -1 + 1e-6, 1 - 1e-6))
  z = ((raw - normal.loc) / normal.scale)[np.asarray(trajectory.valid)]
  assert abs(z.mean()) < 1.5 and 0.3 < z.std() < 2.5


def test_collecting_again_changes_nothing(copy, point):
  before = {path.name: path.read_bytes() for path in copy.iterdir()}
  collect_point_histories(copy, point)
  assert before == {path.name: path.read_bytes() for path in copy.iterdir()}


@pytest.mark.parametrize('kill', ['manifest never named it', 'file gone', 'nothing but the learning'])
def test_what_a_kill_left_out_is_made_again_bit_for_bit(copy, histories, point, kill):
  manifest = json.loads((copy / 'manifest.json').read_text())
  lost = manifest['shards'] if kill == 'nothing but the learning' else [manifest['shards'][1]]
  if kill != 'manifest never named it':
    for entry in lost:
      (copy / entry['file']).unlink()
  if kill != 'file gone':
    manifest['shards'] = [entry for entry in manifest['shards'] if entry not in lost]
    (copy / 'manifest.json').write_text(json.dumps(manifest))
  (copy / '.torn.tmp').write_bytes(b'half a shard')
  collect_point_histories(copy, point)
  assert checksums(copy) == checksums(histories)
  assert len(storage.read_manifest(copy)['shards']) == len(SHARDS)
  again, before = load_dataset(copy, point), load_dataset(histories, point)
  jax.tree.map(np.testing.assert_array_equal, again.histories, before.histories)
  np.testing.assert_array_equal(again.source, before.source)


def test_other_settings_are_refused(copy, point):
  with pytest.raises(IncompatibleError, match='seed=0.*seed=1'):
    collect_point_histories(copy, point, seed=1)


def test_damage_is_refused_with_what_to_do(copy, point):
  path = copy / SHARDS[1]
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(DamagedDataError, match='000000.safetensors is damaged; delete it and run'):
    load_dataset(copy, point)
  path.unlink()
  with pytest.raises(DamagedDataError, match='missing; run the collection again'):
    load_dataset(copy, point)


def test_incomplete_other_family_other_version_and_nothing(copy, point, tmp_path):
  with pytest.raises(IncompatibleError, match="'point', not 'line'"):
    load_dataset(copy, point_family(name='line'))
  with pytest.raises(DamagedDataError, match='holds no histories'):
    load_dataset(tmp_path / 'nowhere', point)
  manifest = json.loads((copy / 'manifest.json').read_text())
  (copy / 'manifest.json').write_text(json.dumps({**manifest, 'shards': manifest['shards'][:1]}))
  with pytest.raises(DamagedDataError, match='incomplete: 4 of 10'):
    load_dataset(copy, point)
  older = {**manifest, 'header': {**manifest['header'], 'task_suite_version': TASK_SUITE_VERSION - 1}}
  (copy / 'manifest.json').write_text(json.dumps(older))
  with pytest.raises(IncompatibleError, match='task suite version'):
    load_dataset(copy, point)
  other = {**manifest, 'header': {**manifest['header'], 'dynamics': ['gear', 'mass']}}
  (copy / 'manifest.json').write_text(json.dumps(other))
  with pytest.raises(IncompatibleError, match='randomised gear, mass, and this family randomises gear'):
    load_dataset(copy, point)
  (copy / 'manifest.json').write_text(json.dumps({**manifest, 'format_version': 99}))
  with pytest.raises(IncompatibleError, match='format version 99'):
    load_dataset(copy, point)


def test_simulations_that_blow_up_stop_the_collection(tmp_path):
  family = point_family(blow_up_beyond=0.5)
  with pytest.raises(NonFiniteSimulationError, match='narrow the ranges'):
    collect_point_histories(tmp_path, family)


def test_histories_that_blew_up_are_left_out(copy, point):
  manifest = storage.read_manifest(copy)
  entry = manifest['shards'].pop(0)
  like = storage.history_structure(load_dataset(copy, point).policy, ['gear'])
  shard = storage.read_shard(copy, entry, like)
  finite = shard.trajectory.finite.copy()
  finite[1, 2, 0] = False
  storage.write_shard(copy, manifest, entry, shard.replace(trajectory=shard.trajectory.replace(finite=finite)), 0.0)
  dataset = load_dataset(copy, point)
  assert dataset.num_left_out == 1 and dataset.num_histories == 9
  assert len(dataset.source) == len(dataset.task_index) == len(dataset.returns) == 9


def test_splits_share_no_task(point):
  splits = {split: sample_tasks(point, 0, 50, split) for split in ('train', 'heldout', 'far')}
  for name in ('goal', 'dynamics'):
    values = [np.ravel(jax.tree.leaves(getattr(tasks, name))) for tasks in splits.values()]
    assert len(np.unique(np.concatenate(values))) == 150
  longer = sample_tasks(point, 0, 60, 'train')
  np.testing.assert_array_equal(longer.goal[:50], splits['train'].goal)
  play = functools.partial(sample_tasks, point, 1, 50)
  assert not np.isin(play('train').goal, splits['train'].goal).any()
