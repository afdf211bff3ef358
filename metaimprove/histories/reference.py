"""Policies that the sources of a dataset have learned: what others begin with, and what methods are compared with."""

import pathlib

import chex

from metaimprove import files
from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import read_complete_header
from metaimprove.histories.header import HEADER, read_header
from metaimprove.histories.learning import PATIENCE_SECONDS, learning_folder, wait_for_learning
from metaimprove.improvers import task_conditioned_ppo, tuned
from metaimprove.improvers.noise_ladder import Base
from metaimprove.improvers.run import load_learning
from metaimprove.improvers.source import Learning, Source
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.splits import sample_tasks
from metaimprove.types import Params, Task


def load_conditioned(folder: files.Path, family: TaskFamily) -> tuple[Source, Learning, int]:
  """The task-conditioned source of a complete dataset, its run, and the number of its tasks.

  Raises:
    DamagedDataError: if the dataset is not complete.
    IncompatibleError: if it is of another family, or holds no history by that source.
  """
  header = read_complete_header(folder, family)
  stored = next((source for source in header['sources'] if source['name'] == task_conditioned_ppo.NAME), None)
  if stored is None:
    raise IncompatibleError(f'{folder} has no history by task_conditioned_ppo, whose policies are the reference.')
  source = tuned.make_source(
    stored['name'], family, tuple(header['hidden_sizes']), num_updates=stored['settings'].get('num_updates')
  )
  one = sample_tasks(family, stored['seed'], 1, 'train')
  learning = load_learning(source, one, learning_folder(folder, source.name, stored['seed']))
  return source, learning, stored['num_tasks']


def final_policies(
  folder: files.Path, family: TaskFamily, seed: int, *, timeout: float = PATIENCE_SECONDS
) -> Base:
  """The last policies that the task-conditioned source of a dataset has learned, once it has.

  Raises:
    IncompatibleError: if the dataset has no such source with this seed.
    WaitingError: if the worker that runs it shows no sign of progress.
  """
  folder = pathlib.Path(folder)
  header = read_header(folder) if (folder / HEADER).exists() else {'sources': []}
  stored = [entry for entry in header['sources'] if (entry['name'], entry['seed']) == (task_conditioned_ppo.NAME, seed)]
  if not stored:
    raise IncompatibleError('Noise ladders need histories by task_conditioned_ppo to begin with; set --num_tasks.')
  source = tuned.make_source(
    stored[0]['name'], family, tuple(header['hidden_sizes']), num_updates=stored[0]['settings'].get('num_updates')
  )
  run = wait_for_learning(source, sample_tasks(family, seed, 1, 'train'), folder, seed, timeout=timeout)
  snapshot = run.snapshots[-1]

  def base(rng_key: chex.PRNGKey, task: Task) -> Params:
    return source.params(snapshot, task)

  return base
