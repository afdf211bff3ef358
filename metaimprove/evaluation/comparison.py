"""Methods beside one another on the tasks of a family: figures, and how often one is better than another.

Probability of improvement and performance profiles: Agarwal et al., arXiv:2108.13264.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaimprove.evaluation import metrics
from metaimprove.evaluation.evaluate import Evaluation
from metaimprove.evaluation.results import is_sparse, needs
from metaimprove.evaluation.rows import ComparisonRow, kept

OURS = 'operator'
MEASURED_OTHERWISE = ('ppo', 'evolution', 'told_goal', 'no_experience')
"""Methods whose points are means over other numbers of episodes than the operator's. A mean over more episodes is less
often above or below another figure by chance: so they are not compared task by task."""
AFTER = (4, 16)
"""Episodes of a task after which methods are set beside one another."""
THRESHOLDS = tuple(np.linspace(0, 1.2, 25).round(2).tolist())
"""Scores of a performance profile."""


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a method costs.

  Attributes:
    params: how many numbers are learned before any task is seen; None where nothing is.
    training_seconds: of that.
    examples: states in that of which it is told what is right.
    training_env_steps: environment steps besides those of the histories.
    act_ms: milliseconds of a step of as many agents as there are held-out tasks.
    act_ratio: the same, of the time that the policies need which an operator emits.
    act_kib: memory for that, in KiB.
    between_ms: milliseconds of what is done between two episodes, of as many agents; None where that is nothing, or was
      not measured.
  """

  params: int | None = None
  training_seconds: float | None = None
  examples: int | None = None
  training_env_steps: int | None = None
  act_ms: float | None = None
  act_ratio: float | None = None
  act_kib: float | None = None
  between_ms: float | None = None


def scores_after(evaluation: Evaluation, split: str, name: str, episodes: int) -> np.ndarray:
  """[.] scores of a method on the tasks that have one: at its last point that used at most so many episodes."""
  points = np.flatnonzero(np.asarray(evaluation.curves[split][name].episodes) <= episodes)
  return evaluation.scores(split, name)[points[-1]]


def probability_above(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> list[float] | None:
  """How often a score of ours is above the other's on the same task, with its interval; equal ones count half. None
  where no task has a score.

  Args:
    ours: scores [B_s] of each seed.
    theirs: scores of the same tasks, or of the first ones of them.
  """
  pairs = [np.stack([one[:len(other)], other]) for one, other in zip(ours, theirs) if len(other)]
  if not pairs:
    return None

  def share(strata):
    one, other = np.concatenate(strata, axis=1)
    return float(np.mean((one > other) + 0.5 * (one == other)))

  return [round(value, 4) for value in (share(pairs), *metrics.interval_of(share, pairs))]


def profile(scores: Sequence[np.ndarray]) -> list[float] | None:
  """Of scores [B_s] of each seed, the share that is above each of `THRESHOLDS`; None where there is no score."""
  if not sum(map(len, scores)):
    return None
  return [round(float(np.mean(np.concatenate(scores) > threshold)), 4) for threshold in THRESHOLDS]


def comparison_row(
  evaluations: Sequence[Evaluation], titles: Mapping[str, str], costs: Mapping[str, Cost], *, budget: str, source: str,
  commands: Sequence[str],
) -> ComparisonRow:
  """The row of the methods of `titles`, from the evaluations of each seed.

  Args:
    evaluations: with `OURS` among their methods.
    titles: name of a method -> its title.
    costs: name of a method -> what it costs.
    budget: what methods have in common; see `ComparisonRow`.
    source: of the histories.
    commands: that made it.
  """
  first = evaluations[0]
  return ComparisonRow(
    family=first.family, backend=first.backend, budget=budget, source=source, seeds=[one.seed for one in evaluations],
    tasks=int(sum(one.has_score('heldout', OURS).sum() for one in evaluations)), need=needs(evaluations)[0],
    after=list(AFTER), thresholds=list(THRESHOLDS),
    methods={
      name: _method(evaluations, name, title, costs.get(name, Cost())) for name, title in titles.items()
    },
    commands=list(commands),
  )


def _method(evaluations: Sequence[Evaluation], name: str, title: str, cost: Cost) -> dict[str, Any]:
  """What a row keeps of a method."""
  sparse, heldout = is_sparse(evaluations[0].family), evaluations[0].curves['heldout'][name]
  after = {n: [scores_after(one, 'heldout', name, n) for one in evaluations] for n in AFTER}
  ours = {n: [scores_after(one, 'heldout', OURS, n) for one in evaluations] for n in AFTER}
  far = all(name in one.curves.get('far', {}) for one in evaluations)
  alike = name not in MEASURED_OTHERWISE
  return {
    'title': title, 'tasks': int(sum(one.has_score('heldout', name).sum() for one in evaluations)),
    'episodes': np.asarray(heldout.episodes).tolist(),
    'env_steps': np.asarray(heldout.env_steps).tolist(), **_figures(evaluations, 'heldout', name, sparse),
    'far': _figures(evaluations, 'far', name, sparse) if far else None,
    'profile': [profile(after[n]) if alike else None for n in AFTER],
    'ours_above': [probability_above(ours[n], after[n]) if alike and name != OURS else None for n in AFTER],
    **dataclasses.asdict(cost),
  }


def _figures(evaluations: Sequence[Evaluation], split: str, name: str, sparse: bool) -> dict[str, Any]:
  strata = [one.scores(split, name) for one in evaluations]
  return kept({**metrics.iqm_with_interval(strata), **metrics.mean_and_found(strata)}, sparse)
