"""Trees of arrays and JSON as files that are whole or not there.

A file is written as bytes to a temporary file of its own, flushed to disk, and renamed into place. Arrays are stored as
safetensors: reading one runs no code of its author's.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import pathlib
import platform
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from metaimprove.errors import DamagedDataError, IncompatibleError, WaitingError

Path = str | os.PathLike
CLAIM = 'settings.json'
"""Where it is noted what a folder is made with."""
_LEFTOVER_SECONDS = 3600.0
_LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.05


def write_bytes(path: Path, content: bytes) -> None:
  """Publishes `content` under `path`, whole or not at all, whenever the process or the machine stops."""
  path = pathlib.Path(path)
  make_folder(path.parent)
  temporary = path.with_name(f'.{path.name}.{platform.node()}.{os.getpid()}.tmp')  # folders are shared by machines
  with open(temporary, 'wb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
  _flush_folder(path.parent)


def make_folder(folder: Path) -> None:
  """Makes a folder, and those above it that are missing, so that they are there after the machine stops."""
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def _flush_folder(folder: pathlib.Path) -> None:
  """Flushes the names in a folder to disk, without which a new name may be lost when the machine stops."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
  """A block that only one process at a time may be in, among those that give the same `path`.

  The file stays; what is locked is its first byte, and the operating system unlocks it when a process dies.

  Raises:
    WaitingError: if another process has been in the block for longer than `seconds`.
  """
  make_folder(pathlib.Path(path).parent)
  with open(path, 'ab') as file:
    until = time.monotonic() + seconds
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        if time.monotonic() > until:
          raise WaitingError(
            f'Another process has held {path} for {seconds:g} seconds; end it if it hangs, and run this again.'
          ) from None
        time.sleep(_POLL_SECONDS)
    yield  # closing the file unlocks it


def remove_leftovers(folder: Path) -> None:
  """Deletes temporary files that a kill left in a folder or below it more than an hour ago."""
  for path in pathlib.Path(folder).rglob('.*.tmp'):
    with contextlib.suppress(FileNotFoundError):  # somebody else has finished it, or deleted it
      if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
        path.unlink()


def write_json(path: Path, value: Any) -> None:
  """Publishes plain data as JSON.

  Raises:
    IncompatibleError: for a number that is infinite or undefined, which JSON has not; write None instead.
  """
  try:
    text = json.dumps(value, indent=1, allow_nan=False)
  except ValueError as error:
    where = _non_finite(value)
    if where is None:
      raise
    raise IncompatibleError(
      f'{path} cannot be written: {where} is not finite, and JSON has no such number; None stands for it.'
    ) from error
  write_bytes(path, (text + '\n').encode())


def _non_finite(value: Any, where: str = 'the value') -> str | None:
  """Where in plain data the first number is that is infinite or undefined; None if there is none."""
  if isinstance(value, float):
    return None if math.isfinite(value) else where
  items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
  return next(filter(None, (_non_finite(inner, f'{where}[{key!r}]') for key, inner in items)), None)


def read_json(path: Path) -> Any:
  """Raises `DamagedDataError` for a file that is missing or is not JSON."""
  try:
    return json.loads(read_bytes(path))
  except (ValueError, RecursionError) as error:
    raise DamagedDataError(f'{path} is not valid JSON ({error}); delete it and run again what writes it.') from None


def checksum(content: bytes) -> str:
  """SHA-256 in hexadecimal."""
  return hashlib.sha256(content).hexdigest()


def leaf_names(tree: Any) -> list[str]:
  """What the leaves of a tree are called in a file, in the order of `jax.tree.leaves`."""
  return [
    jax.tree_util.keystr(path, simple=True, separator='::')
    for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
  ]


def tree_to_bytes(tree: Any, metadata: dict[str, str] | None = None) -> bytes:
  """A tree of arrays as safetensors; leaves are named by their path."""
  leaves = (np.asarray(leaf, order='C') for leaf in jax.tree.leaves(jax.device_get(tree)))
  return safetensors.numpy.save(dict(zip(leaf_names(tree), leaves)), metadata)


def _arrays(content: bytes, name: Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load(content)
  except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that numpy has not
    raise DamagedDataError(f'{name} is damaged ({error}); delete it and run again what writes it.') from None


def tree_from_bytes(content: bytes, like: Any, name: Path) -> Any:
  """Reads what `tree_to_bytes` wrote into the structure of `like`.

  Args:
    content: of the file.
    like: a tree whose structure the file must have. Leaves with a `shape` must have that shape too; leaves that are
      None stand for any shape.
    name: the file's name, for errors.

  Raises:
    DamagedDataError: if the content is not safetensors.
    IncompatibleError: if its arrays are not those of `like`.
  """
  arrays = _arrays(content, name)
  flat, structure = jax.tree_util.tree_flatten_with_path(like, is_leaf=lambda x: x is None)
  leaves = []
  for path, leaf in flat:
    key = jax.tree_util.keystr(path, simple=True, separator='::')
    if key not in arrays:
      raise IncompatibleError(f'{name} has no array {key!r}: it was written for another network, family or version.')
    if leaf is not None and arrays[key].shape != tuple(leaf.shape):
      raise IncompatibleError(
        f'{name}: array {key!r} has shape {arrays[key].shape} where {tuple(leaf.shape)} is needed: it was written for '
        'another network, family or version.'
      )
    leaves.append(arrays[key])
  if len(arrays) != len(leaves):
    raise IncompatibleError(f'{name} holds {len(arrays)} arrays where {len(leaves)} are needed.')
  return jax.tree_util.tree_unflatten(structure, leaves)


def save_tree(path: Path, tree: Any) -> None:
  write_bytes(path, tree_to_bytes(tree))


def read_bytes(path: Path) -> bytes:
  """Raises `DamagedDataError` for a file that is missing."""
  try:
    return pathlib.Path(path).read_bytes()
  except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
    raise DamagedDataError(f'{path} is missing; check the path, or run again what writes it.') from None


def load_tree(path: Path, like: Any) -> Any:
  """See `tree_from_bytes`; raises `DamagedDataError` also for a missing file."""
  return tree_from_bytes(read_bytes(path), like, path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
  """The arrays of a flat tree by name; raises `DamagedDataError` for a file that is missing or damaged."""
  return _arrays(read_bytes(path), path)


def claim(folder: Path, settings: dict[str, Any]) -> None:
  """Notes what a folder is made with; raises `IncompatibleError` if that was something else."""
  settings = json.loads(json.dumps(settings))
  if (pathlib.Path(folder) / CLAIM).exists():
    check_same(read_claim(folder), settings, folder)
  else:
    write_json(pathlib.Path(folder) / CLAIM, settings)


def read_claim(folder: Path) -> dict[str, Any]:
  """What a folder is made with, see `claim`; raises `DamagedDataError` if nothing of the kind is noted."""
  settings = read_json(pathlib.Path(folder) / CLAIM)
  if not isinstance(settings, dict):
    raise DamagedDataError(f'{pathlib.Path(folder) / CLAIM} does not hold settings; delete {folder} to start afresh.')
  return settings


def check_same(existing: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
  """Raises `IncompatibleError` that names the first setting in which a folder differs from what is wanted of it."""
  for name in sorted({*existing, *wanted}):
    if existing.get(name) != wanted.get(name):
      raise IncompatibleError(
        f'{folder} was made with {name}={existing.get(name)!r}, and now {name}={wanted.get(name)!r} is asked for; '
        'choose another folder, or delete this one to start afresh.'
      )
