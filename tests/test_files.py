"""Files are whole or not there, and what does not fit is refused."""

import os
import stat
import threading
import time

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError, WaitingError

arrays = hnp.arrays(
  st.sampled_from([np.float32, np.int32, np.bool_]), hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
)


@hypothesis.given(arrays, arrays)
def test_trees_come_back_bit_for_bit(first, second):
  tree = {'a/~/b': {'w': first}, 'c': [second]}
  back = files.tree_from_bytes(files.tree_to_bytes(tree), tree, 'file')
  for x, y in ((first, back['a/~/b']['w']), (second, back['c'][0])):
    assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def test_what_does_not_fit_is_refused():
  content = files.tree_to_bytes({'a': np.zeros(3)})
  with pytest.raises(IncompatibleError, match="no array 'b'"):
    files.tree_from_bytes(content, {'b': None}, 'file')
  with pytest.raises(IncompatibleError, match='shape'):
    files.tree_from_bytes(content, {'a': np.zeros(4)}, 'file')
  with pytest.raises(IncompatibleError, match='holds 1 arrays where 0'):
    files.tree_from_bytes(content, {}, 'file')
  assert files.tree_from_bytes(content, {'a': None}, 'file')['a'].shape == (3,)


def test_damage_is_named(tmp_path):
  path = tmp_path / 'tree.safetensors'
  with pytest.raises(DamagedDataError, match='missing'):
    files.load_tree(path, {'a': None})
  files.save_tree(path, {'a': np.zeros(3)})
  path.write_bytes(path.read_bytes()[:-4])
  with pytest.raises(DamagedDataError, match='damaged'):
    files.load_tree(path, {'a': None})
  (tmp_path / 'x.json').write_text('{"torn":')
  with pytest.raises(DamagedDataError, match='not valid JSON'):
    files.read_json(tmp_path / 'x.json')


def test_writing_replaces_and_leaves_nothing_behind(tmp_path):
  path = tmp_path / 'new' / 'file'
  files.write_bytes(path, b'one')
  files.write_bytes(path, b'two')
  assert path.read_bytes() == b'two'
  assert [p.name for p in path.parent.iterdir()] == ['file']


def test_only_what_was_left_long_ago_is_removed(tmp_path):
  old, new, other = (tmp_path / 'deep' / name for name in ('.a.host.1.tmp', '.b.host.2.tmp', 'c'))
  for path in (old, new, other):
    files.write_bytes(path, b'x')
  for path in (old, other):
    os.utime(path, (1, 1))
  files.remove_leftovers(tmp_path)
  assert {path.name for path in (tmp_path / 'deep').iterdir()} == {'.b.host.2.tmp', 'c'}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'file'
  files.write_bytes(path, b'old')

  def full_disk(descriptor):
    raise OSError('no space left on device')

  monkeypatch.setattr(files.os, 'fsync', full_disk)
  with pytest.raises(OSError, match='no space'):
    files.write_bytes(path, b'new')
  assert path.read_bytes() == b'old'


def test_a_new_name_is_flushed_with_its_folder(tmp_path, monkeypatch):
  """In this order: the file, then, under its name, each folder that has a new name in it. A machine that stops may lose
  names that were not flushed."""
  flushed, fsync = [], os.fsync

  def note(descriptor):
    folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    there = (tmp_path / 'a' / 'b' / 'file').exists()
    flushed.append((os.readlink(f'/proc/self/fd/{descriptor}') if folder else 'the file', there))
    fsync(descriptor)

  monkeypatch.setattr(files.os, 'fsync', note)
  files.write_bytes(tmp_path / 'a' / 'b' / 'file', b'new')
  a, b = str(tmp_path / 'a'), str(tmp_path / 'a' / 'b')
  assert flushed == [(str(tmp_path), False), (a, False), ('the file', False), (b, True)]


def test_json_has_no_undefined_numbers(tmp_path):
  for value, where in (
    ({'a': [1.0, {'b': float('nan')}]}, r"\['a'\]\[1\]\['b'\]"), (float('inf'), 'the value'),
    ([-float('inf')], r'\[0\]'),
  ):
    with pytest.raises(IncompatibleError, match=f'{where} is not finite.*None'):
      files.write_json(tmp_path / 'figures.json', value)
  assert not list(tmp_path.iterdir())
  files.write_json(tmp_path / 'figures.json', {'a': [None, 1e300]})
  assert files.read_json(tmp_path / 'figures.json') == {'a': [None, 1e300]}


def test_one_at_a_time_is_in_a_locked_block(tmp_path):
  """Two threads that both read, wait and write; unlocked, both would read 0."""
  path, lock = tmp_path / 'number', tmp_path / 'deep' / 'lock'
  path.write_text('0')

  def add_one():
    with files.locked(lock):
      number = int(path.read_text())
      time.sleep(0.05)
      path.write_text(str(number + 1))

  threads = [threading.Thread(target=add_one) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert path.read_text() == '3'


def test_a_lock_that_is_not_given_back_ends_the_wait(tmp_path):
  with files.locked(tmp_path / 'lock'):
    with pytest.raises(WaitingError, match='lock for 0.1 seconds; end it if it hangs'):
      with files.locked(tmp_path / 'lock', seconds=0.1):
        pass
  with files.locked(tmp_path / 'lock'):
    pass
