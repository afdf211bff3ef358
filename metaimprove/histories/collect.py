"""Collects improvement histories: runs the sources, measures their policies on each task, and stores those that become
levels with their experience."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax

from metaimprove import files, policies, rollouts
from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import sizes_of
from metaimprove.histories.header import HEADER, open_header, planned_shards, read_header, worker_of_shard
from metaimprove.histories.learning import PATIENCE_SECONDS
from metaimprove.histories.measure import make_histories
from metaimprove.histories.rates import WorkerLog
from metaimprove.histories.worker import Job, Site, work
from metaimprove.improvers.run import make_learn
from metaimprove.improvers.source import Source
from metaimprove.rng import stream
from metaimprove.tasks.family import TaskFamily, distribution_of
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import batch_size
from metaimprove.types import Play, Progress, Task, silent

NUM_CHECKPOINTS = 11
NUM_EPISODES = 2
NUM_CANDIDATES = 24
NUM_MEASURED = 3
SHARD_SIZE = 128


class MakePlay(Protocol):
  """What plays policies, a number of episodes of each."""

  def __call__(self, policy: policies.Policy, *, num_episodes: int) -> Play: ...


def collect(
  folder: files.Path, family: TaskFamily, source_list: Sequence[tuple[Source, int]], *, seed: int,
  num_checkpoints: int | None = None, num_episodes: int | None = None, num_candidates: int | None = None,
  num_measured: int | None = None, shard_size: int | None = None, hidden_sizes: tuple[int, ...] | None = None,
  make_play: MakePlay | None = None, worker: int | None = None, num_workers: int | None = None,
  progress: Progress = silent, timeout: float = PATIENCE_SECONDS,
) -> None:
  """Fills a folder with histories, going on where an earlier call was stopped.

  Called again with more tasks or further sources, it adds them. Several workers may fill one folder: each makes every
  `num_workers`-th shard, and runs every `num_workers`-th of the sources that serve all tasks at once.

  Numbers and sizes that are not given are those of the dataset that the folder holds; the defaults below are those of a
  new one.

  Args:
    folder: of the dataset.
    family: the task family.
    source_list: the sources and the number of training tasks each serves, always the first ones.
    seed: of tasks, learning and experience.
    num_checkpoints: N + 1, policies in a history; 11 by default.
    num_episodes: E, episodes of experience of each policy; 2 by default.
    num_candidates: K, snapshots of a learning curve, evenly spaced in return and the final one, that are measured on
      each task to choose its N + 1 from; 24 by default, or as many as checkpoints if these are more.
    num_measured: episodes that each of them is measured with, of which E become experience; 3 by default, or E if it is
      more; at least 2.
    shard_size: histories in a shard; 128 by default.
    hidden_sizes: of the policies; `policies.HIDDEN_SIZES` by default.
    make_play: how policies are played; by default in the family's simulator, whose bare speed is then measured too.
    worker: which worker this is, from 0; JAX's process index unless given.
    num_workers: how many there are; JAX's process count unless given.
    progress: told as the work goes on.
    timeout: seconds to wait for another worker that shows no sign of progress.

  Raises:
    IncompatibleError: if the folder holds a dataset made with other arguments.
    NonFiniteSimulationError: if too many simulations blow up; what was collected before stays.
    WaitingError: if another worker shows no sign of progress.
  """
  folder = pathlib.Path(folder)
  worker = jax.process_index() if worker is None else worker
  num_workers = jax.process_count() if num_workers is None else num_workers
  if not 0 <= worker < num_workers:
    raise IncompatibleError(f'worker={worker} must be at least 0 and less than num_workers={num_workers}.')
  header = open_header(folder, {
    **distribution_of(family), **sizes_of(family),
    **_sizes(
      folder, num_checkpoints=num_checkpoints, num_episodes=num_episodes, num_candidates=num_candidates,
      num_measured=num_measured, shard_size=shard_size, hidden_sizes=hidden_sizes and list(hidden_sizes),
    ),
    'sources': [_source_entry(source, seed, num_tasks) for source, num_tasks in source_list],
  })
  files.remove_leftovers(folder)
  site = Site(
    folder=folder, header=header, family=family, worker=worker, log=WorkerLog(folder, worker, num_workers),
    timeout=timeout, own_simulator=make_play is None,
  )
  policy = policies.make_policy(family.observation_size, family.action_size, tuple(header['hidden_sizes']))
  make_play = functools.partial(rollouts.make_play, family) if make_play is None else make_play
  play = make_play(policy, num_episodes=header['num_measured'])
  jobs = [make_job(site, source, seed, num_workers, play) for source, _ in source_list]
  # What has to wait for another worker comes last.
  for job in sorted(jobs, key=lambda job: job.source.shared and job.learner != worker):
    work(site, job, progress)


def _sizes(folder: pathlib.Path, **given: Any) -> dict[str, Any]:
  """Numbers and sizes as they are given; those that are None as in the folder's dataset, or as in a new one."""
  given = {name: value for name, value in given.items() if value is not None}
  sizes = {
    'num_checkpoints': NUM_CHECKPOINTS, 'num_episodes': NUM_EPISODES, 'num_candidates': NUM_CANDIDATES,
    'num_measured': NUM_MEASURED, 'shard_size': SHARD_SIZE, 'hidden_sizes': list(policies.HIDDEN_SIZES),
  }
  if (folder / HEADER).exists():
    header = read_header(folder)
    sizes = {name: header[name] for name in sizes} | given
  else:
    sizes |= given
    if 'num_candidates' not in given:
      sizes['num_candidates'] = max(NUM_CANDIDATES, sizes['num_checkpoints'])
    if 'num_measured' not in given:
      sizes['num_measured'] = max(NUM_MEASURED, sizes['num_episodes'])
  if sizes['num_candidates'] < sizes['num_checkpoints'] or sizes['num_measured'] < max(2, sizes['num_episodes']):
    raise IncompatibleError(
      f'num_candidates={sizes["num_candidates"]} must be at least num_checkpoints={sizes["num_checkpoints"]}, and '
      f'num_measured={sizes["num_measured"]} at least num_episodes={sizes["num_episodes"]} and 2.'
    )
  return sizes


