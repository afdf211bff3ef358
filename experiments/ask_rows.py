"""The figures of asks: from what was asked and what came of it to rows; most are of `benchmark_asks`."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from experiments import ask_methods
from experiments.ask_methods import (
  ASKED, GOAL_EXPERIENCE, GUIDANCE, LEARNED, OF_NUMBERS, SCRIPT, SIZES, TOGETHER, WORDS_EXPERIENCE, goal_name,
  together_name, words_name,
)
from experiments.jobs import Job
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation import metrics
from metaimprove.evaluation import rows as rows_
from metaimprove.evaluation.evaluate import Evaluation
from metaimprove.evaluation.results import is_sparse
from metaimprove.evaluation.rows import GOT, AskRow
from metaimprove.histories.dataset import Dataset
from metaimprove.methods.imitation import AGAIN
from metaimprove.tasks.family import TaskFamily

_SHUFFLED = "another task's experience"
_DONE = 'share of what was said that is done'
Figure = Callable[[Sequence[np.ndarray]], float]
"""Of values [..., B] of each seed."""


@dataclasses.dataclass(frozen=True)
class Done:
  """What was done on a family: its job, its seeds, and the command."""

  job: Job
  family: TaskFamily
  seeds: Sequence[int]
  command: str

  def row(
    self, ask: str, metric: str, figure: Figure, values: Sequence[np.ndarray], control: str,
    other: Sequence[np.ndarray] | float,
  ) -> AskRow:
    """The row of a figure of `values`, one [..., B] a seed, with its interval, beside that of a control."""
    low, high = metrics.interval_of(figure, values)
    return AskRow(
      ask=ask, family=self.job.family, backend=self.family.backend, seeds=list(self.seeds),
      tasks=sum(one.shape[-1] for one in values), metric=metric, value=round(float(figure(values)), 4),
      low=round(low, 4), high=round(high, 4), control=control,
      control_value=round(float(other if isinstance(other, float) else figure(other)), 4), command=self.command,
    )


@dataclasses.dataclass(frozen=True)
class Judged(Done):
  """What is known of a family.

  Attributes:
    plain, asked: evaluations of the operator without and with asks, one a seed.
    datasets: the histories of each seed.
  """

  plain: Sequence[Evaluation]
  asked: Sequence[Evaluation]
  datasets: Sequence[Dataset]

  @property
  def end(self) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """How scores of tasks are summed up, and its name."""
    return (np.mean, 'mean score') if is_sparse(self.job.family) else (metrics.iqm, 'IQM of the score')

  def scores(self, name: str) -> list[np.ndarray]:
    """Of each seed what came of the asks of a method: [G, B] scores of the tasks that have one."""
    return [one.scores('heldout', name) for one in self.asked]

  @property
  def points(self) -> tuple[int, ...]:
    """Numbers of applications that are told of."""
    most = self.job.num_applications
    return tuple(n for n in dict.fromkeys((1, 4, most)) if n <= most)

  def has(self, name: str) -> bool:
    return name in self.asked[0].curves['heldout']


def rows_of(judged: Judged) -> list[AskRow]:
  """All rows of a family."""
  return [
    *_best(judged), *(row for kind in OF_NUMBERS for row in _numbers(judged, kind)), *_sizes(judged),
    *_guided(judged), *_goals(judged), *_together(judged), *_words(judged), *_watching(judged),
  ]


def _best(judged: Judged) -> list[AskRow]:
  plain, given = [one.scores('heldout', 'operator') for one in judged.plain], judged.scores('operator')
  ends = dict.fromkeys([judged.end, (metrics.iqm, 'IQM of the score')])  # where rewards are sparse, both
  return [
    judged.row('best', f'{title} after {n}', at(end, n), given, 'an operator without these asks', plain)
    for end, title in ends for n in judged.points
  ]


def _numbers(judged: Judged, kind: str) -> list[AskRow]:
  asked = [ask_methods.asked_of(kind, dataset) for dataset in judged.datasets]
  got, other = ([answers(one, name, kind) for one in judged.asked] for name in (kind, f'{kind}_shuffled'))
  rows = [judged.row(kind, 'rank correlation', lambda v: rank_correlation(asked, v), got, _SHUFFLED, other)]
  if kind != 'skill':  # of which it is not said how many returns it is
    rows.append(judged.row(kind, 'mean absolute error', lambda v: mean_error(asked, v), got, _SHUFFLED, other))
  wanted = np.mean(asked, axis=0)
  return rows + [
    judged.row(kind, f'{GOT}{value:.4g}', at(np.mean, n), got, _SHUFFLED, other) for n, value in enumerate(wanted)
  ]


def _sizes(judged: Judged) -> list[AskRow]:
  if not judged.has('sizes'):
    return []
  got = judged.scores('sizes')
  stored = np.mean([ask_methods.score_of_sizes(dataset) for dataset in judged.datasets], axis=0)
  return [
    judged.row(
      'steps', f'mean score, k = {size}', at(np.mean, n), got, 'that level, from worst to best of histories',
      float(stored[n]),
    )
    for n, size in enumerate(SIZES)
  ]


def _guided(judged: Judged) -> list[AskRow]:
  (end, title), got = judged.end, judged.scores('guided')
  plain = end(np.concatenate(got, axis=1)[GUIDANCE.index(1.0)])
  return [
    judged.row('score', f'{title}, guided by {weight:g}', at(end, n), got, 'not guided', float(plain))
    for n, weight in enumerate(GUIDANCE) if weight != 1
  ]


def _goals(judged: Judged) -> list[AskRow]:
  end, title = judged.end
  return [
    judged.row(
      'goal', f'{title}, asked after {known} policies', at(end, 0), judged.scores(goal_name(known, 'own')),
      "another task's goal", judged.scores(goal_name(known, 'another')),
    ) for known in GOAL_EXPERIENCE if judged.has(goal_name(known, 'own'))
  ]


def _together(judged: Judged) -> list[AskRow]:
  return [
    judged.row(
      'goal and score', f'mean score, asked for the goal and {value:g} after {known} policies', at(np.mean, n),
      judged.scores(together_name(known, 'own')), "another task's goal", judged.scores(together_name(known, 'another')),
    )
    for known in WORDS_EXPERIENCE if judged.has(together_name(known, 'own')) for n, value in enumerate(TOGETHER)
  ]


def _words(judged: Judged) -> list[AskRow]:
  if not judged.has(words_name(0, False)):
    return []
  groups, *others = (
    [*ask_methods.sentences(dataset, judged.job.heldout_tasks, seed)]
    for dataset, seed in zip(judged.datasets, judged.seeds)
  )
  if any(other != groups for other in others):
    raise IncompatibleError('Not all seeds have the same groups of sentences; take more tasks or levels.')
  rows = []
  for known in WORDS_EXPERIENCE:
    said, another, numbers = (
      [one.curves['heldout'][name].returns for one in judged.asked] if judged.has(name) else None
      for name in (words_name(known, False), words_name(known, True), f'goals_in_numbers_{known}')
    )
    after = f'asked after {known} policies'
    rows += [
      judged.row('words', f'{_DONE}, {group}, {after}', at(np.mean, n), said, 'in words for another task', another)
      for n, group in enumerate(groups)
    ]
    if numbers is not None:
      in_words = float(np.mean(np.concatenate(said, axis=1)[groups.index('goals')]))
      rows.append(judged.row(
        'goal', f'{_DONE}, goals in numbers, {after}', at(np.mean, 0), numbers, 'the same goals in words', in_words
      ))
  return rows


def _watching(judged: Judged) -> list[AskRow]:
  rows = []
  for name in filter(lambda one: judged.has(f'behave_as_{one}'), (*LEARNED, SCRIPT)):
    scores = judged.scores(f'behave_as_{name}')
    level = float(np.mean(np.concatenate([one[0] for one in scores])))
    off = [np.abs(one - one[0]) for one in scores]
    clone = at(np.mean, -2)(off)
    rows.append(judged.row('behave as', f'mean score, as {name}', at(np.mean, 1), scores, 'of the one watched', level))
    rows += [
      judged.row(
        'behave as', f'mean absolute difference of scores, as {name}, imitated {times} times', at(np.mean, 1 + index),
        off, 'behaviour cloning', clone,
      ) for index, times in enumerate(AGAIN)
    ]
    rows += [
      judged.row('behave as', f'mean absolute difference of scores, as {name}, {what}', at(np.mean, index), off,
                 'behaviour cloning', clone)
      for what, index in {'imitated without rewards': -3, 'of itself, measured again': -1}.items()
    ]
    apart = [one.curves['heldout'][f'apart_from_{name}'].returns for one in judged.asked]
    rows.append(judged.row(
      'behave as', f'mean absolute difference of actions, as {name}', at(np.mean, 0), apart, 'behaviour cloning',
      at(np.mean, 1)(apart),
    ))
  return rows


def write(path: pathlib.Path, found: Sequence[AskRow]) -> None:
  """Writes the rows of a family in place of those that the same binary has written of it; those of others stay."""
  of = lambda row: (row.family, row.backend, row.command.split()[:3])  # python -m experiments.BINARY
  rows_.replace(path, found, lambda row: of(row) == of(found[0]))


def show(rows: Sequence[AskRow]) -> None:
  """Prints rows."""
  for row in rows:
    print(f'{row.family}, {row.ask}, {row.metric}: {row.value:.3f}; {row.control}: {row.control_value:.3f}')


def at(end: Callable[[np.ndarray], np.ndarray], index: int) -> Figure:
  """The figure that sums up the values of one ask, over all tasks and seeds."""
  return lambda values: float(end(np.concatenate([one[index] for one in values])))


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
