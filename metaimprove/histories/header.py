"""The header of a dataset: what its histories are made with, and the plan of shards that follows from it.

It is read from disk, perhaps somebody else's, and its names become parts of file names: everything in it is checked.
"""

import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError

FORMAT_VERSION = 5
HEADER = 'header.json'
MAX_SEED = 2**32 - 1
_OLD_MANIFEST = 'manifest.json'
_LOCK = '.header.lock'
_SOURCE_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]{0,63}')
_WORD = re.compile(r'[A-Za-z0-9_.-]{1,100}')
_MAX_SHARDS = 10_000_000
_MAX_LAYERS = 64
_SIZE = 1, 1_000_000
_INTEGERS = {
  'format_version': (1, 1_000), 'task_suite_version': (0, 1_000_000), 'observation_size': _SIZE, 'action_size': _SIZE,
  'goal_size': (0, 1_000_000), 'outcome_size': (0, 1_000_000), 'episode_length': _SIZE,
  'num_checkpoints': (2, 1_000_000), 'num_episodes': _SIZE, 'num_candidates': (2, 1_000_000),
  'num_measured': (2, 1_000_000), 'shard_size': (1, 10_000_000),
}
_SOURCE_INTEGERS = {'seed': (0, MAX_SEED), 'num_tasks': (1, 1_000_000_000), 'index': (0, 1_000_000)}


def is_source_name(name: Any) -> bool:
  """Whether a source may have this name: it becomes part of file names."""
  return isinstance(name, str) and _SOURCE_NAME.fullmatch(name) is not None


def is_integer(value: Any, low: int, high: int) -> bool:
  """Whether a value read from JSON is an integer between `low` and `high`, both included."""
  return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: Any) -> bool:
  """Whether a value read from JSON is a finite number."""
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: Any) -> bool:
  """Whether a value read from JSON is a finite number, true, false, or a list of such values."""
  if isinstance(value, list):
    return all(_are_numbers(x) for x in value)
  return isinstance(value, bool) or is_number(value)


def _has_shape(parameter: Mapping[str, Any]) -> bool:
  """Whether `shape_of` a dynamics parameter in a header makes sense."""
  shape = parameter.get('shape', [])
  return isinstance(shape, list) and is_integer(parameter.get('elements', 0), 0, 1_000_000) and all(
    is_integer(size, *_SIZE) for size in shape
  )


def shape_of(parameter: Mapping[str, Any]) -> tuple[int, ...]:
  """The shape of a value of a dynamics parameter, from its plain data in a header; see `Parameter.distribution`."""
  elements = parameter.get('elements', 0)
  return tuple(parameter.get('shape', [elements] if elements else []))


def without_sources(header: Mapping[str, Any]) -> dict[str, Any]:
  """The part of a header that all sources share."""
  return {name: value for name, value in header.items() if name != 'sources'}


def read_header(folder: files.Path) -> dict[str, Any]:
  """The header of a dataset, checked.

  Raises:
    DamagedDataError: if there is none, or a value in it is not what it must be.
    IncompatibleError: if it is of another format version.
  """
  folder = pathlib.Path(folder)
  if not (folder / HEADER).exists() and not (folder / _OLD_MANIFEST).exists():
    raise DamagedDataError(f'{folder} holds no histories; run collect_histories with this folder first.')
  header = files.read_json(folder / HEADER) if (folder / HEADER).exists() else {'format_version': 1}
  if not isinstance(header, dict):
    raise _damaged(folder / HEADER, 'it is not a JSON object')
  if header.get('format_version') != FORMAT_VERSION:
    raise IncompatibleError(
      f'{folder} has format version {str(header.get("format_version"))[:20]}, and this metaimprove reads '
      f'{FORMAT_VERSION}; collect the histories again in another folder.'
    )
  _check_header(header, folder / HEADER)
  return header


def _damaged(path: pathlib.Path, what: str) -> DamagedDataError:
  return DamagedDataError(f'{path} is damaged: {what}. Get it anew from where it came from, or collect again.')


