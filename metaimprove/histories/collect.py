"""Collects improvement histories: runs the sources, then records what each of their checkpoints experiences."""

import functools
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from metaimprove import files, parallel, policies
from metaimprove.errors import NonFiniteSimulationError, UnknownNameError
from metaimprove.histories import storage
from metaimprove.improvers import source as sources
from metaimprove.rollouts import raw_stepping_rate, rollout
from metaimprove.tasks.family import TASK_SUITE_VERSION, TaskFamily
from metaimprove.types import Task

SPLITS = ('train', 'heldout', 'far')
MAX_NON_FINITE = 0.01
"""The share of episodes that may blow up; such histories are stored, marked, and left out of training."""

Report = Callable[[str, int, int, dict[str, float]], None]
"""(stage, done, of how many, figures to show)."""


def sample_tasks(family: TaskFamily, seed: int, num_tasks: int, split: str) -> Task:
  """[num_tasks] tasks of a split; the same arguments give the same tasks, and splits share none.

  Args:
    family: the task family.
    seed: of the experiment.
    num_tasks: how many.
    split: 'train', 'heldout' (same ranges, other draws) or 'far' (outside the training ranges).
  """
  if split not in SPLITS:
    raise UnknownNameError(f'Split {split!r} is unknown; choose one of: {", ".join(SPLITS)}.')
  key = jax.random.fold_in(jax.random.key(seed), SPLITS.index(split))
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, np.arange(num_tasks))
  return jax.jit(jax.vmap(family.sample_far if split == 'far' else family.sample))(keys)


def take(tree, index):
  """The part of a tree with leading axes at `index`."""
  return jax.tree.map(lambda x: x[index], tree)


def collect(
  folder: files.Path, family: TaskFamily, source_list: Sequence[tuple[sources.Source, int]], *, seed: int,
  num_checkpoints: int, num_episodes: int = 2, shard_size: int = 128,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, settings: dict | None = None,
  report: Report = lambda stage, done, total, figures: None,
) -> dict[str, float]:
  """Fills a folder with histories, going on where an earlier call was stopped.

  Args:
    folder: of the dataset.
    family: the task family.
    source_list: the sources and the number of training tasks each serves, always the first ones.
    seed: of tasks, learning and experience.
    num_checkpoints: N + 1, policies in a history, evenly spaced in return.
    num_episodes: E, episodes of experience of each policy.
    shard_size: histories in a shard, which are also simulated at once.
    hidden_sizes: of the policies.
    settings: whatever else determines the contents, such as the sources' settings.
    report: called as the work goes on.

  Returns:
    See `collecting_rates`.

  Raises:
    IncompatibleError: if the folder holds a dataset made with other arguments.
    NonFiniteSimulationError: if too many simulations blow up; what was collected before stays.
  """
  folder = pathlib.Path(folder)
  counts = {source.name: num_tasks for source, num_tasks in source_list}
  manifest = storage.open_manifest(folder, {
    'task_suite_version': TASK_SUITE_VERSION, 'dynamics': list(family.ranges),
    'family': family.name, 'backend': family.backend, 'observation_size': family.observation_size,
    'action_size': family.action_size, 'hidden_sizes': list(hidden_sizes), 'sources': counts, 'seed': seed,
    'num_checkpoints': num_checkpoints, 'num_episodes': num_episodes, 'shard_size': shard_size,
    'settings': settings or {},
  })
  storage.forget_missing_shards(folder, manifest)
  policy = policies.make_policy(family.observation_size, family.action_size, hidden_sizes)
  base_key = jax.random.fold_in(jax.random.key(seed), 1000)
  for source_index, (source, num_tasks) in enumerate(source_list):
    tasks = sample_tasks(family, seed, num_tasks, 'train')
    key_learn, key_record = jax.random.split(jax.random.fold_in(base_key, source_index))
    learning = sources.learn(
      source, tasks, key_learn, path=folder / f'{source.name}.safetensors',
      progress=lambda done, figures: report(f'learn {source.name}', done, source.num_updates, figures),
    )
    _record(folder, manifest, family, policy, source, tasks, learning, key_record, report)
    _measure_raw_rate(folder, manifest, family, policy, source.name)
  return collecting_rates(manifest)


def collecting_rates(manifest: dict) -> dict[str, float]:
  """Environment steps a second of recording with writing, and of bare stepping with the same batch and actions."""
  shards = manifest['shards']
  env_steps = sum(s['env_steps'] for s in shards)
  raw_seconds = sum(s['env_steps'] / manifest['raw_env_steps_per_second'][s['source']] for s in shards)
  return {
    'env_steps_per_second': env_steps / sum(s['seconds'] for s in shards),
    'raw_env_steps_per_second': env_steps / raw_seconds,
  }


