"""What one worker does for one source: it learns its part, and writes those of its shards that are missing."""

import concurrent.futures
import dataclasses
import math
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import chex
import jax
import numpy as np

from metaimprove.errors import NonFiniteSimulationError
from metaimprove.histories import layout as layouts
from metaimprove.histories import storage
from metaimprove.histories.learning import learning_folder, shard_learning_folder, wait_for_learning
from metaimprove.histories.measure import Candidates, MakeHistories
from metaimprove.histories.rates import RAW_RATE, SHARD_SECONDS, WorkerLog, raw_rate
from metaimprove.improvers.curves import choose_candidates
from metaimprove.improvers.run import Learn
from metaimprove.improvers.source import Learning, Source
from metaimprove.tasks.family import TaskFamily
from metaimprove.trees import batch_size, take
from metaimprove.types import Progress, Task

MAX_NON_FINITE = 0.01
"""The share of episodes that may blow up; such histories are stored, marked, and left out of training."""

Entry = Mapping[str, Any]
"""A planned shard; see `header.planned_shards`."""


@dataclasses.dataclass(frozen=True)
class Site:
  """Where a worker works, whatever the source.

  Attributes:
    folder: of the dataset.
    header: of the dataset.
    family: the task family.
    worker: which worker this is.
    log: its log.
    timeout: seconds that it waits for another worker without a sign of progress.
    own_simulator: whether policies are played in the family's simulator, whose bare speed is then measured.
  """

  folder: pathlib.Path
  header: Mapping[str, Any]
  family: TaskFamily
  worker: int
  log: WorkerLog
  timeout: float
  own_simulator: bool


@dataclasses.dataclass(frozen=True)
class Job:
  """What is to be done for a source.

  Attributes:
    source: the source.
    seed: of its histories.
    tasks: [.] all its tasks.
    shards: those of this worker.
    learner: the worker that runs it, if it is shared.
    learn: runs it.
    make_histories: measures its candidates.
    rng_key: of the source.
  """

  source: Source
  seed: int
  tasks: Task
  shards: Sequence[Entry]
  learner: int
  learn: Learn
  make_histories: MakeHistories
  rng_key: chex.PRNGKey


class CandidatesOf(Protocol):
  """The candidates for the tasks of a shard, and the source's figures to be stored with it."""

  def __call__(self, entry: Entry, /) -> tuple[Candidates, Mapping[str, list[float | None]]]: ...


def work(site: Site, job: Job, progress: Progress) -> None:
  """Learns what this worker is to learn, and writes those of its shards that are missing."""
  missing = []
  for entry in job.shards:
    if storage.is_there(site.folder, entry):
      _forget_learners(site.folder, job.source, entry)
    else:
      missing.append(entry)
  key_learn, key_record = jax.random.split(job.rng_key)
  if missing or (job.source.shared and job.learner == site.worker):
    make = _shared_candidates if job.source.shared else _own_candidates
    candidates_of = make(site, job, missing, key_learn, progress)
    _record(site, job, missing, candidates_of, key_record, progress)
  if job.shards and site.own_simulator and job.source.name not in site.log.entries[RAW_RATE]:
    histories = storage.read_shard(storage.shard_path(site.folder, job.shards[0]), site.header)
    site.log.note(RAW_RATE, job.source.name, raw_rate(site.family, histories))


def _forget_learners(folder: pathlib.Path, source: Source, entry: Entry) -> None:
  """Deletes the learners of a shard that stands, and those of the same tasks when they were fewer."""
  if not source.shared:
    for below in shard_learning_folder(folder, entry).parent.glob(f'{entry["first_task"]:08d}-*'):
      shutil.rmtree(below, ignore_errors=True)


def _shared_candidates(
  site: Site, job: Job, missing: Sequence[Entry], key_learn: chex.PRNGKey, progress: Progress
) -> CandidatesOf:
  """Candidates of the one learner for all tasks, which this worker runs, or waits for."""
  if job.learner == site.worker:
    folder = learning_folder(site.folder, job.source.name, job.seed)
    learning = job.learn(job.tasks, key_learn, folder=folder, progress=progress)
  else:
    learning = wait_for_learning(
      job.source, job.tasks, site.folder, job.seed, worker=job.learner, progress=progress, timeout=site.timeout
    )
  update = choose_candidates(learning.returns, site.header['num_candidates'], job.source.patience)
  snapshots = learning.snapshots[update]

  def candidates_of(entry):
    for_all = np.broadcast_to(update[:, None], (len(update), entry['num_histories']))
    return Candidates(snapshots=snapshots, update=for_all), {}

  return candidates_of


