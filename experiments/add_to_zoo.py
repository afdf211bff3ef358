"""Puts an operator of `benchmark_operators` among those that come with the package, with its card.

  python -m experiments.add_to_zoo --run=runs/benchmark/reacher_goal

RUN is the folder of a family with one seed, or with several, of which the first is taken.
"""

import pathlib
import shutil

from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation import results as results_
from metaimprove.operators import zoo
from metaimprove.operators.checkpoints import load_operator
from metaimprove.tasks.registry import make_family

FLAGS = flags.FLAGS
NUM_TASKS = 64
"""Held-out tasks whose bounds are in a card, so that the operator can be scored without its histories."""

if __name__ == '__main__':
  flags.DEFINE_string('run', 'runs/quickstart', 'Folder of the quickstart, or of a family of `benchmark_operators`.')


def main() -> None:
  """Copies the operator, and makes its card of the results beside it."""
  run = pathlib.Path(FLAGS.run)
  results = results_.read(run / 'results.json')
  seeds = results.per_seed['seeds']
  part = run / f'seed_{seeds[0]}' if len(seeds) > 1 else run
  load_operator(part / 'operator', make_family(results.family, results.backend))
  bounds = {
    name: files.load_arrays(part / 'evaluation' / method / 'heldout.safetensors')['returns'][-1, :NUM_TASKS].tolist()
    for name, method in (('initial', 'initial'), ('reference', 'told_everything'))
  }
  if len(bounds['initial']) < NUM_TASKS:
    raise IncompatibleError(f'{run} has fewer than {NUM_TASKS} held-out tasks; judge the operator on more.')
  folder = zoo.FOLDER / results.family
  files.make_folder(folder)
  for name in ('operator.safetensors', 'config.json'):
    shutil.copyfile(part / 'operator' / name, folder / name)
  files.write_json(folder / zoo.CARD, {
    'family': results.family, 'backend': results.backend, 'seed': results.seed, 'licence': 'Apache-2.0',
    'command': console.benchmark_command(results.family, results.backend, seeds),
    'training_env_steps': dict(results.training_env_steps), 'versions': dict(results.versions),
    'heldout_tasks': results.heldout_tasks, 'num_seeds': results.num_seeds, 'episodes': results.episodes,
    'normalised_return': results.normalised_return, 'far': results.far,
    'controls': {
      name: {key: values[-1] for key, values in figures.items()} for name, figures in results.controls.items()
    },
    'need': dict(results.need), 'first_tasks': bounds,
  })
  print(f'{results.family}: {folder}')


if __name__ == '__main__':
  console.launch(main)
