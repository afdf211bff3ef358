"""Judges an operator on tasks it has never seen, beside PPO from scratch and controls.

Writes results.json and report.html. Can be stopped at any moment; run again, it goes on where it was. Controls are
policies that are told something, or know nothing; two of them are trained here, which takes about as long as the
operator took.

  python -m experiments.evaluate_operator --operator=runs/mine/training/operator --histories=runs/mine/histories
"""

import pathlib

from absl import flags

from experiments import console, stages
from metaimprove.asks import steps
from metaimprove.evaluation.report import write_report
from metaimprove.methods.standard import EvaluationSettings
from metaimprove.operators import checkpoints
from metaimprove.tasks.registry import family_names, make_family

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('operator', 'runs/mine/training/operator', 'Its folder, or the name of one that comes along.')
  flags.DEFINE_string('histories', 'runs/mine/histories', 'Histories of the family: they hold the reference policies.')
  flags.DEFINE_string('folder', 'runs/mine/evaluation', 'Where results.json and report.html go.')
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_integer('num_tasks', 128, 'Held-out tasks, and as many far ones.', 2)
  flags.DEFINE_integer('num_applications', 30, 'Of the operator, in a row.', 1)
  flags.DEFINE_integer('num_episodes', None, "Of experience before each application; the operator's by default.", 1)
  flags.DEFINE_string('ask', 'best', "What is asked for: 'best' or a number of levels.")
  flags.DEFINE_integer('ppo_tasks', 16, 'Held-out tasks that PPO learns from scratch.', 1)
  flags.DEFINE_integer(
    'num_updates', None, "Updates of PPO from scratch and of a control, instead of the family's tuned numbers.", 1
  )
  flags.DEFINE_bool('controls', True, 'Train and judge the controls too.')
  flags.DEFINE_string(
    'training', None, 'Folder in which the operator was trained: a control learns from its rounds too, and its '
    'environment steps are counted. By default the folder above the operator, if it holds rounds.'
  )
  flags.DEFINE_bool('thorough', False, 'PPO from scratch on every held-out and far task; takes long.')


def training_folder() -> pathlib.Path | None:
  """The folder in which the operator was trained, if it is known."""
  if FLAGS.training:
    return pathlib.Path(FLAGS.training)
  operator = pathlib.Path(FLAGS.operator)
  return operator.parent if operator.exists() and any(operator.parent.glob('runs_*.safetensors')) else None


def main():
  folder, operator = pathlib.Path(FLAGS.folder), FLAGS.operator
  histories = pathlib.Path(FLAGS.histories)
  family = make_family(FLAGS.family, FLAGS.backend)
  num_episodes = FLAGS.num_episodes or checkpoints.load_operator(operator, family)[0].config.num_episodes
  settings = EvaluationSettings(
    num_tasks=FLAGS.num_tasks, num_applications=FLAGS.num_applications, num_episodes=num_episodes,
    steps=steps.words(steps.value(FLAGS.ask)), ppo_tasks=min(FLAGS.ppo_tasks, FLAGS.num_tasks),
    thorough=FLAGS.thorough,
  )
  judged = stages.judge_operator(
    folder, operator, histories, family=family, settings=settings, controls=FLAGS.controls,
    num_updates=FLAGS.num_updates, training=training_folder(),
  )
  results = stages.write_results(
    folder, [judged], family=family, histories=histories, settings=settings, wall=folder
  )
  panel = stages.show_operator(folder, operator, results, family=family, settings=settings)
  write_report(folder / 'report.html', panel, [console.command_line()])
  console.print_results(results)
  print(f'The report is {folder}/report.html, the figures are in {folder}/results.json.')


if __name__ == '__main__':
  console.launch(main)
