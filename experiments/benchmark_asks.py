"""What operators give when they are asked for less, or for more, than the best: asked against got, on held-out tasks.

  python -m experiments.benchmark_asks --families=reacher_goal --seeds=0,1,2

Two operators learn from the same histories: one that understands asks for a return, a score, a skill and a goal too,
and one that does not. The first one gathers experience, asked for the best, and is then asked for one thing after the
other. The control is given another task's experience. Where tasks have goals, it is also asked for the best at the goal
of the task, without any experience and with it; there the control is asked for another task's goal. Both are asked for
the best as well, which shows what the asks cost.

A family after the other; its rows are written when it is done, and rows of other families stay. Can be stopped at any
moment; run again, it goes on where it was.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags
from scipy import stats

from experiments import console, jobs, stages
from experiments.jobs import Job
from metaimprove import asks
from metaimprove.asks import explore, goal
from metaimprove.evaluation import metrics, rows
from metaimprove.evaluation.evaluate import Evaluation, evaluate
from metaimprove.evaluation.results import is_sparse
from metaimprove.evaluation.rows import GOT, AskRow
from metaimprove.files import claim
from metaimprove.histories.dataset import Dataset, load_dataset
from metaimprove.histories.reference import load_conditioned
from metaimprove.methods import controls
from metaimprove.methods.asked import asked_method
from metaimprove.methods.method import Method
from metaimprove.methods.operator import operator_method
from metaimprove.methods.standard import Playground
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.config import OperatorConfig
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family

FLAGS = flags.FLAGS
ASKED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
"""Scores that are asked for; returns at the same shares of the way from the mean worst to the mean best level of the
training histories. Skills end at 1."""
OF_NUMBERS = ('mean_return', 'score', 'skill')
OPERATORS = {'plain': (), 'asks': (*OF_NUMBERS, goal.NAME)}
"""Operators, and the kinds of ask that each learns besides those of the family; a goal only where there are goals."""
GOAL_EXPERIENCE = 0, 1, 2
"""Policies whose experience is known when a goal is asked for: none, a random one, and one more."""
_SHUFFLED = "another task's experience"

if __name__ == '__main__':
  jobs.define_row_flags('runs/asks', 'docs/results/asks.json')
  flags.adopt_module_key_flags(jobs)


def asked_of(kind: str, dataset: Dataset) -> list[float]:
  """What is asked for by a kind; see `ASKED`."""
  if kind == 'skill':
    return [value for value in ASKED if value <= 1]
  if kind == 'score':
    return list(ASKED)
  lowest, highest = dataset.returns.min(axis=1).mean(), dataset.returns.max(axis=1).mean()
  return [round(float(lowest + value * (highest - lowest)), 4) for value in ASKED]


def train(job: Job, family: TaskFamily, name: str, seed: int, folder: pathlib.Path) -> pathlib.Path:
  """The folder of one of both operators, trained if it was not."""
  operator_folder = folder / name / 'operator'
  if not (operator_folder / 'config.json').exists():
    kinds = (*OperatorConfig.of(family).asks, *(
      kind for kind in OPERATORS[name] if kind != goal.NAME or family.achieved is not None
    ))
    stages.train_operator(
      folder / name, folder / 'histories', family=job.family, backend=job.backend, seed=seed,
      config={'num_episodes': job.num_episodes, 'asks': kinds}, settings=job.training(), num_updates=job.num_updates,
      operator_folder=operator_folder, explorers_folder=folder / 'explorers', verify=False,
    )
  return operator_folder


def judge(job: Job, name: str, seed: int, folder: pathlib.Path) -> Evaluation:
  """Collects, trains one of both operators and judges it."""
  claim(folder, dataclasses.asdict(job))
  family = make_family(job.family, job.backend)
  jobs.collect(job, seed, folder / 'histories', folder)
  operator, operator_params = load_operator(train(job, family, name, seed, folder), family)
  conditioned, learning, _ = load_conditioned(folder / 'histories', family)
  playground = Playground(
    play=make_play(family, operator.policy, num_episodes=job.num_episodes), num_episodes=job.num_episodes,
    settings=job.evaluation(),
  )
  measure, explores = playground.measure(), explore.NAME in operator.config.asks
  methods: list[Method] = [operator_method(
    operator, operator_params, playground.play, ask=asks.ask(steps='best'), num_applications=job.num_applications,
    num_episodes=job.num_episodes, explores=explores,
  )]
  dataset = load_dataset(folder / 'histories', family, verify=False)
  for kind in OF_NUMBERS if OPERATORS[name] else ():
    wanted = [asks.ask(**{kind: value}) for value in asked_of(kind, dataset)]
    methods += [asked_method(
      operator, operator_params, playground.play, measure, wanted, num_applications=experience(job),
      num_episodes=job.num_episodes, explores=explores, another_task=shuffled,
      name=f'{kind}_shuffled' if shuffled else kind, title=f'asked for a {kind.replace("_", " ")}',
    ) for shuffled in (False, True)]
  if goal.NAME in operator.config.asks:
    methods += [asked_method(
      operator, operator_params, playground.play, measure, [asks.ask(steps='best')], num_applications=known,
      num_episodes=job.num_episodes, goal_of=whose, name=goal_name(known, whose), title=f'asked for a goal ({whose})',
    ) for known in GOAL_EXPERIENCE for whose in ('own', 'another')]
  with console.stage(folder, f'judge {name}') as progress:
    return evaluate(
      methods, family, initial=controls.random_policies(operator.policy, *measure), seed=seed,
      references=[controls.told_everything(conditioned, learning.snapshots[-1], *measure)],
      num_tasks=job.heldout_tasks, folder=folder / name / 'evaluation', splits=('heldout',), progress=progress,
    )


def goal_name(known: int, whose: str) -> str:
  """The name of the method that is asked for a goal after the experience of so many policies."""
  return f'goal_{whose}_{known}'


def experience(job: Job) -> int:
  """Policies whose experience is remembered when it is asked: enough to know the task."""
  return 8 if is_sparse(job.family) else 2


def rows_of(job: Job, seeds: Sequence[int], folder: pathlib.Path, command: str) -> list[AskRow]:
  """The rows of a family."""
  parts = [folder / f'seed_{seed}' for seed in seeds]
  judged = {name: [judge(job, name, seed, part) for seed, part in zip(seeds, parts)] for name in OPERATORS}
  family, found = make_family(job.family, job.backend), judged['asks']
  name = job.family if job.backend is None else f'{job.family} on {job.backend}'
  tasks = sum(int(np.sum(one.has_score('heldout', 'operator'))) for one in found)

  def row(ask: str, metric: str, control: str, value: float, control_value: float) -> AskRow:
    return AskRow(
      ask=ask, family=name, seeds=list(seeds), tasks=tasks, metric=metric, value=round(float(value), 4),
      control=control, control_value=round(float(control_value), 4), command=command,
    )

  end, title = (np.mean, 'mean score') if is_sparse(job.family) else (metrics.iqm, 'IQM of the score')
  best = {name: np.concatenate([one.scores('heldout', 'operator') for one in judged[name]], axis=1) for name in judged}
  result = [
    row('best', f'{title} after {n}', 'an operator without these asks', end(best['asks'][n]), end(best['plain'][n]))
    for n in (1, 4, job.num_applications) if n <= job.num_applications
  ]
  for kind in OF_NUMBERS:
    asked = [asked_of(kind, load_dataset(part / 'histories', family, verify=False)) for part in parts]
    got = [[answers(one, name, kind) for one in found] for name in (kind, f'{kind}_shuffled')]
    result.append(row(kind, 'rank correlation', _SHUFFLED, *(rank_correlation(asked, one) for one in got)))
    if kind != 'skill':  # of which it is not said how many returns it is
      result.append(row(kind, 'mean absolute error', _SHUFFLED, *(mean_error(asked, one) for one in got)))
    for index in range(len(asked[0])):
      wanted = np.mean([one[index] for one in asked])
      means = (np.mean(np.concatenate([part[index] for part in one])) for one in got)
      result.append(row(kind, f'{GOT}{wanted:.4g}', _SHUFFLED, *means))
  for known in GOAL_EXPERIENCE if goal_name(0, 'own') in found[0].curves['heldout'] else ():
    scores = (np.concatenate([one.scores('heldout', goal_name(known, whose))[0] for one in found])
              for whose in ('own', 'another'))
    result.append(row(goal.NAME, f'{title}, asked after {known} policies', "another task's goal", *map(end, scores)))
  return result


def answers(found: Evaluation, name: str, kind: str) -> np.ndarray:
  """[G, B] what came of each ask on the tasks that have a score: scores, or returns where returns were asked for."""
  scores, bounds = found.scores('heldout', name), found.bounds['heldout']
  if kind != 'mean_return':
    return scores
  return metrics.returns_of(scores, bounds.initial[bounds.usable], bounds.reference[bounds.usable])


def _inside(asked: Sequence[Sequence[float]], got: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """All that was asked and got in the range that was seen, over seeds, asks and tasks."""
  inside = [index for index, value in enumerate(ASKED) if value <= 1]
  pairs = [
    (np.repeat(np.take(wanted, inside), found.shape[1]), found[inside].reshape(-1)) for wanted, found in zip(asked, got)
  ]
  return tuple(map(np.concatenate, zip(*pairs)))


def rank_correlation(asked: Sequence[Sequence[float]], got: Sequence[np.ndarray]) -> float:
  """Spearman's, of what was asked [G] and got [G, B]; 0 where nothing that was got differs."""
  wanted, found = _inside(asked, got)
  return float(stats.spearmanr(wanted, found).statistic) if np.ptp(found) else 0.0


def mean_error(asked: Sequence[Sequence[float]], got: Sequence[np.ndarray]) -> float:
  """Mean absolute difference of what was asked and got, in units of what was asked for."""
  wanted, found = _inside(asked, got)
  return float(np.abs(wanted - found).mean())


def main() -> None:
  """Judges the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  if path.exists():
    rows.read(path, AskRow)  # a damaged file is refused before any work
  for name in families:
    job, folder = Job.of(name, **jobs.given()), pathlib.Path(FLAGS.folder) / name
    command = console.command_for(families=name, seeds=','.join(map(str, seeds)), **jobs.given())
    found = rows_of(job, seeds, folder, command)
    rows.replace(path, found, lambda row, of=found[0].family: row.family == of)
    for row in found:
      print(f'{row.family}, {row.ask}, {row.metric}: {row.value:.3f}; {row.control}: {row.control_value:.3f}')
  print(f'Rows: {path}')


if __name__ == '__main__':
  console.launch(main)