def _measure_raw_rate(folder, manifest, family, policy, source_name):
  """Notes how fast bare stepping is with the tasks and actions of a source's first shard, once for each source."""
  rates = manifest.setdefault('raw_env_steps_per_second', {})
  if source_name in rates:
    return
  entry = next(entry for entry in manifest['shards'] if entry['source'] == source_name)
  like = storage.history_structure(policy, jax.eval_shape(family.sample, jax.random.key(0)).dynamics)
  histories = storage.read_shard(folder, entry, like)
  actions = np.moveaxis(histories.trajectory.action[:, :, 0], 0, 2)  # [H, C, T, A] -> [C, T, H, A]
  rates[source_name] = raw_stepping_rate(family, histories.task, actions, jax.random.key(0))
  storage.write_manifest(folder, manifest)


def _record(folder, manifest, family, policy, source, tasks, learning, rng_key, report):
  """Writes the shards of one source that the manifest does not have yet."""
  header = manifest['header']
  num_tasks, shard_size = header['sources'][source.name], header['shard_size']
  chosen = _choose_for_all(learning.returns, num_tasks, header['num_checkpoints'])

  def record(snapshots, tasks, rng_key):
    """[C, ...] snapshots, [H] tasks -> History [H]; one checkpoint after the other, all tasks at once."""
    num = chosen.shape[1]

    def one_checkpoint(inputs):
      snapshot, key = inputs
      params = source.params(snapshot, tasks)
      keys = jax.random.split(key, shard_size)
      play = functools.partial(rollout, family, policy, num_episodes=header['num_episodes'])
      return params, parallel.vmap(play)(params, tasks, keys)

    params, trajectory = jax.lax.map(one_checkpoint, (snapshots, jax.random.split(rng_key, num)))
    tasks_first = functools.partial(jax.tree.map, lambda x: jax.numpy.swapaxes(x, 0, 1))
    return storage.History(task=tasks, params=tasks_first(params), trajectory=tasks_first(trajectory))

  done = {entry['file'] for entry in manifest['shards']}
  starts = [s for s in range(0, num_tasks, shard_size) if f'{source.name}-{s:06d}.safetensors' not in done]
  if not starts:
    return
  compiled, pending = None, None
  total = num_tasks // shard_size + bool(num_tasks % shard_size)
  for start in [*starts, None]:
    if start is not None:
      index = np.arange(start, start + shard_size) % num_tasks  # a last shard that is not full is filled up, then cut
      arguments = (_snapshots_of(learning, chosen, index), take(tasks, index), jax.random.fold_in(rng_key, start))
      if compiled is None:
        compiled = jax.jit(record).lower(*arguments).compile()
        clock = time.perf_counter()
      upcoming = (start, min(shard_size, num_tasks - start), compiled(*arguments))  # runs while the last one is written
    else:
      upcoming = None
    if pending is not None:
      first, count, histories = pending
      histories = take(jax.device_get(histories), slice(count))
      finite = histories.trajectory.finite
      if np.mean(~finite) > MAX_NON_FINITE:
        raise NonFiniteSimulationError(
          f'{(~finite).sum()} of {finite.size} episodes of {family.name} ({family.backend}) blew up in tasks '
          f'{first}-{first + count - 1} with {source.name}; narrow the ranges of its dynamics or take another backend. '
          f'The shards collected before are kept in {folder}.'
        )
      entry = {
        'file': f'{source.name}-{first:06d}.safetensors', 'source': source.name, 'first_task': first,
        'num_histories': count, 'env_steps': int(np.prod(finite.shape)) * family.episode_length,
        'non_finite_episodes': int((~finite).sum()),
      }
      storage.write_shard(folder, manifest, entry, histories, clock)
      clock = time.perf_counter()
      num_done = sum(other['source'] == source.name for other in manifest['shards'])
      report(f'record {source.name}', num_done, total, {
        'env_steps/s': entry['env_steps'] / manifest['shards'][-1]['seconds']
      })
    pending = upcoming


def _choose_for_all(returns, num_tasks, num_checkpoints):
  """[num_tasks or 1, C] indices of snapshots: for each learner its own, or one choice where one learner serves all."""
  curves = returns[:, None] if returns.ndim == 1 else returns[:, :num_tasks]
  return np.stack([sources.choose_checkpoints(curve, num_checkpoints) for curve in curves.T])


def _snapshots_of(learning, chosen, task_index):
  """The chosen snapshots with leading axis [C], and [C, H] where every task has a learner of its own."""
  if len(chosen) == 1:
    return take(learning.snapshots, chosen[0])
  return take(learning.snapshots, (chosen[task_index].T, task_index[None, :]))