def _source_entry(source: Source, seed: int, num_tasks: int) -> dict[str, Any]:
  return {
    'name': source.name, 'seed': seed, 'num_tasks': num_tasks, 'settings': dict(source.settings),
    'own_tasks': source.tasks is not None,
  }


def make_job(site: Site, source: Source, seed: int, num_workers: int, play: Play) -> Job:
  """What a worker is to do for a source that the header of its dataset lists; raises `IncompatibleError` if the source
  has fewer tasks of its own than the header says."""
  header = site.header
  index = next(s['index'] for s in header['sources'] if (s['name'], s['seed']) == (source.name, seed))
  planned = [entry for entry in planned_shards(header) if (entry['source'], entry['seed']) == (source.name, seed)]
  return Job(
    source=source, seed=seed, tasks=_tasks(site, source, seed, planned),
    shards=[entry for entry in planned if worker_of_shard(header, entry, index, num_workers) == site.worker],
    learner=index % num_workers, learn=make_learn(source),
    make_histories=make_histories(
      source, play, num_episodes=header['num_episodes'], num_checkpoints=header['num_checkpoints']
    ),
    rng_key=stream(stream(seed, 'histories'), source.name),
  )


def _tasks(site: Site, source: Source, seed: int, planned: Sequence[Mapping[str, Any]]) -> Task:
  num_tasks = sum(entry['num_histories'] for entry in planned)
  if source.tasks is None:
    return sample_tasks(site.family, seed, num_tasks, 'train')
  if batch_size(source.tasks) < num_tasks:
    raise IncompatibleError(f'{source.name} has fewer tasks of its own than the {num_tasks} asked for.')
  return source.tasks
