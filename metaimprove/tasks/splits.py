"""Tasks for training, validation and final figures, drawn apart."""

import jax
import numpy as np

from metaimprove.errors import UnknownNameError
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Task

SPLITS = ('train', 'heldout', 'far')


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
