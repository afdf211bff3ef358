"""Judges an operator on tasks it has never seen, beside PPO from scratch and with shuffled experience as control.

Writes results.json and report.html. Can be stopped at any moment; run again, it goes on where it was.

  python -m experiments.evaluate_operator --operator=runs/mine/training/operator --histories=runs/mine/histories
"""

import pathlib

from absl import flags

from experiments import console, stages
from metaimprove.evaluation.evaluate import EvaluationSettings
from metaimprove.asks import steps as asks
from metaimprove.tasks.registry import family_names

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('operator', 'runs/mine/training/operator', 'Folder of the operator.')
  flags.DEFINE_string('histories', 'runs/mine/histories', 'Its histories: they hold the reference policies.')
  flags.DEFINE_string('folder', 'runs/mine/evaluation', 'Where results.json and report.html go.')
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_integer('num_tasks', 128, 'Held-out tasks, and as many far ones.', 2)
  flags.DEFINE_integer('num_applications', 30, 'Of the operator, in a row.', 1)
  flags.DEFINE_integer('num_episodes', 2, 'Episodes of experience before each application.', 1)
  flags.DEFINE_string('ask', 'best', "What is asked for: 'best' or a number of checkpoints.")
  flags.DEFINE_integer('ppo_tasks', 16, 'Held-out tasks that PPO learns from scratch.', 1)
  flags.DEFINE_integer('ppo_updates', None, "Its updates, instead of the family's tuned number.", 1)
  flags.DEFINE_bool('thorough', False, 'PPO from scratch on every held-out and far task; takes long.')


def main():
  folder = pathlib.Path(FLAGS.folder)
  settings = EvaluationSettings(
    num_tasks=FLAGS.num_tasks, num_applications=FLAGS.num_applications, num_episodes=FLAGS.num_episodes,
    ask=asks.parse(FLAGS.ask), ppo_tasks=min(FLAGS.ppo_tasks, FLAGS.num_tasks), thorough=FLAGS.thorough,
  )
  results = stages.evaluate_operator(
    folder, pathlib.Path(FLAGS.operator), pathlib.Path(FLAGS.histories), family=FLAGS.family, backend=FLAGS.backend,
    settings=settings, commands=[console.command_line()], ppo_updates=FLAGS.ppo_updates,
  )
  console.print_results(results)
  print(f'The report is {folder}/report.html, the figures are in {folder}/results.json.')


if __name__ == '__main__':
  console.launch(main)
