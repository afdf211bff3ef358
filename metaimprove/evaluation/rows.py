"""Figures of many families in one file, a row each, from which the tables and plots of the docs are made.

Six files are kept in docs/results:

  operators.json  `OperatorRow`: how good operators are, with controls, on held-out tasks
  needs.json      `NeedsRow`: what families ask for, on held-out tasks, without an operator
  ablations.json  `AblationRow`: variants of an operator, on validation tasks
  asks.json       `AskRow`: what operators give for what they are asked for, on held-out tasks
  comparison.json `ComparisonRow`: methods of the field beside the operator, on held-out tasks
  scaling.json    `ScalingRow`: operators that learn from more and more tasks, on held-out tasks

All are lists of plain objects. The fields of these classes are all that there is in them.
"""

import dataclasses
import json
import numbers
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from metaimprove import files
from metaimprove.errors import DamagedDataError
from metaimprove.evaluation.results import Figures, Results, is_sparse

NEEDS = ('experience', 'dynamics', 'second_look')
GOT = 'got, asked for '
"""Before what was asked for: the metric of a row that says what came of it."""
ANSWERS = ('loss', 'divergence', 'in_use')
_ENDS = ('iqm', 'low', 'high', 'mean')


@dataclasses.dataclass(frozen=True)
class OperatorRow:
  """How good an operator is on a family.

  Attributes:
    family: its name.
    backend: its physics backend.
    seeds: each has its own histories, operator and tasks.
    tasks: held-out tasks with a score, of all seeds together.
    need: see `Results.need`.
    episodes: [P] episodes of a task that were used before each point of a curve.
    methods: name -> 'iqm', 'low', 'high', 'mean', and 'found' where rewards are sparse: [P] each, or [1] of a policy
      that stays as it is. 'ppo' has its own 'episodes'. The operator is there as 'operator', 'operator_sampled' and, on
      far tasks, 'operator_far'.
    training_env_steps: of all that was needed to make one operator, controls apart; None where it is not known.
    commands: that made the row.
  """

  family: str
  backend: str
  seeds: list[int]
  tasks: int
  need: Mapping[str, float | None]
  episodes: list[int]
  methods: Mapping[str, Mapping[str, Any]]
  training_env_steps: int | None
  commands: list[str]

  @property
  def key(self) -> tuple[str, ...]:
    """What a row is of: another one of the same replaces it."""
    return self.family, self.backend

  def flaw(self) -> str | None:
    """What is wrong with it; None if nothing is."""
    if set(self.need) != set(NEEDS):
      return 'need'
    lengths = {1, len(self.episodes)}
    for name, figures in self.methods.items():
      length = {len(figures['episodes'])} if 'episodes' in figures else lengths
      if not _are_figures(figures, length, is_sparse(self.family)):
        return f'methods[{name!r}]'
    return None if 'operator' in self.methods else 'methods'


@dataclasses.dataclass(frozen=True)
class NeedsRow:
  """What a family asks for.

  Attributes:
    family, backend, seeds, tasks, commands: see `OperatorRow`.
    need, low, high: need -> 1 - the score of the control that does without, and the ends of its interval.
    oracle: mean return of the reference policies, which are told everything.
    initial: mean return of random policies.
    identify_reads: see `Results`.
  """

  family: str
  backend: str
  seeds: list[int]
  tasks: int
  need: Mapping[str, float | None]
  low: Mapping[str, float | None]
  high: Mapping[str, float | None]
  oracle: float | None
  initial: float | None
  identify_reads: str | None
  commands: list[str]

  @property
  def key(self) -> tuple[str, ...]:
    """See `OperatorRow`."""
    return self.family, self.backend

  def flaw(self) -> str | None:
    """See `OperatorRow`."""
    return next((name for name in ('need', 'low', 'high') if set(getattr(self, name)) != set(NEEDS)), None)


@dataclasses.dataclass(frozen=True)
class AblationRow:
  """How good a variant of an operator is on a family, on validation tasks.

  Attributes:
    family, backend, seeds, tasks, episodes, methods, commands: see `OperatorRow`.
    variant: its name.
    changes: fields of `OperatorConfig` and `TrainingSettings` -> values other than those that suit the family.
    answers: on validation histories, of pairs whose answer is the best level: 'loss', the negative log likelihood of
      the right answer; 'divergence' of the most likely answer from it; 'in_use', the perplexity of the mean
      likelihoods of the answers.
    milliseconds: of the first and of the last application, for one policy.
  """

  family: str
  backend: str
  variant: str
  changes: Mapping[str, Any]
  seeds: list[int]
  tasks: int
  episodes: list[int]
  methods: Mapping[str, Mapping[str, Any]]
  answers: Mapping[str, float]
  milliseconds: list[float]
  commands: list[str]

  @property
  def key(self) -> tuple[str, ...]:
    """See `OperatorRow`."""
    return self.family, self.variant

  def flaw(self) -> str | None:
    """See `OperatorRow`."""
    if set(self.answers) != set(ANSWERS) or len(self.milliseconds) != 2:
      return 'answers or milliseconds'
    lengths = {len(self.episodes)}
    return next((f'methods[{n!r}]' for n, fs in self.methods.items() if not _are_figures(fs, lengths, True)), None)


