"""Stored histories as training data. A tuple (θⁿ, τⁿ, θⁿ⁺ᵏ) is a view of a history, for any n and k.

Only what is looked at is read: a dataset in memory is its index, a few numbers a history.
"""

import collections
import dataclasses
import json
import os
import pathlib
import threading
import weakref
from typing import Any

import jax
import numpy as np
import safetensors

from metaimprove import files, policies
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.histories import storage
from metaimprove.tasks.family import TASK_SUITE_VERSION, TaskFamily, distribution_of
from metaimprove.types import Params, Task, Trajectory

_OPEN_SHARDS = 256
_DTYPES = {'F32': '<f4', 'F64': '<f8', 'I32': '<i4', 'I64': '<i8', 'BOOL': '?', 'U8': 'u1', 'U32': '<u4'}


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The histories of a folder that are fit for training; H of them.

  Attributes:
    header: what the folder was made with.
    policy: the policies θ is for.
    returns: [H, N + 1] float32, mean return of each checkpoint's experience.
    task_index: [H] int, which task a history is of; histories by several sources share tasks.
    source: [H] int, index into `source_names`.
    source_names: the sources.
    num_left_out: histories that are not here because a simulation in them was not finite.
    shard: [H] int, which shard a history is in.
    row: [H] int, where in its shard.
    shards: the shards' readers.
  """

  header: dict
  policy: policies.Policy
  returns: np.ndarray
  task_index: np.ndarray
  source: np.ndarray
  source_names: tuple[str, ...]
  num_left_out: int
  shard: np.ndarray
  row: np.ndarray
  shards: '_Shards'

  @property
  def num_histories(self) -> int:
    return len(self.source)

  @property
  def num_checkpoints(self) -> int:
    return self.returns.shape[1]

  @property
  def checksum(self) -> str:
    """Of the header and of the checksums that the shards hold: it changes with anything that is stored."""
    return files.checksum(json.dumps([self.header, self.shards.checksums()], sort_keys=True).encode())

  def read(self, history: np.ndarray, level: np.ndarray) -> tuple[Params, Trajectory]:
    """Checkpoints [B] with their experience, leaves [B, ...], from the disk; histories [B] and levels [B] say which."""
    return self._gather(('params', 'trajectory'), history, level)

  def read_params(self, history: np.ndarray, level: np.ndarray) -> Params:
    """θ of checkpoints [B]."""
    return self._gather(('params',), history, level)[0]

  def read_tasks(self, history: np.ndarray) -> Task:
    """The tasks of histories [B]; to simulate them, not for an operator to see."""
    return self._gather(('task',), history)[0]

  def _gather(self, fields, history, level=None):
    history = np.asarray(history)
    places = [self.row[history]] if level is None else [self.row[history], np.asarray(level)]
    return tuple(self.shards.read(field, self.shard[history], places) for field in fields)


class _Shards:
  """Reads rows of shards, wherever they are; may be used by several threads.

  It asks the file for just the bytes of a row instead of mapping it, so that memory does not grow with what is read.
  """

  def __init__(self, paths: list[pathlib.Path], like: storage.History):
    self._paths, self._like = paths, like
    self._open: collections.OrderedDict[int, _OpenShard] = collections.OrderedDict()
    self._lock = threading.Lock()

  def checksums(self) -> list[str]:
    """What the shards say their checksums are."""
    return [storage.read_entry(path)['sha256'] for path in self._paths]

  def _shard(self, index: int) -> '_OpenShard':
    with self._lock:
      if index not in self._open:
        self._open[index] = _OpenShard(self._paths[index])
      self._open.move_to_end(index)
      if len(self._open) > _OPEN_SHARDS:
        self._open.popitem(last=False)
      return self._open[index]

  def read(self, field: str, shard: np.ndarray, places: list[np.ndarray]) -> Any:
    """Leaves [B, ...] of a field of History: of example b, shard[b] at the leading indices places[0][b], ..."""
    like = {field: getattr(self._like, field)}
    names = files.leaf_names(jax.tree.map(lambda _: 0, like, is_leaf=lambda x: x is None))
    order = np.argsort(shard, kind='stable')
    leaves, rows = self._shard(int(shard[order[0]])).empty(names, len(order), len(places))
    places = np.stack(places, axis=1).tolist()
    for example in order.tolist():
      self._shard(int(shard[example])).read_into(rows, names, example, places[example])
    return jax.tree.unflatten(jax.tree.structure(like[field], is_leaf=lambda x: x is None), leaves)


class _OpenShard:
  """A file in safetensors' format: the header's size in 8 bytes, the header as JSON, the arrays one after the other."""

  def __init__(self, path: pathlib.Path):
    self._path, self._file = path, os.open(path, os.O_RDONLY)
    weakref.finalize(self, os.close, self._file)  # when no thread reads it any longer
    size = int.from_bytes(os.pread(self._file, 8, 0), 'little')
    self._arrays = {
      name: (np.dtype(_DTYPES[entry['dtype']]), entry['shape'], 8 + size + entry['data_offsets'][0])
      for name, entry in json.loads(os.pread(self._file, size, 8)).items() if name != '__metadata__'
    }

  def empty(self, names: list[str], num: int, depth: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Room for `num` rows of arrays, which are what is left beyond `depth` indices; and the same room as bytes."""
    leaves = [np.empty((num, *self._arrays[name][1][depth:]), self._arrays[name][0]) for name in names]
    return leaves, [leaf.reshape(num, -1).view(np.uint8) for leaf in leaves]

  def read_into(self, rows: list[np.ndarray], names: list[str], example: int, place: list[int]) -> None:
    """Reads the rows at the leading indices `place` into place `example` of `rows`."""
    for room, name in zip(rows, names):
      _, shape, offset = self._arrays[name]
      index = 0
      for step, length in zip(place, shape):
        index = index * length + step
      target = room[example]
      if os.preadv(self._file, [target], offset + target.size * index) != target.size:
        raise DamagedDataError(f'{self._path} has become shorter; let inspect_histories --repair make it again.')


