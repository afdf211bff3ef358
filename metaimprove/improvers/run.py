"""Runs a source: all tasks at once over all devices, checkpointed, resumable."""

import contextlib
import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import chex
import jax
import numpy as np

from metaimprove import files, parallel
from metaimprove.compiling import jit_once
from metaimprove.errors import DamagedDataError
from metaimprove.improvers.curves import num_updates_counted, without_gaps
from metaimprove.improvers.source import Learning, Piece, Snapshots, Source
from metaimprove.trees import batch_size, stack, take
from metaimprove.types import Progress, Task, silent

_SAVE_SECONDS = 30.0
_STATE = 'state.safetensors'


class Learn(Protocol):
  """Runs a source; what `make_learn` returns.

  Args:
    tasks: [N] tasks.
    rng_key: the same key gives the same run.
    index: [N] the indices of the tasks among all, 0, 1, ... by default. A learner's run follows from its own index,
      whatever tasks are learned beside it.
    folder: where to keep the run; one that was interrupted goes on from there, one that has finished is only read.
      Without a folder all snapshots are kept in memory.
    progress: told of each update, with the mean return before it.

  Raises:
    IncompatibleError: if the folder holds a run of another source, other settings, another key or other tasks.
    DamagedDataError: if what it holds is damaged.
  """

  def __call__(
    self, tasks: Task, rng_key: chex.PRNGKey, *, index: np.ndarray | None = None, folder: files.Path | None = None,
    progress: Progress = silent,
  ) -> Learning: ...


def learn(source: Source, tasks: Task, rng_key: chex.PRNGKey, **options: Any) -> Learning:
  """Runs a source once; see `Learn` for the options, and `make_learn` to run it more than once."""
  return make_learn(source)(tasks, rng_key, **options)


def make_learn(source: Source) -> Learn:
  """The function that runs a source for all its updates, compiled once for all calls with as many tasks."""
  batched = (lambda function: function) if source.shared else parallel.vmap

  def keys(rng_key, index):
    return rng_key if source.shared else jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng_key, index)

  @jit_once
  def init(rng_key, index, tasks, data):
    return batched(source.init)(keys(rng_key, index), tasks, *(() if data is None else (data,)))

  def update(state, tasks, rng_key, num_updates, index):
    return batched(source.update)(state, tasks, keys(jax.random.fold_in(rng_key, num_updates), index))

  # Replicated in and out, so that the first call and all others are one program.
  update = jax.jit(update, out_shardings=parallel.replicated_sharding())
  snapshot = jax.jit(source.snapshot)

  def learn(tasks, rng_key, *, index=None, folder=None, progress=silent):
    key_init, key_updates = jax.random.split(rng_key)
    index = np.arange(batch_size(tasks)) if index is None else np.asarray(index)
    data = None if source.data is None else take(source.data, index)
    tasks = None if source.shared else tasks
    run = _Run(folder)
    run.claim({
      **_made_with(source), 'rng_key': jax.random.key_data(rng_key).tolist(),
      'learners': None if source.shared else _checksum({'index': index, 'tasks': tasks, 'data': data}),
    })
    if run.exists():
      state = run.load(jax.eval_shape(init, key_init, index, tasks, data), source.snapshot)
    else:
      state = init(key_init, index, tasks, data)
      run.add(snapshot(state))
    if not is_done(source, run.returns):
      state, tasks = parallel.replicated((state, tasks))
      _make_updates(
        source, run, state, lambda state, done: update(state, tasks, key_updates, done, index), snapshot, progress
      )
    return run.learning()

  return learn


def _made_with(source: Source) -> dict[str, Any]:
  """What determines how a source improves, as a run's folder notes it."""
  settings = {
    **source.settings, 'source': source.name, 'num_updates': source.num_updates, 'patience': source.patience
  }
  return json.loads(json.dumps(settings))


def _checksum(tree: Any) -> str:
  return files.checksum(files.tree_to_bytes(tree))


def _make_updates(
  source: Source, run: '_Run', state: Any, update: Callable[[Any, int], tuple[Any, chex.Array]],
  snapshot: Callable[[Any], Any], progress: Progress,
) -> None:
  """Makes the updates that a run lacks.

  The device always has the next update to do: what an update gives is fetched when the next one has been started. So
  when a run ends early (see `Source.patience`), one update is made in vain.
  """
  def start(state, done):
    state, value = update(state, done)
    return state, value, snapshot(state)

  last_save = time.perf_counter()
  current, following = start(state, len(run.returns)), None
  while True:
    if len(run.returns) + 1 < source.num_updates:
      following = start(current[0], len(run.returns) + 1)
    state, value, taken = current
    run.returns.append(np.asarray(value))
    run.add(taken)
    done = is_done(source, run.returns)
    num_done = source.num_updates if done else len(run.returns)
    progress(
      f'learn {source.name}', num_done, source.num_updates, {'return': float(without_gaps(run.returns)[-1].mean())}
    )
    if done or time.perf_counter() - last_save > _SAVE_SECONDS:
      run.save(state)
      last_save = time.perf_counter()
    if done:
      return
    current = following


