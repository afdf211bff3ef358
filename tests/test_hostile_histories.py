"""Datasets that somebody else has made, or damaged: nothing that is read leads elsewhere, and what is wrong is told."""

import copy
import json
import shutil
import struct
import threading
import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError, MetaImproveError, WaitingError
from metaimprove.histories import learning, storage
from metaimprove.histories.card import make_card
from metaimprove.histories.dataset import load_dataset
from metaimprove.histories.header import open_header, planned_shards, read_header
from metaimprove.histories.merge import merge
from metaimprove.histories.rates import collecting_rates
from metaimprove.histories.reader import OpenShard
from metaimprove.tasks.splits import sample_tasks
from tests.point_histories import collect_point_histories, make_sources

NAMES = ('../../x', '/x', '..', '', 'a/b', 'a\\b', '.hidden', 'x' * 65, 'a\n', None, 3, ['x'])


@pytest.fixture
def copied(histories, tmp_path):
  return shutil.copytree(histories, tmp_path / 'copied')


def change_header(folder, change):
  """Applies `change` to the header of a dataset."""
  header = json.loads((folder / 'header.json').read_text())
  change(header)
  (folder / 'header.json').write_text(json.dumps(header))


def set_source(name, value):
  return lambda header: header['sources'][0].update({name: value})


@pytest.mark.parametrize('name', NAMES, ids=repr)
def test_names_of_sources_lead_nowhere_else(copied, point, tmp_path, name):
  """Neither to write, as merging did, nor to delete, as repairing did."""
  change_header(copied, set_source('name', name))
  before = set(tmp_path.rglob('*'))
  for use in (
    lambda: load_dataset(copied, point), lambda: make_card(copied), lambda: merge(tmp_path / 'into', [copied]),
    lambda: collect_point_histories(copied, point),
  ):
    with pytest.raises(DamagedDataError, match='the name of a source is not what it must be'):
      use()
  assert set(tmp_path.rglob('*')) == before


def test_a_source_that_a_user_names_like_a_path(point, tmp_path):
  source = make_sources(point)[1][0]
  for name in NAMES[:7]:
    wanted = {'name': name, 'seed': 0, 'num_tasks': 2, 'settings': {}, 'own_tasks': False}
    with pytest.raises(IncompatibleError, match='cannot be named'):
      open_header(tmp_path, {'sources': [wanted]})
  with pytest.raises(IncompatibleError, match='seed=-1 must be'):
    collect_point_histories(tmp_path, point, [(source, 2)], seed=-1)
  assert not list(tmp_path.iterdir())


def test_names_of_shards_lead_nowhere_else(copied):
  entry = planned_shards(read_header(copied))[0]
  for name in ('../../x.safetensors', '/x-0-00000000.safetensors', 'a/b-0-00000000.safetensors', 'x', None):
    with pytest.raises(DamagedDataError, match='not the name of a shard'):
      storage.shard_path(copied, {**entry, 'file': name})


@pytest.mark.parametrize(('name', 'value'), [
  ('num_checkpoints', '4'), ('num_checkpoints', 1), ('num_checkpoints', 10**9), ('num_checkpoints', True),
  ('shard_size', 0), ('shard_size', 2.5), ('num_episodes', None), ('hidden_sizes', 8), ('hidden_sizes', [10**9]),
  ('hidden_sizes', ['8']), ('dynamics', ['gear']), ('dynamics', {'gear': 3}), ('dynamics', {'../x': {}}),
  ('family', {'a': 1}), ('backend', '../x'), ('far_only', 'no'), ('sources', {}), ('sources', []), ('sources', [3]),
  ('num_measured', 1), ('num_candidates', 3), ('episode_length', -8),
], ids=repr)
def test_values_of_a_header_are_checked(copied, name, value):
  change_header(copied, lambda header: header.update({name: value}))
  with pytest.raises(DamagedDataError, match=f'header.json is damaged: {name}'):
    make_card(copied)


@pytest.mark.parametrize(('name', 'value'), [
  ('seed', -1), ('seed', 2**40), ('seed', '0'), ('num_tasks', 0), ('num_tasks', 10**10), ('num_tasks', 6.0),
  ('index', None), ('settings', None), ('own_tasks', 1), ('settings', {'num_updates': 'many'}),
], ids=repr)
def test_values_of_a_source_are_checked(copied, name, value):
  change_header(copied, set_source(name, value))
  with pytest.raises(DamagedDataError, match='header.json is damaged'):
    read_header(copied)


def test_a_header_that_plans_too_many_shards(copied):
  """Listing them would fill the memory."""
  change_header(copied, set_source('num_tasks', 999_999_999))
  with pytest.raises(DamagedDataError, match='the number of shards'):
    read_header(copied)


@pytest.mark.parametrize('text', ['[]', 'null', '3', '{', '"x"', '[' * 100_000], ids=lambda text: text[:5])
def test_a_header_that_is_none(copied, text):
  (copied / 'header.json').write_text(text)
  with pytest.raises(DamagedDataError):
    read_header(copied)


def rewrite_entry(path, change):
  """Changes what a shard says of itself, checksum and all."""
  content = path.read_bytes()
  size, = struct.unpack('<Q', content[:8])
  head = json.loads(content[8:8 + size])
  entry = json.loads(head['__metadata__']['entry'])
  change(entry)
  head['__metadata__']['entry'] = json.dumps(entry)
  text = json.dumps(head).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + content[8 + size:])