@dataclasses.dataclass(frozen=True)
class AskRow:
  """One figure of how an operator answers an ask on a family.

  Attributes:
    ask: kind of the ask, or 'best'.
    family, backend: of its tasks.
    seeds, tasks: see `OperatorRow`.
    metric: what is measured.
    value: of the operator.
    low, high: the interval of that, 95%, over tasks.
    control: what it is compared with.
    control_value: the same metric of that.
    command: that made the row.
  """

  ask: str
  family: str
  backend: str
  seeds: list[int]
  tasks: int
  metric: str
  value: float
  low: float
  high: float
  control: str
  control_value: float
  command: str

  @property
  def key(self) -> tuple[str, ...]:
    """See `OperatorRow`."""
    return self.ask, self.family, self.backend, self.metric, self.control

  def flaw(self) -> str | None:
    """See `OperatorRow`."""
    figures = ('value', 'low', 'high', 'control_value')
    return next((name for name in figures if not isinstance(getattr(self, name), numbers.Real)), None)


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
  """Methods beside one another on a family.

  Attributes:
    family, backend, seeds, tasks, need, commands: see `OperatorRow`.
    budget: what all that learn from the histories have in common: 'examples', or 'time' of learning.
    source: of the histories.
    after: episodes of a task after which methods are set beside one another.
    thresholds: scores of a performance profile.
    methods: name -> 'title', 'tasks' with a score, 'episodes' and 'env_steps' [P], 'iqm', 'low', 'high', 'mean' [P],
      and 'found' where rewards are sparse; 'far', the same of far tasks or None; 'profile', for each of `after` the
      share of tasks above each threshold; 'ours_above', for each of `after` how often the operator is better on a task,
      and the ends of the interval, either None where figures are not alike; and the fields of `comparison.Cost`.
  """

  family: str
  backend: str
  budget: str
  source: str
  seeds: list[int]
  tasks: int
  need: Mapping[str, float | None]
  after: list[int]
  thresholds: list[float]
  methods: Mapping[str, Mapping[str, Any]]
  commands: list[str]

  @property
  def key(self) -> tuple[str, ...]:
    """See `OperatorRow`."""
    return self.family, self.backend, self.budget, self.source

  def flaw(self) -> str | None:
    """See `OperatorRow`."""
    if set(self.need) != set(NEEDS):
      return 'need'
    ends = (*_ENDS, *(['found'] if is_sparse(self.family) else []))
    for name, method in self.methods.items():
      figures, far = ({end: one[end] for end in ends} if one else None for one in (method, method['far']))
      if not all(_are_figures(one, {len(method['episodes'])}, is_sparse(self.family)) for one in (figures, far) if one):
        return f'methods[{name!r}]'
      if len(method['profile']) != len(self.after) or len(method['env_steps']) != len(method['episodes']):
        return f'methods[{name!r}]'
    return None if 'operator' in self.methods else 'methods'


@dataclasses.dataclass(frozen=True)
class ScalingRow:
  """How good operators of a family are that learn from more and more tasks.

  Attributes:
    family, backend, seeds, tasks, commands: see `OperatorRow`.
    training_tasks: [T] numbers of tasks that were learned from.
    loss, divergence: [T] of pairs whose answer is the best level, see `AblationRow`; of tasks that none learned from.
    after: [A] applications after which scores are told.
    score, low, high: [A][T] the mean score where rewards are sparse, else the IQM; its interval over held-out tasks.
    laws: of 'loss', and of 'regret after N' (1 - score): the fields of `power_law.PowerLaw` over the numbers of tasks,
      of all seeds together; 'low' and 'high', the interval of the exponent over held-out tasks, None for the loss; and
      'per_seed', the exponents of each seed, which tell how much a training matters.
  """

  family: str
  backend: str
  seeds: list[int]
  tasks: int
  training_tasks: list[int]
  loss: list[float]
  divergence: list[float]
  after: list[int]
  score: list[list[float]]
  low: list[list[float]]
  high: list[list[float]]
  laws: Mapping[str, Mapping[str, Any]]
  commands: list[str]

  @property
  def key(self) -> tuple[str, ...]:
    """See `OperatorRow`."""
    return self.family, self.backend

  def flaw(self) -> str | None:
    """See `OperatorRow`."""
    num = len(self.training_tasks)
    for name in ('loss', 'divergence'):
      if len(getattr(self, name)) != num:
        return name
    for name in ('score', 'low', 'high'):
      if [len(line) for line in getattr(self, name)] != [num] * len(self.after):
        return name
    return None if set(self.laws) == {'loss', *(f'regret after {n}' for n in self.after)} else 'laws'


