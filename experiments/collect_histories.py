"""Collects improvement histories: policies getting better on many tasks, with what each of them experienced.

Runs the sources of improvement on a distribution of training tasks and writes their checkpoints and experience as
safetensors shards. Can be stopped at any moment; run again with the same flags, it goes on where it was.

  python -m experiments.collect_histories --folder=runs/mine/histories --family=reacher_goal
"""

import pathlib

from absl import flags

from experiments import console, stages
from metaimprove.tasks.registry import family_names

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('folder', 'runs/mine/histories', 'Where the histories go.')
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend of the family; the family's first by default.")
  flags.DEFINE_integer('seed', 0, 'Of tasks, learning and experience; the same seed gives the same histories.')
  flags.DEFINE_integer('num_tasks', 1024, 'Training tasks; task-conditioned PPO makes a history of each.', 2)
  flags.DEFINE_integer('independent_tasks', 0, 'The first so many of them also get a history by PPO from scratch.', 0)
  flags.DEFINE_integer('num_checkpoints', 11, 'Policies in a history, evenly spaced in return.', 2)
  flags.DEFINE_integer('num_episodes', 2, 'Episodes of experience of each policy.', 1)
  flags.DEFINE_integer('shard_size', 128, 'Histories in a shard, simulated at once; best if the cache holds it.', 1)
  flags.DEFINE_integer('num_updates', None, "PPO updates, instead of the family's tuned number.", 1)


def main():
  figures = stages.collect_histories(
    pathlib.Path(FLAGS.folder), family=FLAGS.family, backend=FLAGS.backend, seed=FLAGS.seed, num_tasks=FLAGS.num_tasks,
    independent_tasks=FLAGS.independent_tasks, num_checkpoints=FLAGS.num_checkpoints, num_episodes=FLAGS.num_episodes,
    shard_size=FLAGS.shard_size, num_updates=FLAGS.num_updates,
  )
  print(
    f'Histories are in {FLAGS.folder}. Recording ran at {figures["env_steps_per_second"]:,.0f} environment steps/s, '
    f'bare stepping at {figures["raw_env_steps_per_second"]:,.0f}.'
  )


if __name__ == '__main__':
  console.launch(main)