@pytest.mark.parametrize(('name', 'value'), [
  ('file', '../../x'), ('source', '../x'), ('seed', 'x'), ('first_task', -1), ('num_histories', 10**9),
  ('env_steps', 1e3), ('non_finite_episodes', None), ('sha256', 'x'), ('layout', 'x'), ('figure', 'x'),
  ('figure', [1.0]), ('figure', ['x'] * 4),
], ids=repr)
def test_values_of_an_entry_are_checked(copied, point, name, value):
  path = next((copied / 'shards').glob('independent*'))
  rewrite_entry(path, lambda entry: entry.update({name: value}))
  with pytest.raises(DamagedDataError, match='is damaged'):
    storage.read_entry(path)
  with pytest.raises(DamagedDataError, match='is damaged'):
    load_dataset(copied, point, verify=False)
  assert make_card(copied)['damaged'] == [path.name]


def test_a_shard_with_other_arrays_than_its_header_implies(copied, point):
  """Shorter rows would be read from the wrong places."""
  header = read_header(copied)
  path = next((copied / 'shards').glob('independent*'))
  entry, arrays = storage.read_entry(path), files.load_arrays(path)
  for changed in (
    {**arrays, 'params': arrays['params'][..., :-1]}, {**arrays, 'returns': arrays['returns'].astype(np.float64)},
    {name: array for name, array in arrays.items() if name != 'experience'},
  ):
    path.write_bytes(storage.shard_bytes(entry, storage.layouts.layout_of(header), changed))
    with pytest.raises(DamagedDataError, match='is damaged'):
      load_dataset(copied, point, verify=False)


@hypothesis.given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_are_taken_for_a_shard(tmp_path_factory, content, at):
  """Documented errors only, and nothing is read beyond the file."""
  path = tmp_path_factory.mktemp('shard') / 'x-0-00000000.safetensors'
  head = json.dumps({'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}).encode()
  whole = struct.pack('<Q', len(head)) + head + bytes(8)
  path.write_bytes(whole[:at] + content + whole[at + len(content):])
  try:
    shard = OpenShard(path)
    for name in shard.arrays():
      shard.whole(name)
  except MetaImproveError:
    pass


@pytest.mark.parametrize('log', [
  [], {'shard_seconds': {}}, {'shard_seconds': {'../../x': 1.0}, 'raw_env_steps_per_second': {}},
  {'shard_seconds': {}, 'raw_env_steps_per_second': {'independent_ppo': 0}},
  {'shard_seconds': {'independent_ppo-0-00000000.safetensors': 'x'}, 'raw_env_steps_per_second': {}},
], ids=repr)
def test_logs_of_workers_are_checked(copied, log):
  (copied / 'workers' / 'a.json').write_text(json.dumps(log))
  with pytest.raises(DamagedDataError, match='not the log of a worker; delete it'):
    collecting_rates(copied)


def test_rates_of_merged_datasets_and_of_none(histories, point, tmp_path):
  """Of both datasets, though their workers have the same names; without any log, no rate is known."""
  other = tmp_path / 'other'
  collect_point_histories(other, point, [(make_sources(point)[1][0], 3)], seed=1)
  merge(tmp_path / 'both', [histories, other])
  seconds = [
    log['shard_seconds'] for folder in (histories, other)
    for log in [json.loads(next((folder / 'workers').iterdir()).read_text())]
  ]
  total = sum(sum(of_folder.values()) for of_folder in seconds)
  steps = (6 + 4 + 3) * 6 * 3 * 8
  np.testing.assert_allclose(collecting_rates(tmp_path / 'both')['env_steps_per_second'], steps / total, rtol=1e-6)
  shutil.rmtree(tmp_path / 'both' / 'workers')
  assert collecting_rates(tmp_path / 'both') == {'env_steps_per_second': None, 'raw_env_steps_per_second': None}


def test_two_workers_with_other_sources_at_once(histories, tmp_path, monkeypatch):
  """Both read the header before either writes it, unless one waits for the other: then one source would be lost."""
  header = read_header(histories)
  first, second = ({**header, 'sources': [{**source}]} for source in copy.deepcopy(header['sources']))
  write_json = files.write_json
  monkeypatch.setattr(files, 'write_json', lambda path, value: (time.sleep(0.1), write_json(path, value)))
  threads = [threading.Thread(target=open_header, args=(tmp_path, wanted)) for wanted in (first, second)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert {source['name'] for source in read_header(tmp_path)['sources']} == {'task_conditioned_ppo', 'independent_ppo'}


def test_waiting_ends_and_says_for_whom(point, tmp_path, monkeypatch):
  monkeypatch.setattr(learning, '_POLL_SECONDS', 0.01)
  with pytest.raises(WaitingError, match='Worker 0 that runs task_conditioned_ppo has written nothing.*Start worker 0'):
    collect_point_histories(tmp_path, point, worker=1, num_workers=2, timeout=0.1)


def test_waiting_goes_on_while_others_do(point, tmp_path, monkeypatch):
  """Each sign of progress starts the time anew."""
  source, polls, sleep = make_sources(point)[0][0], [], time.sleep

  def poll(seconds):
    """A tenth of a second, ten times with a sign; then none."""
    polls.append(len(polls))
    if len(polls) <= 10:
      files.write_json(tmp_path / 'workers' / '0000-of-0002.json', polls)
    sleep(0.1)

  monkeypatch.setattr(learning.time, 'sleep', poll)
  with pytest.raises(WaitingError):
    learning.wait_for_learning(source, sample_tasks(point, 0, 1, 'train'), tmp_path, 0, timeout=0.35)
  assert len(polls) > 12
