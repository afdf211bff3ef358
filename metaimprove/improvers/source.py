"""The interface of a source of improvement, and the loop that runs one."""

import dataclasses
import pathlib
import time
from typing import Any
from collections.abc import Callable, Mapping

import chex
import jax
import numpy as np
from scipy import stats

from metaimprove import files, parallel
from metaimprove.errors import DamagedDataError
from metaimprove.types import Params, Task

Progress = Callable[[int, dict[str, float]], None]
"""(updates done, figures to show), called after each update."""

_SAVE_SECONDS = 30.0
_STATE = 'state.safetensors'
_PLATEAU = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """An improver as pure functions of one task; `make_learn` batches them over tasks.

  Attributes:
    name: stored with every history it makes.
    init: (rng_key, task) -> state; (rng_key, task, data of the task) where there is `data`.
    update: (state, task, rng_key) -> (state, [] mean return an episode of the policies before the update, of the
      episodes that did not blow up; NaN where all did).
    snapshot: (state) -> the part of it that `params` needs.
    params: (snapshot, task) -> θ.
    num_updates: how many updates it takes to learn.
    env_steps_per_update: environment steps of one update of one learner.
    shared: one learner serves all tasks; `init` and `update` are given None for the task.
    patience: a learner is done when its return has risen by less than 1% of its rise in so many updates; None: never.
    settings: plain data that says how it improves; histories made with other settings are another source's.
    tasks: [N] tasks of its own, where they are not to be drawn from the family.
    data: [N, ...] what each task's learner starts from.
    figures: (learning) -> name -> [N] numbers that are stored with the histories and shown on their card; not for a
      shared learner.
  """

  name: str
  init: Callable[..., Any]
  update: Callable[[Any, Task | None, chex.PRNGKey], tuple[Any, chex.Array]]
  snapshot: Callable[[Any], Any]
  params: Callable[[Any, Task], Params]
  num_updates: int
  env_steps_per_update: int
  shared: bool = False
  patience: int | None = None
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  tasks: Task | None = None
  data: Any = None
  figures: Callable[['Learning'], dict[str, np.ndarray]] | None = None

  def params_of(self, snapshot: Any, tasks: Task) -> Params:
    """θ [N, ...] for [N] tasks, from the one snapshot of a shared learner or from [N] snapshots."""
    return jax.vmap(self.params, in_axes=(None if self.shared else 0, 0))(snapshot, tasks)


@chex.dataclass(frozen=True)
class Learning:
  """A source's run: U updates make U + 1 snapshots.

  Attributes:
    snapshots: tree with leading axes [U + 1, N], or [U + 1] where one learner serves all tasks.
    returns: [U, N] or [U], the mean return of the policies of the first U snapshots; NaN where all episodes blew up.
  """

  snapshots: Any
  returns: np.ndarray


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
    places = np.arange(jax.tree.leaves(tasks)[0].shape[0]) if places is None else np.asarray(places)
    data = None if source.data is None else jax.tree.map(lambda x: x[places], source.data)
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
    return Learning(snapshots=_stack(self.snapshots), returns=np.stack(self.returns))

  def save(self, state: Any) -> None:
    if self._folder is None:
      return
    files.save_tree(self._piece(self._num_saved), _stack(self.snapshots[self._num_saved:]))
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
      self.snapshots += [jax.tree.map(lambda x: x[i], piece) for i in range(len(jax.tree.leaves(piece)[0]))]
    self._num_saved = len(self.snapshots)
    return saved['state']


def _stack(trees):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def load_learning(source: Source, tasks: Task, folder: files.Path) -> Learning:
  """Reads a run that `learn` has finished; raises `DamagedDataError` if there is none or it is not complete."""
  run = _Run(folder)
  init = source.init if source.shared else jax.vmap(source.init)
  num_tasks = jax.tree.leaves(tasks)[0].shape[0]
  keys = jax.random.split(jax.random.key(0), num_tasks)
  data = () if source.data is None else (jax.tree.map(lambda x: x[:num_tasks], source.data),)
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


def without_gaps(returns: np.ndarray) -> np.ndarray:
  """Learning curves [U, ...] in which NaN, where every episode blew up, is the worst known return of its curve."""
  returns = np.asarray(returns)
  worst = np.nan_to_num(np.fmin.reduce(returns, axis=0))
  return np.where(np.isnan(returns), worst, returns)


def is_done(source: Source, returns: list[np.ndarray]) -> bool:
  """Whether a run with these returns is complete: all its updates are done, or all its learners have stopped rising."""
  if len(returns) >= source.num_updates:
    return True
  if source.patience is None or len(returns) <= source.patience:
    return False
  curves = np.stack(returns).reshape(len(returns), -1).T
  return all(num_updates_counted(curve, source.patience) < len(curve) for curve in curves)


def num_updates_counted(returns: np.ndarray, patience: int | None) -> int:
  """After how many updates a learner has stopped rising; all of them if it has not.

  Where learners run side by side the others go on; what it does in the meantime is not part of its history, so that the
  history does not depend on them.

  Args:
    returns: [U] its learning curve.
    patience: see `Source`.
  """
  if patience is None:
    return len(returns)
  returns = without_gaps(returns)
  width = max(1, patience // 4)
  padded = np.pad(returns, (width - 1, 0), mode='edge')
  best = np.maximum.accumulate(np.convolve(padded, np.ones(width) / width, 'valid'))  # of what is known by then
  stalled = best[patience:] - best[:-patience] <= _PLATEAU * (best[patience:] - best[0])
  return patience + int(stalled.argmax()) if stalled.any() else len(returns)


def choose_checkpoints(returns: np.ndarray, num_checkpoints: int, patience: int | None = None) -> np.ndarray:
  """Picks snapshots evenly spaced in return, so that k checkpoints better means about the same everywhere.

  Args:
    returns: [U] learning curve of the first U snapshots.
    num_checkpoints: how many to pick, the first and the best included.
    patience: see `num_updates_counted`.

  Returns:
    [num_checkpoints] indices in rising order. Where the curve jumps over a level, an index stands more than once.
  """
  returns = without_gaps(returns)[:num_updates_counted(returns, patience)]
  width = max(1, len(returns) // 40)
  padded = np.pad(returns, (width // 2, width - 1 - width // 2), mode='edge')
  smooth = np.convolve(padded, np.ones(width) / width, 'valid')
  best_so_far = np.maximum.accumulate(smooth)
  levels = np.linspace(best_so_far[0], best_so_far[-1], num_checkpoints)
  return np.minimum(np.searchsorted(best_so_far, levels), len(returns) - 1)


def rank_correlation(returns: np.ndarray) -> float:
  """Spearman's correlation of order and return, the mean over curves [H, C]; 0 for a curve that is flat."""
  return float(np.mean([
    0.0 if np.ptp(curve) == 0 else stats.spearmanr(np.arange(len(curve)), curve).statistic for curve in returns
  ]))
