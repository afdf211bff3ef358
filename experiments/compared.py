"""Which baselines are compared, what each is given, and how its settings are chosen on validation tasks."""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments import console
from experiments.jobs import Folders, Job
from experiments.judging import playground_of
from metaimprove import files
from metaimprove.errors import NonFiniteLossError
from metaimprove.evaluation.comparison import AFTER, scores_after
from metaimprove.evaluation.evaluate import evaluate
from metaimprove.histories.dataset import Dataset, load_dataset
from metaimprove.histories.reference import load_conditioned
from metaimprove.improvers import evolution, tuned
from metaimprove.methods import controls
from metaimprove.methods.baseline import Baseline, Lessons, count_params
from metaimprove.methods.cloned_best import cloned_best
from metaimprove.methods.cloned_experience import cloned_experience
from metaimprove.methods.in_context.algorithm_distillation import algorithm_distillation
from metaimprove.methods.in_context.decision_pretrained import decision_pretrained
from metaimprove.methods.in_context.decision_transformer import decision_transformer, prompted_decision_transformer
from metaimprove.methods.method import Method
from metaimprove.methods.rl2 import RL2Settings, rl2
from metaimprove.methods.standard import Playground, from_scratch
from metaimprove.methods.task_told import task_told
from metaimprove.methods.weights_only import weights_only
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.operator import Operator
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family
from metaimprove.training import loop
from metaimprove.training.examples import split_histories
from metaimprove.training.fit import FitSettings
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Progress

RATES = (3e-4, 1e-3, 2e-3)
"""Learning rates that are tried for each baseline on validation tasks."""
_TRIAL = 8
"""A trial has so many times fewer steps."""
_TRIAL_TASKS = 64
_TIMED_STEPS = 100
_EPISODES_AHEAD = 5


@dataclasses.dataclass(frozen=True)
class Setting:
  """What the baselines of one seed have in common.

  Attributes:
    job: the main job.
    family: the task family.
    seed: of everything.
    operator, operator_params: of the main job.
    dataset: the operator's histories.
    playground: where methods act.
    initial, references: of the evaluation.
    folder: for what baselines learn, and what is chosen for them.
  """

  job: Job
  family: TaskFamily
  seed: int
  operator: Operator
  operator_params: Any
  dataset: Dataset
  playground: Playground
  initial: Method
  references: list[Method]
  folder: pathlib.Path

  @classmethod
  def of(cls, job: Job, seed: int, parts: Folders, folder: pathlib.Path) -> 'Setting':
    """That of a main job that is done."""
    family = make_family(job.family, job.backend)
    operator, operator_params = load_operator(parts.operator, family)
    conditioned, learning, _ = load_conditioned(parts.histories, family)
    playground = playground_of(job, family, operator.policy)
    measure = playground.measure()
    return cls(
      job=job, family=family, seed=seed, operator=operator, operator_params=operator_params,
      dataset=load_dataset(parts.histories, family, verify=False), playground=playground,
      initial=controls.random_policies(operator.policy, *measure),
      references=[controls.told_everything(conditioned, learning.snapshots[-1], *measure)], folder=folder,
    )

  @property
  def training(self) -> TrainingSettings:
    """Of the operator."""
    tasks = len(np.unique(self.dataset.task_index))
    return TrainingSettings.of(
      self.family, tasks, asks=self.operator.config.asks, **self.job.training()
    )

  def lessons(self, folder: pathlib.Path, *, num_steps: int | None = None, rate: float | None = None) -> Lessons:
    """What a baseline learns from, in so many steps of a learning rate; those of the operator by default."""
    training = self.training
    return Lessons(
      family=self.family, dataset=self.dataset, histories=split_histories(self.dataset, training.num_validation)[0],
      config=self.operator.config, num_params=count_params(self.operator_params['network']), seed=self.seed,
      settings=FitSettings(
        num_steps=num_steps or training.num_steps, batch_size=training.batch_size,
        learning_rate=rate or training.learning_rate,
      ),
      folder=folder, num_applications=self.job.num_applications, num_states=training.num_states,
    )


Build = Callable[[Lessons, Setting], Baseline]
"""Makes a baseline from what it learns from, in a setting."""


def _again(build: Callable[..., Baseline]) -> Build:
  """Of baselines that give one policy after another."""
  return lambda lessons, setting: build(lessons, setting.playground.play)


def _alone(build: Callable[[Lessons], Baseline]) -> Build:
  """Of baselines that carry what they know through the episodes of a task."""
  return lambda lessons, setting: build(lessons)


# Policies that stay as they are are measured over as many episodes as a point of the others.
def _cloned_best(lessons: Lessons, setting: Setting) -> Baseline:
  return cloned_best(lessons, num_episodes=setting.job.num_episodes)


def _task_told(lessons: Lessons, setting: Setting) -> Baseline:
  return task_told(lessons, setting.playground.play, num_episodes=setting.job.num_episodes)


def _rl2(lessons: Lessons, setting: Setting) -> Baseline:
  updates = setting.job.num_updates
  given = {} if updates is None else {'num_updates': updates, 'snapshot_updates': updates}
  # It looks as many episodes ahead as where its settings were chosen, whose episodes have 20 steps.
  return rl2(lessons, RL2Settings(discounting=1 - 1 / (_EPISODES_AHEAD * setting.family.episode_length), **given))


def _evolution(lessons: Lessons, setting: Setting) -> Baseline:
  source = tuned.make_source(
    evolution.NAME, setting.family, setting.operator.config.hidden_sizes, num_updates=setting.job.num_updates
  )
  method = from_scratch(
    source, setting.playground, lessons.folder / 'learning', name=evolution.NAME,
    title='evolution strategy from scratch',
  )
  return Baseline(method=method, train=lambda progress: {}, acting=None)


