"""The main job, end to end: tasks, histories, operator, held-out tasks, report.

Simulates a distribution of tasks, records how policies improve on them, trains an operator, applies it again and again
on held-out tasks, and compares it with PPO from scratch and with controls. Can be stopped at any moment; run again, it
goes on where it was.

  python -m experiments.quickstart --folder=runs/quickstart

With several seeds each has histories, an operator and held-out tasks of its own, in FOLDER/seed_N:

  python -m experiments.quickstart --folder=runs/three --num_seeds=3
"""

import pathlib

from absl import flags

from experiments import console, stages
from experiments.forecast import Forecast, forecast
from metaimprove.evaluation import results as results_
from metaimprove.files import claim
from metaimprove.improvers import domain_randomised_ppo, independent_ppo, task_conditioned_ppo, tuned
from metaimprove.methods.standard import IMPROVEMENT_SIZES, EvaluationSettings
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.training.settings import TrainingSettings

FLAGS = flags.FLAGS
NUM_CHECKPOINTS, NUM_EPISODES = 11, 2

if __name__ == '__main__':
  flags.DEFINE_string('folder', 'runs/quickstart', 'Where everything goes.')
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_integer('seed', 0, 'Of everything; the first one of several.')
  flags.DEFINE_integer('num_seeds', 1, 'How many seeds; all is done once for each.', 1)
  flags.DEFINE_integer('num_tasks', 1024, 'Training tasks.', 2)
  flags.DEFINE_integer('independent_tasks', 0, 'How many of them also get a history by PPO from scratch.', 0)
  flags.DEFINE_integer('num_steps', TrainingSettings.num_steps, 'Gradient steps of the operator.', 1)
  flags.DEFINE_integer('heldout_tasks', 128, 'Held-out tasks.', 2)
  flags.DEFINE_integer('num_applications', EvaluationSettings.num_applications, 'Of the operator, in a row.', 1)
  flags.DEFINE_integer('ppo_tasks', 16, 'Held-out tasks that PPO learns from scratch.', 1)
  flags.DEFINE_integer('num_updates', None, "PPO updates, instead of the family's tuned number.", 1)
  flags.DEFINE_bool('controls', True, 'Train and judge the controls too.')


def run_seed(
  folder: pathlib.Path, seed: int, settings: EvaluationSettings, family: TaskFamily
) -> stages.Judged:
  """Collects, trains and judges; returns what `judge_operator` does."""
  shared = {'family': FLAGS.family, 'backend': FLAGS.backend}
  wall = pathlib.Path(FLAGS.folder)
  histories, training, operator = folder / 'histories', folder / 'training', folder / 'operator'
  stages.collect_histories(
    histories, **shared, seed=seed, num_checkpoints=NUM_CHECKPOINTS, num_episodes=NUM_EPISODES,
    num_tasks={task_conditioned_ppo.NAME: FLAGS.num_tasks, independent_ppo.NAME: FLAGS.independent_tasks},
    shard_size=min(128, FLAGS.num_tasks), num_updates=FLAGS.num_updates, wall=wall,
  )
  if not (operator / 'config.json').exists():  # it is written last, and the states of a training may be gone by then
    stages.train_operator(
      training, histories, **shared, seed=seed, num_steps=FLAGS.num_steps, operator_folder=operator, wall=wall,
    )
  judged = stages.judge_operator(
    folder / 'evaluation', operator, histories, family=family, settings=settings, controls=FLAGS.controls,
    num_updates=FLAGS.num_updates, training=training, wall=wall,
  )
  if FLAGS.num_seeds > 1:
    stages.tidy(training, folder / 'evaluation')
  return judged


def expected(family: TaskFamily, settings: EvaluationSettings) -> Forecast:
  """What the run will take."""
  training = TrainingSettings.of(family, FLAGS.num_tasks, num_steps=FLAGS.num_steps)
  learning = {
    tuned.make_source(task_conditioned_ppo.NAME, family, num_updates=FLAGS.num_updates): 1,
    tuned.make_source(independent_ppo.NAME, family, num_updates=FLAGS.num_updates): (
      FLAGS.independent_tasks + settings.ppo_tasks
    ),
  }
  if FLAGS.controls:
    learning[tuned.make_source(domain_randomised_ppo.NAME, family, num_updates=FLAGS.num_updates)] = 1
  points = 3 + FLAGS.controls, (len(IMPROVEMENT_SIZES) - 1)
  few = min(settings.improvement_applications, settings.num_applications)
  num_judged = settings.num_tasks * (points[0] * settings.num_applications + points[1] * few)
  return forecast(
    family, learning=learning, num_histories=FLAGS.num_tasks + FLAGS.independent_tasks,
    num_checkpoints=NUM_CHECKPOINTS, num_episodes=NUM_EPISODES, num_steps=FLAGS.num_steps * (1 + FLAGS.controls),
    iterates=len(training.rounds) * training.round_tasks * (training.round_applications + 1), num_judged=num_judged,
    num_seeds=FLAGS.num_seeds,
  )


def main():
  folder = pathlib.Path(FLAGS.folder)
  names = ('family', 'backend', 'seed', 'num_seeds', 'num_tasks', 'independent_tasks', 'num_steps', 'heldout_tasks',
           'num_applications', 'ppo_tasks', 'num_updates', 'controls')
  family = make_family(FLAGS.family, FLAGS.backend)  # what is refused must be so before the folder is taken
  settings = EvaluationSettings(
    num_tasks=FLAGS.heldout_tasks, num_applications=FLAGS.num_applications,
    ppo_tasks=min(FLAGS.ppo_tasks, FLAGS.heldout_tasks),
  )
  claim(folder, {name: FLAGS[name].value for name in names})
  seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds)
  parts = [folder / f'seed_{seed}' if FLAGS.num_seeds > 1 else folder for seed in seeds]
  if not all((folder / name).exists() for name in ('results.json', 'report.html')):
    print(expected(family, settings))
    judged = [run_seed(part, seed, settings, family) for part, seed in zip(parts, seeds)]
    stages.write_results(
      folder, judged, family=family, operator_folder=parts[0] / 'operator', histories=parts[0] / 'histories',
      settings=settings, wall=folder, commands=[console.command_line()],
    )
  for part in parts:  # also where results exist: a run may have been killed between writing them and this
    stages.tidy(part / 'training', part / 'evaluation')
  console.print_results(results_.read(folder / 'results.json'))
  first = parts[0]
  print(f'Report:       {folder}/report.html')
  print(f'Figures:      {folder}/results.json')
  print(f'TensorBoard:  tensorboard --logdir={first}/training/tensorboard')
  print(f'Operator:     {first}/operator')


if __name__ == '__main__':
  console.launch(main)
