"""How an operator that understands asks is asked: the methods of `benchmark_asks`, and what is asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.jobs import Job
from experiments.scripts import GAINS, script_of
from metaimprove import asks
from metaimprove.asks import explore, goal, words
from metaimprove.evaluation.results import is_sparse
from metaimprove.histories.dataset import Dataset
from metaimprove.improvers.source import Learning, Source
from metaimprove.methods.asked import asked_method
from metaimprove.methods.imitation import divergence_method, imitation_method, watched_level, watched_script
from metaimprove.methods.method import Method
from metaimprove.methods.operator import operator_method
from metaimprove.methods.standard import Playground
from metaimprove.methods.worded import GROUPS, Questions, judge_of, questions
from metaimprove.operators.operator import Operator
from metaimprove.tasks.family import TaskFamily

ASKED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
"""Scores that are asked for; returns at the same shares of the way from the mean worst to the mean best level of the
training histories. Skills end at 1."""
OF_NUMBERS = ('mean_return', 'score', 'skill')
SIZES = (1, 2, 4, 8, 'best')
"""Sizes of improvement that are asked for after the experience of a random policy."""
GUIDANCE, LOW = (1.0, 1.25, 1.5, 2.0, 3.0), 0.5
"""How far beyond what is answered to a score of 1 an answer lies, seen from that to a score of `LOW`."""
GOAL_EXPERIENCE, WORDS_EXPERIENCE = (0, 1, 2), (0, 1)
"""Policies whose experience is known when a goal is asked for: none, a random one, and one more; and when words are, or
a goal and a score."""
TOGETHER = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Scores that are asked for together with a goal; the last one can not be had."""
LEARNED, SCRIPT = {'beginner': 0.1, 'learner': 0.3, 'expert': 1.0}, 'script'
"""Who is watched: how much of its learning the source has done; and a controller."""
_MEASURED = 4
"""Episodes that measure an answer; figures are means over tasks."""


def asked_of(kind: str, dataset: Dataset) -> list[float]:
  """What is asked for by a kind; see `ASKED`."""
  if kind == 'skill':
    return [value for value in ASKED if value <= 1]
  if kind == 'score':
    return list(ASKED)
  lowest, highest = dataset.returns.min(axis=1).mean(), dataset.returns.max(axis=1).mean()
  return [round(float(lowest + value * (highest - lowest)), 4) for value in ASKED]


def score_of_sizes(dataset: Dataset) -> list[float]:
  """The mean score of the levels that are so many of `SIZES` better than the first one, in histories."""
  lowest, highest = dataset.returns.min(axis=1), dataset.returns.max(axis=1)
  score = (dataset.returns - lowest[:, None]) / np.maximum(highest - lowest, 1e-9)[:, None]
  best = dataset.rank[:, -1]
  found = []
  for size in SIZES:
    wanted = best if size == 'best' else np.minimum(size, best)
    level = (dataset.rank >= wanted[:, None]).argmax(axis=1)
    found.append(float(score[np.arange(len(level)), level].mean()))
  return found


def sentences(dataset: Dataset, num: int, seed: int) -> dict[str, Questions]:
  """The questions of each group of `GROUPS` that the family has; those about goals only where they can be achieved."""
  found = {
    group: questions(dataset, group, num, seed) for group in GROUPS if group != 'goals' or dataset.achieved is not None
  }
  return {group: asked for group, asked in found.items() if asked is not None}


def best_method(operator: Operator, operator_params: Any, playground: Playground, job: Job) -> Method:
  """Asked for the best, again and again."""
  return operator_method(
    operator, operator_params, playground.play, ask=asks.ask(steps='best'), num_applications=job.num_applications,
    num_episodes=job.num_episodes, explores=explore.NAME in operator.config.asks,
  )


