"""Trains an operator on collected histories, by likelihood, and logs to TensorBoard.

Can be stopped at any moment; run again with the same flags, it goes on where it was.

  python -m experiments.train_operator --histories=runs/mine/histories --folder=runs/mine/training
  tensorboard --logdir=runs/mine/training/tensorboard

Several processes with shared folders train one operator, each on its share of every batch. When one dies the others
end; run all of them again:

  python -m experiments.train_operator --coordinator=first.host:1234 --num_processes=2 --process=0
"""

import pathlib
from typing import Any

from absl import flags

from experiments import console, stages
from experiments.jobs import Job
from metaimprove.asks import augmentation, of_levels
from metaimprove.operators.config import OperatorConfig
from metaimprove.tasks.registry import family_names, make_family

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('histories', 'runs/mine/histories', 'Folder that collect_histories has filled.')
  flags.DEFINE_string('folder', 'runs/mine/training', 'Where state and logs go; the operator goes to FOLDER/operator.')
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family of the histories.')
  flags.DEFINE_string('backend', None, "Physics backend of the histories; the family's first by default.")
  flags.DEFINE_integer('seed', 0, 'Of initialisation, examples and play.')
  flags.DEFINE_integer('num_episodes', None, "Of experience before each application; the family's by default.", 1)
  flags.DEFINE_integer('num_steps', None, 'Gradient steps; what suits the family by default, as all below.', 1)
  flags.DEFINE_integer('batch_size', None, 'Examples a step.', 2)
  flags.DEFINE_float('learning_rate', None, 'Peak of the cosine schedule.', 0.0)
  flags.DEFINE_integer('width', None, 'Of the operator; a multiple of 32.', 32)
  flags.DEFINE_list(
    'asks', [], 'Kinds of ask that it understands besides those of the family; of: ' +
    f'{", ".join((*of_levels(), augmentation.NAME))}.'
  )
  flags.DEFINE_bool('verify', True, 'Compare all histories with their checksums first, about a second a gigabyte.')
  console.define_process_flags()
  flags.adopt_module_key_flags(console)


def given(**names: str) -> dict[str, Any]:
  """Field -> value of the flag of that name, where the flag was given."""
  return {field: FLAGS[name].value for field, name in names.items() if FLAGS[name].value is not None}


def main():
  console.join_processes()
  family_asks = OperatorConfig.of(make_family(FLAGS.family, FLAGS.backend)).asks
  config = given(num_episodes='num_episodes', width='width', code_size='width')
  operator = stages.train_operator(
    pathlib.Path(FLAGS.folder), pathlib.Path(FLAGS.histories), family=FLAGS.family, backend=FLAGS.backend,
    seed=FLAGS.seed, verify=FLAGS.verify,
    config={'num_episodes': Job.of(FLAGS.family).num_episodes, 'asks': (*family_asks, *FLAGS.asks), **config},
    settings=given(num_steps='num_steps', batch_size='batch_size', learning_rate='learning_rate'),
  )
  print(f'The operator is in {operator}, the logs for TensorBoard in {FLAGS.folder}/tensorboard.')


if __name__ == '__main__':
  console.launch(main)