BASELINES: Mapping[str, Build] = {
  evolution.NAME: _evolution,
  'cloned_best': _cloned_best, 'cloned_experience': _again(cloned_experience), 'weights_only': _again(weights_only),
  'task_told': _task_told, 'algorithm_distillation': _alone(algorithm_distillation),
  'decision_pretrained': _alone(decision_pretrained), 'decision_transformer': _alone(decision_transformer),
  'prompted_decision_transformer': _alone(prompted_decision_transformer), 'rl2': _rl2,
}
"""Name -> how it is made."""


def chosen_rate(setting: Setting, name: str) -> float | None:
  """The learning rate of a baseline, chosen among `RATES` by short trials on validation tasks, once; None for one whose
  learning does not follow from the lessons' settings."""
  if BASELINES[name](setting.lessons(setting.folder), setting).examples_a_step is None:
    return None
  return _known(setting, name, lambda: _choose(setting, name))['learning_rate']


def steps_in_our_time(setting: Setting, name: str, gradient_share: float) -> int:
  """How many gradient steps a baseline takes in the time in which the operator learned.

  Args:
    setting: the setting.
    name: of the baseline, whose learning rate is chosen.
    gradient_share: share of that time that went into gradient steps.
  """
  ours = _known(setting, 'operator', lambda: _time_operator(setting))['seconds_a_step']
  theirs = _known(setting, name, lambda: _choose(setting, name))['seconds_a_step']
  return max(1, round(setting.training.num_steps / gradient_share * ours / theirs))


def _known(setting: Setting, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """What is kept under a name, or is found now."""
  path = setting.folder / 'chosen' / f'{name}.json'
  if not path.exists():
    files.write_json(path, find())
  return files.read_json(path)


class StepTimer:
  """A `Progress` that also tells how long a step takes, without the first one, in which programs are compiled.

  On a CPU it counts the time of the process alone, of all its threads, so that other work on the machine does not
  matter.
  """

  def __init__(self, progress: Progress):
    self._progress, self._marks = progress, []
    self._clock = time.process_time if jax.default_backend() == 'cpu' else time.perf_counter

  def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    self._progress(stage, done, total, figures)
    self._marks.append((done, self._clock()))

  def seconds_a_step(self) -> float:
    """Of at least two steps."""
    (first, began), (last, ended) = self._marks[0], self._marks[-1]
    return (ended - began) / (last - first)


def _timed(setting: Setting, name: str, train: Callable[[pathlib.Path, Progress], Any]) -> float:
  """The seconds of a step of a short training that is not kept."""
  with console.stage(setting.folder, f'time {name}') as progress, tempfile.TemporaryDirectory() as folder:
    train(pathlib.Path(folder), timer := StepTimer(progress))
  return timer.seconds_a_step()


def _choose(setting: Setting, name: str) -> dict[str, Any]:
  """The trials of a baseline, the learning rate that was best, and the seconds of a step. A learning rate at which the
  loss is not finite has no score."""
  scores: dict[float, float | None] = {}
  for rate in RATES:
    folder = setting.folder / f'trial_{rate:g}'
    num_steps = max(1, setting.training.num_steps // _TRIAL)
    lessons = setting.lessons(folder, num_steps=num_steps, rate=rate)
    baseline = BASELINES[name](dataclasses.replace(lessons, num_applications=_applications(setting)), setting)
    try:
      with console.stage(folder, f'train {name}') as progress:
        baseline.train(progress)
      scores[rate] = _score(setting, baseline, folder)
    except NonFiniteLossError:
      scores[rate] = None

  def train(folder: pathlib.Path, progress: Progress) -> None:
    BASELINES[name](setting.lessons(folder, num_steps=_TIMED_STEPS), setting).train(progress)

  if all(score is None for score in scores.values()):
    raise NonFiniteLossError(f'The loss of {name} is not finite at any of the learning rates {RATES}.')
  return {
    'trials': {str(rate): score for rate, score in scores.items()}, 'seconds_a_step': _timed(setting, name, train),
    'learning_rate': max((rate for rate in RATES if scores[rate] is not None), key=scores.get),
  }


def _score(setting: Setting, baseline: Baseline, folder: pathlib.Path) -> float:
  """The mean score on validation tasks after `AFTER` episodes."""
  name = baseline.method.name
  with console.stage(folder, f'judge {name}') as progress:
    found = evaluate(
      [dataclasses.replace(baseline.method, splits=None)], setting.family, initial=setting.initial,
      references=setting.references, seed=setting.seed, num_tasks=min(_TRIAL_TASKS, setting.job.heldout_tasks),
      folder=folder / 'evaluation', splits=('validation',), progress=progress,
    )
  return round(float(np.mean([scores_after(found, 'validation', name, n).mean() for n in AFTER])), 4)


def _time_operator(setting: Setting) -> dict[str, Any]:
  """The seconds of a gradient step of the operator, without rounds."""
  settings = dataclasses.replace(
    setting.training, num_steps=_TIMED_STEPS, rounds=(), num_evaluations=0, tries_share=0.0
  )

  def train(folder: pathlib.Path, progress: Progress) -> None:
    loop.train(
      setting.operator, setting.playground.play, setting.dataset, settings, seed=setting.seed, folder=folder,
      progress=progress,
    )

  return {'seconds_a_step': _timed(setting, 'operator', train)}


def _applications(setting: Setting) -> int:
  """As many as `AFTER` needs."""
  return min(setting.job.num_applications, -(-max(AFTER) // setting.job.num_episodes))
