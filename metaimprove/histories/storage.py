"""Histories on disk: safetensors shards and a manifest, written so that a kill at any moment tears nothing.

A shard holds H histories of one source as a tree of arrays with leading axis [H]. It counts once the manifest names it;
the manifest is replaced as a whole after each shard. What a shard contains follows from the header alone (seeds
included), so a shard that was cut off is simply made again, bit for bit.
"""

import json
import pathlib
import time
from typing import Any

import chex

from metaimprove import files, policies
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.types import Params, Task, Trajectory

FORMAT_VERSION = 1
_MANIFEST = 'manifest.json'


@chex.dataclass(frozen=True)
class History:
  """How policies improved on one task; N + 1 checkpoints from the first to the last.

  Attributes:
    task: the task; kept for collecting and judging, never shown to an operator.
    params: θ⁰...θᴺ, leaves [N + 1, ...].
    trajectory: the experience of each, leaves [N + 1, E, T, ...].
  """

  task: Task
  params: Params
  trajectory: Trajectory


def open_manifest(folder: files.Path, header: dict[str, Any]) -> dict[str, Any]:
  """Opens a dataset for writing, or starts one.

  Args:
    folder: of the dataset.
    header: everything that determines its contents.

  Returns:
    The manifest: {'format_version', 'header', 'shards': [{'file', 'source', ...}]}.

  Raises:
    IncompatibleError: if the folder holds a dataset with another header.
  """
  header = json.loads(json.dumps(header))  # as it will be read back
  if not (pathlib.Path(folder) / _MANIFEST).exists():
    manifest = {'format_version': FORMAT_VERSION, 'header': header, 'shards': []}
    write_manifest(folder, manifest)
    return manifest
  manifest = read_manifest(folder)
  check_same(manifest['header'], header, folder)
  return manifest


def check_same(existing: dict[str, Any], wanted: dict[str, Any], folder: files.Path) -> None:
  """Raises `IncompatibleError` that names the first setting in which a folder differs from what is wanted of it."""
  for name in sorted({*existing, *wanted}):
    if existing.get(name) != wanted.get(name):
      raise IncompatibleError(
        f'{folder} was made with {name}={existing.get(name)!r}, and now {name}={wanted.get(name)!r} is asked for; '
        'choose another folder, or delete this one to start afresh.'
      )


def claim(folder: files.Path, header: dict[str, Any]) -> None:
  """Notes in `settings.json` what a folder is made with; raises `IncompatibleError` if that was something else."""
  path = pathlib.Path(folder) / 'settings.json'
  header = json.loads(json.dumps(header))
  if path.exists():
    check_same(files.read_json(path), header, folder)
  else:
    files.write_json(path, header)


def read_manifest(folder: files.Path) -> dict[str, Any]:
  """Raises `DamagedDataError` if there is none, `IncompatibleError` for one of another format version."""
  manifest = files.read_json(pathlib.Path(folder) / _MANIFEST)
  if manifest.get('format_version') != FORMAT_VERSION:
    raise IncompatibleError(
      f'{folder} has format version {manifest.get("format_version")}, and this metaimprove reads {FORMAT_VERSION}; '
      'collect the histories again.'
    )
  return manifest


def write_shard(
  folder: files.Path, manifest: dict[str, Any], entry: dict[str, Any], histories: History, began: float
) -> None:
  """Publishes a shard, then the manifest with `entry` (its 'file' and whatever else is known of it) added.

  `began` is when making it began, by `time.perf_counter`; the entry notes the 'seconds' since, writing included.
  """
  content = files.tree_to_bytes(histories)
  files.write_bytes(pathlib.Path(folder) / entry['file'], content)
  known = {'bytes': len(content), 'sha256': files.checksum(content), 'seconds': time.perf_counter() - began}
  manifest['shards'].append({**entry, **known})
  write_manifest(folder, manifest)


def write_manifest(folder: files.Path, manifest: dict[str, Any]) -> None:
  files.write_json(pathlib.Path(folder) / _MANIFEST, manifest)


def read_shard(folder: files.Path, entry: dict[str, Any], like: History) -> History:
  """Reads a shard that the manifest names.

  Raises:
    DamagedDataError: if the file is missing or is not, byte for byte, the one that was written.
  """
  path = pathlib.Path(folder) / entry['file']
  try:
    content = path.read_bytes()
  except FileNotFoundError:
    raise DamagedDataError(
      f'Shard {path} is missing; run the collection again on this folder to make it anew.'
    ) from None
  if files.checksum(content) != entry['sha256']:
    raise DamagedDataError(f'Shard {path} is damaged; delete it and run the collection again on this folder.')
  return files.tree_from_bytes(content, like, path)


def forget_missing_shards(folder: files.Path, manifest: dict[str, Any]) -> None:
  """Strikes shards whose files are gone from the manifest, so that a collection makes them again."""
  present = [entry for entry in manifest['shards'] if (pathlib.Path(folder) / entry['file']).exists()]
  if len(present) < len(manifest['shards']):
    manifest['shards'] = present
    write_manifest(folder, manifest)


def history_structure(policy: policies.Policy, dynamics_names) -> History:
  """The tree a shard has, with None for arrays of any shape."""
  params = {
    f'mlp/~/linear_{i}': {'w': None, 'b': None} for i in range(len(policy.hidden_sizes) + 1)
  }
  return History(
    task=Task(goal=None, dynamics={name: None for name in dynamics_names}), params=params,
    trajectory=Trajectory(**{field: None for field in Trajectory.__dataclass_fields__}),
  )
