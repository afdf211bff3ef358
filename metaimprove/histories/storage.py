"""Histories on disk: shards that each stand for themselves, written so that a kill at any moment tears nothing.

A dataset is a folder:

  header.json     what the histories were made with, and how many each source is to make
  shards/         safetensors files of H histories of one source; one that stands under its name is whole, and its own
                  metadata, `entry`, says what it holds, checksum and layout included (see `layout`)
  learning/       runs of sources, to go on from
  workers/        seconds that each worker spent; no part of the data

What a shard holds follows from the header alone (seeds included), so one that is missing is made again, bit for bit, by
whoever it is assigned to: workers need nothing of each other but the folder.
"""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import chex
import jax
import numpy as np
import safetensors

from metaimprove import files
from metaimprove.errors import DamagedDataError
from metaimprove.histories import layout as layouts
from metaimprove.histories.header import MAX_SEED, is_integer, is_number, is_source_name, shape_of
from metaimprove.types import Params, Task, Trajectory

SHARDS = 'shards'
_NO_CHECKSUM = '0' * 64
_SHARD_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]{0,63}-[0-9]{1,10}-[0-9]{8,10}\.safetensors')
_CHECKSUM = re.compile(r'[0-9a-f]{64}')
_COUNTS = {
  'first_task': (0, 1_000_000_000), 'num_histories': (1, 10_000_000), 'env_steps': (0, 2**62),
  'non_finite_episodes': (0, 2**62),
}


@chex.dataclass(frozen=True)
class History:
  """How policies improved on one task; N + 1 checkpoints from the first to the last.

  Attributes:
    task: the task; kept for collecting and judging, never shown to an operator.
    params: θ⁰...θᴺ, leaves [N + 1, ...].
    trajectory: the experience of each, leaves [N + 1, E, T, ...].
    returns: [N + 1] float32, the mean return of each checkpoint in all episodes it was measured with, of which the
      experience is the first ones; NaN where all blew up.
    return_error: [N + 1] float32, the standard error of `returns`.
    finite: [N + 1] bool, none of these episodes blew up.
    update: [N + 1] int32, after how many updates of its source each checkpoint was taken.
  """

  task: Task
  params: Params
  trajectory: Trajectory
  returns: chex.Array
  return_error: chex.Array
  finite: chex.Array
  update: chex.Array


INDEX = {'returns': np.float32, 'return_error': np.float32, 'finite': np.bool_, 'update': np.int32}
"""The arrays [H, N + 1] of a shard, and their types."""


def is_shard_name(name: Any) -> bool:
  """Whether a name may be a shard's file."""
  return isinstance(name, str) and _SHARD_NAME.fullmatch(name) is not None


def shard_path(folder: files.Path, entry: Mapping[str, Any]) -> pathlib.Path:
  """Where a shard stands; raises `DamagedDataError` for a name that is none, such as one that leads elsewhere."""
  if not is_shard_name(entry['file']):
    raise DamagedDataError(f'{str(entry["file"])[:100]!r} is not the name of a shard.')
  return pathlib.Path(folder) / SHARDS / entry['file']


def write_shard(folder: files.Path, entry: Mapping[str, Any], layout: layouts.Layout, histories: History) -> int:
  """Publishes histories [H] as a shard, with what `entry` says of it; returns its bytes.

  The checksum is of the whole file, with zeros in its own place.
  """
  content = shard_bytes(entry, layout, arrays_of(histories))
  digest = hashlib.sha256(content).hexdigest()
  files.write_bytes(shard_path(folder, entry), content.replace(_NO_CHECKSUM.encode(), digest.encode(), 1))
  return len(content)


def arrays_of(histories: History) -> dict[str, np.ndarray]:
  """The arrays of a shard by name, of histories [H]."""
  index = {name: np.asarray(getattr(histories, name), dtype) for name, dtype in INDEX.items()}
  return {
    **index, 'params': layouts.pack_params(histories.params),
    'experience': layouts.pack_experience(histories.trajectory),
    **dict(zip(files.leaf_names({'task': histories.task}), jax.tree.leaves(histories.task))),
  }


def shard_bytes(entry: Mapping[str, Any], layout: layouts.Layout, arrays: Mapping[str, np.ndarray]) -> bytes:
  """A shard without a checksum yet."""
  # All metadata is one text: safetensors writes several in any order, and shards made twice are to be the same bytes.
  text = json.dumps({**entry, 'layout': layout.as_json(), 'sha256': _NO_CHECKSUM}, allow_nan=False)
  return files.tree_to_bytes(dict(arrays), {'entry': text})


