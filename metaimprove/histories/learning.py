"""Where the runs of sources are kept in the folder of a dataset, and waiting for one that another worker makes."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from metaimprove import files
from metaimprove.errors import WaitingError
from metaimprove.histories.rates import WORKERS
from metaimprove.improvers import run as runs
from metaimprove.improvers.source import Learning, Source
from metaimprove.types import Progress, Task, silent

LEARNING = 'learning'
PATIENCE_SECONDS = 3600.0
"""For so long a worker waits without a sign of progress of the others."""
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 10.0


def learning_folder(folder: files.Path, source_name: str, seed: int) -> pathlib.Path:
  """Where the run of a shared source is kept; those of other sources are, by shard, in folders below until recorded."""
  return pathlib.Path(folder) / LEARNING / f'{source_name}-{seed}'


def shard_learning_folder(folder: files.Path, entry: Mapping[str, Any]) -> pathlib.Path:
  """Where the learners of a shard's tasks are kept. A last shard that is not full has others than a full one."""
  name = f'{entry["first_task"]:08d}-{entry["num_histories"]}'
  return learning_folder(folder, entry['source'], entry['seed']) / name


def wait_for_learning(
  source: Source, tasks: Task, folder: files.Path, seed: int, *, worker: int | None = None,
  progress: Progress = silent, timeout: float = PATIENCE_SECONDS,
) -> Learning:
  """The run of a shared source, once the worker that makes it has finished.

  Args:
    source: the source.
    tasks: any tasks of it.
    folder: of the dataset.
    seed: of the source.
    worker: the one that runs it, for messages; None: not known.
    progress: told now and then while it waits.
    timeout: seconds to wait without a sign of progress, which is a change in what any worker has written.

  Raises:
    WaitingError: when that time is over.
  """
  run_folder = learning_folder(folder, source.name, seed)
  who = 'the worker' if worker is None else f'worker {worker}'
  signs, since, looked = None, time.monotonic(), None
  while not runs.is_learned(source, run_folder):
    now = time.monotonic()
    if looked is None or now - looked > min(_LOOK_SECONDS, timeout):
      newest, looked = _signs(folder), now
      if newest != signs:
        signs, since = newest, now
    if now - since > timeout:
      raise WaitingError(
        f'{who[0].upper()}{who[1:]} that runs {source.name} has written nothing in {folder} for {timeout:g} seconds. '
        f'Start {who} again with the same flags if it has died, then this one.'
      )
    progress(f'wait until {who} has learned {source.name}', 0, 1, {})
    time.sleep(_POLL_SECONDS)
  return runs.load_learning(source, tasks, run_folder)


def _signs(folder: files.Path) -> tuple[int, int]:
  """Number and newest time of the files that workers write as they go on."""
  times = []
  for below in (LEARNING, WORKERS):
    for path in (pathlib.Path(folder) / below).rglob('*'):
      try:
        times.append(path.stat().st_mtime_ns)
      except FileNotFoundError:  # replaced or deleted in this moment
        continue
  return len(times), max(times, default=0)
