"""Joins datasets into one."""

import pathlib
from collections.abc import Sequence

from metaimprove import files
from metaimprove.errors import IncompatibleError
from metaimprove.histories import storage
from metaimprove.histories.header import HEADER, planned_shards, read_header, without_sources
from metaimprove.histories.learning import LEARNING
from metaimprove.histories.rates import WORKERS, log_paths
from metaimprove.types import Progress, silent


def merge(into: files.Path, folders: Sequence[files.Path], progress: Progress = silent) -> None:
  """Copies datasets into a new folder; a call that was stopped goes on where it was.

  Args:
    into: the new folder.
    folders: complete datasets of one family, version and shape, no two with the same source and seed.
    progress: told of each shard.

  Raises:
    IncompatibleError: if they do not fit together, or `into` holds something else.
    DamagedDataError: if one is incomplete or damaged.
  """
  headers = [read_header(folder) for folder in folders]
  first, owners = headers[0], {}
  for folder, header in zip(folders, headers):
    _check_fit(folders[0], without_sources(first), folder, without_sources(header))
    for source in header['sources']:
      key = source['name'], source['seed']
      if key in owners:
        raise IncompatibleError(
          f'{owners[key]} and {folder} both hold histories by {source["name"]} with seed={source["seed"]}: they are '
          'of the same tasks. Collect one of them with another seed.'
        )
      owners[key] = folder
  merged = {**first, 'sources': [source for header in headers for source in header['sources']]}
  into = pathlib.Path(into)
  if (into / HEADER).exists():
    files.check_same(read_header(into), merged, into)
  jobs = [(folder, entry) for folder, header in zip(folders, headers) for entry in planned_shards(header)]
  for index, (folder, entry) in enumerate(jobs):
    origin, goal = storage.shard_path(folder, entry), storage.shard_path(into, entry)
    if not storage.is_there(folder, entry):
      raise storage.missing_shard(origin)
    # The entries hold the checksums: what an earlier call has copied may have been made anew since.
    if not goal.exists() or storage.read_entry(goal) != storage.read_entry(origin):
      storage.verify_shard(origin)
      files.write_bytes(goal, origin.read_bytes())
    progress('merge histories', index + 1, len(jobs), {})
  for index, folder in enumerate(folders):
    for origin in sorted((pathlib.Path(folder) / LEARNING).rglob('[!.]*')):
      if origin.suffix in ('.safetensors', '.json'):
        files.write_bytes(into / origin.relative_to(folder), origin.read_bytes())
    for origin in log_paths(folder):  # the workers of each folder have the same names
      files.write_bytes(into / WORKERS / f'{index:04d}_{origin.name}', origin.read_bytes())
  files.write_json(into / HEADER, merged)  # last: until then there is no dataset


def _check_fit(first_folder, first, folder, header) -> None:
  for name in sorted({*first, *header}):
    if first.get(name) != header.get(name):
      raise IncompatibleError(
        f'{first_folder} and {folder} do not fit together: one has {name}={first.get(name)!r}, the other '
        f'{name}={header.get(name)!r}.'
      )
