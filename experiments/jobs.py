"""The main job on one family: collect, train and judge, once for each seed, and join the results."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import forecast, stages
from experiments.sizes import sizes_of
from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.evaluation import results as results_
from metaimprove.evaluation.report import Panel
from metaimprove.files import claim
from metaimprove.improvers import domain_randomised_ppo, independent_ppo, task_conditioned_ppo, tuned
from metaimprove.methods.standard import IMPROVEMENT_SIZES, EvaluationSettings
from metaimprove.operators.checkpoints import is_saved, load_operator, save_operator
from metaimprove.operators.zoo import zoo_card
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.training.settings import TrainingSettings


@dataclasses.dataclass(frozen=True)
class Job:
  """What is done of a family.

  Attributes:
    family: its name.
    backend: its physics backend; None: its first.
    num_tasks: training tasks.
    independent_tasks: how many of them also get a history by PPO from scratch.
    num_checkpoints: levels of a history.
    history_episodes: episodes of experience of a level.
    num_episodes: episodes of experience before each application of the operator.
    num_steps: gradient steps of the operator; None: what suits the family.
    heldout_tasks: held-out tasks, and as many far ones.
    num_applications: of the operator, in a row.
    ppo_tasks: held-out tasks that PPO learns from scratch.
    num_updates: of PPO, told the task or not, instead of the family's tuned numbers.
    controls: whether to train and judge the controls too.
    zoo: the operator that is judged, of those that come with the package; then histories only lead to the reference, a
      task-conditioned learner. None: one is trained.
  """

  family: str
  backend: str | None = None
  num_tasks: int = 1024
  independent_tasks: int = 0
  num_checkpoints: int = 11
  history_episodes: int = 2
  num_episodes: int = 2
  num_steps: int | None = None
  heldout_tasks: int = 128
  num_applications: int = EvaluationSettings.num_applications
  ppo_tasks: int = 16
  num_updates: int | None = None
  controls: bool = True
  zoo: str | None = None

  @classmethod
  def of(cls, family: str, small: bool = False, **given: Any) -> 'Job':
    """The job with the sizes that suit a family, see `sizes_of`; those of `given` replace them."""
    return cls(family=family, **{**sizes_of(family, small), **given})

  def evaluation(self) -> EvaluationSettings:
    """How its operator is judged."""
    return EvaluationSettings(
      num_tasks=self.heldout_tasks, num_applications=self.num_applications, num_episodes=self.num_episodes,
      ppo_tasks=min(self.ppo_tasks, self.heldout_tasks),
    )

  def training(self) -> dict[str, Any]:
    """Fields of `TrainingSettings` that are given."""
    return {} if self.num_steps is None else {'num_steps': self.num_steps}


_FLAGS = (
  'backend', 'num_tasks', 'independent_tasks', 'num_episodes', 'num_steps', 'heldout_tasks', 'num_applications',
  'ppo_tasks', 'num_updates', 'controls',
)


def define_flags() -> None:
  """Flags for backend and sizes of a job; where they are not given, it has those that suit its family."""
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_integer('num_tasks', None, 'Training tasks; what suits the family by default, as all sizes.', 2)
  flags.DEFINE_integer('independent_tasks', None, 'How many of them also get a history by PPO from scratch.', 0)
  flags.DEFINE_integer('num_episodes', None, 'Episodes of experience before each application of the operator.', 1)
  flags.DEFINE_integer('num_steps', None, 'Gradient steps of the operator.', 1)
  flags.DEFINE_integer('heldout_tasks', None, 'Held-out tasks.', 2)
  flags.DEFINE_integer('num_applications', None, 'Of the operator, in a row.', 1)
  flags.DEFINE_integer('ppo_tasks', None, 'Held-out tasks that PPO learns from scratch.', 1)
  flags.DEFINE_integer('num_updates', None, "Updates of PPO and evolution, instead of tuned numbers.", 1)
  flags.DEFINE_bool('controls', None, 'Train and judge the controls too, which is so by default.')


def define_row_flags(folder: str, json: str) -> None:
  """The flags of a binary that writes rows of many families, and those of its jobs."""
  flags.DEFINE_list('families', None, 'Task families.', required=True)
  flags.DEFINE_list('seeds', ['0'], 'Each has histories, operators or controls, and held-out tasks of its own.')
  flags.DEFINE_string('folder', folder, 'Where everything goes, in FOLDER/FAMILY.')
  flags.DEFINE_string('json', json, 'The rows.')
  define_flags()


def families_and_seeds() -> tuple[list[str], list[int]]:
  """What the flags say; raises `UnknownNameError` for a family that does not exist, before any work."""
  for family in flags.FLAGS.families:
    if family not in family_names():
      raise UnknownNameError(f'Task family {family!r} is unknown; choose among: {", ".join(family_names())}.')
  return flags.FLAGS.families, [int(seed) for seed in flags.FLAGS.seeds]


def training_tasks(said: Sequence[str]) -> list[int]:
  """Numbers of tasks that `--training_tasks` says; raises `IncompatibleError` for what is none."""
  if not said or not all(num.isdecimal() and int(num) > 0 for num in said):
    raise IncompatibleError(f'--training_tasks={",".join(said)} must be numbers of tasks from 1 on.')
  return [int(num) for num in said]


def job_with(family: str, num_tasks: int) -> Job:
  """The job that the flags say, with at least so many training tasks; raises `IncompatibleError` if they say fewer."""
  job = Job.of(family, **{'num_tasks': num_tasks, **given()})
  if job.num_tasks < num_tasks:
    raise IncompatibleError(
      f'--num_tasks={job.num_tasks} must be at least {num_tasks}, the tasks that are needed.'
    )
  return job


def given() -> dict[str, Any]:
  """Fields of a job for which a flag was given."""
  return {name: flags.FLAGS[name].value for name in _FLAGS if flags.FLAGS[name].value is not None}


@dataclasses.dataclass(frozen=True)
class Folders:
  """Where the parts of one seed go.

  Attributes:
    histories, training, operator, evaluation: see `run_seed`.
  """

  histories: pathlib.Path
  training: pathlib.Path
  operator: pathlib.Path
  evaluation: pathlib.Path

  @classmethod
  def of(cls, folder: pathlib.Path) -> 'Folders':
    """Those in a folder."""
    return cls(**{field.name: folder / field.name for field in dataclasses.fields(cls)})


def seed_folders(folder: pathlib.Path, seeds: Sequence[int]) -> list[Folders]:
  """Of each seed: in the folder itself if there is one, in FOLDER/seed_N if there are several."""
  return [Folders.of(folder / f'seed_{seed}' if len(seeds) > 1 else folder) for seed in seeds]


def run_seed(job: Job, seed: int, folders: Folders, wall: pathlib.Path) -> stages.Judged:
  """Collects, trains and judges, from where it was; seconds are kept in the folder `wall`."""
  named = {'family': job.family, 'backend': job.backend}
  collect(job, seed, folders.histories, wall)
  if job.zoo is None:
    stages.train_once(
      folders.training, folders.histories, **named, seed=seed, config={'num_episodes': job.num_episodes},
      settings=job.training(), num_updates=job.num_updates, operator_folder=folders.operator, wall=wall,
    )
  elif not is_saved(folders.operator):
    save_operator(folders.operator, *load_operator(job.zoo, make_family(job.family, job.backend)))
  judged = stages.judge_operator(
    folders.evaluation, folders.operator, folders.histories, family=make_family(job.family, job.backend),
    settings=job.evaluation(), controls=job.controls, num_updates=job.num_updates,
    training=folders.training if job.zoo is None else None, wall=wall,
  )
  if job.zoo is None:
    return judged
  return dataclasses.replace(judged, env_steps=zoo_card(job.zoo)['training_env_steps'])


def collect(job: Job, seed: int, histories: pathlib.Path, wall: pathlib.Path) -> None:
  """Collects the histories of one seed."""
  stages.collect_histories(
    histories, family=job.family, backend=job.backend, seed=seed, num_checkpoints=job.num_checkpoints,
    num_episodes=job.history_episodes, num_updates=job.num_updates, shard_size=min(128, job.num_tasks), wall=wall,
    num_tasks={task_conditioned_ppo.NAME: job.num_tasks, independent_ppo.NAME: job.independent_tasks},
  )


def run(job: Job, seeds: Sequence[int], folder: pathlib.Path) -> Panel:
  """The job for each seed, and what a report tells of all of them; goes on where it was, and only reads what is done.

  Writes results.json and films.json to the folder.

  Raises:
    IncompatibleError: if the folder is of another job.
    NoScoreError: if there is nothing to show.
  """
  family, parts = make_family(job.family, job.backend), seed_folders(folder, seeds)
  needed = expected(job, len(seeds))  # what is refused must be so before the folder is taken
  claim(folder, {**dataclasses.asdict(job), 'seeds': list(seeds)})
  if not (folder / 'results.json').exists():
    print(needed)
    judged = []
    for seed, part in zip(seeds, parts):
      judged.append(run_seed(job, seed, part, folder))
      if len(seeds) > 1:
        stages.tidy(part.training, part.evaluation)
    stages.write_results(
      folder, judged, family=family, histories=parts[0].histories if job.zoo is None else None,
      settings=job.evaluation(), wall=folder,
    )
  for part in parts:  # also where results exist: a run may have been killed between writing them and this
    stages.tidy(part.training, part.evaluation)
  results = results_.read(folder / 'results.json')
  results.check_scored()
  panel = stages.show_operator(folder, parts[0].operator, results, family=family, settings=job.evaluation())
  return panel if job.zoo is None else dataclasses.replace(panel, made_by=zoo_card(job.zoo)['command'])


def expected(job: Job, num_seeds: int) -> forecast.Forecast:
  """What the job will take."""
  family, settings = make_family(job.family, job.backend), job.evaluation()
  training, trained = TrainingSettings.of(family, job.num_tasks, **job.training()), job.zoo is None
  learning = {
    tuned.make_source(task_conditioned_ppo.NAME, family, num_updates=job.num_updates): 1,
    tuned.make_source(independent_ppo.NAME, family, num_updates=job.num_updates): (
      job.independent_tasks + settings.ppo_tasks
    ),
  }
  if job.controls:
    learning[tuned.make_source(domain_randomised_ppo.NAME, family, num_updates=job.num_updates)] = 1
  if trained and family.practice_reward is not None:
    explorer = domain_randomised_ppo.domain_randomised_ppo(
      family, tuned.explorer_settings(family), job.num_updates or tuned.EXPLORER_UPDATES
    )
    learning[explorer] = tuned.EXPLORERS
  points = 4 + job.controls, (len(IMPROVEMENT_SIZES) - 1)
  few = min(settings.improvement_applications, settings.num_applications)
  num_judged = settings.num_tasks * (points[0] * settings.num_applications + points[1] * few)
  return forecast.forecast(
    family, learning=learning, num_histories=job.num_tasks + job.independent_tasks,
    num_checkpoints=job.num_checkpoints, history_episodes=job.history_episodes, num_episodes=job.num_episodes,
    num_steps=training.num_steps * (trained + job.controls), num_judged=num_judged,
    iterates=trained * len(training.rounds) * training.round_tasks * (training.round_applications + 1),
    num_seeds=num_seeds,
  )
