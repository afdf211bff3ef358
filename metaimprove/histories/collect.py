"""Collects improvement histories: runs the sources, then records what each of their checkpoints experiences."""

import concurrent.futures
import functools
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from metaimprove import files, parallel, policies
from metaimprove.errors import IncompatibleError, NonFiniteSimulationError
from metaimprove.histories import storage
from metaimprove.improvers import curves
from metaimprove.improvers import run as runs
from metaimprove.improvers.source import Learning, Source
from metaimprove.histories.rates import WorkerLog, raw_rate
from metaimprove.rollouts import rollout
from metaimprove.tasks.family import TaskFamily, distribution_of
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.types import Progress, Task, episode_return, silent

MAX_NON_FINITE = 0.01
"""The share of episodes that may blow up; such histories are stored, marked, and left out of training."""
_POLL_SECONDS = 1.0


def collect(
  folder: files.Path, family: TaskFamily, source_list: Sequence[tuple[Source, int]], *, seed: int,
  num_checkpoints: int, num_episodes: int = 2, shard_size: int = 128,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, worker: int | None = None, num_workers: int | None = None,
  progress: Progress = silent,
) -> None:
  """Fills a folder with histories, going on where an earlier call was stopped.

  Called again with more tasks or further sources, it adds them. Several workers may fill one folder: each makes every
  `num_workers`-th shard, and runs every `num_workers`-th of the sources that serve all tasks at once.

  Args:
    folder: of the dataset.
    family: the task family.
    source_list: the sources and the number of training tasks each serves, always the first ones.
    seed: of tasks, learning and experience.
    num_checkpoints: N + 1, policies in a history, evenly spaced in return.
    num_episodes: E, episodes of experience of each policy.
    shard_size: histories in a shard, which are also simulated at once.
    hidden_sizes: of the policies.
    worker: which worker this is, from 0; JAX's process index unless given.
    num_workers: how many there are; JAX's process count unless given.
    progress: told as the work goes on.

  Raises:
    IncompatibleError: if the folder holds a dataset made with other arguments.
    NonFiniteSimulationError: if too many simulations blow up; what was collected before stays.
  """
  folder = pathlib.Path(folder)
  worker = jax.process_index() if worker is None else worker
  num_workers = jax.process_count() if num_workers is None else num_workers
  if not 0 <= worker < num_workers:
    raise IncompatibleError(f'worker={worker} must be at least 0 and less than num_workers={num_workers}.')
  header = storage.open_header(folder, {
    **distribution_of(family), 'observation_size': family.observation_size, 'action_size': family.action_size,
    'hidden_sizes': list(hidden_sizes), 'num_checkpoints': num_checkpoints, 'num_episodes': num_episodes,
    'shard_size': shard_size,
    'sources': [
      {
        'name': source.name, 'seed': seed, 'num_tasks': num_tasks, 'settings': dict(source.settings),
        'own_tasks': source.tasks is not None,
      }
      for source, num_tasks in source_list
    ],
  })
  files.remove_leftovers(folder)
  log = WorkerLog(folder, worker, num_workers)
  places = {s['name']: s['place'] for s in header['sources'] if s['seed'] == seed}
  base_key = jax.random.fold_in(jax.random.key(seed), 1000)
  collectors = []
  for source, _ in source_list:
    place = places[source.name]
    collectors.append(_Collector(
      folder=folder, header=header, family=family, source=source, seed=seed, worker=worker, num_workers=num_workers,
      owner=place % num_workers, rng_key=jax.random.fold_in(base_key, place), log=log, report=progress,
    ))
  # What has to wait for another worker comes last.
  for collector in sorted(collectors, key=lambda c: c.source.shared and c.owner != worker):
    collector.run()


def learning_folder(folder: files.Path, source_name: str, seed: int) -> pathlib.Path:
  """Where the run of a shared source is kept; those of other sources are, by shard, in folders below until recorded."""
  return pathlib.Path(folder) / 'learning' / f'{source_name}-{seed}'


def wait_for_learning(
  source: Source, tasks: Task, folder: files.Path, waiting: Callable[[], None] = lambda: None
) -> Learning:
  """The run of a source as soon as the worker that makes it has finished; calls `waiting` now and then until it has."""
  while not runs.is_learned(source, folder):
    waiting()
    time.sleep(_POLL_SECONDS)
  return runs.load_learning(source, tasks, folder)