class _Run:
  """What a run has made so far. With a folder, the snapshots are moved there, in pieces that are written once.

  Attributes:
    returns: [N] or [] of each update.
  """

  def __init__(self, folder: files.Path | None):
    self._folder = None if folder is None else pathlib.Path(folder)
    self._pieces: list[Piece] = []
    self._unsaved: list[Any] = []
    self.returns: list[np.ndarray] = []

  def add(self, snapshot: Any) -> None:
    self._unsaved.append(jax.device_get(snapshot))

  def claim(self, made_with: dict[str, Any]) -> None:
    """Notes what the run is made with, or compares it with what an earlier call has noted."""
    if self._folder is None:
      return
    if not self.exists():  # nothing is kept of what an earlier call had begun
      files.write_json(self._folder / files.CLAIM, made_with)
    with _advice(self._folder):
      files.check_same(files.read_claim(self._folder), made_with, self._folder)

  def exists(self) -> bool:
    return self._folder is not None and (self._folder / _STATE).exists()

  def learning(self) -> Learning:
    pieces = list(self._pieces)
    if self._unsaved:
      unsaved = stack(self._unsaved)
      pieces.append(Piece(size=len(self._unsaved), read=lambda: unsaved))
    return Learning(snapshots=Snapshots(pieces=tuple(pieces)), returns=np.stack(self.returns))

  def _piece_path(self, first: int) -> pathlib.Path:
    return self._folder / f'snapshots_{first:06d}.safetensors'

  def save(self, state: Any) -> None:
    if self._folder is None:
      return
    first = sum(piece.size for piece in self._pieces)
    piece = stack(self._unsaved)
    # A kill between the two writes leaves a piece that belongs to no state. It is written again under its name.
    files.save_tree(self._piece_path(first), piece)
    self._pieces.append(self._stored(first, len(self._unsaved), jax.tree.map(lambda _: None, piece)))
    self._unsaved = []
    files.save_tree(self._folder / _STATE, {
      'state': state, 'returns': np.stack(self.returns), 'pieces': np.array([piece.size for piece in self._pieces]),
    })

  def _stored(self, first: int, size: int, structure: Any) -> Piece:
    return Piece(size=size, read=functools.partial(self._read_piece, first, structure))

  def _read_piece(self, first: int, structure: Any) -> Any:
    with _advice(self._folder):
      return files.load_tree(self._piece_path(first), structure)

  def load(self, like: Any, snapshot: Callable[[Any], Any]) -> Any:
    """Reads all but the snapshots, and returns the state; raises `DamagedDataError` with what to do."""
    with _advice(self._folder):
      saved = files.load_tree(self._folder / _STATE, {'state': like, 'returns': None, 'pieces': None})
      structure = jax.tree.map(lambda _: None, jax.eval_shape(snapshot, like))
      self.returns = list(saved['returns'])
      sizes = saved['pieces']
      if sizes.ndim != 1 or sizes.dtype.kind not in 'iu' or (sizes < 1).any() or sizes.sum() != len(self.returns) + 1:
        raise DamagedDataError(f'{self._folder / _STATE} is damaged: its pieces do not make up its updates.')
      for size in sizes.tolist():
        first = sum(piece.size for piece in self._pieces)
        if not self._piece_path(first).exists():
          raise DamagedDataError(f'{self._piece_path(first)} is missing.')
        self._pieces.append(self._stored(first, size, structure))
      return saved['state']


@contextlib.contextmanager
def _advice(folder: pathlib.Path) -> Iterator[None]:
  """A block in which damage is told together with what to do about it."""
  try:
    yield
  except DamagedDataError as error:
    raise DamagedDataError(f'{error} To learn it afresh, delete the whole folder {folder}.') from None


def load_learning(source: Source, tasks: Task, folder: files.Path) -> Learning:
  """Reads a run that `learn` has finished; raises `DamagedDataError` if there is none or it is not complete, and
  `IncompatibleError` if it is of another source or of other settings."""
  run = _Run(folder)
  if run.exists():
    wanted, stored = _made_with(source), files.read_claim(folder)
    files.check_same({name: stored.get(name) for name in wanted}, wanted, folder)
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
  """Whether a run with these returns is complete: all its updates are made, or all its learners have stopped rising."""
  if len(returns) >= source.num_updates:
    return True
  if source.patience is None or len(returns) <= source.patience:
    return False
  curves = np.stack(returns).reshape(len(returns), -1).T
  return all(num_updates_counted(curve, source.patience) < len(curve) for curve in curves)
