"""Improves one policy on one task with a trained operator, prints what happened and draws it.

  python -m experiments.improve --operator=runs/quickstart/operator --task=3
  python -m experiments.improve --operator=reacher_wiring
  python -m experiments.improve --operator=runs/quickstart/operator --gym_env=Reacher-v5

With `--gym_env` it does so in any Gymnasium environment whose observations and actions fit. `Reacher-v5` stands for
that robot in C MuJoCo with a hidden target, as `reacher_goal` has it, and `HalfCheetah-v5` for `half_cheetah_vel`.
"""

import pathlib

from absl import flags

from experiments import console, gymnasium_run
from metaimprove import asks
from metaimprove.asks import explore
from metaimprove.evaluation.report import record_improvement, write_films
from metaimprove.operators import checkpoints
from metaimprove.rng import stream
from metaimprove.tasks.registry import make_family
from metaimprove.trees import take

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('operator', 'runs/quickstart/operator', 'Its folder, or the name of one that comes along.')
  console.define_task_flags()
  flags.DEFINE_integer('num_applications', 4, 'How often the operator is applied.', 1)
  flags.DEFINE_integer(
    'num_episodes', None, 'Episodes of experience before each application; as many as in training by default.', 1
  )
  flags.DEFINE_string('ask', 'best', "'best', a number of levels, or KIND=VALUE,... as score=0.5.")
  flags.DEFINE_string('gym_env', None, 'A Gymnasium environment to improve in, instead of a task of ours.')
  flags.DEFINE_list('observation_indices', None, 'Which numbers of its observation the operator reads, if not all.')
  flags.DEFINE_string('page', 'runs/improve.html', 'Where the drawing goes.')
  flags.adopt_module_key_flags(console)


def main():
  ask = asks.from_words(FLAGS.ask)
  operator, operator_params = checkpoints.load_operator(FLAGS.operator)
  if FLAGS.gym_env is not None:
    indices = FLAGS.observation_indices
    gymnasium_run.run(
      FLAGS.gym_env, (operator, operator_params), ask, pathlib.Path(FLAGS.page), seed=FLAGS.seed,
      num_applications=FLAGS.num_applications, num_episodes=FLAGS.num_episodes,
      mapping={} if indices is None else {'observation_indices': [int(index) for index in indices]},
    )
    print(f'The films are in {FLAGS.page}.')
    return
  family = make_family(operator.config.family, operator.config.backend)
  checkpoints.check_fits(operator.config, family)
  task = take(console.chosen_tasks(family), 0)
  num_episodes = FLAGS.num_episodes or operator.config.num_episodes
  films = record_improvement(
    family, operator, operator_params, task, operator.policy.init(stream(FLAGS.seed, 'policy')),
    stream(FLAGS.seed, 'improve'), num_applications=FLAGS.num_applications, num_episodes=num_episodes, ask=ask,
    explores=explore.NAME in operator.config.asks,
  )
  steps = num_episodes * family.episode_length
  for application, film in enumerate(films):
    applied = f'{application} application' + 's' * (application != 1)
    print(f'after {applied} ({application * steps} environment steps): return {film["return"]:.1f}')
  write_films(pathlib.Path(FLAGS.page), family, films, family.describe(task))
  print(f'The films are in {FLAGS.page}.')


if __name__ == '__main__':
  console.launch(main)
