"""The figures of an evaluation: what `results.json` holds, and what report and console show."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaimprove import files
from metaimprove.errors import DamagedDataError, NoScoreError
from metaimprove.evaluation import metrics
from metaimprove.evaluation.evaluate import Evaluation

TARGET = 0.95
"""The score that environment steps are counted to."""
SMALL_NEED = 0.1
"""A need is small where the upper end of its interval is below this."""
CONTROLS = ('told_goal', 'no_experience', 'identify', 'identify_once', 'shuffled_experience', 'operator_no_explore')
"""Methods that are shown as controls, where they were judged; of 'identify_once' its last point."""
NEED_CONTROLS = {'experience': 'no_experience', 'dynamics': 'told_goal', 'second_look': 'identify_once'}
"""Need -> the control that does without."""
IMPROVEMENTS = {'1': 'operator_1', '2': 'operator_2', '4': 'operator_4', 'best': 'operator_best'}
"""Size of the improvement asked for -> the method that asks for it; the method 'operator' stands in for its own ask."""

Figures = dict[str, list[float | None]]
"""A curve of P points: 'iqm', 'low', 'high', the interquartile mean and its 95% interval, 'mean' and 'found', see
`metrics.mean_and_found`, [P] each; None: unknown."""


def is_sparse(family: str) -> bool:
  """Whether the rewards of a family are sparse, by its name. Then the mean and the share of tasks found count as much
  as the IQM does, which hides a tail."""
  return 'sparse' in family.split('_') or family == 'point_wind'


@dataclasses.dataclass(frozen=True)
class Results:
  """The figures. `None` stands for what is not known, for example a target that is not reached.

  Attributes:
    family: name of the family.
    backend: its physics backend.
    seed: the first seed.
    num_seeds: how many seeds; each has its own histories, operator and tasks.
    ask: what the operator was asked for, in words.
    reference: the policies whose score is 1, in words.
    verdict: what the needs say of the family, in one sentence.
    heldout_tasks: tasks with a score, of all seeds together.
    far_tasks: the same of far tasks.
    left_out_tasks: tasks without a score, of 'heldout' and 'far': the reference is not known to be better than the
      initial policy.
    blown_up: method -> share of its points, on the tasks with a score of all splits, where every episode blew up. Such
      a point has the worst known score of the method on that task, at most 0.
    episodes: [P] episodes of a task that were used before each point of the operator's curves.
    env_steps: [P] the same in environment steps.
    normalised_return: the operator on held-out tasks. Intervals are over tasks, for these operators; they hold nothing
      of how operators of other seeds differ.
    sampled: the same operator where its answers are drawn at random instead of the most likely ones.
    per_seed: 'seeds' [S], and 'iqm' [S][P], the operator of each seed on its held-out tasks.
    far: the operator on far tasks.
    far_by_parameter: parameter -> figures [1] after all applications on the tasks that are far in it, and 'tasks'.
    shuffled_experience: the operator with another task's experience.
    controls: name -> figures [P] as of the operator, or [1] of a policy that stays as it is.
    need: 'experience', 'dynamics', 'second_look' -> 1 - IQM of the control that does without.
    need_low, need_high: the ends of its interval, 1 - high and 1 - low of the control's.
    improvement: '1', '2', '4', 'best' -> the operator when asked for that, with its own 'env_steps'.
    equal_experience: 'one_application' of twice the episodes, and 'two_applications': figures [1]; 'env_steps'. The
      resulting policies are measured with the same number of episodes. The comparison is not a pure one: the operator
      was trained on memories to which each policy gave the usual number of episodes, not twice as many.
    per_task: 'normalised_return' [P][B].
    mean_return: 'initial', 'reference' and 'operator' [P].
    ppo: PPO from scratch, with 'tasks', 'env_steps', 'rise_at_end' (of its IQM) and 'flat' (is that small).
    identify_reads: what the control `identify` learned from, 'histories and rounds' or 'histories'; None: it was not
      run.
    target: the score that steps are counted to.
    steps_to_target: method -> environment steps of a task until its IQM reaches the target, on the same tasks for all.
    operator_env_steps_to_match: the same of the operator.
    ppo_env_steps_to_match: the same of PPO.
    training_env_steps: stage -> environment steps of all that was needed to make one operator, and of its
      controls.
    break_even_tasks: after how many new tasks that has paid off against PPO from scratch.
    train_tasks: tasks with a history, of one seed.
    collect: speed of recording histories.
    wall_seconds: stage -> seconds, of all seeds together.
    training_wall_seconds: 'source', 'histories', 'explorers', 'rounds', 'validation_figures', 'gradient_steps',
      'controls' ->
      seconds, of all seeds together; what is missing was not seen.
    versions: of the packages.
  """

  family: str
  backend: str
  seed: int
  num_seeds: int
  ask: str
  reference: str
  verdict: str
  heldout_tasks: int
  far_tasks: int
  left_out_tasks: Mapping[str, int]
  blown_up: Mapping[str, float]
  episodes: list[int]
  env_steps: list[int]
  normalised_return: Figures
  sampled: Figures | None
  per_seed: Mapping[str, Any]
  far: Figures
  far_by_parameter: Mapping[str, Mapping[str, Any]]
  shuffled_experience: Figures | None
  controls: Mapping[str, Figures]
  need: Mapping[str, float | None]
  need_low: Mapping[str, float | None]
  need_high: Mapping[str, float | None]
  improvement: Mapping[str, Mapping[str, Any]]
  equal_experience: Mapping[str, Any] | None
  per_task: Mapping[str, Any]
  mean_return: Mapping[str, Any]
  ppo: Mapping[str, Any] | None
  target: float
  steps_to_target: Mapping[str, int | None]
  operator_env_steps_to_match: int | None
  ppo_env_steps_to_match: int | None
  training_env_steps: Mapping[str, int | None]
  break_even_tasks: int | None
  identify_reads: str | None = None
  train_tasks: int | None = None
  collect: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
  wall_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
  training_wall_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
  versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def sparse(self) -> bool:
    """See `is_sparse`."""
    return is_sparse(self.family)

  def to_json(self) -> dict[str, Any]:
    """As plain data; numbers that are not finite become None."""
    return _plain(dataclasses.asdict(self))

  def total_training_env_steps(self) -> int | None:
    """Environment steps that were needed to make one operator, controls apart; None where any of it is unknown."""
    return _total(self.training_env_steps)

  def paid_back(self) -> str:
    """Whether training pays off against PPO from scratch, in words."""
    if self.break_even_tasks is not None:
      return f'paid back after {self.break_even_tasks:,d} new tasks'
    if self.ppo is None:
      return 'not compared: PPO from scratch was not run'
    if self.operator_env_steps_to_match is None:
      return f'not paid back: the operator does not reach {self.target}'
    if self.ppo_env_steps_to_match is None:
      return f'not comparable: PPO from scratch does not reach {self.target}'
    if self.total_training_env_steps() is None:
      return 'when it is paid back is not known'
    return 'not paid back: the operator takes as many environment steps as PPO from scratch'

  def check_scored(self) -> None:
    """Raises `NoScoreError` if no held-out task has a score, so that nothing can be said."""
    if not self.heldout_tasks:
      raise NoScoreError(
        f'None of {self.left_out_tasks["heldout"]} held-out tasks of {self.family} has a score: on none of them is '
        f'{self.reference} known to be better than a random policy. Let the source learn longer (--num_updates), or '
        'look at its curve with inspect_histories.'
      )


def from_json(value: Any, name: files.Path) -> Results:
  """The inverse of `to_json`; raises `DamagedDataError`, with the file's name, for anything else."""
  fields = {field.name for field in dataclasses.fields(Results)}
  if not isinstance(value, dict) or set(value) != fields:
    raise DamagedDataError(
      f'{name} does not hold the figures of an evaluation by this version; delete it and run the evaluation again.'
    )
  return Results(**value)


