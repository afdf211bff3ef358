"""Stored histories as training data. A tuple (θⁿ, τⁿ, θⁿ⁺ᵏ) is a view of a history, for any n and k."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files, policies
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.histories import storage
from metaimprove.tasks.family import TASK_SUITE_VERSION, TaskFamily
from metaimprove.types import episode_return


@dataclasses.dataclass(frozen=True)
class Dataset:
  """All histories of a folder, on the device.

  Attributes:
    header: what the folder was made with.
    policy: the policies θ is for.
    histories: storage.History, leaves [H, ...].
    returns: [H, N + 1] float32, mean return of each checkpoint's experience.
    task_index: [H] int, which of the training tasks a history is of; sources share tasks.
    source: [H] int, index into `source_names`.
    source_names: the sources.
    num_left_out: histories not loaded because a simulation in them was not finite.
  """

  header: dict
  policy: policies.Policy
  histories: storage.History
  returns: np.ndarray
  task_index: np.ndarray
  source: np.ndarray
  source_names: tuple[str, ...]
  num_left_out: int

  @property
  def num_histories(self) -> int:
    return len(self.source)

  @property
  def num_checkpoints(self) -> int:
    return self.returns.shape[1]


def read_complete_manifest(folder: files.Path, family: TaskFamily) -> dict:
  """The manifest of a folder that `collect` has filled for a family; its shards in the order of sources and tasks.

  Raises:
    DamagedDataError: if there is none or the collection is not finished.
    IncompatibleError: if it is of another family, backend or format version.
  """
  if not (pathlib.Path(folder) / 'manifest.json').exists():
    raise DamagedDataError(f'{folder} holds no histories; run collect_histories with this folder first.')
  manifest = storage.read_manifest(folder)
  header = manifest['header']
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
  if header['dynamics'] != list(family.ranges):
    raise IncompatibleError(
      f'{folder} holds histories with randomised {", ".join(header["dynamics"]) or "nothing"}, and this family '
      f'randomises {", ".join(family.ranges) or "nothing"}; make the family with the same dynamics.'
    )
  have, wanted = sum(entry['num_histories'] for entry in manifest['shards']), sum(header['sources'].values())
  if have < wanted or set(header['sources']) != set(manifest.get('raw_env_steps_per_second', ())):
    raise DamagedDataError(f'{folder} is incomplete: {have} of {wanted} histories; run collect_histories on it again.')
  # A shard that was made again stands last; rows must not depend on that.
  names = list(header['sources'])
  manifest['shards'].sort(key=lambda entry: (names.index(entry['source']), entry['first_task']))
  return manifest


def load_dataset(folder: files.Path, family: TaskFamily) -> Dataset:
  """Reads a folder that `collect` has filled.

  Args:
    folder: of the dataset.
    family: the family it must be of.

  Raises:
    DamagedDataError: if the folder or a shard is missing, incomplete or altered.
    IncompatibleError: if it is of another family, backend or format version.
  """
  manifest = read_complete_manifest(folder, family)
  header = manifest['header']
  policy = policies.make_policy(family.observation_size, family.action_size, tuple(header['hidden_sizes']))
  like = storage.history_structure(policy, jax.eval_shape(family.sample, jax.random.key(0)).dynamics)
  shards = [storage.read_shard(folder, entry, like) for entry in manifest['shards']]
  names = tuple(header['sources'])
  source = np.concatenate([[names.index(e['source'])] * e['num_histories'] for e in manifest['shards']])
  task_index = np.concatenate([e['first_task'] + np.arange(e['num_histories']) for e in manifest['shards']])
  histories = jax.tree.map(lambda *x: np.concatenate(x), *shards)
  keep = histories.trajectory.finite.all(axis=(1, 2))
  if not keep.all():
    histories, task_index, source = jax.tree.map(lambda x: x[keep], (histories, task_index, source))
  return Dataset(
    header=header, policy=policy, histories=jax.tree.map(jnp.asarray, histories),
    returns=episode_return(histories.trajectory).mean(axis=-1), task_index=task_index, source=source,
    source_names=names, num_left_out=int((~keep).sum()),
  )
