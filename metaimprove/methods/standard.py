"""The methods by which an operator is judged: itself, PPO from scratch, and the controls."""

import dataclasses
import pathlib
from typing import Any

from metaimprove import asks
from metaimprove.asks import explore
from metaimprove.improvers.source import Source
from metaimprove.methods import controls
from metaimprove.methods.identify import Identifier, identify_method
from metaimprove.methods.method import Method
from metaimprove.methods.operator import operator_method
from metaimprove.methods.plays import with_episodes
from metaimprove.methods.ppo import learner_method
from metaimprove.operators.operator import Operator
from metaimprove.types import Play

IMPROVEMENT_SIZES = ('1', '2', '4', 'best')
"""Sizes of improvement whose curves are shown."""


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
  """How an operator is judged.

  Attributes:
    num_tasks: held-out tasks, and as many far ones.
    num_applications: of the operator, in a row.
    num_episodes: of experience before each.
    steps: the size of improvement that is asked for, in words.
    improvement_applications: the same of the curves for other sizes of improvement.
    ppo_tasks: held-out tasks that PPO learns from scratch.
    reference_episodes: episodes that measure a policy that stays as it is.
    thorough: PPO from scratch on every held-out and far task; the better of its final policy and the task-conditioned
      source's is then the reference of each.
  """

  num_tasks: int = 128
  num_applications: int = 30
  num_episodes: int = 2
  steps: str = 'best'
  improvement_applications: int = 12
  ppo_tasks: int = 16
  reference_episodes: int = 8
  thorough: bool = False


@dataclasses.dataclass(frozen=True)
class Playground:
  """Where methods act.

  Attributes:
    play: experience of each policy.
    num_episodes: of one call of `play`.
    settings: of the evaluation.
  """

  play: Play
  num_episodes: int
  settings: EvaluationSettings

  def of(self, num_episodes: int) -> Play:
    """A play of another number of episodes."""
    return with_episodes(self.play, self.num_episodes, num_episodes)

  def measure(self) -> tuple[Play, int]:
    """The play that measures policies that stay as they are, and its number of episodes."""
    return self.of(self.settings.reference_episodes), self.settings.reference_episodes


def operator_methods(operator: Operator, operator_params: Any, playground: Playground) -> list[Method]:
  """The operator as it is judged, asked for other sizes of improvement, on twice the experience, and on the experience
  of other tasks."""
  settings = playground.settings
  size, explores = settings.num_episodes, explore.NAME in operator.config.asks

  def method(steps=settings.steps, num_episodes=size, num_applications=settings.num_applications, **options):
    options = {'explores': explores and steps == settings.steps, **options}
    return operator_method(
      operator, operator_params, playground.of(num_episodes), ask=asks.ask(steps=steps), num_episodes=num_episodes,
      num_applications=num_applications, **options,
    )

  return [
    method(),
    *([method(sample=True, name='operator_sampled', title='operator, answers drawn at random', splits=('heldout',))]
      if operator.config.num_answers > 1 else []),
    *([method(explores=False, name='operator_no_explore', title='operator, not asked to explore', splits=('heldout',))]
      if explores else []),
    method(
      another_task=True, name='shuffled_experience', title="another task's experience", splits=('heldout',)
    ),
    method(
      num_episodes=2 * size, num_measured=size, num_applications=1, name='operator_double',
      title='operator, twice the episodes', splits=('heldout',),
    ),
    *(
      method(
        steps=steps, num_applications=min(settings.improvement_applications, settings.num_applications),
        name=f'operator_{steps}', title=f'operator, k = {steps}', splits=('heldout',),
      )
      for steps in IMPROVEMENT_SIZES if steps != settings.steps
    ),
  ]


def from_scratch(source: Source, playground: Playground, folder: pathlib.Path, **named: str) -> Method:
  """A source that learns some of the held-out tasks from scratch, or all of them and the far ones. `named` may say name
  and title of the method, which are else those of PPO; see `learner_method`."""
  settings = playground.settings
  play, num_episodes = playground.measure()
  return learner_method(
    source, play, num_episodes=num_episodes, folder=folder,
    num_tasks=None if settings.thorough else min(settings.ppo_tasks, settings.num_tasks),
    splits=None if settings.thorough else ('heldout',), **named,
  )


def control_methods(
  conditioned: Source, snapshot: Any, randomised: Source, identifier: Identifier | None, playground: Playground, *,
  folder: pathlib.Path, seed: int,
) -> list[Method]:
  """The controls.

  Args:
    conditioned: the task-conditioned source.
    snapshot: its last one.
    randomised: learns one policy for all tasks.
    identifier: see there; None where there is nothing to tell of a task.
    playground: where they act.
    folder: where learning is kept.
    seed: of learning.
  """
  settings = playground.settings
  made = [
    controls.told_goal(conditioned, snapshot, *playground.measure()),
    controls.no_experience(randomised, *playground.measure(), folder=folder / 'no_experience', seed=seed),
  ]
  if identifier is None:
    return made
  return [
    *made,
    identify_method(
      identifier, playground.of(settings.num_episodes), num_episodes=settings.num_episodes,
      num_applications=settings.num_applications,
    ),
    identify_method(
      identifier, playground.of(1), num_episodes=1, num_applications=1, name='identify_once',
      title='identify the task by one episode', splits=('heldout',),
    ),
  ]