class _Collector:
  """What one worker does for one source."""

  def __init__(self, *, folder, header, family, source, seed, worker, num_workers, owner, rng_key, log, report):
    self.source, self.owner = source, owner
    self._folder, self._header, self._family, self._seed = folder, header, family, seed
    self._worker, self._log, self._report = worker, log, report
    self._key_learn, self._key_record = jax.random.split(rng_key)
    self._policy = policies.make_policy(
      family.observation_size, family.action_size, tuple(header['hidden_sizes'])
    )
    planned = [
      (index % num_workers, entry) for index, entry in enumerate(storage.planned_shards(header))
      if (entry['source'], entry['seed']) == (source.name, seed)
    ]
    self._num_tasks = sum(entry['num_histories'] for _, entry in planned)
    self._mine = [entry for whose, entry in planned if whose == worker]
    self._learn = runs.make_learn(source)
    self._num_recorded, self._clock = 0, 0.0
    self._figures: dict[str, dict[str, list[float]]] = {}
    if source.tasks is not None and jax.tree.leaves(source.tasks)[0].shape[0] < self._num_tasks:
      raise IncompatibleError(f'{source.name} has fewer tasks of its own than the {self._num_tasks} asked for.')

  def run(self) -> None:
    """Learns what this worker is to learn, and writes those of its shards that are missing."""
    tasks = self.source.tasks
    if tasks is None:
      tasks = sample_tasks(self._family, self._seed, self._num_tasks, 'train')
    missing = []
    for entry in self._mine:
      if storage.is_there(self._folder, entry):
        self._num_recorded += entry['num_histories']
        self._forget_learning(entry)
      else:
        missing.append(entry)
    if missing or (self.source.shared and self.owner == self._worker):
      policies_of = self._shared_policies(tasks) if self.source.shared else self._own_policies(tasks, missing)
    if missing:
      self._record(tasks, missing, policies_of)
    if self._mine and self.source.name not in self._log.entries['raw_env_steps_per_second']:
      self._measure_raw_rate(self._mine[0])

  def _shard_learning(self, entry) -> pathlib.Path:
    """Where a shard's learners are kept. A last shard that was not full has others than one that is."""
    name = f'{entry["first_task"]:08d}-{entry["num_histories"]}'
    return learning_folder(self._folder, self.source.name, self._seed) / name

  def _forget_learning(self, entry) -> None:
    """Deletes the learners of a shard that stands."""
    if not self.source.shared:
      for folder in self._shard_learning(entry).parent.glob(f'{entry["first_task"]:08d}-*'):
        shutil.rmtree(folder, ignore_errors=True)

  def _shared_policies(self, tasks):
    """Learns with one learner for all tasks, or waits for the worker that does; (places) -> snapshots [C, ...]."""
    folder = learning_folder(self._folder, self.source.name, self._seed)
    if self.owner == self._worker:
      learning = self._learn(
        tasks, self._key_learn, folder=folder,
        progress=self._report,
      )
    else:
      learning = wait_for_learning(
        self.source, tasks, folder, lambda: self._report(f'wait: worker {self.owner} learns', 0, 1, {})
      )
    chosen = curves.choose_checkpoints(learning.returns, self._header['num_checkpoints'], self.source.patience)
    snapshots = learning.snapshots[chosen]
    return lambda entry, places: snapshots

  def _own_policies(self, tasks, missing):
    """(entry, places [H]) -> snapshots [C, H, ...] by learners of their own, which run when they are needed."""
    size = min(self._header['shard_size'], self._num_tasks)  # no learners beside those that are wanted
    updates = self.source.num_updates

    def learn(entry, places):
      before, last = updates * missing.index(entry), [0, time.perf_counter()]

      def progress(stage, done, total, figures):
        """One bar for all shards; recording one is short and goes on beside the learning of the next."""
        now = time.perf_counter()
        rate = (done - last[0]) * size * self.source.env_steps_per_update / (now - last[1])
        last[:] = done, now
        self._report(
          stage, before + done, updates * len(missing),
          {**figures, 'tasks done': self._num_recorded, 'env_steps/s': rate},
        )

      learners = places[:size]
      learning = self._learn(
        take(tasks, learners), self._key_learn, index=learners, folder=self._shard_learning(entry), progress=progress,
      )
      if self.source.figures is not None:
        self._figures[entry['file']] = {
          name: np.asarray(values)[:entry['num_histories']].astype(float).round(6).tolist()
          for name, values in self.source.figures(learning).items()
        }
      chosen = np.stack([
        curves.choose_checkpoints(curve, self._header['num_checkpoints'], self.source.patience)
        for curve in learning.returns.T
      ])
      row = np.arange(len(places)) % size
      return take(learning.snapshots.of_learners(chosen.T), (slice(None), row))

    return learn

  def _record(self, tasks, missing, policies_of) -> None:
    """Makes shards; the last one is written while the next one is simulated."""
    compiled, pending = None, None
    with concurrent.futures.ThreadPoolExecutor(1) as writer:
      for entry in missing:
        # A last shard that is not full is filled up, so that all are one program, and then cut.
        places = (entry['first_task'] + np.arange(self._header['shard_size'])) % self._num_tasks
        arguments = (
          policies_of(entry, places), take(tasks, places), jax.random.fold_in(self._key_record, entry['first_task'])
        )
        if compiled is None:
          compiled = jax.jit(self._play).lower(*arguments).compile()
        began, histories = time.perf_counter(), compiled(*arguments)
        if pending is not None:
          pending.result()
        pending = writer.submit(self._publish, entry, histories, began)
      pending.result()

  def _play(self, snapshots, tasks, rng_key):
    """[C, ...] snapshots, [H] tasks -> History [H]; one checkpoint after the other, all tasks at once."""
    num = self._header['num_checkpoints']

    def one_checkpoint(inputs):
      snapshot, key = inputs
      params = self.source.params_of(snapshot, tasks)
      keys = jax.random.split(key, self._header['shard_size'])
      play = functools.partial(rollout, self._family, self._policy, num_episodes=self._header['num_episodes'])
      return params, parallel.vmap(play)(params, tasks, keys)

    params, trajectory = jax.lax.map(one_checkpoint, (snapshots, jax.random.split(rng_key, num)))
    tasks_first = functools.partial(jax.tree.map, lambda x: jax.numpy.swapaxes(x, 0, 1))
    params, trajectory = tasks_first(params), tasks_first(trajectory)
    return storage.History(
      task=tasks, params=params, trajectory=trajectory, returns=episode_return(trajectory).mean(axis=-1),
      finite=trajectory.finite.all(axis=-1),
    )

  def _publish(self, entry, histories, began) -> None:
    histories = take(jax.device_get(histories), slice(entry['num_histories']))
    finite = histories.trajectory.finite
    if np.mean(~finite) > MAX_NON_FINITE:
      last = entry['first_task'] + entry['num_histories'] - 1
      raise NonFiniteSimulationError(
        f'{(~finite).sum()} of {finite.size} episodes of {self._family.name} ({self._family.backend}) blew up in tasks '
        f'{entry["first_task"]}-{last} with {self.source.name}; narrow the ranges of its dynamics or take another '
        f'backend. The shards collected before are kept in {self._folder}.'
      )
    entry = {
      **entry, **self._figures.pop(entry['file'], {}), 'env_steps': int(finite.size) * self._family.episode_length,
      'non_finite_episodes': int((~finite).sum()),
    }
    storage.write_shard(self._folder, entry, histories)
    self._forget_learning(entry)
    now = time.perf_counter()
    seconds, self._clock = now - max(began, self._clock), now
    self._log.note('shard_seconds', entry['file'], seconds)
    self._num_recorded += entry['num_histories']
    if self.source.shared:
      self._report(
        f'record {self.source.name}', self._num_recorded, sum(e['num_histories'] for e in self._mine),
        {'env_steps/s': entry['env_steps'] / seconds},
      )

  def _measure_raw_rate(self, entry) -> None:
    """Notes how fast bare stepping is with the tasks and actions of a shard."""
    path = storage.shard_path(self._folder, entry)
    histories = storage.read_shard(path, storage.history_structure(self._header))
    self._log.note('raw_env_steps_per_second', self.source.name, raw_rate(self._family, histories))