def summarise(
  evaluations: Sequence[Evaluation], *, ask: str, training_env_steps: Mapping[str, int | None] | None = None,
  **known: Any,
) -> Results:
  """The figures of evaluations of the same methods, one for each seed.

  The methods are known by their names: 'operator', 'operator_sampled', 'ppo', `CONTROLS`, `IMPROVEMENTS`, and
  'operator_double', one application of twice the episodes. All but 'operator' may be missing.

  Args:
    evaluations: of all seeds.
    ask: what 'operator' was asked for, in words.
    training_env_steps: see `Results`.
    **known: fields of `Results` that other stages know, such as `wall_seconds`.
  """
  first, training_env_steps = evaluations[0], dict(training_env_steps or {})
  curve = first.curves['heldout']['operator']
  need, low, high = needs(evaluations)
  steps = _steps_to_target(evaluations)
  operator_steps, ppo_steps = steps.get('operator'), steps.get('ppo')
  scored = {
    split: [evaluation.has_score(split, 'operator') for evaluation in evaluations] for split in ('heldout', 'far')
  }
  num_scored = {name: int(sum(mask.sum() for mask in masks)) for name, masks in scored.items()}
  strata = [evaluation.scores('heldout', 'operator') for evaluation in evaluations]
  return Results(
    family=first.family, backend=first.backend, seed=first.seed, num_seeds=len(evaluations), ask=ask,
    reference=first.reference, verdict=_verdict(first.family, need, high), heldout_tasks=num_scored['heldout'],
    far_tasks=num_scored['far'],
    left_out_tasks={name: sum(map(len, masks)) - num_scored[name] for name, masks in scored.items()},
    blown_up=_blown_up(evaluations), episodes=curve.episodes.tolist(), env_steps=curve.env_steps.tolist(),
    normalised_return=_figures(evaluations, 'heldout', 'operator'),
    sampled=_figures(evaluations, 'heldout', 'operator_sampled'),
    per_seed=_per_seed(evaluations), far=_figures(evaluations, 'far', 'operator'),
    far_by_parameter=_far_by_parameter(evaluations),
    shuffled_experience=_figures(evaluations, 'heldout', 'shuffled_experience'), controls=_controls(evaluations),
    need=need, need_low=low, need_high=high, improvement=_improvement(evaluations, ask),
    equal_experience=_equal_experience(evaluations),
    per_task={'normalised_return': np.concatenate(strata, axis=1).round(4).tolist()},
    mean_return=_mean_return(evaluations), ppo=_ppo(evaluations), target=TARGET, steps_to_target=steps,
    operator_env_steps_to_match=operator_steps, ppo_env_steps_to_match=ppo_steps,
    training_env_steps=training_env_steps,
    break_even_tasks=break_even_tasks(training_env_steps, operator_steps, ppo_steps), **known,
  )


