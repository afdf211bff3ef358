"""How fast histories are collected, beside bare stepping of the same simulations.

Each worker keeps a log in a file of its own, `workers/NAME.json` in the folder of the dataset. Logs are no part of the
data: they may be missing.
"""

import pathlib
from collections.abc import Iterable

import jax
import numpy as np

from metaimprove import files
from metaimprove.errors import DamagedDataError
from metaimprove.histories import storage
from metaimprove.histories.header import is_number, is_source_name
from metaimprove.histories.storage import History
from metaimprove.rollouts import raw_stepping_rate
from metaimprove.tasks.family import TaskFamily

WORKERS = 'workers'
SHARD_SECONDS = 'shard_seconds'
RAW_RATE = 'raw_env_steps_per_second'


class WorkerLog:
  """Seconds and speeds of one worker.

  Attributes:
    entries: SHARD_SECONDS -> file -> seconds of simulating and writing it; RAW_RATE -> source -> environment steps a
      second of bare stepping.
  """

  def __init__(self, folder: files.Path, worker: int, num_workers: int):
    self._path = pathlib.Path(folder) / WORKERS / f'{worker:04d}-of-{num_workers:04d}.json'
    self.entries = read_log(self._path) if self._path.exists() else {SHARD_SECONDS: {}, RAW_RATE: {}}

  def note(self, kind: str, name: str, value: float) -> None:
    self.entries[kind][name] = value
    files.write_json(self._path, self.entries)


def read_log(path: files.Path) -> dict[str, dict[str, float]]:
  """The log of a worker; raises `DamagedDataError` if it is none."""
  log = files.read_json(path)
  if not (
    isinstance(log, dict) and set(log) == {SHARD_SECONDS, RAW_RATE}
    and all(isinstance(part, dict) for part in log.values())
    and all(storage.is_shard_name(name) for name in log[SHARD_SECONDS])
    and all(is_source_name(name) for name in log[RAW_RATE])
    and all(is_number(value) and value > 0 for part in log.values() for value in part.values())
  ):
    raise DamagedDataError(f'{path} is not the log of a worker; delete it, only figures of speed are lost.')
  return log


def log_paths(folder: files.Path) -> list[pathlib.Path]:
  """The logs in the folder of a dataset."""
  return sorted((pathlib.Path(folder) / WORKERS).glob('[!.]*.json'))


def raw_rate(family: TaskFamily, histories: History) -> float:
  """Environment steps a second of bare stepping, with the tasks and actions of the histories [H] of a shard."""
  actions = np.moveaxis(histories.trajectory.action[:, :, 0], 0, 2)  # [H, N + 1, T, A] -> [N + 1, T, H, A]
  return raw_stepping_rate(family, histories.task, actions, jax.random.key(0))


def collecting_rates(folder: files.Path) -> dict[str, float | None]:
  """Environment steps a second of recording with writing, and of bare stepping with the same batch and actions.

  Each is the speed of one worker, averaged over the workers. Shards that do not exist any more are left out, and those
  without a bare speed too, unless no shard has one; then that is None. Both are None where no worker has left a log.
  """
  folder, recorded = pathlib.Path(folder), []  # of each shard: steps, seconds, seconds of bare stepping
  for path in log_paths(folder):
    log = read_log(path)
    for name, spent in log[SHARD_SECONDS].items():
      if (folder / storage.SHARDS / name).exists():
        entry = storage.read_entry(folder / storage.SHARDS / name)
        raw = log[RAW_RATE].get(entry['source'])
        recorded.append((entry['env_steps'], spent, raw and entry['env_steps'] / raw))
  compared = [shard for shard in recorded if shard[2] is not None]
  return {
    'env_steps_per_second': _rate((steps, seconds) for steps, seconds, _ in compared or recorded),
    'raw_env_steps_per_second': _rate((steps, seconds) for steps, _, seconds in compared),
  }


def _rate(recorded: Iterable[tuple[int, float]]) -> float | None:
  """Steps a second of parts with so many steps and seconds each; None if there are none."""
  steps, seconds = (sum(column) for column in zip((0, 0.0), *recorded))
  return steps / seconds if steps else None
