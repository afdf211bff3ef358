"""Collects improvement histories: policies getting better on many tasks, with what each of them experienced.

Runs the sources of improvement on a distribution of training tasks and writes their checkpoints and experience as
safetensors shards. Can be stopped at any moment; run again with the same flags, it goes on where it was; with more
tasks or another source, it adds them.

  python -m experiments.collect_histories --folder=runs/mine/histories --family=reacher_goal

Several machines fill one shared folder, each with its own --worker; any of them may die and be run again:

  python -m experiments.collect_histories --folder=/shared/histories --num_workers=3 --worker=0

Processes of JAX that already work together share the work in the same way, by their index; when one of these dies, all
end and are run again:

  python -m experiments.collect_histories --coordinator=first.host:1234 --num_processes=3 --process=0
"""

import pathlib

from absl import flags

from experiments import console, stages
from metaimprove.improvers import evolution, independent_ppo, task_conditioned_ppo, tuned
from metaimprove.tasks.registry import family_names

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('folder', 'runs/mine/histories', 'Where the histories go.')
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend of the family; the family's first by default.")
  flags.DEFINE_integer('seed', 0, 'Of tasks, learning and experience; the same seed gives the same histories.')
  flags.DEFINE_integer('num_tasks', 1024, 'The first so many tasks get a history by task-conditioned PPO.', 0)
  flags.DEFINE_integer('independent_tasks', 0, 'The first so many tasks also get one by PPO from scratch.', 0)
  flags.DEFINE_integer('evolution_tasks', 0, 'The first so many tasks also get one by an evolution strategy.', 0)
  flags.DEFINE_integer(
    'ladder_tasks', 0, 'The first so many tasks also get two without learning: noise taken from actions, and from θ.', 0
  )
  flags.DEFINE_integer(
    'num_checkpoints', None, 'Policies in a history, evenly spaced in return; 11, or as many as the folder has.', 2
  )
  flags.DEFINE_integer(
    'num_episodes', None, 'Episodes of experience of each policy; 2, or as many as the folder has.', 1
  )
  flags.DEFINE_integer(
    'shard_size', None, 'Histories in a shard, simulated at once, best if the cache holds it; 128, or as the folder.', 1
  )
  flags.DEFINE_integer('num_updates', None, "PPO updates, instead of the family's tuned number.", 1)
  flags.DEFINE_integer(
    'patience', None, 'PPO from scratch stops once its return has not risen in so many updates; by default never.', 1
  )
  flags.DEFINE_integer('worker', None, "Which of several workers this is, from 0; JAX's process index by default.", 0)
  flags.DEFINE_integer('num_workers', None, "How many there are; JAX's process count by default.", 1)
  console.define_process_flags()
  flags.adopt_module_key_flags(console)


def main():
  console.join_processes()
  figures = stages.collect_histories(
    pathlib.Path(FLAGS.folder), family=FLAGS.family, backend=FLAGS.backend, seed=FLAGS.seed,
    num_tasks={
      task_conditioned_ppo.NAME: FLAGS.num_tasks, independent_ppo.NAME: FLAGS.independent_tasks,
      evolution.NAME: FLAGS.evolution_tasks, **{name: FLAGS.ladder_tasks for name in tuned.LADDERS},
    },
    num_checkpoints=FLAGS.num_checkpoints, num_episodes=FLAGS.num_episodes, shard_size=FLAGS.shard_size,
    num_updates=FLAGS.num_updates, patience=FLAGS.patience, worker=FLAGS.worker, num_workers=FLAGS.num_workers,
  )
  print(f'Histories are in {FLAGS.folder}.')
  if figures['env_steps_per_second']:  # not of a worker that had none to make
    print(
      f'Recording ran at {figures["env_steps_per_second"]:,.0f} environment steps/s, bare stepping at '
      f'{figures["raw_env_steps_per_second"]:,.0f}.'
    )


if __name__ == '__main__':
  console.launch(main)
