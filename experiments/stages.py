"""The stages of the main job as functions of plain arguments; the binaries give them their flags."""

import functools
import importlib.metadata
import pathlib
import platform
from collections.abc import Mapping

import jax
import numpy as np

from experiments import console
from metaimprove.operators import checkpoints
from metaimprove import files
from metaimprove.evaluation.evaluate import EvaluationSettings, evaluate
from metaimprove.evaluation.report import record_improvement, write_report
from metaimprove.histories.collect import collect
from metaimprove.histories.rates import collecting_rates
from metaimprove.histories.reference import final_policies, load_conditioned
from metaimprove.rng import stream
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.histories.dataset import load_dataset, read_complete_header
from metaimprove.improvers import independent_ppo, tuned
from metaimprove.improvers.noise_ladder import check_ladder
from metaimprove.improvers.run import learn
from metaimprove.operators.operator import OperatorConfig, make_operator
from metaimprove.tasks.registry import make_family
from metaimprove.training.loop import TrainingSettings, train

NUM_STEPS = 4000
LEARNING_RATE = 2e-3


def collect_histories(
  folder: pathlib.Path, *, family: str, backend: str | None, seed: int, num_tasks: Mapping[str, int],
  num_checkpoints: int, num_episodes: int, shard_size: int, num_updates: int | None, patience: int | None = None,
  worker: int | None = None, num_workers: int | None = None, wall: pathlib.Path | None = None,
) -> dict[str, float]:
  """Histories by the sources named in `num_tasks`, each of the first so many tasks; returns `collecting_rates`."""
  made_family = make_family(family, backend)
  sources = [
    (tuned.make_source(name, made_family, num_updates=num_updates, patience=patience), count)
    for name, count in num_tasks.items() if count and name not in tuned.LADDERS
  ]
  progress = console.Progress()
  with console.Stopwatch(wall or folder, 'collect') as watch:
    def report(stage, done, total, figures):
      watch.tick()
      progress(stage, done, total, figures)

    collect_some = functools.partial(
      collect, folder, made_family, seed=seed, num_checkpoints=num_checkpoints, num_episodes=num_episodes,
      shard_size=shard_size, progress=report, worker=worker, num_workers=num_workers,
    )
    # Ladders lead up to the final policies of the task-conditioned source, which are known by then.
    ladders = [(name, count) for name, count in num_tasks.items() if count and name in tuned.LADDERS]
    if sources or not ladders:
      collect_some(sources)
    if ladders:
      base = final_policies(folder, made_family, seed)
      sources = [(tuned.make_source(name, made_family, base=base), count) for name, count in ladders]
      for source, count in sources:
        some = sample_tasks(made_family, seed, min(max(2, count), tuned.LADDER_CHECK_TASKS), 'train')
        check_ladder(learn(source, some, stream(seed, 'check_ladder')))
      collect_some(sources)
  progress.close()
  return collecting_rates(folder)


def train_operator(
  folder: pathlib.Path, histories: pathlib.Path, *, family: str, backend: str | None, seed: int, num_steps: int,
  batch_size: int, learning_rate: float, width: int, verify: bool = True,
  operator_folder: pathlib.Path | None = None, wall: pathlib.Path | None = None,
) -> pathlib.Path:
  """Trains an operator on a folder of histories, compared with their checksums first if `verify`; returns the
  operator's folder, `folder`/operator unless given."""
  operator_folder = operator_folder or folder / 'operator'
  made_family = make_family(family, backend)
  dataset = load_dataset(histories, made_family, verify=verify)
  if dataset.num_left_out:
    print(f'{dataset.num_left_out} histories are left out: simulations in them were not finite.')
  operator = make_operator(OperatorConfig.of(
    made_family, num_episodes=dataset.header['num_episodes'], hidden_sizes=tuple(dataset.header['hidden_sizes']),
    width=width, code_size=width,
  ))
  num_tasks = len(np.unique(dataset.task_index))
  settings = TrainingSettings(
    num_steps=num_steps, batch_size=batch_size, learning_rate=learning_rate,
    # Long episodes in fewer tasks: simulating them should not outweigh the gradient steps.
    round_tasks=int(min(512, num_tasks, 51_200 // made_family.episode_length)),
    num_validation=int(min(64, max(1, num_tasks // 4))),
  )
  if jax.process_index() > 0:  # the first process reports and writes
    train(operator, made_family, dataset, settings, seed=seed, folder=folder)
    return operator_folder
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
  settings: EvaluationSettings, commands: list[str], ppo_updates: int | None = None,
  output: pathlib.Path | None = None, wall: pathlib.Path | None = None,
) -> dict:
  """Judges an operator on tasks its histories do not hold; writes results.json and report.html to `output`."""
  made_family = make_family(family, backend)
  operator, operator_params = checkpoints.load_operator(operator_folder, made_family)
  conditioned, learning, num_tasks = load_conditioned(histories, made_family)
  header = read_complete_header(histories, made_family)
  seed, hidden_sizes = header['sources'][0]['seed'], tuple(header['hidden_sizes'])
  progress = console.Progress()
  with console.Stopwatch(wall or folder, 'evaluate') as watch:
    def report(stage, done, total, figures):
      watch.tick()
      progress(stage, done, total, figures)

    figures = evaluate(
      operator, operator_params, made_family, seed=seed, folder=folder, settings=settings,
      conditioned=conditioned, conditioned_learning=learning, report=report,
      ppo=tuned.make_source(independent_ppo.NAME, made_family, hidden_sizes, num_updates=ppo_updates),
    )
    task = take(sample_tasks(made_family, seed, 1, 'heldout'), 0)
    key_policy, key_films = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3000))
    rollouts = record_improvement(
      made_family, operator, operator_params, task, operator.policy.init(key_policy), key_films,
      num_applications=min(4, settings.num_applications),
      num_episodes=settings.num_episodes, ask=settings.ask,
    )
  seconds = console.read_seconds(wall or folder)
  results = {
    'family': family, 'backend': made_family.backend, 'seed': seed, 'train_tasks': num_tasks, **figures,
    'collect': collecting_rates(histories),
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
