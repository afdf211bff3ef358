"""Improvement histories as Minari datasets, and Minari datasets of tasks as logs to learn from."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from metaimprove.adapters.extras import required
from metaimprove.episodes import episodes_of
from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import Dataset
from metaimprove.files import tree_to_bytes as tree_bytes
from metaimprove.trees import take
from metaimprove.types import Progress, Task, silent

minari = required('minari')
gymnasium = required('gymnasium')

STAGE = 'export episodes'
_DYNAMICS = 'dynamics_'
_AT_ONCE = 256


def export_minari(
  dataset: Dataset, dataset_id: str, *, histories: Sequence[int] | None = None, levels: Sequence[int] | None = None,
  progress: Progress = silent, **minari_settings: Any,
) -> Any:
  """Writes the experience of histories into Minari's folder (`MINARI_DATASETS_PATH`), an episode each.

  The metadata of an episode says where it belongs: 'source', 'history', 'task_index', 'goal' and
  'dynamics_NAME' of the task, 'level' (how good its policy is among those of its history, from 0), 'best_level' of that
  history, and 'mean_return' of its policy. θ is not in it.

  Args:
    dataset: the histories.
    dataset_id: for Minari, such as 'reacher_goal/histories-v0'.
    histories: which ones; all by default.
    levels: which ones; all by default.
    progress: told how many histories are read.
    minari_settings: what `minari.create_dataset_from_buffers` takes besides, such as `author` or `description`.

  Returns:
    The `minari.MinariDataset`.

  Raises:
    IncompatibleError: for histories or levels that are not there, and a name that Minari does not take or has already.
  """
  chosen = _chosen('histories', histories, dataset.num_histories)
  wanted = _chosen('levels', levels, dataset.num_checkpoints)
  if dataset_id in minari.list_local_datasets():  # known before minutes of reading
    raise IncompatibleError(f'Minari has a dataset {dataset_id!r} already; delete it there, or take another name.')
  header = dataset.header
  box = gymnasium.spaces.Box
  buffers, metadata = [], []
  for start in range(0, len(chosen), _AT_ONCE):
    for buffer, about in _episodes(dataset, chosen[start:start + _AT_ONCE], wanted):
      buffers.append(buffer)
      metadata.append(about)
    progress(STAGE, min(start + _AT_ONCE, len(chosen)), len(chosen), {})
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings('ignore', category=UserWarning, module='minari')  # no author, no environment, ...
      made = minari.create_dataset_from_buffers(
        dataset_id, buffers, action_space=box(-1.0, 1.0, (header['action_size'],), np.float32),
        observation_space=box(-np.inf, np.inf, (header['observation_size'],), np.float32), **minari_settings,
      )
  except ValueError as error:
    raise IncompatibleError(f'Minari does not take {dataset_id!r}: {error}') from None
  made.storage.update_episode_metadata(metadata, range(len(metadata)))
  return made


def _chosen(what: str, given: Sequence[int] | None, size: int) -> np.ndarray:
  chosen = np.arange(size) if given is None else np.asarray(given, int)
  if not len(chosen) or chosen.min() < 0 or chosen.max() >= size:
    raise IncompatibleError(f'There are {what} 0 to {size - 1}; {given} is none of these.')
  return chosen


def _episodes(dataset: Dataset, histories: np.ndarray, levels: np.ndarray) -> Iterator[tuple[Any, dict[str, Any]]]:
  """Minari's buffer and the metadata of each episode that did not blow up."""
  row, level = (index.ravel() for index in np.meshgrid(histories, levels, indexing='ij'))
  _, trajectories = dataset.read(row, level)
  tasks = dataset.read_tasks(row)
  for index, (history, at) in enumerate(zip(row, level)):
    trajectory, task = take((trajectories, tasks), index)
    about = {
      'source': dataset.source_names[dataset.source[history]], 'task_index': int(dataset.task_index[history]),
      'history': int(history), 'level': int(at), 'best_level': int(dataset.best[history]),
      'mean_return': float(dataset.returns[history, at]), 'goal': np.asarray(task.goal),
      **{f'{_DYNAMICS}{name}': np.asarray(value) for name, value in task.dynamics.items()},
    }
    for episode in episodes_of(trajectory):
      last = np.arange(len(episode.rewards)) == len(episode.rewards) - 1
      yield minari.data_collector.EpisodeBuffer(
        observations=episode.observations, actions=episode.actions, rewards=episode.rewards,
        terminations=episode.terminations, truncations=last & ~episode.terminations, infos={},
      ), about


def import_minari(dataset: Any) -> tuple[Task, list[list[Any]]]:
  """Tasks [N] and the episodes of each, for `logged_demonstrations(family, tasks, episodes, ...)`.

  Args:
    dataset: a `minari.MinariDataset` whose episodes have 'task_index', 'goal' and 'dynamics_NAME' in their metadata, as
      those of `export_minari`. Filter it first (`filter_episodes`) to learn from some of its levels only.

  Raises:
    IncompatibleError: if the metadata of an episode does not tell its task.
  """
  tasks, episodes = {}, {}
  for episode, about in zip(dataset.iterate_episodes(), dataset.storage.get_episode_metadata(dataset.episode_indices)):
    if 'task_index' not in about or 'goal' not in about:
      raise IncompatibleError(
        f"Episode {episode.id} does not tell its task: its metadata needs 'task_index', 'goal' and 'dynamics_NAME'."
      )
    index = int(about['task_index'])
    task = Task(
      goal=np.float32(about['goal']),
      dynamics={
        name.removeprefix(_DYNAMICS): np.float32(value) for name, value in about.items() if name.startswith(_DYNAMICS)
      },
    )
    if tree_bytes(tasks.setdefault(index, task)) != tree_bytes(task):
      raise IncompatibleError(
        f'Episodes {episodes[index][0].id} and {episode.id} have the task_index {index} and are of two tasks; import '
        'datasets that were made apart one by one.'
      )
    episodes.setdefault(index, []).append(episode)
  if not tasks:
    raise IncompatibleError('This dataset has no episodes; filter it less.')
  stacked = Task(
    goal=np.stack([task.goal for task in tasks.values()]),
    dynamics={
      name: np.stack([task.dynamics[name] for task in tasks.values()]) for name in next(iter(tasks.values())).dynamics
    },
  )
  return stacked, list(episodes.values())