def _own_candidates(
  site: Site, job: Job, missing: Sequence[Entry], key_learn: chex.PRNGKey, progress: Progress
) -> CandidatesOf:
  """Candidates of the tasks' own learners, which run when a shard needs them."""
  num_tasks = batch_size(job.tasks)
  size = min(site.header['shard_size'], num_tasks)

  def candidates_of(entry):
    # A last shard that is not full learns tasks besides that it does not need, so that all shards are one program.
    index = (entry['first_task'] + np.arange(size)) % num_tasks
    learning = job.learn(
      take(job.tasks, index), key_learn, index=index, folder=shard_learning_folder(site.folder, entry),
      progress=_progress_of_shard(job.source, missing, entry, size, progress),
    )
    update = np.stack([
      choose_candidates(curve, site.header['num_candidates'], job.source.patience) for curve in learning.returns.T
    ], axis=1)  # [K, size]
    needed = slice(entry['num_histories'])
    snapshots = take(learning.snapshots.of_learners(update), (slice(None), needed))
    return Candidates(snapshots=snapshots, update=update[:, needed]), _figures(job.source, learning, needed)

  return candidates_of


def _progress_of_shard(
  source: Source, missing: Sequence[Entry], entry: Entry, num_learners: int, progress: Progress
) -> Progress:
  """The progress of a shard's learners, as that of all shards together; recording one takes little time beside it."""
  number, last = list(missing).index(entry), [0, time.perf_counter()]
  tasks_before = sum(before['num_histories'] for before in missing[:number])

  def report(stage, done, total, figures):
    now = time.perf_counter()
    rate = (done - last[0]) * num_learners * source.env_steps_per_update / (now - last[1])
    last[:] = done, now
    figures = {**figures, 'tasks done': tasks_before, 'env_steps/s': rate}
    progress(stage, number * total + done, len(missing) * total, figures)

  return report


def _figures(source: Source, learning: Learning, needed: slice) -> dict[str, list[float | None]]:
  """The source's own figures of the learners that are needed, as JSON has them."""
  if source.figures is None:
    return {}
  return {
    name: [round(x, 6) if math.isfinite(x) else None for x in np.asarray(values)[needed].astype(float).tolist()]
    for name, values in source.figures(learning).items()
  }


def _record(
  site: Site, job: Job, missing: Sequence[Entry], candidates_of: CandidatesOf, key_record: chex.PRNGKey,
  progress: Progress,
) -> None:
  """Makes shards; one is written while the next one is learned and simulated."""
  layout = layouts.layout_of(site.header)
  num_done, finished, pending = 0, -math.inf, None

  def settle():
    """Waits until the last shard stands, and notes what it took."""
    nonlocal num_done, finished
    entry, began, written = pending
    before, finished = finished, written.result()
    seconds = finished - max(began, before)
    _forget_learners(site.folder, job.source, entry)
    site.log.note(SHARD_SECONDS, entry['file'], seconds)
    num_done += entry['num_histories']
    if job.source.shared:
      total = sum(other['num_histories'] for other in missing)
      progress(f'record {job.source.name}', num_done, total, {'env_steps/s': entry['env_steps'] / seconds})

  with concurrent.futures.ThreadPoolExecutor(1) as writer:
    for entry in missing:
      candidates, figures = candidates_of(entry)
      began = time.perf_counter()
      histories, non_finite = job.make_histories(
        candidates, take(job.tasks, slice(entry['first_task'], entry['first_task'] + entry['num_histories'])),
        jax.random.fold_in(key_record, entry['first_task']),
      )
      entry = {**entry, **figures, **_counts(site, candidates, non_finite)}
      _check_finite(site, job, entry)
      if pending is not None:
        settle()
      pending = entry, began, writer.submit(_write, site.folder, entry, layout, histories)
    if pending is not None:
      settle()


def _write(folder, entry, layout, histories) -> float:
  """Writes a shard; returns the time."""
  storage.write_shard(folder, entry, layout, histories)
  return time.perf_counter()


def _counts(site: Site, candidates: Candidates, non_finite: int) -> dict[str, int]:
  num_episodes = candidates.update.size * site.header['num_measured']
  return {'env_steps': int(num_episodes * site.family.episode_length), 'non_finite_episodes': non_finite}


def _check_finite(site: Site, job: Job, entry: Entry) -> None:
  """Raises `NonFiniteSimulationError` if too many of a shard's episodes blew up."""
  num_episodes = entry['env_steps'] // site.family.episode_length
  if entry['non_finite_episodes'] > MAX_NON_FINITE * num_episodes:
    last = entry['first_task'] + entry['num_histories'] - 1
    raise NonFiniteSimulationError(
      f'{entry["non_finite_episodes"]} of {num_episodes} episodes of {site.family.name} ({site.family.backend}) blew '
      f'up in tasks {entry["first_task"]}-{last} with {job.source.name}; narrow the ranges of its dynamics or take '
      f'another backend. The shards collected before are kept in {site.folder}.'
    )
