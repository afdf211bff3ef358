"""Reads rows of shards, wherever they are.

It asks the files for just the bytes of a row instead of mapping them, so that memory does not grow with what is read.
"""

import collections
import json
import math
import os
import pathlib
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaimprove import files
from metaimprove.errors import DamagedDataError
from metaimprove.histories import storage

_OPEN_SHARDS = 256
_MAX_HEADER = 100_000_000
_DTYPES = {'F32': '<f4', 'F64': '<f8', 'I32': '<i4', 'I64': '<i8', 'BOOL': '?', 'U8': 'u1', 'U32': '<u4'}


class Shards:
  """The shards of a dataset; may be used by several threads."""

  def __init__(self, paths: Sequence[pathlib.Path]):
    self._paths = list(paths)
    self._open: collections.OrderedDict[int, OpenShard] = collections.OrderedDict()
    self._lock = threading.Lock()

  def checksums(self) -> list[str]:
    """What the shards say their checksums are."""
    return [storage.read_entry(path)['sha256'] for path in self._paths]

  def read(self, name: str, shard: np.ndarray, index: Sequence[np.ndarray]) -> np.ndarray:
    """Rows [B, ...] of the array `name`: of example b, shard[b] at the leading indices index[0][b], index[1][b], ..."""
    order = np.argsort(shard, kind='stable')
    shape, dtype = self._shard(int(shard[order[0]])).arrays()[name]
    rows = np.empty((len(order), *shape[len(index):]), dtype)
    room = rows.reshape(len(order), -1).view(np.uint8)
    index = np.stack(index, axis=1).tolist()
    for example in order.tolist():
      self._shard(int(shard[example])).read_into(room[example], name, index[example])
    return rows

  def _shard(self, number: int) -> 'OpenShard':
    with self._lock:
      if number not in self._open:
        self._open[number] = OpenShard(self._paths[number])
      self._open.move_to_end(number)
      if len(self._open) > _OPEN_SHARDS:
        self._open.popitem(last=False)
      return self._open[number]


class OpenShard:
  """A file in safetensors' format: the header's size in 8 bytes, the header as JSON, the arrays one after the other.

  Raises:
    DamagedDataError: if the file is missing, or is none, or is shorter than its header says.
  """

  def __init__(self, path: files.Path):
    self._path = path
    try:
      self._file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
      raise storage.missing_shard(path) from None
    weakref.finalize(self, os.close, self._file)  # when no thread reads it any longer
    try:
      self._arrays = _parse(self._file)
    except (KeyError, TypeError, ValueError, RecursionError):
      raise storage.damaged_shard(path) from None

  def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of all arrays by name."""
    return {name: (shape, dtype) for name, (dtype, shape, _) in self._arrays.items()}

  def whole(self, name: str) -> np.ndarray:
    """All of an array."""
    dtype, shape, _ = self._arrays[name]
    array = np.empty(shape, dtype)
    self.read_into(array.reshape(-1).view(np.uint8), name, [])
    return array

  def read_into(self, room: np.ndarray, name: str, index: Sequence[int]) -> None:
    """Reads the row at the leading indices `index` into `room`, bytes."""
    _, shape, offset = self._arrays[name]
    row = 0
    for step, length in zip(index, shape):
      row = row * length + step
    if os.preadv(self._file, [room], offset + room.size * row) != room.size:
      raise DamagedDataError(f'{self._path} has become shorter; let inspect_histories --repair make it again.')


def _parse(file: int) -> Mapping[str, tuple[np.dtype, tuple[int, ...], int]]:
  """Name -> type, shape and position in the file of each array; raises what `OpenShard` takes for damage."""
  length = os.fstat(file).st_size
  size = int.from_bytes(os.pread(file, 8, 0), 'little')
  if size > min(_MAX_HEADER, length):
    raise ValueError('the header is longer than the file')
  arrays: dict[str, Any] = {}
  for name, entry in json.loads(os.pread(file, size, 8)).items():
    if name != '__metadata__':
      dtype, shape = np.dtype(_DTYPES[entry['dtype']]), tuple(int(step) for step in entry['shape'])
      start, stop = (8 + size + int(at) for at in entry['data_offsets'])
      if min(shape, default=0) < 0 or not 8 + size <= start <= stop <= length:
        raise ValueError('an array is not within the file')
      if math.prod(shape) * dtype.itemsize != stop - start:
        raise ValueError('an array is not as large as its shape')
      arrays[name] = dtype, shape, start
  return arrays