def _check_header(header: dict[str, Any], path: pathlib.Path) -> None:
  """Raises `DamagedDataError` that names the first value that is not what it must be."""
  def need(good, name):
    if not good:
      raise _damaged(path, f'{name} is not what it must be')

  for name, (low, high) in _INTEGERS.items():
    need(is_integer(header.get(name), low, high), name)
  for name in ('family', 'backend'):
    need(isinstance(header.get(name), str) and _WORD.fullmatch(header[name]), name)
  need(isinstance(header.get('far_only'), bool), 'far_only')
  need(header['num_measured'] >= header['num_episodes'], 'num_measured')
  need(header['num_candidates'] >= header['num_checkpoints'], 'num_candidates')
  need(_are_hidden_sizes(header.get('hidden_sizes')), 'hidden_sizes')
  dynamics = header.get('dynamics')
  need(isinstance(dynamics, dict) and all(
    _WORD.fullmatch(name) and isinstance(r, dict) and _are_numbers(list(r.values())) and _has_shape(r)
    for name, r in dynamics.items()
  ), 'dynamics')
  sources = header.get('sources')
  need(isinstance(sources, list) and sources and all(isinstance(source, dict) for source in sources), 'sources')
  for source in sources:
    need(is_source_name(source.get('name')), 'the name of a source')
    for name, (low, high) in _SOURCE_INTEGERS.items():
      need(is_integer(source.get(name), low, high), f'{name} of {source["name"]}')
    need(isinstance(source.get('settings'), dict), f'settings of {source["name"]}')
    need(isinstance(source.get('own_tasks'), bool), f'own_tasks of {source["name"]}')
    for name in ('num_updates', 'patience'):
      value = source['settings'].get(name)
      need(value is None or is_integer(value, 1, 1_000_000_000), f'{name} of {source["name"]}')
    need(_are_hidden_sizes(source['settings'].get('hidden_sizes', [])), f'hidden_sizes of {source["name"]}')
  keys = {(source['name'], source['seed']) for source in sources}
  need(len(keys) == len(sources), 'the name that two sources share')
  num_shards = sum(-(-source['num_tasks'] // header['shard_size']) for source in sources)
  need(num_shards <= _MAX_SHARDS, 'the number of shards')


def _are_hidden_sizes(value: Any) -> bool:
  return isinstance(value, list) and len(value) <= _MAX_LAYERS and all(is_integer(x, 1, 65_536) for x in value)


def open_header(folder: files.Path, header: dict[str, Any]) -> dict[str, Any]:
  """Starts a dataset, or opens one to go on with it, with further tasks or sources if `header` names them.

  Several processes may do so at once: each reads and writes the header under a lock.

  Args:
    folder: of the dataset.
    header: everything that determines its contents; `sources` is a list of {'name', 'seed', 'num_tasks', 'settings',
      'own_tasks'}.

  Returns:
    The header as it now is. Its sources also have an 'index' among those of their seed, from which it follows which
    worker does what, whatever is added later.

  Raises:
    IncompatibleError: if the folder holds a dataset with another header, or a source with other settings; if there are
      no sources, two of one name, or a name or a seed that cannot be.
  """
  header = json.loads(json.dumps({'format_version': FORMAT_VERSION, **header}))  # as it will be read back
  folder = pathlib.Path(folder)
  _check_wanted(folder, header['sources'])
  with files.locked(folder / _LOCK):
    existing = {**header, 'sources': []}
    if any((folder / name).exists() for name in (HEADER, _OLD_MANIFEST)):
      existing = read_header(folder)
      files.check_same(without_sources(existing), without_sources(header), folder)
    joined = {**existing, 'sources': _join_sources(folder, existing['sources'], header['sources'])}
    if joined != existing:
      _check_header(joined, folder / HEADER)
      files.write_json(folder / HEADER, joined)
  return joined


def _check_wanted(folder: pathlib.Path, sources: list[dict[str, Any]]) -> None:
  names = [source['name'] for source in sources]
  if not names:
    raise IncompatibleError(f'No source is asked for, so there is nothing to collect in {folder}.')
  for source in sources:
    if not is_source_name(source['name']):
      raise IncompatibleError(
        f"A source cannot be named {source['name']!r}: a name has 1 to 64 letters, digits, '_' and '-', and begins "
        'with a letter or digit.'
      )
    if not is_integer(source['seed'], 0, MAX_SEED):
      raise IncompatibleError(f'seed={source["seed"]!r} must be an integer from 0 to {MAX_SEED}.')
  if len(set(names)) < len(names):
    raise IncompatibleError(
      f'Several sources are named {max(names, key=names.count)!r}; give each its own name, as with '
      "dataclasses.replace(source, name='...')."
    )


def _join_sources(
  folder: pathlib.Path, existing: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> list[dict[str, Any]]:
  """The sources of a dataset when those that are wanted have been added."""
  sources = {(source['name'], source['seed']): source for source in existing}
  seeds = {seed for _, seed in sources}
  for source in wanted:
    key = source['name'], source['seed']
    if seeds and source['seed'] not in seeds:
      raise IncompatibleError(
        f'{folder} was made with seed={", ".join(map(str, sorted(seeds)))}, and now seed={source["seed"]} is asked '
        'for; choose another folder, and join the two with merge_histories if you want both.'
      )
    if key in sources:
      files.check_same(sources[key]['settings'], source['settings'], f'{folder} ({source["name"]})')
      sources[key] = {**sources[key], 'num_tasks': max(sources[key]['num_tasks'], source['num_tasks'])}
    else:
      taken = [other['index'] for other in sources.values() if other['seed'] == source['seed']]
      sources[key] = {**source, 'index': max(taken, default=-1) + 1}
  return list(sources.values())


def planned_shards(header: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The shards of a complete dataset, in order: {'file', 'source', 'seed', 'first_task', 'num_histories'}."""
  return [
    {
      'file': f'{source["name"]}-{source["seed"]}-{first:08d}.safetensors', 'source': source['name'],
      'seed': source['seed'], 'first_task': first,
      'num_histories': min(header['shard_size'], source['num_tasks'] - first),
    }
    for source in header['sources'] for first in range(0, source['num_tasks'], header['shard_size'])
  ]


def num_learners(header: Mapping[str, Any], source: Mapping[str, Any]) -> int:
  """How many learners have run for a source, one of the header's, that has a learner a task: a last shard that is not
  full also learns tasks that it does not need."""
  size = min(header['shard_size'], source['num_tasks'])
  return -(-source['num_tasks'] // size) * size


def worker_of_shard(header: Mapping[str, Any], entry: Mapping[str, Any], index: int, num_workers: int) -> int:
  """Which worker makes a planned shard of the source with this index. More tasks or sources do not change it."""
  return (index + entry['first_task'] // header['shard_size']) % num_workers
