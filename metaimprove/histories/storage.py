"""Histories on disk: shards that each stand for themselves, written so that a kill at any moment tears nothing.

A dataset is a folder:

  header.json     what the histories were made with, and how many each source is to make
  shards/         safetensors files of H histories of one source; one that stands under its name is whole, and its own
                  metadata says what it holds, checksum included
  learning/       runs of sources, to go on from
  workers/        seconds that each worker spent; no part of the data

What a shard holds follows from the header alone (seeds included), so one that is missing is made again, bit for bit, by
whoever it is assigned to: workers need nothing of each other but the folder.
"""

import hashlib
import json
import pathlib
import re
from typing import Any

import chex
import safetensors

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.types import Params, Task, Trajectory

FORMAT_VERSION = 3
HEADER = 'header.json'
SHARDS = 'shards'
_SOURCE_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]{0,63}')
_SHARD_NAME = re.compile(_SOURCE_NAME.pattern + r'-[0-9]{1,10}-[0-9]{8,12}\.safetensors')
_NO_CHECKSUM = '0' * 64


@chex.dataclass(frozen=True)
class History:
  """How policies improved on one task; N + 1 checkpoints from the first to the last.

  Attributes:
    task: the task; kept for collecting and judging, never shown to an operator.
    params: θ⁰...θᴺ, leaves [N + 1, ...].
    trajectory: the experience of each, leaves [N + 1, E, T, ...].
    returns: [N + 1] mean return of each one's episodes.
    finite: [N + 1] bool, none of its episodes blew up.
  """

  task: Task
  params: Params
  trajectory: Trajectory
  returns: chex.Array
  finite: chex.Array


def history_structure(header: dict[str, Any]) -> History:
  """The tree a shard has, with None for arrays of any shape."""
  params = {f'mlp/~/linear_{i}': {'w': None, 'b': None} for i in range(len(header['hidden_sizes']) + 1)}
  return History(
    task=Task(goal=None, dynamics={name: None for name in header['dynamics']}), params=params,
    trajectory=Trajectory(**{field: None for field in Trajectory.__dataclass_fields__}), returns=None, finite=None,
  )


def is_source_name(name: Any) -> bool:
  """Whether a name may be a source's: it becomes part of file names."""
  return isinstance(name, str) and _SOURCE_NAME.fullmatch(name) is not None


def is_shard_name(name: Any) -> bool:
  """Whether a name may be a shard's file."""
  return isinstance(name, str) and _SHARD_NAME.fullmatch(name) is not None


