"""What it is worth to show experience that is changed on purpose, and to tell so, as training tasks get fewer.

  python -m experiments.benchmark_augmentation --families=point_goal_sparse_h20 --seeds=0,1,2

Histories are collected once, and operators learn from those of the first so many tasks alone: one as usual, and one
that is also shown examples that are mirrored, rotated, warped, noisy or partly hidden, and told so, in as many steps
(see `training.augmentation`). Which share of its examples is changed is chosen for each number of tasks on validation
tasks of the first seed. Both are then asked for the best on held-out tasks, and for no augmentation. Source, explorers
and reference are the same for all.

A family after the other; its rows are written when it is done, and rows of other families and binaries stay. Can be
stopped at any moment; run again, it goes on where it was.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from experiments import ask_rows, console, jobs, judging, stages
from experiments.ask_rows import Judged
from experiments.jobs import Job
from metaimprove import asks
from metaimprove.asks import augmentation, explore
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation import rows
from metaimprove.evaluation.evaluate import Evaluation
from metaimprove.evaluation.rows import AskRow
from metaimprove.files import claim
from metaimprove.methods.operator import operator_method
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.config import OperatorConfig
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family

FLAGS = flags.FLAGS
WITHOUT = 0.0
"""The share of changed examples of the operator that is shown none."""

if __name__ == '__main__':
  jobs.define_row_flags('runs/augmentation', 'docs/results/asks.json')
  flags.DEFINE_list('training_tasks', ['16', '64', '256'], 'Numbers of tasks to learn from.')
  flags.DEFINE_list('augmented_shares', ['0.1', '0.3', '0.6'], 'Shares of changed examples, of which one is chosen.')
  flags.adopt_module_key_flags(jobs)


def augmented_shares(said: Sequence[str]) -> list[float]:
  """Shares that `--augmented_shares` says; raises `IncompatibleError` for what is none."""
  try:
    shares = [float(share) for share in said]
  except ValueError as error:
    raise IncompatibleError(f'--augmented_shares are numbers: {error}.') from None
  if not shares or not 0 < min(shares) <= max(shares) <= 1:
    raise IncompatibleError(f'--augmented_shares={",".join(said)} must be shares above 0, up to 1.')
  return shares


def name_of(share: float) -> str:
  """The name of the operator that is shown a share of changed examples."""
  return 'without' if share == WITHOUT else f'share_{share:g}'.replace('.', '_').replace('-', '_')


def kinds_of(family: TaskFamily, share: float) -> tuple[str, ...]:
  """What it understands."""
  own = OperatorConfig.of(family).asks
  return own if share == WITHOUT else (*own, augmentation.NAME)


def train(job: Job, family: TaskFamily, num_tasks: int, share: float, seed: int, folder: pathlib.Path) -> pathlib.Path:
  """The folder of an operator that learns from so many tasks, trained if it was not."""
  part = folder / f'{num_tasks}_tasks' / name_of(share)
  return stages.train_once(
    part, folder / 'histories', family=job.family, backend=job.backend, seed=seed, num_tasks=num_tasks,
    config={'num_episodes': job.num_episodes, 'asks': kinds_of(family, share)},
    # All tasks are learned from: there are few, and what is chosen is so on validation tasks of their own.
    settings={**job.training(), 'augmented_share': share, 'num_validation': 0}, num_updates=job.num_updates,
    explorers_folder=folder / 'explorers', verify=False,
  )


def judge(
  job: Job, num_tasks: int, shares: Sequence[float], seed: int, folder: pathlib.Path, split: str
) -> Evaluation:
  """Collects, trains the operators of the shares, and judges them on the tasks of a split; see
  `Evaluation.check_scored`."""
  claim(folder, dataclasses.asdict(job))
  family = make_family(job.family, job.backend)
  jobs.collect(job, seed, folder / 'histories', folder)
  methods, best = [], asks.ask(steps='best')
  for share in shares:
    operator, operator_params = load_operator(train(job, family, num_tasks, share, seed, folder), family)
    playground = judging.playground_of(job, family, operator.policy)
    methods.append(operator_method(
      operator, operator_params, playground.play, ask=best, num_applications=job.num_applications,
      num_episodes=job.num_episodes, explores=explore.NAME in operator.config.asks, name=name_of(share),
      title=f'{num_tasks} tasks, a share of {share:g} augmented',
    ))
  found = judging.judge(
    methods, job, family, operator.policy, playground, folder / 'histories',
    folder / f'{num_tasks}_tasks' / 'evaluation', seed=seed, split=split, stage=f'judge {num_tasks} tasks', wall=folder,
  )
  found.check_scored(split)
  return found


def choose(judged: Judged, shares: Sequence[float]) -> float:
  """The share whose operator is best on the validation tasks of an evaluation, over the numbers of applications."""
  end, _ = judged.end
  found = {
    share: np.mean([end(one.scores('validation', name_of(share))[n]) for one in judged.asked for n in judged.points])
    for share in shares
  }
  print(f'validation tasks of {judged.job.family}: ' + ', '.join(f'{s:g}: {score:.3f}' for s, score in found.items()))
  return max(found, key=found.get)


def rows_of(judged: Judged, num_tasks: int, share: float) -> list[AskRow]:
  """How good operators are that learned from so many tasks, with a share of changed examples, and what that gains."""
  end, title = judged.end
  given, without = judged.scores(name_of(share)), judged.scores(name_of(WITHOUT))
  both, found = [np.stack(pair) for pair in zip(given, without)], []  # of the same tasks, which are resampled together
  for n in judged.points:
    on = f'after {n}, {num_tasks} training tasks, share {share:g}'
    gain = lambda values: float(np.subtract(*(end(np.concatenate(x, axis=-1)[n]) for x in zip(*values))))
    found += [
      judged.row(
        augmentation.NAME, f'{title} {on}', ask_rows.at(end, n), given, 'without augmentations', without
      ),
      judged.row(augmentation.NAME, f'gain in {title} {on}', gain, both, 'none', 0.0),
    ]
  return found


def main() -> None:
  """Judges the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  tasks, shares = jobs.training_tasks(FLAGS.training_tasks), augmented_shares(FLAGS.augmented_shares)
  if path.exists():
    rows.read(path, AskRow)  # a damaged file is refused before any work
  for name in families:
    job, folder, found = jobs.job_with(name, max(tasks)), pathlib.Path(FLAGS.folder) / name, []
    command = console.command_for(
      families=name, seeds=','.join(map(str, seeds)), training_tasks=','.join(map(str, tasks)),
      augmented_shares=','.join(f'{share:g}' for share in shares), **jobs.given(),
    )

    def judged_of(num, some, seeds, split):
      return Judged(
        job=job, family=make_family(name, job.backend), seeds=seeds, command=command, plain=[], datasets=[],
        asked=[judge(job, num, some, seed, folder / f'seed_{seed}', split) for seed in seeds],
      )

    for num in tasks:
      share = choose(judged_of(num, shares, seeds[:1], 'validation'), shares) if len(shares) > 1 else shares[0]
      found += rows_of(judged_of(num, (WITHOUT, share), seeds, 'heldout'), num, share)
    ask_rows.write(path, found)
    ask_rows.show(found)
  print(f'Rows: {path}')


if __name__ == '__main__':
  console.launch(main)
