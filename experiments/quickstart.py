"""The main job, end to end: tasks, histories, operator, held-out tasks, report.

Simulates a distribution of tasks, records how policies improve on them, trains an operator, applies it again and again
on held-out tasks, and compares it with PPO from scratch. Can be stopped at any moment; run again, it goes on where it
was.

  python -m experiments.quickstart --folder=runs/quickstart
"""

import pathlib

from absl import flags

from experiments import console, stages
from metaimprove import files
from metaimprove.evaluation.evaluate import EvaluationSettings
from metaimprove.files import claim
from metaimprove.improvers import independent_ppo, task_conditioned_ppo
from metaimprove.tasks.registry import family_names, make_family

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('folder', 'runs/quickstart', 'Where everything goes.')
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_integer('seed', 0, 'Of everything.')
  flags.DEFINE_integer('num_tasks', 1024, 'Training tasks.', 2)
  flags.DEFINE_integer('independent_tasks', 0, 'How many of them also get a history by PPO from scratch.', 0)
  flags.DEFINE_integer('num_steps', stages.NUM_STEPS, 'Gradient steps of the operator.', 1)
  flags.DEFINE_integer('heldout_tasks', 128, 'Held-out tasks.', 2)
  flags.DEFINE_integer('ppo_tasks', 16, 'Held-out tasks that PPO learns from scratch.', 1)
  flags.DEFINE_integer('num_updates', None, "PPO updates, instead of the family's tuned number.", 1)


def main():
  folder = pathlib.Path(FLAGS.folder)
  names = ('family', 'backend', 'seed', 'num_tasks', 'independent_tasks', 'num_steps', 'heldout_tasks', 'ppo_tasks',
           'num_updates')
  make_family(FLAGS.family, FLAGS.backend)  # what is refused must be so before the folder is taken
  claim(folder, {name: FLAGS[name].value for name in names})
  if not (folder / 'results.json').exists():
    shared = {'family': FLAGS.family, 'backend': FLAGS.backend}
    stages.collect_histories(
      folder / 'histories', **shared, seed=FLAGS.seed, num_checkpoints=11, num_episodes=2,
      num_tasks={task_conditioned_ppo.NAME: FLAGS.num_tasks, independent_ppo.NAME: FLAGS.independent_tasks},
      shard_size=min(128, FLAGS.num_tasks), num_updates=FLAGS.num_updates, wall=folder,
    )
    operator = folder / 'operator'
    stages.train_operator(
      folder / 'training', folder / 'histories', **shared, seed=FLAGS.seed, num_steps=FLAGS.num_steps, batch_size=64,
      learning_rate=stages.LEARNING_RATE, width=64, operator_folder=operator, wall=folder,
    )
    stages.evaluate_operator(
      folder / 'evaluation', operator, folder / 'histories', **shared, commands=[console.command_line()], wall=folder,
      settings=EvaluationSettings(num_tasks=FLAGS.heldout_tasks, ppo_tasks=min(FLAGS.ppo_tasks, FLAGS.heldout_tasks)),
      ppo_updates=FLAGS.num_updates, output=folder,
    )
  console.print_results(files.read_json(folder / 'results.json'))
  print(f'Report:       {folder}/report.html')
  print(f'Figures:      {folder}/results.json')
  print(f'TensorBoard:  tensorboard --logdir={folder}/training/tensorboard')
  print(f'Operator:     {folder}/operator')


if __name__ == '__main__':
  console.launch(main)
