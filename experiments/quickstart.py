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

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments import console, jobs
from experiments.jobs import Job
from experiments.sizes import sizes_of
from metaimprove.evaluation.report import write_report
from metaimprove.tasks.registry import family_names

FLAGS = flags.FLAGS
FIRST_FAMILY, SECOND_FAMILY = 'reacher_goal', 'point_goal_sparse_h20'
_OF_TRAINING = ('num_tasks', 'independent_tasks', 'num_steps', 'num_episodes', 'controls')

if __name__ == '__main__':
  flags.DEFINE_string('folder', 'runs/quickstart', 'Where everything goes.')
  flags.DEFINE_enum('family', FIRST_FAMILY, family_names(), 'Task family.')
  flags.DEFINE_integer('seed', 0, 'Of everything; the first one of several.')
  flags.DEFINE_integer('num_seeds', 1, 'How many seeds; all is done once for each.', 1)
  flags.DEFINE_enum(
    'second_family', None, ('', *family_names()),
    f"Another family to show beside; by default {SECOND_FAMILY} beside {FIRST_FAMILY}, '' for none."
  )
  jobs.define_flags()
  flags.adopt_module_key_flags(jobs)


def second_family() -> str:
  """The family that is shown beside, '' for none."""
  if FLAGS.second_family is not None:
    return FLAGS.second_family
  return SECOND_FAMILY if FLAGS.family == FIRST_FAMILY else ''


def second_job(name: str, given: Mapping[str, Any]) -> Job:
  """The job of the family that is shown beside. Its backend is its own, and flags of training and of controls are not
  for an operator that comes with the package."""
  not_its_own = {'backend', *(_OF_TRAINING if sizes_of(name, small=True).get('zoo') else ())}
  return Job.of(name, small=True, **{flag: value for flag, value in given.items() if flag not in not_its_own})


def main():
  folder, given = pathlib.Path(FLAGS.folder), jobs.given()
  seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds)
  panel = jobs.run(Job.of(FLAGS.family, **given), seeds, folder)
  commands = [console.command_line()]
  write_report(folder / 'report.html', panel, commands)
  console.print_results(panel.results)
  if name := second_family():
    second = jobs.run(second_job(name, given), seeds[:1], folder / name)
    write_report(folder / 'report.html', panel, commands, second)
    console.print_summary(second.results)
  first = jobs.seed_folders(folder, seeds)[0]
  print(f'Report:       {folder}/report.html')
  print(f'Figures:      {folder}/results.json')
  print(f'TensorBoard:  tensorboard --logdir={first.training}/tensorboard')
  print(f'Operator:     {first.operator}')


if __name__ == '__main__':
  console.launch(main)