def check_family(folder: files.Path, header: dict[str, Any], family: TaskFamily) -> None:
  """Raises `IncompatibleError` if a dataset is of another family, backend, task suite version or dynamics."""
  if header.get('task_suite_version') != TASK_SUITE_VERSION:
    raise IncompatibleError(
      f'{folder} is of task suite version {header.get("task_suite_version")}, and this metaimprove defines version '
      f'{TASK_SUITE_VERSION}: the tasks are not the same. Collect the histories again.'
    )
  for name, wanted in (('family', family.name), ('backend', family.backend)):
    if header[name] != wanted:
      raise IncompatibleError(
        f'{folder} holds histories of {name} {header[name]!r}, not {wanted!r}; pass --{name}={header[name]} or another '
        'folder.'
      )
  if list(header['dynamics']) != list(family.ranges):
    raise IncompatibleError(
      f'{folder} holds histories with randomised {", ".join(header["dynamics"]) or "nothing"}, and this family '
      f'randomises {", ".join(family.ranges) or "nothing"}; make the family with the same dynamics.'
    )
  if any(header[name] != distribution_of(family)[name] for name in ('dynamics', 'far_only')):
    raise IncompatibleError(
      f'{folder} holds histories of dynamics drawn from other ranges than those of this family; make the family with '
      'the same ranges.'
    )


def read_complete_header(folder: files.Path, family: TaskFamily) -> dict[str, Any]:
  """The header of a folder that `collect` has filled for a family.

  Raises:
    DamagedDataError: if there is none or the collection is not finished.
    IncompatibleError: see `check_family`.
  """
  header = storage.read_header(folder)
  check_family(folder, header, family)
  planned = storage.planned_shards(header)
  missing = [entry for entry in planned if not storage.is_there(folder, entry)]
  if missing:
    wanted, lacking = (sum(entry['num_histories'] for entry in entries) for entries in (planned, missing))
    raise DamagedDataError(
      f'{folder} is incomplete: {wanted - lacking} of {wanted} histories are there, {missing[0]["file"]} is missing or '
      'does not hold all of its; run the collection again on this folder.'
    )
  return header


def load_dataset(folder: files.Path, family: TaskFamily, *, verify: bool = True) -> Dataset:
  """Opens a folder that `collect` has filled.

  Args:
    folder: of the dataset.
    family: the family it must be of.
    verify: compare every shard with its checksum first, about a second a gigabyte; without, only shards that were cut
      off are noticed.

  Raises:
    DamagedDataError: if the folder or a shard is missing, incomplete or altered.
    IncompatibleError: see `check_family`.
  """
  header = read_complete_header(folder, family)
  planned = storage.planned_shards(header)
  paths = [storage.shard_path(folder, entry) for entry in planned]
  if verify:
    for path in paths:
      storage.verify_shard(path)
  names = tuple(dict.fromkeys(source['name'] for source in header['sources']))
  # Sources of one seed share its tasks, but for those that came with their own.
  task_sets = {
    (source['name'], source['seed']): (source['seed'], source['name'] if source['own_tasks'] else None)
    for source in header['sources']
  }
  blocks = tuple(dict.fromkeys(task_sets.values()))
  sizes = [entry['num_histories'] for entry in planned]
  returns, finite = _index_arrays(paths)
  row = np.concatenate([np.arange(size) for size in sizes])
  shard = np.repeat(np.arange(len(planned)), sizes)
  first = np.array([entry['first_task'] for entry in planned])
  block = np.array([blocks.index(task_sets[entry['source'], entry['seed']]) for entry in planned])
  task_index = block[shard] * (first + sizes).max() + first[shard] + row
  source = np.array([names.index(entry['source']) for entry in planned])[shard]
  keep = finite.all(axis=1)
  return Dataset(
    header=header,
    policy=policies.make_policy(family.observation_size, family.action_size, tuple(header['hidden_sizes'])),
    returns=returns[keep], task_index=task_index[keep], source=source[keep], source_names=names,
    num_left_out=int((~keep).sum()), shard=shard[keep], row=row[keep],
    shards=_Shards(paths, storage.history_structure(header)),
  )


def _index_arrays(paths):
  """[H, N + 1] returns and finite of all shards."""
  columns = []
  for path in paths:
    with safetensors.safe_open(path, 'numpy') as shard:
      columns.append((shard.get_tensor('returns'), shard.get_tensor('finite')))
  return tuple(np.concatenate(column) for column in zip(*columns))
