"""The interface of a source of improvement, and the loop that runs one."""

import dataclasses
import pathlib
import time
from typing import Any
from collections.abc import Callable

import chex
import jax
import numpy as np

from metaimprove import files, parallel
from metaimprove.errors import DamagedDataError
from metaimprove.types import Params, Task

Progress = Callable[[int, dict[str, float]], None]
"""(updates done, figures to show), called after each update."""

_SAVE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Source:
  """An improver that runs on N tasks at once, as pure functions.

  Attributes:
    name: stored with every history it makes.
    init: (rng_key, tasks [N]) -> state.
    update: (state, tasks [N], rng_key) -> (state, mean return an episode of the policies before the update: [N], or []
      where one learner serves all tasks).
    snapshot: (state) -> the part of it that `params` needs.
    params: (snapshot, tasks [N]) -> θ with leading axis [N].
    num_updates: how many updates it takes to learn.
    env_steps_per_update: environment steps of one update, over all tasks.
  """

  name: str
  init: Callable[[chex.PRNGKey, Task], Any]
  update: Callable[[Any, Task, chex.PRNGKey], tuple[Any, chex.Array]]
  snapshot: Callable[[Any], Any]
  params: Callable[[Any, Task], Params]
  num_updates: int
  env_steps_per_update: int


@chex.dataclass(frozen=True)
class Learning:
  """A source's run: U updates make U + 1 snapshots.

  Attributes:
    snapshots: tree with leading axis [U + 1].
    returns: [U, N] or [U], the mean return of the policies of the first U snapshots.
  """

  snapshots: Any
  returns: np.ndarray


def learn(
  source: Source, tasks: Task, rng_key: chex.PRNGKey, *, path: files.Path | None = None,
  progress: Progress = lambda done, figures: None,
) -> Learning:
  """Runs a source for all its updates.

  Args:
    source: what to run.
    tasks: [N] tasks.
    rng_key: the same key gives the same run.
    path: where to keep the state; a run that was interrupted goes on from there, one that is done is only read.
    progress: called after each update.
  """
  update = jax.jit(source.update, out_shardings=parallel.replicated_sharding())
  snapshot = jax.jit(source.snapshot)
  key_init, key_updates = jax.random.split(rng_key)
  if path is not None and pathlib.Path(path).exists():
    state, run = _load(source, tasks, path)
    returns = list(run.returns)
    snapshots = [jax.tree.map(lambda x: x[i], run.snapshots) for i in range(len(returns) + 1)]
  else:
    state = jax.jit(source.init)(key_init, tasks)
    snapshots, returns = [jax.device_get(snapshot(state))], []

  def stacked():
    return Learning(snapshots=jax.tree.map(lambda *x: np.stack(x), *snapshots), returns=np.stack(returns))

  state, tasks = parallel.replicated((state, tasks))
  last_save = time.perf_counter()
  for index in range(len(returns), source.num_updates):
    state, value = update(state, tasks, jax.random.fold_in(key_updates, index))
    value = np.asarray(value)
    returns.append(value)
    snapshots.append(jax.device_get(snapshot(state)))
    now = time.perf_counter()
    progress(index + 1, {'return': float(value.mean())})
    if path is not None and (now - last_save > _SAVE_SECONDS or index + 1 == source.num_updates):
      files.save_tree(path, {'state': state, 'learning': stacked()})
      last_save = time.perf_counter()
  return stacked()


def _load(source: Source, tasks: Task, path: files.Path) -> tuple[Any, Learning]:
  """The state and the run so far that `learn` saved."""
  state = jax.eval_shape(source.init, jax.random.key(0), tasks)
  snapshots = jax.tree.map(lambda x: None, jax.eval_shape(source.snapshot, state))
  saved = files.load_tree(path, {
    'state': state, 'learning': Learning(snapshots=snapshots, returns=None)
  })
  return saved['state'], saved['learning']


def load_learning(source: Source, tasks: Task, path: files.Path) -> Learning:
  """Reads a run that `learn` has finished; raises `DamagedDataError` if there is none or it is not complete."""
  learning = _load(source, tasks, path)[1]
  if len(learning.returns) < source.num_updates:
    raise DamagedDataError(
      f'{path} has {len(learning.returns)} of {source.num_updates} updates; run the collection again to finish it.'
    )
  return learning


def choose_checkpoints(returns: np.ndarray, num_checkpoints: int) -> np.ndarray:
  """Picks snapshots evenly spaced in return, so that k checkpoints better means about the same everywhere.

  Args:
    returns: [U] learning curve of the first U snapshots.
    num_checkpoints: how many to pick, the first and the best included.

  Returns:
    [num_checkpoints] indices in rising order. Where the curve jumps over a level, an index stands more than once.
  """
  width = max(1, len(returns) // 40)
  padded = np.pad(returns, (width // 2, width - 1 - width // 2), mode='edge')
  smooth = np.convolve(padded, np.ones(width) / width, 'valid')
  best_so_far = np.maximum.accumulate(smooth)
  levels = np.linspace(best_so_far[0], best_so_far[-1], num_checkpoints)
  return np.minimum(np.searchsorted(best_so_far, levels), len(returns) - 1)