def ask_methods(
  operator: Operator, operator_params: Any, family: TaskFamily, playground: Playground, job: Job, dataset: Dataset,
  seed: int,
) -> list[Method]:
  """All that an operator is asked on the held-out tasks of a seed, and the controls."""
  def method(wanted: Sequence[Any], num_applications: int, name: str, title: str, **options: Any) -> Method:
    return asked_method(
      operator, operator_params, playground.play, (playground.of(_MEASURED), _MEASURED), wanted,
      num_applications=num_applications, num_episodes=job.num_episodes,
      explores=explore.NAME in operator.config.asks, name=name, title=title, **options,
    )

  known, best = experience(job.family), asks.ask(steps='best')
  methods = [method(
    [asks.ask(**{kind: value}) for value in asked_of(kind, dataset)], known,
    f'{kind}_shuffled' if shuffled else kind, f'asked for a {kind.replace("_", " ")}', another_task=shuffled,
  ) for kind in OF_NUMBERS for shuffled in (False, True)]
  if not is_sparse(job.family):  # there one random policy tells nothing
    methods.append(method([asks.ask(steps=size) for size in SIZES], 1, 'sizes', 'asked for a size'))
  methods.append(method(
    [asks.ask(score=LOW), asks.ask(score=1.0)], known, 'guided', 'asked beyond the best', guidance=GUIDANCE,
  ))
  if goal.NAME in operator.config.asks:
    methods += [
      method([best], known, goal_name(known, whose), f'asked for a goal ({whose})', goal_of=whose)
      for known in GOAL_EXPERIENCE for whose in ('own', 'another')
    ]
    methods += [method(
      [asks.ask(score=value) for value in TOGETHER], known, together_name(known, whose),
      f'asked for a goal ({whose}) and a score', goal_of=whose,
    ) for known in WORDS_EXPERIENCE for whose in ('own', 'another')]
  if words.NAME in operator.config.asks:
    methods += _in_words(method, family, sentences(dataset, job.heldout_tasks, seed))
  return methods


def watching_methods(
  operator: Operator, operator_params: Any, family: TaskFamily, playground: Playground, job: Job, source: Source,
  learning: Learning,
) -> list[Method]:
  """Asked to behave as somebody of whom nothing is known but what it did: as the source of the histories was after a
  part of its learning, told everything, and as a controller written by hand, where there is one."""
  at = {name: round(share * (len(learning.snapshots) - 1)) for name, share in LEARNED.items()}
  watched = [
    watched_level(source, learning.snapshots[index], operator.policy, playground.of, name)
    for name, index in at.items()
  ]
  if script := script_of(job.family):
    watched.append(watched_script(family, script, SCRIPT, gains=GAINS))
  methods = []
  for one in watched:
    shared = {'num_episodes': job.num_episodes, 'title': f'behave as {one.name}'}
    measure = playground.of(_MEASURED), _MEASURED
    methods += [
      imitation_method(
        operator, operator_params, one, playground.play, measure, name=f'behave_as_{one.name}', **shared
      ),
      divergence_method(operator, operator_params, one, playground.play, name=f'apart_from_{one.name}', **shared),
    ]
  return methods


def _in_words(method: Any, family: TaskFamily, asked: dict[str, Questions]) -> list[Method]:
  """Asked in words, and as a control in those of another task; and for the same goals in numbers."""
  judge, found = judge_of(family, [*asked.values()]), []
  clauses = {group: one.clauses() for group, one in asked.items()}
  for known in WORDS_EXPERIENCE:
    found += [method(
      [one.ask(shift) for one in asked.values()], known, words_name(known, bool(shift)), 'asked in words', judge=judge,
      judged_by=clauses,
    ) for shift in (0, 1)]
    if 'goals' in asked:
      found.append(method(
        [asked['goals'].in_numbers()], known, f'goals_in_numbers_{known}', 'asked for the same goals in numbers',
        judge=judge_of(family, [asked['goals']]), judged_by=clauses['goals'],
      ))
  return found


def goal_name(known: int, whose: str) -> str:
  """The name of the method that is asked for a goal after the experience of so many policies."""
  return f'goal_{whose}_{known}'


def together_name(known: int, whose: str) -> str:
  """The name of the method that is asked for a goal and a score after the experience of so many policies."""
  return f'goal_{whose}_and_score_{known}'


def words_name(known: int, shuffled: bool) -> str:
  """The name of the method that is asked in words after the experience of so many policies."""
  return f'words_another_{known}' if shuffled else f'words_{known}'


def experience(family: str) -> int:
  """Policies whose experience is remembered when it is asked: enough to know a task of the family."""
  return 8 if is_sparse(family) else 2
