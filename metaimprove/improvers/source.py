"""The interface of a source of improvement."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import chex
import jax
import numpy as np

from metaimprove.trees import take
from metaimprove.types import Params, Task


class Init(Protocol):
  """A learner's first state, a tree of arrays, for a task, or None for a shared learner; `data` where there is some."""

  def __call__(self, rng_key: chex.PRNGKey, task: Task | None, *data: Any) -> Any: ...


class Update(Protocol):
  """One update: the next state; and [] the mean return an episode of the policy BEFORE the update, of the episodes
  that did not blow up, NaN where all did."""

  def __call__(self, state: Any, task: Task | None, rng_key: chex.PRNGKey, /) -> tuple[Any, chex.Array]: ...


class TakeSnapshot(Protocol):
  """The part of a state that `MakeParams` needs."""

  def __call__(self, state: Any, /) -> Any: ...


class MakeParams(Protocol):
  """θ of a snapshot for a task."""

  def __call__(self, snapshot: Any, task: Task, /) -> Params: ...


class Figures(Protocol):
  """Name -> [N] numbers that are stored with the histories of N learners and shown on their card; NaN: not known."""

  def __call__(self, learning: 'Learning', /) -> Mapping[str, np.ndarray]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """An improver as pure functions of one task; `run.make_learn` batches them over tasks.

  Attributes:
    name: stored with every history it makes: letters, digits, '_' and '-'.
    init: see `Init`.
    update: see `Update`.
    snapshot: see `TakeSnapshot`.
    params: see `MakeParams`.
    num_updates: how many updates it takes to learn.
    env_steps_per_update: environment steps of one update of one learner.
    shared: one learner serves all tasks; `init` and `update` are given None for the task.
    patience: a learner has finished when its return has stopped rising for so many updates, see
      `curves.num_updates_counted`; None: it makes all updates.
    settings: plain data that says how it improves; histories made with other settings are another source's.
    tasks: [N] tasks of its own, where they are not to be drawn from the family.
    data: [N, ...] what each task's learner starts from.
    figures: see `Figures`; not for a shared learner.
  """

  name: str
  init: Init
  update: Update
  snapshot: TakeSnapshot
  params: MakeParams
  num_updates: int
  env_steps_per_update: int
  shared: bool = False
  patience: int | None = None
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  tasks: Task | None = None
  data: Any = None
  figures: Figures | None = None

  def params_of(self, snapshot: Any, tasks: Task) -> Params:
    """θ [N, ...] for [N] tasks, from the one snapshot of a shared learner or from [N] snapshots."""
    return jax.vmap(self.params, in_axes=(None if self.shared else 0, 0))(snapshot, tasks)


@dataclasses.dataclass(frozen=True)
class Piece:
  """Some of a run's snapshots, one after the other.

  Attributes:
    size: how many.
    read: () -> them, leaves [size, N, ...], or [size, ...] of a shared learner.
  """

  size: int
  read: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Snapshots:
  """All snapshots of a run, of which only those asked for are read: leaves [U + 1, N, ...], or [U + 1, ...] where one
  learner serves all tasks.

  `snapshots[5]`, `snapshots[-1]`, `snapshots[2:4]` and `snapshots[[0, 7]]` are trees like those of an array's rows.
  """

  pieces: tuple[Piece, ...]

  def __len__(self) -> int:
    return sum(piece.size for piece in self.pieces)

  def __getitem__(self, index: Any) -> Any:
    return self._gather(np.arange(len(self))[index])

  def of_learners(self, index: np.ndarray) -> Any:
    """Other snapshots of each learner: index [C, N] to leaves [C, N, ...]."""
    index = np.asarray(index)
    return self._gather(index, np.broadcast_to(np.arange(index.shape[1]), index.shape))

  def _gather(self, rows: np.ndarray, *columns: np.ndarray) -> Any:
    """The snapshots at `rows`, and where there are `columns` of just these learners. One piece is read at a time."""
    result, first = None, 0
    for piece in self.pieces:
      here = (rows >= first) & (rows < first + piece.size)
      if here.any():
        part = take(piece.read(), (rows[here] - first, *(column[here] for column in columns)))
        if result is None:
          result = jax.tree.map(lambda leaf: np.empty((*rows.shape, *leaf.shape[1:]), leaf.dtype), part)
        for whole, leaf in zip(jax.tree.leaves(result), jax.tree.leaves(part)):
          whole[here] = leaf
      first += piece.size
    return result


@dataclasses.dataclass(frozen=True)
class Learning:
  """A source's run: U updates make U + 1 snapshots.

  Attributes:
    snapshots: see `Snapshots`.
    returns: [U, N] or [U], the mean return of the policies of the first U snapshots; NaN where all episodes blew up.
  """

  snapshots: Snapshots
  returns: np.ndarray
