"""Runs a source: all tasks at once over all devices, checkpointed, resumable."""

import pathlib
import time
from typing import Any
from collections.abc import Callable

import chex
import jax
import numpy as np

from metaimprove import files, parallel
from metaimprove.errors import DamagedDataError
from metaimprove.improvers.curves import num_updates_counted, without_gaps
from metaimprove.improvers.source import Learning, Source
from metaimprove.trees import batch_size, stack, take
from metaimprove.types import Task

Progress = Callable[[int, dict[str, float]], None]
"""(updates done, figures to show), called after each update."""


_SAVE_SECONDS = 30.0
_STATE = 'state.safetensors'


def learn(source: Source, tasks: Task, rng_key: chex.PRNGKey, **options) -> Learning:
  """Runs a source once; see `make_learn`, which is for more than once."""
  return make_learn(source)(tasks, rng_key, **options)


def make_learn(source: Source) -> Callable[..., Learning]:
  """The function that runs a source for all its updates, compiled once for all calls with as many tasks.

  Returns:
    A function with arguments
      tasks: [N] tasks.
      rng_key: the same key gives the same run.
      places: [N] places of the tasks among all, 0, 1, ... by default. A learner's run follows from its own place,
        whoever learns beside it.
      folder: where to keep the run; one that was interrupted goes on from there, one that is done is only read.
      progress: called after each update.
  """
  batched = (lambda function: function) if source.shared else parallel.vmap

  def keys(rng_key, places):
    return rng_key if source.shared else jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng_key, places)

  @jax.jit
  def init(rng_key, places, tasks, data):
    return batched(source.init)(keys(rng_key, places), tasks, *(() if data is None else (data,)))

  def update(state, tasks, rng_key, done, places):
    return batched(source.update)(state, tasks, keys(jax.random.fold_in(rng_key, done), places))

  # Replicated in and out, so that the first call and all others are one program.
  update = jax.jit(update, out_shardings=parallel.replicated_sharding())
  snapshot = jax.jit(source.snapshot)

  def learn(tasks, rng_key, *, places=None, folder=None, progress=lambda done, figures: None):
    key_init, key_updates = jax.random.split(rng_key)
    places = np.arange(batch_size(tasks)) if places is None else np.asarray(places)
    data = None if source.data is None else take(source.data, places)
    tasks = None if source.shared else tasks
    run = _Run(folder)
    if run.exists():
      state = run.load(jax.eval_shape(init, key_init, places, tasks, data), source.snapshot)
    else:
      state = init(key_init, places, tasks, data)
      run.snapshots.append(jax.device_get(snapshot(state)))
    state, tasks = parallel.replicated((state, tasks))
    last_save = time.perf_counter()
    while not (done := is_done(source, run.returns)):
      state, value = update(state, tasks, key_updates, len(run.returns), places)
      run.returns.append(np.asarray(value))
      run.snapshots.append(jax.device_get(snapshot(state)))
      done = is_done(source, run.returns)
      progress(
        source.num_updates if done else len(run.returns), {'return': float(without_gaps(run.returns)[-1].mean())}
      )
      if done or time.perf_counter() - last_save > _SAVE_SECONDS:
        run.save(state)
        last_save = time.perf_counter()
    return run.learning()

  return learn


class _Run:
  """What a run has made so far, and its folder: the newest state, and snapshots in pieces that are written once."""

  def __init__(self, folder: files.Path | None):
    self._folder = None if folder is None else pathlib.Path(folder)
    self._num_saved = 0
    self.snapshots: list[Any] = []
    self.returns: list[np.ndarray] = []

  def _piece(self, first: int) -> pathlib.Path:
    return self._folder / f'snapshots_{first:06d}.safetensors'

  def exists(self) -> bool:
    return self._folder is not None and (self._folder / _STATE).exists()

  def learning(self) -> Learning:
    return Learning(snapshots=stack(self.snapshots), returns=np.stack(self.returns))

  def save(self, state: Any) -> None:
    if self._folder is None:
      return
    files.save_tree(self._piece(self._num_saved), stack(self.snapshots[self._num_saved:]))
    files.save_tree(self._folder / _STATE, {'state': state, 'returns': np.stack(self.returns)})
    self._num_saved = len(self.snapshots)

  def load(self, like: Any, snapshot: Callable[[Any], Any]) -> Any:
    """Reads returns and snapshots, and returns the state; raises `DamagedDataError` with what to do."""
    try:
      return self._load(like, snapshot)
    except DamagedDataError as error:
      raise DamagedDataError(f'{error} To learn it afresh, delete the whole folder {self._folder}.') from None

  def _load(self, like, snapshot):
    saved = files.load_tree(self._folder / _STATE, {'state': like, 'returns': None})
    structure = jax.tree.map(lambda x: None, jax.eval_shape(snapshot, like))
    self.returns = list(saved['returns'])
    while len(self.snapshots) <= len(self.returns):
      # A piece that was written just before a kill, its state not, is made again and written over.
      piece = files.load_tree(self._piece(len(self.snapshots)), structure)
      self.snapshots += [take(piece, i) for i in range(batch_size(piece))]
    self._num_saved = len(self.snapshots)
    return saved['state']


def load_learning(source: Source, tasks: Task, folder: files.Path) -> Learning:
  """Reads a run that `learn` has finished; raises `DamagedDataError` if there is none or it is not complete."""
  run = _Run(folder)
  init = source.init if source.shared else jax.vmap(source.init)
  num_tasks = batch_size(tasks)
  keys = jax.random.split(jax.random.key(0), num_tasks)
  data = () if source.data is None else (take(source.data, slice(num_tasks)),)
  run.load(jax.eval_shape(init, *((keys[0], None) if source.shared else (keys, tasks)), *data), source.snapshot)
  if not is_done(source, run.returns):
    raise DamagedDataError(
      f'{folder} has {len(run.returns)} of {source.num_updates} updates; run the collection again to finish it.'
    )
  return run.learning()


def is_learned(source: Source, folder: files.Path) -> bool:
  """Whether `learn` has finished a run of the source in a folder; raises `DamagedDataError` for a damaged one."""
  path = pathlib.Path(folder) / _STATE
  return path.exists() and is_done(source, list(files.load_arrays(path)['returns']))


def is_done(source: Source, returns: list[np.ndarray]) -> bool:
  """Whether a run with these returns is complete: all its updates are done, or all its learners have stopped rising."""
  if len(returns) >= source.num_updates:
    return True
  if source.patience is None or len(returns) <= source.patience:
    return False
  curves = np.stack(returns).reshape(len(returns), -1).T
  return all(num_updates_counted(curve, source.patience) < len(curve) for curve in curves)
