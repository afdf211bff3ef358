"""Files are whole or not there, and what does not fit is refused."""

import os

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError

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
