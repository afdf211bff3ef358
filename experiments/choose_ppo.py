"""Compares PPO settings of a family on validation tasks, so that the baseline gets the same care as the source.

Learns with the stored settings, and with each of the changes that are asked for, one at a time. PPO from scratch
learns validation tasks. The shared learner, which is told the task, practises on fresh tasks of the same ranges. Prints
the mean return after a quarter, a half and all of the updates, and the environment steps until the mean return has
covered 95% of the way to the best one in the table. Can be stopped at any moment; run again, it goes on where it was.

  python -m experiments.choose_ppo --family=reacher_goal --changes=learning_rate=1e-3,num_envs=16
"""

import dataclasses
import json
import pathlib

import numpy as np
from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.errors import IncompatibleError
from metaimprove.improvers import run as runs
from metaimprove.improvers import tuned
from metaimprove.improvers.curves import without_gaps
from metaimprove.improvers.independent_ppo import independent_ppo
from metaimprove.improvers.ppo import PPOSettings
from metaimprove.improvers.task_conditioned_ppo import task_conditioned_ppo
from metaimprove.rng import stream
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.tasks.splits import sample_tasks

FLAGS = flags.FLAGS
STORED = 'as stored'

if __name__ == '__main__':
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_enum('learner', 'independent', ('independent', 'shared'), 'PPO from scratch, or told the task.')
  flags.DEFINE_list('changes', [], 'Settings to try, NAME=VALUE each, such as learning_rate=1e-3.')
  flags.DEFINE_integer('num_tasks', 16, 'Validation tasks that PPO from scratch learns.', 1)
  flags.DEFINE_integer('num_updates', None, "Updates, instead of the family's tuned number.", 1)
  flags.DEFINE_integer('seed', 0, 'Of tasks and learning.')
  flags.DEFINE_string('folder', 'runs/choose_ppo', 'Where learning and table.json go.')


def changed(settings: PPOSettings, change: str) -> PPOSettings:
  """Settings with one change, 'NAME=VALUE'; raises `IncompatibleError` for a name or value that does not fit."""
  name, _, text = change.partition('=')
  if name not in {field.name for field in dataclasses.fields(settings)}:
    raise IncompatibleError(f'PPO has no setting {name!r}; choose among: {", ".join(dataclasses.asdict(settings))}.')
  try:
    return dataclasses.replace(settings, **{name: json.loads(text)})
  except ValueError:
    raise IncompatibleError(f'--changes has {change!r}, whose value is not a number.') from None


def learning_curve(
  family: TaskFamily, settings: PPOSettings, num_updates: int, folder: pathlib.Path, name: str,
  progress: console.Progress,
) -> tuple[np.ndarray, int]:
  """[U] mean return of the policies before each update, over tasks, and the environment steps of an update."""
  make = independent_ppo if FLAGS.learner == 'independent' else task_conditioned_ppo
  source = make(family, settings, num_updates)
  files.claim(folder, {
    'family': family.name, 'backend': family.backend, 'learner': FLAGS.learner, 'seed': FLAGS.seed,
    'num_tasks': FLAGS.num_tasks, 'num_updates': num_updates, **dataclasses.asdict(settings),
  })
  tasks = sample_tasks(family, FLAGS.seed, FLAGS.num_tasks, 'validation')
  learning = runs.learn(
    source, tasks, stream(FLAGS.seed, 'choose_ppo'), folder=folder / 'learning',
    progress=lambda stage, *done: progress(name, *done),
  )
  returns = np.asarray(without_gaps(learning.returns))
  return returns.reshape(len(returns), -1).mean(axis=1), source.env_steps_per_update


def main() -> None:
  """Learns, and prints the table."""
  family = make_family(FLAGS.family, FLAGS.backend)
  stored = tuned.settings_for(family)
  settings = getattr(stored, FLAGS.learner)
  num_updates = FLAGS.num_updates or getattr(stored, f'{FLAGS.learner}_updates')
  variants = {STORED: settings} | {change: changed(settings, change) for change in FLAGS.changes}
  folder, progress = pathlib.Path(FLAGS.folder) / family.name / FLAGS.learner, console.Progress()
  curves = {
    name: learning_curve(family, variant, num_updates, folder / name.replace(' ', '_'), name, progress)
    for name, variant in variants.items()
  }
  first = max(curve[0] for curve, _ in curves.values())
  best = max(np.convolve(curve, np.ones(5) / 5, 'valid')[-1] for curve, _ in curves.values())
  rows = []
  for name, (curve, env_steps) in curves.items():
    reached = np.flatnonzero(curve >= first + 0.95 * (best - first))
    rows.append({
      'settings': name, 'env_steps': int(env_steps * len(curve)),
      'return': {share: round(float(curve[int(share * (len(curve) - 1))]), 2) for share in (0.25, 0.5, 1.0)},
      'env_steps_to_95_percent': int(reached[0] * env_steps) if len(reached) else None,
    })
  files.write_json(folder / 'table.json', json.loads(json.dumps(rows)))
  print(f'{family.name}, PPO {FLAGS.learner}, {FLAGS.num_tasks} validation tasks: mean return')
  print(f'  {"settings":32s} {"env steps":>10s} {"quarter":>9s} {"half":>9s} {"end":>9s} {"steps to 95%":>13s}')
  for row in rows:
    reached = row['env_steps_to_95_percent']
    returns = ' '.join(f'{value:9.2f}' for value in row['return'].values())
    steps = 'never' if reached is None else f'{reached:,d}'
    print(f'  {row["settings"]:32s} {row["env_steps"]:10,d} {returns} {steps:>13s}')
  print(f'The table is in {folder}/table.json.')


if __name__ == '__main__':
  console.launch(main)
