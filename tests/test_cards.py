"""What a folder of histories holds, repairing it, and joining folders."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from experiments import inspect_histories
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.histories import storage
from metaimprove.histories.card import draw_card, make_card
from metaimprove.histories.dataset import load_dataset
from metaimprove.histories.header import num_learners, read_header
from metaimprove.histories.layout import layout_of
from metaimprove.histories.merge import merge
from metaimprove.improvers import tuned
from metaimprove.improvers.curves import rank_correlation
from tests.point_histories import PPO, collect_point_histories, make_sources


@pytest.fixture(scope='module')
def seed_one(point, tmp_path_factory):
  """Histories of other tasks by one of the sources."""
  folder = tmp_path_factory.mktemp('seed_one')
  collect_point_histories(folder, point, [(make_sources(point)[1][0], 3)], seed=1)
  return folder


def test_card_of_a_whole_dataset(histories, dataset, tmp_path):
  card = make_card(histories)
  assert card['missing'] == card['damaged'] == []
  assert card['bytes'] == sum(path.stat().st_size for path in (histories / 'shards').iterdir())
  assert [(s['name'], s['histories'], s['env_steps']) for s in card['sources']] == [
    ('task_conditioned_ppo', 6, 6 * 6 * 3 * 8), ('independent_ppo', 4, 4 * 6 * 3 * 8),
  ]
  conditioned = card['sources'][0]
  np.testing.assert_allclose(conditioned['mean_return'], dataset.returns[:6].mean(axis=0), atol=1e-3)
  np.testing.assert_allclose(conditioned['quantiles']['0.5'], np.median(dataset.returns[:6], axis=0), atol=1e-3)
  assert conditioned['share_rising'] == np.mean(np.diff(dataset.returns[:6].mean(axis=0)) > 0)
  json.dumps(card)
  draw_card(tmp_path / 'deep' / 'curves.png', card)
  assert (tmp_path / 'deep' / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_card_names_what_is_wrong(histories, tmp_path):
  copy = shutil.copytree(histories, tmp_path / 'copy')
  names = sorted(path.name for path in (copy / 'shards').iterdir())
  (copy / 'shards' / names[0]).unlink()
  content = bytearray((copy / 'shards' / names[1]).read_bytes())
  content[-3] ^= 4
  (copy / 'shards' / names[1]).write_bytes(content)
  card = make_card(copy)
  assert card['missing'] == [names[0]] and card['damaged'] == [names[1]]
  assert [source['histories'] for source in card['sources']] == [2, 0] and card['sources'][1]['mean_return'] == []
  draw_card(tmp_path / 'curves.png', card)


def test_a_shard_of_fewer_tasks_is_missing_once_more_are_asked_for(histories, tmp_path):
  copy = shutil.copytree(histories, tmp_path / 'copy')
  header = json.loads((copy / 'header.json').read_text())
  header['sources'][0]['num_tasks'] = 7
  (copy / 'header.json').write_text(json.dumps(header))
  card = make_card(copy)
  assert card['missing'] == ['task_conditioned_ppo-0-00000004.safetensors']
  with pytest.raises(DamagedDataError, match='missing'):
    merge(tmp_path / 'into', [copy])


def test_what_a_source_measures_besides_is_on_the_card(point, tmp_path):
  source = make_sources(point)[1][0]
  source = dataclasses.replace(source, figures=lambda learning: {'last_return': learning.returns[-1]})
  collect_point_histories(tmp_path, point, [(source, 3)])
  entry = storage.read_entry(next((tmp_path / 'shards').iterdir()))
  assert len(entry['last_return']) == 3
  assert make_card(tmp_path)['sources'][0]['figures'] == {
    'last_return': pytest.approx(np.mean(entry['last_return']), abs=1e-4)
  }


def test_merged_datasets_are_one(histories, seed_one, point, dataset, tmp_path):
  steps = []
  merge(tmp_path, [histories, seed_one], progress=lambda stage, done, total, figures: steps.append((done, total)))
  assert steps[-1] == (4, 4)
  both, other = load_dataset(tmp_path, point), load_dataset(seed_one, point)
  runs = [{path.relative_to(folder) for path in (folder / 'learning').rglob('*.*')} for folder in (histories, tmp_path)]
  assert runs[0] and runs[0] <= runs[1]
  np.testing.assert_array_equal(both.returns, np.concatenate([dataset.returns, other.returns]))
  assert both.source_names == ('task_conditioned_ppo', 'independent_ppo')
  np.testing.assert_array_equal(both.source, [0] * 6 + [1] * 4 + [1] * 3)
  tasks = both.read_tasks(np.arange(both.num_histories)).goal[:, 0]
  same_task = tasks[:, None] == tasks
  np.testing.assert_array_equal(both.task_index[:, None] == both.task_index, same_task)
  before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'shards').iterdir()}
  merge(tmp_path, [histories, seed_one])
  assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / 'shards').iterdir()}


def test_what_was_merged_before_and_made_anew_since_is_merged_again(histories, seed_one, tmp_path):
  """A call that was stopped before the header has copied a shard that is not what it was."""
  copy = shutil.copytree(seed_one, tmp_path / 'copy')
  merge(tmp_path / 'into', [histories, copy])
  (tmp_path / 'into' / 'header.json').unlink()
  path = next((copy / 'shards').iterdir())
  header = read_header(copy)
  shard = storage.read_shard(path, header)
  storage.write_shard(copy, storage.read_entry(path), layout_of(header), shard.replace(returns=shard.returns + 1))
  merge(tmp_path / 'into', [histories, copy])
  assert (tmp_path / 'into' / 'shards' / path.name).read_bytes() == path.read_bytes()


def test_what_does_not_fit_is_not_merged(histories, seed_one, point, tmp_path):
  with pytest.raises(IncompatibleError, match='both hold histories by task_conditioned_ppo with seed=0'):
    merge(tmp_path / 'a', [histories, histories])
  copy = shutil.copytree(seed_one, tmp_path / 'copy')
  header = read_header(copy)
  (copy / 'header.json').write_text(json.dumps({**header, 'family': 'line'}))
  with pytest.raises(IncompatibleError, match="family='point'.*family='line'"):
    merge(tmp_path / 'a', [histories, copy])
  (copy / 'header.json').write_text(json.dumps(header))
  next((copy / 'shards').iterdir()).unlink()
  with pytest.raises(DamagedDataError, match='missing'):
    merge(tmp_path / 'a', [histories, copy])
  with pytest.raises(DamagedDataError, match='holds no histories'):
    load_dataset(tmp_path / 'a', point)


def test_repairing_makes_the_same_shards_again(histories, point, tmp_path, monkeypatch):
  """Of a dataset with other numbers than a new one has. Nothing is deleted that is not made again."""
  monkeypatch.setattr(inspect_histories, 'make_family', lambda *names: point)
  settings = tuned.Tuned(shared=PPO, shared_updates=30, independent=PPO, independent_updates=20)
  monkeypatch.setattr(tuned, 'settings_for', lambda family: settings)
  copy = shutil.copytree(histories, tmp_path / 'copy')
  first, second, third = sorted((copy / 'shards').iterdir())
  wanted = {path.name: path.read_bytes() for path in (first, second, third)}
  first.unlink()
  second.write_bytes(b'damaged')
  header = read_header(copy)
  for change in (
    {'far_only': True}, {'sources': [{**source, 'settings': {}} for source in header['sources']]}
  ):
    (copy / 'header.json').write_text(json.dumps({**header, **change}))
    with pytest.raises(IncompatibleError):
      inspect_histories.repair(copy, make_card(copy))
    assert second.read_bytes() == b'damaged'
  (copy / 'header.json').write_text(json.dumps(header))
  inspect_histories.repair(copy, make_card(copy))
  assert {path.name: path.read_bytes() for path in (copy / 'shards').iterdir()} == wanted


def test_learners_by_hand():
  """Two tasks in a shard of 4; five in two shards; eight in two."""
  learners = [num_learners({'shard_size': 4}, {'num_tasks': num}) for num in (2, 5, 8)]
  assert learners == [2, 8, 8]


def test_rank_correlation_by_hand():
  """One curve that rises, one that falls, one flat, and one with two of three pairs in order: 1, -1, 0, 0.5."""
  assert abs(rank_correlation(np.array([[1, 2, 9], [3, 2, 1], [4, 4, 4], [1, 3, 2]])) - 0.5 / 4) < 1e-9