def read_entry(path: files.Path) -> dict[str, Any]:
  """What a shard says of itself, checked; raises `DamagedDataError` if it is missing, cut off or no shard."""
  try:
    with safetensors.safe_open(path, 'numpy') as shard:
      entry = json.loads((shard.metadata() or {})['entry'])
  except FileNotFoundError:
    raise missing_shard(path) from None
  except (safetensors.SafetensorError, KeyError, ValueError, RecursionError):
    raise damaged_shard(path) from None
  if not _is_entry(entry):
    raise damaged_shard(path)
  return entry


def _is_entry(entry: Any) -> bool:
  """Whether all values of an entry are what they must be. Besides those that each has, there may be figures: lists with
  a number, or None, for each history."""
  if not isinstance(entry, dict):
    return False
  known = {'file', 'source', 'seed', 'layout', 'sha256', *_COUNTS}
  if not (
    is_shard_name(entry.get('file')) and is_source_name(entry.get('source'))
    and is_integer(entry.get('seed'), 0, MAX_SEED)
    and isinstance(entry.get('layout'), dict)
    and isinstance(entry.get('sha256'), str) and _CHECKSUM.fullmatch(entry['sha256'])
    and all(is_integer(entry.get(name), low, high) for name, (low, high) in _COUNTS.items())
  ):
    return False
  return all(
    isinstance(figures, list) and len(figures) == entry['num_histories']
    and all(value is None or is_number(value) for value in figures)
    for name, figures in entry.items() if name not in known
  )


def is_there(folder: files.Path, planned: Mapping[str, Any]) -> bool:
  """Whether a planned shard stands with all its histories. The last shard of a source holds fewer if it was made when
  fewer tasks were asked for; then it counts as missing, and is made again.

  Raises:
    DamagedDataError: if what stands there is no shard.
  """
  path = shard_path(folder, planned)
  return path.exists() and planned.items() <= read_entry(path).items()


def verify_shard(path: files.Path) -> dict[str, Any]:
  """Compares a shard, byte for byte, with its checksum; returns its entry; raises `DamagedDataError`."""
  entry = read_entry(path)
  digest = entry['sha256']
  content = pathlib.Path(path).read_bytes()
  if hashlib.sha256(content.replace(digest.encode(), _NO_CHECKSUM.encode(), 1)).hexdigest() != digest:
    raise damaged_shard(path)
  return entry


def read_shard(path: files.Path, header: Mapping[str, Any]) -> History:
  """All histories [H] of a shard of a dataset with this header."""
  layout, arrays = layouts.layout_of(header), files.load_arrays(path)
  kinds = {name: (x.shape, x.dtype) for name, x in arrays.items()}
  check_arrays(path, header, read_entry(path)['num_histories'], kinds)
  return History(
    task=Task(
      goal=arrays['task::goal'], dynamics={name: arrays[f'task::dynamics::{name}'] for name in header['dynamics']}
    ),
    params=layouts.unpack_params(layout, arrays['params']),
    trajectory=layouts.unpack_experience(layout, arrays['experience']), **{name: arrays[name] for name in INDEX},
  )


def check_arrays(
  path: files.Path, header: Mapping[str, Any], num_histories: int,
  arrays: Mapping[str, tuple[tuple[int, ...], np.dtype]],
) -> None:
  """Raises `DamagedDataError` unless the arrays of a shard are those that the header of its dataset implies.

  Args:
    path: of the shard.
    header: of the dataset.
    num_histories: H.
    arrays: name -> shape and type of each array of the shard.
  """
  layout, kept = layouts.layout_of(header), (num_histories, header['num_checkpoints'])
  shapes = {
    'params': (*kept, layout.params_size), 'experience': (*kept, layout.experience_size),
    'task::goal': (num_histories, header['goal_size']),
    **{
      f'task::dynamics::{name}': (num_histories, *shape_of(r))
      for name, r in header['dynamics'].items()
    },
  }
  wanted = {name: (kept, np.dtype(dtype)) for name, dtype in INDEX.items()}
  wanted |= {name: (shape, np.dtype(np.float32)) for name, shape in shapes.items()}
  if dict(arrays) != wanted:
    raise damaged_shard(path)


def missing_shard(path: files.Path) -> DamagedDataError:
  """The error for a shard that is not there."""
  return DamagedDataError(f'Shard {path} is missing; run the collection again on this folder to make it anew.')


def damaged_shard(path: files.Path) -> DamagedDataError:
  """The error for a shard that is not what it must be."""
  return DamagedDataError(
    f'Shard {path} is damaged; delete it and run the collection again on this folder, or let inspect_histories '
    '--repair do so.'
  )
