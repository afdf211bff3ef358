"""Shows a family: its definition, ranges, sampled tasks in words, and an animated rollout of each.

Writes a self-contained page and a contact sheet. Policies are random, or the last ones of a source that has learned the
family, for collect_histories or in learn_families; they are told the task.

  python -m experiments.show_family --family=half_cheetah_vel --histories=runs/half_cheetah_vel/histories
  python -m experiments.show_family --family=hopper_rand_params --learned=runs/learn
"""

import pathlib

import jax
from absl import flags

from experiments import console
from experiments.learn_families import final_policies
from metaimprove import policies
from metaimprove.evaluation.films import draw_contact_sheet, make_film
from metaimprove.evaluation.report import write_family_page
from metaimprove.histories.reference import load_conditioned
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.types import Params, Task

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_list('dynamics', ['default'], "'none', 'default', 'far', or a list of parameters.")
  flags.DEFINE_integer('num_tasks', 4, 'Tasks to show.', 1)
  flags.DEFINE_integer('seed', 0, 'Of tasks, starts and actions.')
  flags.DEFINE_string('histories', None, 'Show final policies of the source that made these; by default random ones.')
  flags.DEFINE_string('learned', None, 'Or those that learn_families has left in this folder.')
  flags.DEFINE_string('folder', 'runs/families', 'Where NAME-BACKEND.html and .png go.')


def learned_policies(family: TaskFamily, tasks: Task) -> Params:
  """The final policies of the task-conditioned source of a folder, one for each task."""
  if FLAGS.learned:
    return jax.vmap(final_policies(family, pathlib.Path(FLAGS.learned) / family.name))(tasks)
  source, learning, _ = load_conditioned(pathlib.Path(FLAGS.histories), family)
  return source.params_of(learning.snapshots[-1], tasks)


def main():
  preset = FLAGS.dynamics[0] if len(FLAGS.dynamics) == 1 and FLAGS.dynamics[0] in ('none', 'default', 'far') else None
  family = make_family(FLAGS.family, FLAGS.backend, preset or FLAGS.dynamics)
  tasks = sample_tasks(family, FLAGS.seed, FLAGS.num_tasks, 'heldout')
  key_policy, key_film = jax.random.split(jax.random.key(FLAGS.seed))
  policy = policies.make_policy(family.observation_size, family.action_size)
  if FLAGS.histories or FLAGS.learned:
    params = learned_policies(family, tasks)
  else:
    params = jax.vmap(policy.init)(jax.random.split(key_policy, FLAGS.num_tasks))
  film, films = make_film(family, policy.sample), []
  print(f'{family.name} on {family.backend}:')
  for index in range(FLAGS.num_tasks):
    task = take(tasks, index)
    films.append(film(take(params, index), task, jax.random.fold_in(key_film, index)))
    films[-1]['caption'] = f'{family.describe(task)}: return {films[-1]["return"]:.1f}'
    print(f'  {films[-1]["caption"]}')
  stem = pathlib.Path(FLAGS.folder) / f'{family.name}-{family.backend}'
  write_family_page(stem.with_suffix('.html'), family, films)
  draw_contact_sheet(stem.with_suffix('.png'), family, films, [f['caption'] for f in films])
  print(f'The page is {stem}.html, the contact sheet {stem}.png.')


if __name__ == '__main__':
  console.launch(main)
