"""Tasks for training, validation and final figures, drawn apart."""

import jax
import numpy as np

from metaimprove.errors import UnknownNameError
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.robots import dynamics
from metaimprove.types import Task

SPLITS = ('train', 'heldout', 'far', 'validation')
"""The index of a split is part of its random stream: append new splits, and leave the order alone."""


def sample_tasks(family: TaskFamily, seed: int, num_tasks: int, split: str) -> Task:
  """[num_tasks] tasks of a split. The same arguments give the same tasks, more tasks begin with the same ones, and the
  random streams of the splits are independent.

  Args:
    family: the task family.
    seed: of the experiment.
    num_tasks: how many.
    split: what the tasks are for.
      'train': sources and operators learn on these.
      'validation': settings, sources and baselines are chosen on these. Same ranges as 'train'.
      'heldout': final figures only; nothing is chosen on them. Same ranges as 'train'.
      'far': final figures only, on tasks outside the training ranges.

  Raises:
    UnknownNameError: for a split that does not exist.
  """
  if split not in SPLITS:
    raise UnknownNameError(f'Split {split!r} is unknown; choose one of: {", ".join(SPLITS)}.')
  key = jax.random.fold_in(jax.random.key(seed), SPLITS.index(split))
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, np.arange(num_tasks))
  return jax.jit(jax.vmap(family.sample_far if split == 'far' else family.sample))(keys)


def far_parameter(family: TaskFamily, tasks: Task) -> list[str | None]:
  """What of each task lies outside its training range, so that figures can be reported for each apart.

  Args:
    family: the family of the tasks.
    tasks: [B] tasks.

  Returns:
    B names: 'goal', the name of a dynamics parameter, or None where all lies inside. A task of the split 'far' has one
    such name; if more than one fits, the goal comes first, then dynamics in the order of the family's ranges.
  """
  outside = dynamics.outside(tasks.dynamics, family.ranges)
  if family.is_far_goal is not None:
    outside = {'goal': np.asarray(jax.vmap(family.is_far_goal)(tasks.goal)), **outside}
  names = np.full(tasks.goal.shape[0], None, object)
  for name in reversed(outside):
    names[outside[name]] = name
  return names.tolist()
