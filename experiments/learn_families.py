"""Shows that task-conditioned PPO learns families: curves, returns on validation tasks, and wall time, with the stored
settings.

Returns are means over validation tasks: of the first and of the last policy, with the standard error over tasks, and of
the last one where the stock robot is to reach the same goals.

Writes curves.png and results.json. Can be stopped at any moment; run again, it goes on where it was.

  python -m experiments.learn_families --families=half_cheetah_dir,hopper_rand_params,ant_dir
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import console
from metaimprove import files, policies
from metaimprove.errors import IncompatibleError
from metaimprove.files import check_same, claim
from metaimprove.improvers import run as runs
from metaimprove.improvers import task_conditioned_ppo, tuned
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily, distribution_of
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.robots import dynamics
from metaimprove.tasks.splits import sample_tasks
from metaimprove.types import Params, Task, mean_return

FLAGS = flags.FLAGS
NUM_TASKS = 256

if __name__ == '__main__':
  flags.DEFINE_list('families', list(tuned.tuned_families()), 'Which families.')
  flags.DEFINE_string('backend', None, "Physics backend; each family's first by default.")
  flags.DEFINE_integer('num_updates', None, "PPO updates, instead of each family's tuned number.", 1)
  flags.DEFINE_integer('seed', 0, 'Of tasks, learning and episodes.')
  flags.DEFINE_string('folder', 'runs/learn', 'Where everything goes.')


def final_policies(family: TaskFamily, folder: pathlib.Path) -> Callable[[Task], Params]:
  """task -> θ of the last policy, folded for the task, of a family learned in `folder`.

  Raises:
    MetaImproveError: where the family was not learned there, on another backend, or not to the end.
  """
  settings = files.read_json(folder / 'settings.json')
  if settings['backend'] != family.backend:
    raise IncompatibleError(f'{folder} was learned on {settings["backend"]}, not on {family.backend}; use that.')
  check_same(settings, {**settings, **json.loads(json.dumps(distribution_of(family)))}, folder)
  source = tuned.make_source(task_conditioned_ppo.NAME, family, num_updates=settings['updates'])
  run = runs.load_learning(source, sample_tasks(family, settings['seed'], 1, 'train'), folder / 'learning')
  return functools.partial(source.params, run.snapshots[-1])


def learn(name: str, folder: pathlib.Path) -> dict[str, Any]:
  """Learns one family; a row of the table."""
  family = make_family(name, FLAGS.backend)
  source = tuned.make_source(task_conditioned_ppo.NAME, family, num_updates=FLAGS.num_updates)
  claim(folder, {**distribution_of(family), 'seed': FLAGS.seed, 'updates': source.num_updates,
                 'settings': repr(tuned.settings_for(family).shared)})
  key_learn, key_play = jax.random.split(jax.random.key(FLAGS.seed))
  with console.stage(folder, 'learn') as progress:
    run = runs.learn(
      source, sample_tasks(family, FLAGS.seed, 1, 'train'), key_learn, folder=folder / 'learning',
      progress=lambda stage, *done: progress(f'learn {name}', *done),
    )
  tasks = sample_tasks(family, FLAGS.seed, NUM_TASKS, 'validation')
  play = make_play(family, policies.make_policy(family.observation_size, family.action_size), num_episodes=2)

  def measure(snapshot, tasks):
    trajectory = play(source.params_of(snapshot, tasks), tasks, key_play)
    returns = np.asarray(mean_return(trajectory))
    return np.nanmean(returns), np.nanstd(returns) / NUM_TASKS**0.5, int(np.sum(~np.asarray(trajectory.finite)))

  before, after = run.snapshots[0], run.snapshots[-1]
  first, _, _ = measure(before, tasks)
  last, error, non_finite = measure(after, tasks)
  stock, _, _ = measure(after, tasks.replace(dynamics=dynamics.stock(tasks.dynamics)))
  return {
    'family': name, 'backend': family.backend, 'seed': FLAGS.seed, 'updates': source.num_updates,
    'env_steps': source.num_updates * source.env_steps_per_update,
    'validation_return_before': round(float(first), 1), 'validation_return_after': round(float(last), 1),
    'validation_return_standard_error': round(float(error), 1), 'validation_return_stock_robot': round(float(stock), 1),
    'validation_tasks': NUM_TASKS, 'non_finite_episodes': non_finite,
    'wall_seconds': console.read_seconds(folder)['learn'],
    'curve': {'env_steps': (np.arange(len(run.returns)) * source.env_steps_per_update).tolist(),
              'return': run.returns.round(2).tolist()},
  }


def draw(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  from matplotlib.figure import Figure

  columns = min(len(rows), 4)
  lines = -(-len(rows) // columns)
  figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout='constrained')
  for index, row in enumerate(rows):
    ax = figure.add_subplot(lines, columns, index + 1)
    ax.plot(np.asarray(row['curve']['env_steps']) / 1e6, row['curve']['return'], color='#1b6ca8')
    ax.set_title(f'{row["family"]} ({row["backend"]})', fontsize='medium')
    ax.set(xlabel='million environment steps', ylabel='return an episode')
  figure.savefig(path, dpi=110)


def main():
  folder, rows = pathlib.Path(FLAGS.folder), []
  for name in FLAGS.families:
    rows.append(learn(name, folder / name))
    files.write_json(folder / 'results.json', rows)
    draw(folder / 'curves.png', rows)
  names = ('before', 'after', 'error', 'stock', 'seconds')
  print(f'{"family":25s} {"backend":12s} {"env steps":>11s} ' + ' '.join(f'{name:>8s}' for name in names))
  for row in rows:
    print(
      f'{row["family"]:25s} {row["backend"]:12s} {row["env_steps"]:11,d} {row["validation_return_before"]:8.1f} '
      f'{row["validation_return_after"]:8.1f} {row["validation_return_standard_error"]:8.1f} '
      f'{row["validation_return_stock_robot"]:8.1f} {row["wall_seconds"]:8.0f}'
    )
  print(f'Curves are in {folder}/curves.png, all figures in {folder}/results.json.')


if __name__ == '__main__':
  console.launch(main)