def break_even_tasks(
  training_env_steps: Mapping[str, int | None], operator_steps: int | None, ppo_steps: int | None
) -> int | None:
  """After how many new tasks, each taken to the target, PPO from scratch has used as many environment steps as training
  and the operator together. None where that is never, or where anything of it is not known."""
  total = _total(training_env_steps)
  if None in (total, operator_steps, ppo_steps) or operator_steps >= ppo_steps:
    return None
  return math.ceil(total / (ppo_steps - operator_steps))


def _total(training_env_steps: Mapping[str, int | None]) -> int | None:
  stages = [steps for stage, steps in training_env_steps.items() if stage != 'controls']
  return None if not stages or None in stages else sum(stages)


def _figures(evaluations: Sequence[Evaluation], split: str, name: str) -> Figures | None:
  """The figures of a method; None if it was not judged."""
  if name not in evaluations[0].curves[split]:
    return None
  strata = [evaluation.scores(split, name) for evaluation in evaluations]
  return {**metrics.iqm_with_interval(strata), **metrics.mean_and_found(strata)}


def _blown_up(evaluations: Sequence[Evaluation]) -> dict[str, float]:
  """The share of points where every episode of a method blew up."""
  points = {}
  for evaluation in evaluations:
    for split, curves in evaluation.curves.items():
      for name in curves:
        points.setdefault(name, []).append(evaluation.blown_up(split, name).reshape(-1))
  joined = {name: np.concatenate(parts) for name, parts in points.items()}
  return {name: float(part.mean()) if part.size else 0.0 for name, part in joined.items()}


def _per_seed(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
  """The interquartile means of each seed's operator."""
  strata = [evaluation.scores('heldout', 'operator') for evaluation in evaluations]
  return {
    'seeds': [evaluation.seed for evaluation in evaluations],
    'iqm': [metrics.iqm(stratum).tolist() if stratum.shape[1] else [None] * len(stratum) for stratum in strata],
  }


def _at(figures: Figures, point: int) -> Figures:
  """One point of figures, as figures [1]."""
  return {name: [values[point]] for name, values in figures.items()}


def _controls(evaluations: Sequence[Evaluation]) -> dict[str, Figures]:
  figures = {name: _figures(evaluations, 'heldout', name) for name in CONTROLS}
  return {
    name: _at(value, -1) if name == 'identify_once' else value for name, value in figures.items() if value is not None
  }


def needs(evaluations: Sequence[Evaluation]) -> tuple[dict[str, float | None], ...]:
  """How much is lost without experience, without knowing the dynamics, and without a second look: 1 - the score of the
  control that does without, on held-out tasks. None where that was not judged.

  Returns:
    The need itself, the lower and the upper end of its interval: need -> value, each.
  """
  figures = {need: _figures(evaluations, 'heldout', name) for need, name in NEED_CONTROLS.items()}
  scores = {need: None if found is None else _at(found, -1) for need, found in figures.items()}
  return tuple(
    {need: None if found is None or found[end][0] is None else round(1 - found[end][0], 4)
     for need, found in scores.items()}
    for end in ('iqm', 'high', 'low')
  )


def _verdict(family: str, need: Mapping[str, float | None], high: Mapping[str, float | None]) -> str:
  if need['dynamics'] is None or need['second_look'] is None:
    return f'Whether {family} is evidence of improving is not known: its controls were not run, or have no score.'
  losses = (
    f'without knowing the dynamics {need["dynamics"]:.3f} is lost (at most {high["dynamics"]:.3f}), with one episode '
    f'to identify the task {need["second_look"]:.3f} (at most {high["second_look"]:.3f})'
  )
  if high['dynamics'] < SMALL_NEED and high['second_look'] < SMALL_NEED:
    return f'{family} is no evidence of improving, only of naming the task: {losses}.'
  if need['dynamics'] < SMALL_NEED and need['second_look'] < SMALL_NEED:
    return f'Whether {family} is evidence of improving is open, too few tasks were judged: {losses}.'
  return f'{family} needs more than the name of the task: {losses}.'


def _improvement(evaluations: Sequence[Evaluation], ask: str) -> dict[str, dict[str, Any]]:
  """The curve for each size of improvement that was asked for."""
  result = {}
  for size, name in IMPROVEMENTS.items():
    name = 'operator' if size == ask else name
    figures = _figures(evaluations, 'heldout', name)
    if figures is not None:
      result[size] = {**figures, 'env_steps': evaluations[0].curves['heldout'][name].env_steps.tolist()}
  return result


def _equal_experience(evaluations: Sequence[Evaluation]) -> dict[str, Any] | None:
  """One application of twice the episodes against two applications: the same experience in all."""
  one, two = (_figures(evaluations, 'heldout', name) for name in ('operator_double', 'operator'))
  if one is None or len(two['iqm']) < 3:
    return None
  env_steps = int(evaluations[0].curves['heldout']['operator_double'].env_steps[1])
  return {'env_steps': env_steps, 'one_application': _at(one, 1), 'two_applications': _at(two, 2)}


def _far_by_parameter(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Any]]:
  """The operator after all applications, on the far tasks of each parameter."""
  result = {}
  for name in sorted({name for evaluation in evaluations for name in evaluation.far_parameter.tolist() if name}):
    strata = []
    for evaluation in evaluations:
      mask = evaluation.has_score('far', 'operator') & (evaluation.far_parameter == name)
      strata.append(evaluation.scores('far', 'operator', mask)[-1:])
    num_tasks = sum(stratum.shape[1] for stratum in strata)
    if num_tasks:
      result[name] = {**metrics.iqm_with_interval(strata), 'tasks': num_tasks}
  return result


