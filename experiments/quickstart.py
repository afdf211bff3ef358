"""The main job, end to end: tasks, histories, operator, held-out tasks, report.

Simulates a distribution of tasks, records how policies improve on them, trains an operator, applies it again and again
on held-out tasks, and compares it with PPO from scratch and with controls. Can be stopped at any moment; run again, it
goes on where it was.

  python -m experiments.quickstart --folder=runs/quickstart

With several seeds each has histories, an operator and held-out tasks of its own, in FOLDER/seed_N:

  python -m experiments.quickstart --folder=runs/three --num_seeds=3

How large all is depends on the family, see `sizes.py`, and flags replace that. Beside the default family a second one,
which needs exploring, is shown in short; it is in FOLDER/FAMILY.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import console, jobs
from experiments.jobs import Job
from metaimprove.evaluation.report import Panel, write_report
from metaimprove.files import claim
from metaimprove.tasks.registry import family_names

FLAGS = flags.FLAGS
FIRST_FAMILY, SECOND_FAMILY = 'reacher_goal', 'point_goal_sparse_h20'
_SIZES = (
  'num_tasks', 'independent_tasks', 'num_episodes', 'num_steps', 'heldout_tasks', 'num_applications', 'ppo_tasks',
  'num_updates', 'controls',
)
"""Flags that are fields of a job."""

if __name__ == '__main__':
  flags.DEFINE_string('folder', 'runs/quickstart', 'Where everything goes.')
  flags.DEFINE_enum('family', FIRST_FAMILY, family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_integer('seed', 0, 'Of everything; the first one of several.')
  flags.DEFINE_integer('num_seeds', 1, 'How many seeds; all is done once for each.', 1)
  flags.DEFINE_integer('num_tasks', None, 'Training tasks; what suits the family by default, as all sizes below.', 2)
  flags.DEFINE_integer('independent_tasks', None, 'How many of them also get a history by PPO from scratch.', 0)
  flags.DEFINE_integer('num_episodes', None, 'Episodes of experience before each application of the operator.', 1)
  flags.DEFINE_integer('num_steps', None, 'Gradient steps of the operator.', 1)
  flags.DEFINE_integer('heldout_tasks', None, 'Held-out tasks.', 2)
  flags.DEFINE_integer('num_applications', None, 'Of the operator, in a row.', 1)
  flags.DEFINE_integer('ppo_tasks', None, 'Held-out tasks that PPO learns from scratch.', 1)
  flags.DEFINE_integer('num_updates', None, "PPO updates, instead of the family's tuned number.", 1)
  flags.DEFINE_bool('controls', None, 'Train and judge the controls too; by default of the first family.')
  flags.DEFINE_enum(
    'second_family', None, ('', *family_names()),
    f"Another family to show beside; by default {SECOND_FAMILY} beside {FIRST_FAMILY}, '' for none."
  )


def second_family() -> str:
  """The family that is shown beside, '' for none."""
  if FLAGS.second_family is not None:
    return FLAGS.second_family
  return SECOND_FAMILY if FLAGS.family == FIRST_FAMILY else ''


def run(job: Job, seeds: Sequence[int], folder: pathlib.Path) -> Panel:
  """Runs a job in a folder that is taken for it."""
  forecast = jobs.expected(job, len(seeds))  # what is refused must be so before the folder is taken
  claim(folder, {**dataclasses.asdict(job), 'seeds': list(seeds)})
  if not (folder / 'results.json').exists():
    print(forecast)
  return jobs.run(job, seeds, folder)


def main():
  folder, given = pathlib.Path(FLAGS.folder), {name: FLAGS[name].value for name in _SIZES}
  job = Job.of(FLAGS.family, backend=FLAGS.backend, **given)
  seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds)
  panel, commands = run(job, seeds, folder), [console.command_line()]
  write_report(folder / 'report.html', panel, commands)
  console.print_results(panel.results)
  if name := second_family():
    second = run(Job.of(name, small=True, **given), seeds[:1], folder / name)
    write_report(folder / 'report.html', panel, commands, second)
    console.print_summary(second.results)
  first = jobs.seed_folders(folder, seeds)[0]
  print(f'Report:       {folder}/report.html')
  print(f'Figures:      {folder}/results.json')
  print(f'TensorBoard:  tensorboard --logdir={first.training}/tensorboard')
  print(f'Operator:     {first.operator}')


if __name__ == '__main__':
  console.launch(main)
