"""How well an operator generalises as it learns from more tasks, and how fast that grows.

  python -m experiments.scale_tasks --families=point_goal_sparse_h20,reacher_goal

Histories are collected once. Operators learn from those of the first 16, 32, ..., 2,048 tasks alone, in as many
gradient steps and with as many runs of their own, which are played on these tasks. So they see as much, but of fewer
tasks. All are judged on the same held-out tasks. Their loss is taken on histories of tasks from which none learns.
Power laws are fitted to loss and regret, 1 - the mean score (see `evaluation.power_law`).

A family after the other; its row is written when it is done, with a plot, FOLDER/FAMILY/scaling.png. Can be stopped at
any moment; run again, it goes on where it was.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from experiments import console, jobs, stages
from experiments.ablate_operator import answers_of
from experiments.jobs import Job
from experiments.tabulate_results import draw_scaling, scaling_tables
from metaimprove import asks
from metaimprove.asks import explore
from metaimprove.evaluation import metrics, rows
from metaimprove.evaluation.evaluate import Evaluation, evaluate
from metaimprove.evaluation.power_law import fit_power_law
from metaimprove.evaluation.rows import ScalingRow
from metaimprove.files import claim
from metaimprove.histories.dataset import load_dataset
from metaimprove.histories.reference import load_conditioned
from metaimprove.methods import controls
from metaimprove.methods.operator import operator_method
from metaimprove.methods.standard import Playground
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.operator import Operator
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Params

FLAGS = flags.FLAGS
KEPT_OUT = 64
"""Tasks whose histories no operator learns from."""
_AFTER = (1, 2, 4, 30)

if __name__ == '__main__':
  jobs.define_row_flags('runs/scaling', 'docs/results/scaling.json')
  flags.DEFINE_list('training_tasks', [str(2 ** power) for power in range(4, 12)], 'Numbers of tasks to learn from.')
  flags.adopt_module_key_flags(jobs)


def settings_of(job: Job) -> TrainingSettings:
  """The settings that suit the whole of the histories, with which all operators learn; see `train`."""
  return TrainingSettings.of(
    make_family(job.family, job.backend), job.num_tasks, **job.training(), num_validation=KEPT_OUT
  )


def train(job: Job, num_tasks: int, seed: int, folder: pathlib.Path) -> tuple[Operator, Params]:
  """The operator that learns from so many tasks, trained if it was not."""
  part = folder / f'{num_tasks}_tasks'
  if not (part / 'operator' / 'config.json').exists():
    stages.train_operator(
      part, folder / 'histories', family=job.family, backend=job.backend, seed=seed, num_tasks=num_tasks,
      config={'num_episodes': job.num_episodes},
      # As many runs, however few the tasks: what is told apart is how many kinds of tasks were seen, not how much.
      settings={**job.training(), 'round_tasks': settings_of(job).round_tasks, 'num_validation': 0},
      num_updates=job.num_updates, explorers_folder=folder / 'explorers', verify=False,
    )
  return load_operator(part / 'operator', make_family(job.family, job.backend))


def name_of(num_tasks: int) -> str:
  """The name of the operator that learned from so many tasks."""
  return f'tasks_{num_tasks}'


def judge(
  job: Job, training_tasks: Sequence[int], seed: int, folder: pathlib.Path
) -> tuple[Evaluation, list[Mapping[str, float]]]:
  """Collects, trains, and judges on held-out tasks; and `AblationRow.answers` of each operator, of tasks from which
  none learned."""
  claim(folder, dataclasses.asdict(job))
  family = make_family(job.family, job.backend)
  jobs.collect(job, seed, folder / 'histories', folder)
  dataset, methods, answers = load_dataset(folder / 'histories', family, verify=False), [], []
  for num in training_tasks:
    operator, operator_params = train(job, num, seed, folder)
    playground = Playground(
      play=make_play(family, operator.policy, num_episodes=job.num_episodes), num_episodes=job.num_episodes,
      settings=job.evaluation(),
    )
    answers.append(answers_of(operator, operator_params, dataset, settings_of(job), seed))
    methods.append(operator_method(
      operator, operator_params, playground.play, ask=asks.ask(steps='best'), num_applications=job.num_applications,
      num_episodes=job.num_episodes, explores=explore.NAME in operator.config.asks, name=name_of(num),
      title=f'operator of {num} tasks',
    ))
  conditioned, learning, _ = load_conditioned(folder / 'histories', family)
  measure = playground.measure()
  with console.stage(folder, 'judge') as progress:
    found = evaluate(
      methods, family, initial=controls.random_policies(operator.policy, *measure), seed=seed,
      references=[controls.told_everything(conditioned, learning.snapshots[-1], *measure)],
      num_tasks=job.heldout_tasks, folder=folder / 'evaluation', splits=('heldout',), progress=progress,
    )
  return found, answers


def laws_of(
  training_tasks: Sequence[int], loss: Sequence[float], scores: Mapping[int, Sequence[np.ndarray]]
) -> dict[str, dict[str, float | None]]:
  """`ScalingRow.laws`, of scores [T, B] of each seed after each number of applications."""
  exponent = lambda strata: law_of(strata).exponent
  law_of = lambda strata: fit_power_law(training_tasks, 1 - np.concatenate(strata, axis=-1).mean(axis=-1))
  kept = lambda law, low, high: {
    **{name: round(value, 4) for name, value in dataclasses.asdict(law).items()}, 'low': low, 'high': high,
  }
  laws = {'loss': kept(fit_power_law(training_tasks, loss), None, None)}
  for n, strata in scores.items():
    laws[f'regret after {n}'] = kept(law_of(strata), *(round(end, 4) for end in metrics.interval_of(exponent, strata)))
  return laws


def row_of(
  job: Job, backend: str, training_tasks: Sequence[int], seeds: Sequence[int], found: Sequence[Evaluation],
  answers: Sequence[Sequence[Mapping[str, float]]], command: str,
) -> ScalingRow:
  """The row of a family: of each seed its evaluation and its answers.

  Raises:
    NoScoreError: if no task has a score.
  """
  for one in found:
    one.check_scored('heldout')
  after = [n for n in _AFTER if n <= job.num_applications]
  curves = [np.stack([one.scores('heldout', name_of(num)) for num in training_tasks]) for one in found]  # [T, P, B]
  scores = {n: [curve[:, n] for curve in curves] for n in after}
  mean_of = lambda num: lambda strata: float(np.concatenate(strata, axis=-1)[num].mean())
  intervals = [
    [metrics.interval_of(mean_of(num), scores[n]) for num in range(len(training_tasks))] for n in after
  ]
  rounded = lambda values: np.round(values, 4).tolist()
  loss, divergence = (
    rounded(np.mean([[answer[name] for answer in of_seed] for of_seed in answers], axis=0))
    for name in ('loss', 'divergence')
  )
  return ScalingRow(
    family=job.family, backend=backend, seeds=list(seeds), tasks=sum(curve.shape[-1] for curve in curves),
    training_tasks=list(training_tasks), loss=loss, divergence=divergence, after=after,
    iqm=rounded([metrics.iqm(np.concatenate(scores[n], axis=-1)) for n in after]),
    mean=rounded([np.concatenate(scores[n], axis=-1).mean(axis=-1) for n in after]),
    low=rounded([[low for low, _ in line] for line in intervals]),
    high=rounded([[high for _, high in line] for line in intervals]),
    laws=laws_of(training_tasks, loss, scores), commands=[command],
  )


def main() -> None:
  """Judges the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  numbers = sorted(jobs.training_tasks(FLAGS.training_tasks))
  if path.exists():
    rows.read(path, ScalingRow)  # a damaged file is refused before any work
  for name in families:
    job, folder = jobs.job_with(name, max(numbers) + KEPT_OUT), pathlib.Path(FLAGS.folder) / name
    judged = [judge(job, numbers, seed, folder / f'seed_{seed}') for seed in seeds]
    row = row_of(
      job, make_family(name, job.backend).backend, numbers, seeds, *zip(*judged),
      console.command_for(families=name, seeds=','.join(map(str, seeds)), training_tasks=','.join(map(str, numbers)),
                          **jobs.given()),
    )
    rows.add(path, row)
    draw_scaling([row], folder / 'scaling.png')
    print('\n'.join(scaling_tables([row])))
    print(f'Plot: {folder}/scaling.png')
  print(f'Rows: {path}')


if __name__ == '__main__':
  console.launch(main)