Row = TypeVar('Row', OperatorRow, NeedsRow, AblationRow, AskRow, ComparisonRow, ScalingRow)


def _are_figures(figures: Any, lengths: set[int], sparse: bool) -> bool:
  """Whether they are a curve, of one of these lengths, and nothing else."""
  wanted = {*_ENDS, *(['found'] if sparse else [])}
  if not isinstance(figures, Mapping) or set(figures) - {'episodes'} != wanted:
    return False
  known = all(isinstance(value, numbers.Real | None) for name in wanted for value in figures[name])
  return known and all(len(figures[name]) in lengths for name in figures)


def kept(figures: Figures, sparse: bool) -> dict[str, Any]:
  """Of the figures of a method what a row keeps, to four digits."""
  ends = [*_ENDS, *(['found'] if sparse else [])]
  return {end: [None if value is None else round(value, 4) for value in figures[end]] for end in ends}


def operator_row(results: Results, commands: Sequence[str]) -> OperatorRow:
  """The row of an evaluation."""
  curves = {
    'operator': results.normalised_return, 'operator_far': results.far, 'operator_sampled': results.sampled,
    **results.controls,
  }
  methods = {name: kept(figures, results.sparse) for name, figures in curves.items() if figures is not None}
  if results.ppo is not None:
    length = results.env_steps[1] // results.episodes[1]  # environment steps of an episode
    episodes = [steps // length for steps in results.ppo['env_steps']]
    methods['ppo'] = {**kept(results.ppo, results.sparse), 'episodes': episodes}
  return OperatorRow(
    family=results.family, backend=results.backend, seeds=list(results.per_seed['seeds']), tasks=results.heldout_tasks,
    need=dict(results.need), episodes=list(results.episodes), methods=methods,
    training_env_steps=results.total_training_env_steps(), commands=list(commands),
  )


def needs_row(results: Results, commands: Sequence[str]) -> NeedsRow:
  """What an evaluation of an operator knows of the family."""
  return NeedsRow(
    family=results.family, backend=results.backend, seeds=list(results.per_seed['seeds']), tasks=results.heldout_tasks,
    need=dict(results.need), low=dict(results.need_low), high=dict(results.need_high),
    oracle=results.mean_return['reference'], initial=results.mean_return['initial'],
    identify_reads=results.identify_reads, commands=list(commands),
  )


def read(path: files.Path, kind: Callable[..., Row]) -> list[Row]:
  """The rows of a file, which are of one kind.

  Raises:
    DamagedDataError: if it does not hold them.
  """
  value = files.read_json(path)
  names = {field.name for field in dataclasses.fields(kind)}
  if not isinstance(value, list):
    raise DamagedDataError(f'{path} is not a list of rows; delete it and run again what writes it.')
  rows = []
  for index, item in enumerate(value):
    if not isinstance(item, dict) or set(item) != names:
      raise DamagedDataError(f'Row {index} of {path} does not have the fields {", ".join(sorted(names))}.')
    rows.append(kind(**item))
    try:
      flaw = rows[-1].flaw()
    except (TypeError, KeyError):  # a number where a list or an object should be
      flaw = 'a field'
    if flaw is not None:
      raise DamagedDataError(f'Row {index} of {path} is damaged at {flaw}; delete it and run again what writes it.')
  return rows


def read_any(path: files.Path) -> Sequence[Any]:
  """The rows of one of the six files, told apart by the fields of the first one; raises as `read` does."""
  value = files.read_json(path)
  first = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}
  kinds = (OperatorRow, NeedsRow, AblationRow, AskRow, ComparisonRow, ScalingRow)
  fits = (kind for kind in kinds if {field.name for field in dataclasses.fields(kind)} == set(first))
  return read(path, next(fits, OperatorRow))


def add(path: files.Path, row: Row) -> None:
  """Adds a row to a file, where it replaces the one of the same key, if there is one."""
  replace(path, [row], lambda other: other.key == row.key)


def replace(path: files.Path, rows: Sequence[Row], replaced: Callable[[Row], bool]) -> None:
  """Writes rows to a file in place of those that are `replaced`; the first one of these tells the place. A row is a
  line."""
  known = read(path, type(rows[0])) if pathlib.Path(path).exists() else []
  first = next((index for index, row in enumerate(known) if replaced(row)), len(known))
  before, after = known[:first], [row for row in known[first:] if not replaced(row)]
  lines = [json.dumps(dataclasses.asdict(one), allow_nan=False) for one in (*before, *rows, *after)]
  files.write_bytes(path, ('[\n' + ',\n'.join(lines) + '\n]\n').encode())