def without_sources(header: dict[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in header.items() if name != 'sources'}


def read_header(folder: files.Path) -> dict[str, Any]:
  """Raises `DamagedDataError` if there is none, `IncompatibleError` for one of another format version."""
  folder = pathlib.Path(folder)
  if not (folder / HEADER).exists() and not (folder / 'manifest.json').exists():
    raise DamagedDataError(f'{folder} holds no histories; run collect_histories with this folder first.')
  header = files.read_json(folder / HEADER) if (folder / HEADER).exists() else {'format_version': 1}
  if header.get('format_version') != FORMAT_VERSION:
    raise IncompatibleError(
      f'{folder} has format version {header.get("format_version")}, and this metaimprove reads {FORMAT_VERSION}; '
      'collect the histories again in another folder.'
    )
  return header


def open_header(folder: files.Path, header: dict[str, Any]) -> dict[str, Any]:
  """Starts a dataset, or opens one to go on with it, with further tasks or sources if `header` names them.

  Args:
    folder: of the dataset.
    header: everything that determines its contents; `sources` is a list of {'name', 'seed', 'num_tasks', 'settings',
      'own_tasks'}.

  Returns:
    The header as it now stands. Its sources also have a 'place' among those of their seed, from which their random
    numbers follow, whatever is added or merged later.

  Raises:
    IncompatibleError: if the folder holds a dataset with another header, or a source with other settings; if there are
      no sources, or two of one name.
  """
  header = json.loads(json.dumps({'format_version': FORMAT_VERSION, **header}))  # as it will be read back
  names = [source['name'] for source in header['sources']]
  if not names:
    raise IncompatibleError(f'No source is asked for, so there is nothing to collect in {folder}.')
  if len(set(names)) < len(names):
    raise IncompatibleError(
      f'Several sources are named {max(names, key=names.count)!r}; give each its own name, as with '
      "dataclasses.replace(source, name='...')."
    )
  existing = {**header, 'sources': []}
  if any((pathlib.Path(folder) / name).exists() for name in (HEADER, 'manifest.json')):
    existing = read_header(folder)
    files.check_same(without_sources(existing), without_sources(header), folder)
  sources = {(source['name'], source['seed']): source for source in existing['sources']}
  seeds = {seed for _, seed in sources}
  for wanted in header['sources']:
    place = wanted['name'], wanted['seed']
    if seeds and wanted['seed'] not in seeds:
      raise IncompatibleError(
        f'{folder} was made with seed={", ".join(map(str, sorted(seeds)))}, and now seed={wanted["seed"]} is asked '
        'for; choose another folder, and join the two with merge_histories if you want both.'
      )
    if place in sources:
      files.check_same(sources[place]['settings'], wanted['settings'], f'{folder} ({wanted["name"]})')
      sources[place] = {**sources[place], 'num_tasks': max(sources[place]['num_tasks'], wanted['num_tasks'])}
    else:
      taken = [source['place'] for source in sources.values() if source['seed'] == wanted['seed']]
      sources[place] = {**wanted, 'place': max(taken, default=-1) + 1}
  merged = {**existing, 'sources': list(sources.values())}
  if merged != existing:
    files.write_json(pathlib.Path(folder) / HEADER, merged)
  return merged


def planned_shards(header: dict[str, Any]) -> list[dict[str, Any]]:
  """The shards of a complete dataset, in order: {'file', 'source', 'seed', 'first_task', 'num_histories'}."""
  return [
    {
      'file': f'{source["name"]}-{source["seed"]}-{first:08d}.safetensors', 'source': source['name'],
      'seed': source['seed'], 'first_task': first,
      'num_histories': min(header['shard_size'], source['num_tasks'] - first),
    }
    for source in header['sources'] for first in range(0, source['num_tasks'], header['shard_size'])
  ]


def shard_path(folder: files.Path, entry: dict[str, Any]) -> pathlib.Path:
  return pathlib.Path(folder) / SHARDS / entry['file']


def write_shard(folder: files.Path, entry: dict[str, Any], histories: History) -> int:
  """Publishes a shard with what `entry` says of it; returns its bytes.

  The checksum is of the whole file, with zeros in its own place.
  """
  content = files.tree_to_bytes(histories, {'entry': entry_text(entry)})
  digest = hashlib.sha256(content).hexdigest()
  files.write_bytes(shard_path(folder, entry), content.replace(_NO_CHECKSUM.encode(), digest.encode(), 1))
  return len(content)


def entry_text(entry: dict[str, Any]) -> str:
  """An entry as it stands in a shard's metadata, without a checksum yet."""
  return json.dumps({**entry, 'sha256': _NO_CHECKSUM})


def read_entry(path: files.Path) -> dict[str, Any]:
  """What a shard says of itself; raises `DamagedDataError` if it is missing, cut off or no shard."""
  try:
    with safetensors.safe_open(path, 'numpy') as shard:
      return json.loads((shard.metadata() or {})['entry'])
  except FileNotFoundError:
    raise missing_shard(path) from None
  except (safetensors.SafetensorError, KeyError, ValueError):
    raise _damaged(path) from None


def is_there(folder: files.Path, planned: dict[str, Any]) -> bool:
  """Whether a planned shard stands, with all its histories; a last one that was not full is made again when it is.

  Raises:
    DamagedDataError: if what stands there is no shard.
  """
  path = shard_path(folder, planned)
  return path.exists() and planned.items() <= read_entry(path).items()


def verify_shard(path: files.Path) -> dict[str, Any]:
  """Compares a shard, byte for byte, with its checksum; returns its entry; raises `DamagedDataError`."""
  digest = read_entry(path).get('sha256', '')
  content = pathlib.Path(path).read_bytes()
  if hashlib.sha256(content.replace(digest.encode(), _NO_CHECKSUM.encode(), 1)).hexdigest() != digest:
    raise _damaged(path)
  return read_entry(path)


def read_shard(path: files.Path, like: History) -> History:
  """All histories of a shard."""
  return files.load_tree(path, like)


def missing_shard(path: files.Path) -> DamagedDataError:
  return DamagedDataError(f'Shard {path} is missing; run the collection again on this folder to make it anew.')


def _damaged(path):
  return DamagedDataError(
    f'Shard {path} is damaged; delete it and run the collection again on this folder, or let inspect_histories '
    '--repair do so.'
  )