def _mean_return(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
  """Mean returns over the tasks that have a score; those of points that blew up are as good as their scores."""
  masks = [evaluation.has_score('heldout', 'operator') for evaluation in evaluations]
  columns = {'initial': [], 'reference': [], 'operator': []}
  for evaluation, mask in zip(evaluations, masks):
    bounds = evaluation.bounds['heldout']
    columns['initial'].append(bounds.initial[mask])
    columns['reference'].append(bounds.reference[mask])
    scores = evaluation.scores('heldout', 'operator')
    columns['operator'].append(metrics.returns_of(scores, bounds.initial[mask], bounds.reference[mask]))
  joined = {name: np.concatenate(parts, axis=-1) for name, parts in columns.items()}
  if not joined['initial'].size:
    return {'initial': None, 'reference': None, 'operator': [None] * len(joined['operator'])}
  return {
    'initial': float(joined['initial'].mean()), 'reference': float(joined['reference'].mean()),
    'operator': joined['operator'].mean(axis=1).tolist(),
  }


def _ppo(evaluations: Sequence[Evaluation]) -> dict[str, Any] | None:
  figures = _figures(evaluations, 'heldout', 'ppo')
  if figures is None:
    return None
  rise = metrics.rise_at_end(figures['iqm'])
  return {
    'tasks': int(sum(evaluation.has_score('heldout', 'ppo').sum() for evaluation in evaluations)),
    'env_steps': evaluations[0].curves['heldout']['ppo'].env_steps.tolist(), **figures, 'rise_at_end': rise,
    'flat': metrics.is_flat(rise),
  }


def _steps_to_target(evaluations: Sequence[Evaluation]) -> dict[str, int | None]:
  """Of each method that has a curve, on the tasks with a score on which all of them were judged."""
  names = [name for name, curve in evaluations[0].curves['heldout'].items() if len(curve.env_steps) > 1]
  common = []
  for evaluation in evaluations:
    common.append(min((evaluation.has_score('heldout', name) for name in names), key=len))
  result = {}
  for name in names:
    scores = [evaluation.scores('heldout', name, mask) for evaluation, mask in zip(evaluations, common)]
    scores = np.concatenate(scores, axis=1)
    reached = metrics.first_at_least(metrics.iqm(scores).tolist(), TARGET) if scores.shape[1] else None
    env_steps = evaluations[0].curves['heldout'][name].env_steps
    result[name] = None if reached is None else int(env_steps[reached])
  return result


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {str(name): _plain(part) for name, part in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(part) for part in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def write(path: files.Path, results: Results) -> None:
  """Writes `results.json`, which any JSON reader can parse."""
  files.write_json(path, results.to_json())


def read(path: files.Path) -> Results:
  """Reads `results.json`; raises `DamagedDataError` for anything else."""
  return from_json(files.read_json(path), path)
