"""The stages of the main job as functions of plain arguments; the binaries give them their flags."""

import importlib.metadata
import pathlib
import platform

import jax

from experiments import console
from metaimprove import checkpoints, files, policies
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation.evaluate import EvaluationSettings, evaluate
from metaimprove.evaluation.report import record_improvement, write_report
from metaimprove.histories.collect import collect, collecting_rates, sample_tasks, take
from metaimprove.histories.dataset import load_dataset, read_complete_manifest
from metaimprove.improvers import independent_ppo, task_conditioned_ppo, tuned
from metaimprove.improvers.source import load_learning
from metaimprove.operators.operator import OperatorConfig, make_operator
from metaimprove.tasks.registry import make_family
from metaimprove.training import TrainingSettings, train

NUM_STEPS = 4000
LEARNING_RATE = 2e-3


def collect_histories(
  folder: pathlib.Path, *, family: str, backend: str | None, seed: int, num_tasks: int, independent_tasks: int,
  num_checkpoints: int, num_episodes: int, shard_size: int, num_updates: int | None, wall: pathlib.Path | None = None,
) -> dict[str, float]:
  """Histories of `num_tasks` tasks by task-conditioned PPO and of the first `independent_tasks` by PPO from scratch."""
  made_family = make_family(family, backend)
  settings = tuned.settings_for(made_family)
  sources = [
    (tuned.make_source(name, made_family, count, policies.HIDDEN_SIZES, num_updates), count)
    for name, count in ((task_conditioned_ppo.NAME, num_tasks), (independent_ppo.NAME, independent_tasks)) if count
  ]
  progress = console.Progress()
  with console.Stopwatch(wall or folder, 'collect') as watch:
    def report(stage, done, total, figures):
      watch.tick()
      progress(stage, done, total, figures)

    return collect(
      folder, made_family, sources, seed=seed, num_checkpoints=num_checkpoints, num_episodes=num_episodes,
      shard_size=shard_size, report=report,
      settings={'tuned': repr(settings), 'num_updates': num_updates},
    )


def train_operator(
  folder: pathlib.Path, histories: pathlib.Path, *, family: str, backend: str | None, seed: int, num_steps: int,
  batch_size: int, learning_rate: float, width: int, operator_folder: pathlib.Path | None = None,
  wall: pathlib.Path | None = None,
) -> pathlib.Path:
  """Trains an operator on a folder of histories; returns the operator's folder, `folder`/operator unless given."""
  operator_folder = operator_folder or folder / 'operator'
  made_family = make_family(family, backend)
  dataset = load_dataset(histories, made_family)
  if dataset.num_left_out:
    print(f'{dataset.num_left_out} histories are left out: simulations in them were not finite.')
  operator = make_operator(OperatorConfig.of(
    made_family, num_episodes=dataset.header['num_episodes'], hidden_sizes=tuple(dataset.header['hidden_sizes']),
    width=width, code_size=width,
  ))
  num_tasks = dataset.task_index.max() + 1
  settings = TrainingSettings(
    num_steps=num_steps, batch_size=batch_size, learning_rate=learning_rate,
    # Long episodes in fewer tasks: simulating them should not outweigh the gradient steps.
    round_tasks=int(min(512, num_tasks, 51_200 // made_family.episode_length)),
    num_validation=int(min(64, max(1, num_tasks // 4))),
  )
  progress, board = console.Progress(), console.TensorBoard(folder / 'tensorboard')
  with console.Stopwatch(wall or folder, 'train') as watch:
    def report(done, figures):
      watch.tick()
      progress('train operator', done, num_steps, figures)

    operator_params = train(
      operator, made_family, dataset, settings, seed=seed, folder=folder, log=board, progress=report,
      before_save=board.close,
    )
    progress.close()
    board.close()
    checkpoints.save_operator(operator_folder, operator, operator_params)
  return operator_folder


def evaluate_operator(
  folder: pathlib.Path, operator_folder: pathlib.Path, histories: pathlib.Path, *, family: str, backend: str | None,
  settings: EvaluationSettings, commands: list[str], output: pathlib.Path | None = None,
  wall: pathlib.Path | None = None,
) -> dict:
  """Judges an operator on tasks its histories do not hold; writes results.json and report.html to `output`."""
  made_family = make_family(family, backend)
  operator, operator_params = checkpoints.load_operator(operator_folder, made_family)
  manifest = read_complete_manifest(histories, made_family)
  header = manifest['header']
  if task_conditioned_ppo.NAME not in header['sources']:
    raise IncompatibleError(f'{histories} has no history by task_conditioned_ppo, whose policies are the reference.')
  num_tasks, num_updates = header['sources'][task_conditioned_ppo.NAME], header['settings'].get('num_updates')
  hidden_sizes = tuple(header['hidden_sizes'])
  conditioned = tuned.make_source(task_conditioned_ppo.NAME, made_family, num_tasks, hidden_sizes, num_updates)
  learning = load_learning(
    conditioned, sample_tasks(made_family, header['seed'], num_tasks, 'train'),
    histories / f'{conditioned.name}.safetensors',
  )
  progress = console.Progress()
  with console.Stopwatch(wall or folder, 'evaluate') as watch:
    def report(stage, done, total, figures):
      watch.tick()
      progress(stage, done, total, figures)

    figures = evaluate(
      operator, operator_params, made_family, seed=header['seed'], folder=folder, settings=settings,
      conditioned=conditioned, conditioned_learning=learning, report=report,
      make_ppo=lambda num: tuned.make_source(independent_ppo.NAME, made_family, num, hidden_sizes, num_updates),
    )
    task = take(sample_tasks(made_family, header['seed'], 1, 'heldout'), 0)
    key_policy, key_films = jax.random.split(jax.random.fold_in(jax.random.key(header['seed']), 3000))
    rollouts = record_improvement(
      made_family, operator, operator_params, task, operator.policy.init(key_policy), key_films,
      num_applications=min(4, settings.num_applications),
      num_episodes=settings.num_episodes, ask=settings.ask,
    )
  seconds = console.read_seconds(wall or folder)
  results = {
    'family': family, 'backend': made_family.backend, 'seed': header['seed'], 'train_tasks': num_tasks, **figures,
    'collect': collecting_rates(manifest),
    'wall_seconds': {**seconds, 'total': round(sum(seconds.values()), 1)}, 'versions': versions(),
  }
  output = output or folder
  write_report(output / 'report.html', made_family, results, rollouts, made_family.describe(task), commands)
  files.write_json(output / 'results.json', results)
  return results


def versions() -> dict[str, str]:
  """Of Python and the packages that results depend on."""
  packages = ('metaimprove', 'jax', 'jaxlib', 'dm-haiku', 'optax', 'brax', 'mujoco', 'mujoco-mjx', 'numpy')
  return {'python': platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
