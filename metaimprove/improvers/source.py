"""The interface of a source of improvement."""

import dataclasses
from typing import Any
from collections.abc import Callable, Mapping

import chex
import jax
import numpy as np

from metaimprove.types import Params, Task


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
