"""Stored histories as training data. A tuple (θⁿ, τⁿ, θⁿ⁺ᵏ) is a view of a history, for any n and k.

Only what is looked at is read: a dataset in memory is its index, a few numbers a history.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np

from metaimprove import files, policies
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.histories import layout as layouts
from metaimprove.histories import storage
from metaimprove.histories.header import planned_shards, read_header
from metaimprove.histories.reader import OpenShard, Shards
from metaimprove.language.clauses import Property
from metaimprove.tasks.family import TASK_SUITE_VERSION, TaskFamily, distribution_of
from metaimprove.tasks.hindsight import achieved, measured, relabel
from metaimprove.trees import concatenate, take
from metaimprove.types import Params, Task, Trajectory

_AT_ONCE = 1024
_OF_HISTORIES = (
  'returns', 'return_error', 'best', 'rank', 'task_index', 'source', 'shard', 'row', 'achieved', 'measured',
)
"""Fields of a dataset with a row for each history."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The histories of a folder that are fit for training; H of them.

  Attributes:
    header: what the folder was made with.
    policy: the policies θ is for.
    returns: [H, N + 1] float32, measured mean return of each checkpoint, in `header['num_measured']` episodes.
    return_error: [H, N + 1] float32, its standard error; see `levels.standard_error`.
    best: [H] int, the level of the best checkpoint: the first level of the policy that the last level has, which is a
      lower one where a source improves by fewer steps than there are levels.
    rank: [H, N + 1] int, how many other policies than its own are on the levels before it: levels that are one policy
      have one rank.
    task_index: [H] int, which task a history is of; histories by several sources share tasks.
    source: [H] int, index into `source_names`.
    source_names: the sources.
    num_left_out: histories that are not here because a simulation in them was not finite.
    shard: [H] int, which shard a history is in.
    row: [H] int, where in its shard.
    shards: the shards' readers.
    achieved: [H, N + 1, G] float32, the goal that each checkpoint achieved in hindsight, the mean over its episodes.
      None: nobody has looked, see `with_hindsight`.
    properties: P things that can be measured of an episode and said of it.
    measured: [H, N + 1, P] float32, these of each checkpoint, the mean over its episodes; None as before.
  """

  header: dict[str, Any]
  policy: policies.Policy
  returns: np.ndarray
  return_error: np.ndarray
  best: np.ndarray
  rank: np.ndarray
  task_index: np.ndarray
  source: np.ndarray
  source_names: tuple[str, ...]
  num_left_out: int
  shard: np.ndarray
  row: np.ndarray
  shards: Shards
  achieved: np.ndarray | None = None
  properties: tuple[Property, ...] = ()
  measured: np.ndarray | None = None

  @property
  def num_histories(self) -> int:
    return len(self.source)

  @property
  def num_checkpoints(self) -> int:
    return self.returns.shape[1]

  @property
  def checksum(self) -> str:
    """Of the header and of the checksums that the shards hold: it changes with anything that is stored."""
    return files.checksum(json.dumps([self.header, self.shards.checksums()], sort_keys=True).encode())

  def read(self, history: np.ndarray, level: np.ndarray) -> tuple[Params, Trajectory]:
    """Checkpoints [B] with their experience, leaves [B, ...], from the disk; histories [B] and levels [B] say which."""
    return self.read_params(history, level), self.read_experience(history, level)

  def read_params(self, history: np.ndarray, level: np.ndarray) -> Params:
    """θ of checkpoints [B]."""
    return layouts.unpack_params(layouts.layout_of(self.header), self._rows('params', history, level))

  def read_experience(self, history: np.ndarray, level: np.ndarray) -> Trajectory:
    """The experience of checkpoints [B], leaves [B, E, T, ...]."""
    return layouts.unpack_experience(layouts.layout_of(self.header), self._rows('experience', history, level))

  def read_tasks(self, history: np.ndarray) -> Task:
    """The tasks of histories [B]; to simulate them, not for an operator to see."""
    return Task(
      goal=self._rows('task::goal', history),
      dynamics={name: self._rows(f'task::dynamics::{name}', history) for name in self.header['dynamics']},
    )

  def _rows(self, name: str, history: np.ndarray, *level: np.ndarray) -> np.ndarray:
    history = np.asarray(history)
    return self.shards.read(name, self.shard[history], [self.row[history], *map(np.asarray, level)])


def check_family(folder: files.Path, header: dict[str, Any], family: TaskFamily) -> None:
  """Raises `IncompatibleError` if a dataset is of another family, backend, task suite version or dynamics."""
  if header.get('task_suite_version') != TASK_SUITE_VERSION:
    raise IncompatibleError(
      f'{folder} is of task suite version {header.get("task_suite_version")}, and this metaimprove defines version '
      f'{TASK_SUITE_VERSION}: the tasks are not the same. Collect the histories again.'
    )
  for name, wanted in (('family', family.name), ('backend', family.backend)):
    if header[name] != wanted:
      raise IncompatibleError(
        f'{folder} holds histories of {name} {header[name]!r}, not {wanted!r}; pass --{name}={header[name]} or another '
        'folder.'
      )
  if list(header['dynamics']) != list(family.ranges):
    raise IncompatibleError(
      f'{folder} holds histories with randomised {", ".join(header["dynamics"]) or "nothing"}, and this family '
      f'randomises {", ".join(family.ranges) or "nothing"}; make the family with the same dynamics.'
    )
  if any(header[name] != distribution_of(family)[name] for name in ('dynamics', 'far_only')):
    raise IncompatibleError(
      f'{folder} holds histories of dynamics drawn from other ranges than those of this family; make the family with '
      'the same ranges.'
    )
  for name, size in sizes_of(family).items():
    if header[name] != size:
      raise IncompatibleError(f'{folder} holds histories with {name}={header[name]}, and this family has {size}.')


def sizes_of(family: TaskFamily) -> dict[str, int]:
  """The sizes of a family that are part of a header: what lies where in a shard follows from them."""
  names = ('observation_size', 'action_size', 'goal_size', 'outcome_size', 'episode_length')
  return {name: int(getattr(family, name)) for name in names}


def read_complete_header(folder: files.Path, family: TaskFamily) -> dict[str, Any]:
  """The header of a folder that `collect` has filled for a family.

  Raises:
    DamagedDataError: if there is none or the collection is not finished.
    IncompatibleError: see `check_family`.
  """
  header = read_header(folder)
  check_family(folder, header, family)
  planned = planned_shards(header)
  missing = [entry for entry in planned if not storage.is_there(folder, entry)]
  if missing:
    wanted, lacking = (sum(entry['num_histories'] for entry in entries) for entries in (planned, missing))
    raise DamagedDataError(
      f'{folder} is incomplete: {wanted - lacking} of {wanted} histories are there, {missing[0]["file"]} is missing or '
      'does not hold all of its; run the collection again on this folder.'
    )
  return header


def load_dataset(folder: files.Path, family: TaskFamily, *, verify: bool = True) -> Dataset:
  """Opens a folder that `collect` has filled.

  Args:
    folder: of the dataset.
    family: the family it must be of.
    verify: compare every shard with its checksum first, about a second a gigabyte; without, only shards that were cut
      off, or have other shapes than they must, are noticed.

  Raises:
    DamagedDataError: if the folder or a shard is missing, incomplete or altered.
    IncompatibleError: see `check_family`.
  """
  header = read_complete_header(folder, family)
  planned = planned_shards(header)
  paths = [storage.shard_path(folder, entry) for entry in planned]
  if verify:
    for path in paths:
      storage.verify_shard(path)
  names = tuple(dict.fromkeys(source['name'] for source in header['sources']))
  # Sources of one seed share its tasks, but for those that came with their own.
  task_sets = {
    (source['name'], source['seed']): (source['seed'], source['name'] if source['own_tasks'] else None)
    for source in header['sources']
  }
  blocks = tuple(dict.fromkeys(task_sets.values()))
  sizes = [entry['num_histories'] for entry in planned]
  index = _read_index(header, paths, sizes)
  row = np.concatenate([np.arange(size) for size in sizes])
  shard = np.repeat(np.arange(len(planned)), sizes)
  first = np.array([entry['first_task'] for entry in planned])
  block = np.array([blocks.index(task_sets[entry['source'], entry['seed']]) for entry in planned])
  task_index = block[shard] * (first + sizes).max() + first[shard] + row
  source = np.array([names.index(entry['source']) for entry in planned])[shard]
  keep = index['finite'].all(axis=1)
  update = index['update'][keep]
  return Dataset(
    header=header,
    policy=policies.make_policy(family.observation_size, family.action_size, tuple(header['hidden_sizes'])),
    returns=index['returns'][keep], return_error=index['return_error'][keep],
    best=best_level(update), rank=ranks(update), task_index=task_index[keep], source=source[keep],
    source_names=names, num_left_out=int((~keep).sum()), shard=shard[keep], row=row[keep], shards=Shards(paths),
  )


def first_tasks(dataset: Dataset, num: int) -> Dataset:
  """The histories of the first `num` tasks of a dataset, or of all that it has: as if no more had been collected."""
  kept = np.isin(dataset.task_index, np.unique(dataset.task_index)[:num])
  if kept.all():
    return dataset
  known = {name: getattr(dataset, name) for name in _OF_HISTORIES}
  return dataclasses.replace(
    dataset, header={**dataset.header, 'first_tasks': num},  # so that its checksum is another one
    **{name: x[kept] for name, x in known.items() if x is not None},
  )


def with_hindsight(dataset: Dataset, family: TaskFamily) -> Dataset:
  """The dataset with what its checkpoints achieved in hindsight, if the family has goals that can be achieved, and what
  can be said of them, if it has properties; for this it reads all of them once."""
  of_batch = jax.jit(jax.vmap(functools.partial(_in_hindsight, family)))
  known = _of_checkpoints(dataset, lambda history, trajectory: of_batch(trajectory))
  return dataclasses.replace(dataset, properties=family.properties, **known)


def goals_of(dataset: Dataset) -> np.ndarray:
  """[H, G], the goals of the tasks of all histories."""
  return dataset.read_tasks(np.arange(dataset.num_histories)).goal


def with_meant_goals(dataset: Dataset, family: TaskFamily, goals: np.ndarray) -> Dataset:
  """The dataset without hindsight: a checkpoint that met a reward for the goal that was meant, of `goals` [H, G],
  achieved that goal. It is not known what any other one achieved."""
  known = np.where(met_rewards(dataset, family, goals)[..., None], goals[:, None], np.float32('nan'))
  of = files.checksum(np.ascontiguousarray(goals).tobytes())
  return dataclasses.replace(dataset, header={**dataset.header, 'meant': of}, achieved=known)  # for another checksum


def met_rewards(dataset: Dataset, family: TaskFamily, goals: np.ndarray) -> np.ndarray:
  """[H, N + 1] bool, whether a checkpoint met a reward above 0 for the goal that was meant, of `goals` [H, G], in
  any of its episodes."""
  rewards = jax.jit(jax.vmap(functools.partial(relabel, family)))
  met = _of_checkpoints(dataset, lambda history, trajectory: (rewards(trajectory, goals[history]) > 0).any(axis=(1, 2)))
  return met[..., 0]


def _of_checkpoints(dataset: Dataset, function: Callable[[np.ndarray, Trajectory], Any]) -> Any:
  """Leaves [H, N + 1, ...] of what a function of histories [B] and trajectories [B, E, T, ...] of one of their
  checkpoints each gives, in leaves [B] or [B, ...]; it reads all of them once."""
  size = dataset.num_histories, dataset.num_checkpoints
  every, found = np.arange(math.prod(size)), []
  for start in range(0, len(every), _AT_ONCE):
    rows = np.resize(every[start:start + _AT_ONCE], min(_AT_ONCE, len(every)))  # of one length: compiled once
    history, level = divmod(rows, size[1])
    _, trajectory = dataset.read(history, level)
    found.append(take(jax.device_get(function(history, trajectory)), slice(len(every) - start)))
  return jax.tree.map(lambda x: x.reshape(*size, -1), concatenate(found))


def _in_hindsight(family: TaskFamily, trajectory: Trajectory) -> dict[str, chex.Array]:
  """What can be known of a policy's episodes [E, T, ...]."""
  found = {} if family.achieved is None else {'achieved': achieved(family, trajectory).mean(axis=0)}
  return {**found, **({'measured': measured(family, trajectory)} if family.properties else {})}


def best_level(update: np.ndarray) -> np.ndarray:
  """[H], the first level whose checkpoint is that of the last level; `update` [H, N + 1] says which each is."""
  return (update == update[:, -1:]).argmax(axis=1)


def ranks(update: np.ndarray) -> np.ndarray:
  """[H, N + 1], how many other policies are on the levels before each, of rising `update` [H, N + 1] of each level."""
  return np.cumsum(np.diff(update, axis=1, prepend=update[:, :1]) != 0, axis=1)


def _read_index(header, paths, sizes) -> dict[str, np.ndarray]:
  """The arrays [H, N + 1] of all shards together."""
  columns = {name: [] for name in storage.INDEX}
  for path, size in zip(paths, sizes):
    shard = OpenShard(path)
    storage.check_arrays(path, header, size, shard.arrays())
    for name, column in columns.items():
      column.append(shard.whole(name))
  return {name: np.concatenate(column) for name, column in columns.items()}
