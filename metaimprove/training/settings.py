"""How an operator is trained: everything that determines the result besides data, operator and seed."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from metaimprove.asks import augmentation, of_levels, say_all, steps
from metaimprove.errors import IncompatibleError
from metaimprove.tasks.family import TaskFamily
from metaimprove.training.fit import FitSettings

_ROUND_STEPS = 320_000
"""Environment steps of a round, one episode before each application: where episodes or runs are long, a round has fewer
tasks, so that simulating it takes no longer than the gradient steps."""
_ROUND_APPLICATIONS, _ROUND_TASKS = (4, 16), 300
"""Runs are as long as these steps allow on so many tasks, within this range."""

_WIRED_STEPS = 8000
"""Where motors are wired at random there is more to learn: with half as many steps the mean score on validation tasks
of `reacher_wiring` was 0.959 instead of 0.984 after two applications (docs/operators.md)."""

_SEARCHING = {
  'num_steps': 4000, 'runs_share': 0.75, 'tries_share': 0.3, 'round_applications': 16,
  'size_shares': (0.05, 0.05, 0.05, 0.05, 0.1, 0.7),
  'rounds': (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
}
"""Where rewards are sparse, what matters is learned from runs: what to do after trying in vain."""


@dataclasses.dataclass(frozen=True)
class TrainingSettings(FitSettings):
  """How an operator is trained, besides `FitSettings`.

  Attributes:
    num_states: states at which the divergence of an example is taken; half visited by the answer, half in memory.
    runs_share: share of a batch that shows the operator's own runs, once there are any.
    tries_share: share of these whose answer is what the operator itself gave, described by what it led to.
    size_shares: how often each size of `asks.steps.SIZES` is drawn, by which pairs of policies are chosen.
    any_share: share of the pairs whose answer is any level, worse ones too, instead of one that is so much better. Only
      for operators that understand an ask of `asks.of_levels`; others can not describe such a pair.
    blank_share: share of the examples of histories that show no experience at all. Only for operators that understand
      an ask that says what is wanted without it, such as for a goal.
    watched_share: share of the examples of histories that show somebody who is watched and imitated: actions alone say
      what the policy is, in half of them no reward is seen, and the answer is that policy.
    rewired_share: share of the examples that are changed to another wiring; see `rewiring`. Only for families of which
      a wiring is part of the dynamics.
    augmented_share: share of the examples whose experience is changed on purpose, and told to be; see `augmentation`.
      Only for operators that understand an ask for an augmentation.
    drop_rate: how often each kind of an ask is left out where several kinds describe a pair; one always stays.
    rounds: after which shares of the steps the operator is applied to the training tasks. The first time, untrained, it
      emits random policies: bad ones of many kinds, to learn to improve.
    round_applications: how often in a row.
    early_share: share of the examples of runs that are of the first four policies of a run; the others are of any.
    round_tasks: tasks of a round.
    round_fresh: share of them that begin with a fresh random policy, as tests do, instead of a stored one.
    round_sampled: share of them where answers are drawn; elsewhere the most likely one is taken.
    round_explores: share of them that begin with asks to explore, for a random number of applications.
    round_as_tested: where an operator can be asked to explore, share of them that instead explore as tests do, where
      the newest policy met no reward, with no other policies mixed in; from the second round on.
    round_mixed: share of them where some policies are the best ones of other tasks; in the first round, all.
    num_validation: training tasks kept out of training, for the validation figures in TensorBoard.
    num_evaluations: how often these are taken.
  """

  num_states: int = 32
  runs_share: float = 0.5
  tries_share: float = 0.0
  size_shares: tuple[float, ...] = steps.SHARES
  any_share: float = 0.0
  blank_share: float = 0.0
  watched_share: float = 0.0
  rewired_share: float = 0.0
  augmented_share: float = 0.0
  drop_rate: float = 0.3
  rounds: tuple[float, ...] = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8)
  round_applications: int = 4
  early_share: float = 0.0
  round_tasks: int = 512
  round_fresh: float = 0.75
  round_sampled: float = 0.5
  round_explores: float = 0.5
  round_as_tested: float = 0.3
  round_mixed: float = 0.25
  num_validation: int = 64
  num_evaluations: int = 8

  def __post_init__(self):
    for name in (field.name for field in dataclasses.fields(self) if field.name.endswith('_share')):
      if not 0 <= getattr(self, name) <= 1:
        raise IncompatibleError(f'{name}={getattr(self, name)} must be a share from 0 to 1.')
    shares = self.size_shares
    if len(shares) != len(steps.SIZES) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
      raise IncompatibleError(
        f'size_shares={shares} must be {len(steps.SIZES)} shares that add up to 1, one for each size of '
        f'{", ".join(map(steps.words, steps.SIZES))}.'
      )

  @classmethod
  def of(
    cls, family: TaskFamily, num_tasks: int, *, asks: Sequence[str] = (), **settings: Any
  ) -> 'TrainingSettings':
    """Settings that suit a family, a number of training tasks, and the asks that the operator is to understand;
    `settings` other than these."""
    shortest, longest = _ROUND_APPLICATIONS
    length = int(np.clip(_ROUND_STEPS // (_ROUND_TASKS * family.episode_length) - 1, shortest, longest))
    suited = _SEARCHING if family.practice_reward is not None else {
      'round_applications': length, 'early_share': 0.5 if length > shortest else 0.0,
    }
    applications = {**suited, **settings}['round_applications']
    if family.is_wired:
      suited = {**suited, 'num_steps': _WIRED_STEPS, 'rewired_share': 0.5}
    suited = {
      **suited, 'any_share': 0.5 if {*asks} & {*of_levels()} else 0.0,
      'blank_share': 0.2 if {*asks} & {*say_all()} else 0.0,
      'watched_share': 0.2 if {*asks} & {*say_all()} else 0.0,
      'augmented_share': 0.3 if augmentation.NAME in asks else 0.0,
      'round_tasks': max(1, min(512, num_tasks, _ROUND_STEPS // ((applications + 1) * family.episode_length))),
      'num_validation': min(64, max(1, num_tasks // 4)),
    }
    return cls(**{**suited, **settings})
