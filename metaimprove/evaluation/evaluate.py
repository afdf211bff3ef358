"""Judges methods on tasks they have not seen.

The curve of each method on each split is kept in a folder as soon as it is there, so an evaluation that was stopped
goes on where it was:

  settings.json             the family with its ranges, the seed, the number of tasks
  METHOD/settings.json      everything else that determines the method's curves
  METHOD/SPLIT.safetensors  a curve

A folder of other settings is refused.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError, NoScoreError
from metaimprove.evaluation import metrics
from metaimprove.methods.method import Curve, Method
from metaimprove.rng import stream
from metaimprove.tasks.family import TaskFamily, distribution_of
from metaimprove.tasks.splits import far_parameter, sample_tasks
from metaimprove.trees import batch_size, take
from metaimprove.types import Progress, Task, silent

JUDGED_SPLITS = ('heldout', 'far')
"""Splits whose tasks final figures are of."""
_NAME = re.compile(r'[a-z0-9_]+')


@dataclasses.dataclass(frozen=True)
class Bounds:
  """What scores of B tasks are between.

  Attributes:
    initial: [B] mean return of the initial policy; its score is 0.
    reference: [B] that of the reference policy; its score is 1.
    usable: [B] bool, both are known and the reference is better: the tasks that have a score, the same for all methods.
  """

  initial: np.ndarray
  reference: np.ndarray
  usable: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """How good methods are on the tasks of one seed.

  Attributes:
    family: name of the family.
    backend: its physics backend.
    seed: of the tasks.
    reference: the reference policies in words.
    bounds: split -> see `Bounds`.
    curves: split -> name of a method -> its curve.
    far_parameter: [B] str, which parameter of each far task lies outside its training range; '' for none. Empty where
      no far tasks were asked for.
  """

  family: str
  backend: str
  seed: int
  reference: str
  bounds: Mapping[str, Bounds]
  curves: Mapping[str, Mapping[str, Curve]]
  far_parameter: np.ndarray

  def has_score(self, split: str, name: str) -> np.ndarray:
    """[B] bool, of the tasks that a method was judged on: those that have a score, whatever the method does there."""
    return self.bounds[split].usable[:self.curves[split][name].returns.shape[1]]

  def scores(self, split: str, name: str, tasks: np.ndarray | None = None) -> np.ndarray:
    """[P, .] scores of a method on the tasks that have one, or on `tasks`, a mask [.] over the first tasks.

    A point where every episode blew up has the worst known score of the method on that task, at most 0. If such tasks
    were left out, a method would be judged on the tasks on which it does well.
    """
    tasks = self.has_score(split, name) if tasks is None else tasks
    rows, bounds = np.flatnonzero(tasks), self.bounds[split]
    returns = self.curves[split][name].returns[:, rows]
    scores = metrics.normalise(returns, bounds.initial[rows], bounds.reference[rows])
    return np.where(np.isnan(scores), np.fmin.reduce(scores, axis=0, initial=0.0), scores)

  def check_scored(self, split: str) -> None:
    """Raises `NoScoreError` if no task of a split has a score, so that nothing can be said."""
    if not self.bounds[split].usable.any():
      raise NoScoreError(
        f'No {split} task of {self.family} has a score: {self.reference} is nowhere known to be better than a random '
        'policy. Let the source learn longer (--num_updates), or take more tasks (--heldout_tasks).'
      )

  def blown_up(self, split: str, name: str) -> np.ndarray:
    """[P, .] bool, at which points every episode of a method blew up, on the tasks that have a score."""
    return np.isnan(self.curves[split][name].returns[:, np.flatnonzero(self.has_score(split, name))])


def evaluate(
  methods: Sequence[Method], family: TaskFamily, *, initial: Method, references: Sequence[Method], seed: int,
  num_tasks: int, folder: files.Path, splits: Sequence[str] = JUDGED_SPLITS, progress: Progress = silent,
) -> Evaluation:
  """Judges methods on tasks of a family that they have not seen.

  Args:
    methods: what is judged, each under its own name.
    family: the task family.
    initial: the policies whose returns count as 0: the last point of their curve. See `controls.random_policies`.
    references: those whose returns count as 1; of several, on each task the best. See `controls.told_everything`.
    seed: of the tasks, the initial policies and the episodes; that of the histories, whose tasks are drawn apart.
    num_tasks: of each split.
    folder: where curves are kept.
    splits: of `tasks.splits.SPLITS`. Settings are chosen on 'validation'; final figures are of `JUDGED_SPLITS`.
    progress: told of the work.

  Raises:
    IncompatibleError: if the folder is of other settings, or two methods have one name.
  """
  folder = pathlib.Path(folder)
  every = {method.name: method for method in (initial, *references)}
  _check_names([*every, *(method.name for method in methods if every.get(method.name) is not method)])
  files.claim(folder, {
    'seed': seed, 'num_tasks': num_tasks, **distribution_of(family), 'episode_length': family.episode_length,
  })
  every |= {method.name: method for method in methods}
  for method in every.values():
    files.claim(folder / method.name, {'num_tasks': method.num_tasks, **method.settings})
  tasks = {split: sample_tasks(family, seed, num_tasks, split) for split in splits}
  curves = {
    split: {
      method.name: _curve(method, split, tasks[split], seed, folder, progress)
      for method in every.values() if method.splits is None or split in method.splits
    }
    for split in splits
  }
  titles = [method.title for method in references]
  return Evaluation(
    family=family.name, backend=family.backend, seed=seed, curves=curves,
    reference=titles[0] if len(titles) == 1 else f'the better of {" and ".join(titles)}',
    bounds={split: _bounds(curves[split], initial, references) for split in splits},
    far_parameter=np.array([name or '' for name in far_parameter(family, tasks['far'])] if 'far' in tasks else [], str),
  )


def _check_names(names: Sequence[str]) -> None:
  for name in names:
    if not _NAME.fullmatch(name):
      raise IncompatibleError(f'A method is named by lower case letters, digits and underscores, not {name!r}.')
    if names.count(name) > 1:
      raise IncompatibleError(f'Several methods are named {name!r}; give each a name of its own.')


def _curve(
  method: Method, split: str, tasks: Task, seed: int, folder: pathlib.Path, progress: Progress
) -> Curve:
  """The curve of a method on the tasks of a split: the one that is kept, or a new one, which is kept."""
  path = folder / method.name / f'{split}.safetensors'
  if not path.exists():
    # The same for all methods: those that begin with `initial_policies` begin with the same ones.
    rng_key = stream(stream(seed, 'evaluation'), split)
    curve = method.run(
      take(tasks, slice(method.num_tasks)), rng_key,
      lambda stage, *done: progress(f'{stage} ({split})', *done),
    )
    files.save_tree(path, {field.name: np.asarray(getattr(curve, field.name)) for field in dataclasses.fields(Curve)})
  return _read_curve(path, batch_size(take(tasks, slice(method.num_tasks))))


def _read_curve(path: pathlib.Path, num_tasks: int) -> Curve:
  """A stored curve of so many tasks; raises `DamagedDataError` for anything else."""
  curve = Curve(**files.load_tree(path, {field.name: None for field in dataclasses.fields(Curve)}))
  points = np.shape(curve.episodes)
  if (
    len(points) != 1 or points == (0,) or np.shape(curve.env_steps) != points
    or np.shape(curve.returns) != (*points, num_tasks)
  ):
    raise DamagedDataError(f'{path} is not a curve on {num_tasks} tasks; delete it and run the evaluation again.')
  return curve


def _bounds(curves: Mapping[str, Curve], initial: Method, references: Sequence[Method]) -> Bounds:
  start = curves[initial.name].returns[-1]
  best = np.fmax.reduce([curves[method.name].returns[-1] for method in references])
  return Bounds(initial=start, reference=best, usable=np.isfinite(start) & np.isfinite(best) & (best > start))
