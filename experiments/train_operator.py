"""Trains an operator on collected histories, by likelihood, and logs to TensorBoard.

Can be stopped at any moment; run again with the same flags, it goes on where it was.

  python -m experiments.train_operator --histories=runs/mine/histories --folder=runs/mine/training
  tensorboard --logdir=runs/mine/training/tensorboard

Several processes with shared folders train one operator, each on its share of every batch. When one dies the others
end; run all of them again:

  python -m experiments.train_operator --coordinator=first.host:1234 --num_processes=2 --process=0
"""

import pathlib

from absl import flags

from experiments import console, stages
from metaimprove.tasks.registry import family_names
from metaimprove.training.settings import TrainingSettings

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('histories', 'runs/mine/histories', 'Folder that collect_histories has filled.')
  flags.DEFINE_string('folder', 'runs/mine/training', 'Where state and logs go; the operator goes to FOLDER/operator.')
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family of the histories.')
  flags.DEFINE_string('backend', None, "Physics backend of the histories; the family's first by default.")
  flags.DEFINE_integer('seed', 0, 'Of initialisation, examples and play.')
  flags.DEFINE_integer('num_steps', TrainingSettings.num_steps, 'Gradient steps.', 1)
  flags.DEFINE_integer('batch_size', 64, 'Examples a step.', 2)
  flags.DEFINE_float('learning_rate', TrainingSettings.learning_rate, 'Peak of the cosine schedule.', 0.0)
  flags.DEFINE_integer('width', 64, 'Of the operator; a multiple of 32.', 32)
  flags.DEFINE_bool('verify', True, 'Compare all histories with their checksums first, about a second a gigabyte.')
  console.define_process_flags()
  flags.adopt_module_key_flags(console)


def main():
  console.join_processes()
  operator = stages.train_operator(
    pathlib.Path(FLAGS.folder), pathlib.Path(FLAGS.histories), family=FLAGS.family, backend=FLAGS.backend,
    seed=FLAGS.seed, num_steps=FLAGS.num_steps, batch_size=FLAGS.batch_size, learning_rate=FLAGS.learning_rate,
    width=FLAGS.width, verify=FLAGS.verify,
  )
  print(f'The operator is in {operator}, the logs for TensorBoard in {FLAGS.folder}/tensorboard.')


if __name__ == '__main__':
  console.launch(main)
