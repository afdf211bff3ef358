"""What a task family is: a small bundle of pure functions in which task and dynamics are arguments."""

import dataclasses
from typing import Any, Protocol
from collections.abc import Callable, Mapping

import chex

from metaimprove.language.clauses import Property
from metaimprove.tasks.parameters import Parameter
from metaimprove.types import Task

TASK_SUITE_VERSION = 3
"""Version of all definitions here. It goes up when one of them changes, and histories of another version are refused.
The tests hold the definitions to it."""


@chex.dataclass(frozen=True)
class State:
  """An environment between two steps.

  Attributes:
    physics: the simulator's own state (see `physics.Physics`); has fields `q` and `qd`.
    observation: [O] float32.
    outcome: [D] float32, what the reward of the step that led here refers to besides goal and action, for example the
      velocity over the step; zeros after a reset. It is no part of the observation.
    reward: [] float32, of the step that led here; 0 after a reset.
    terminated: [] bool, the task ended here.
    memory: what imperfect actuators and sensors carry; empty where there are none.
  """

  physics: Any
  observation: chex.Array
  outcome: chex.Array
  reward: chex.Array
  terminated: chex.Array
  memory: Mapping[str, chex.Array] = dataclasses.field(default_factory=dict)


class Sample(Protocol):
  """Draws a task."""

  def __call__(self, rng_key: chex.PRNGKey, /) -> Task: ...


class Reset(Protocol):
  """Begins an episode of a task. Every key gives another start."""

  def __call__(self, task: Task, rng_key: chex.PRNGKey, /) -> State: ...


class Step(Protocol):
  """Takes one step with an action [A]."""

  def __call__(self, task: Task, state: State, action: chex.Array, /) -> State: ...


class Reward(Protocol):
  """The reward [] of a step, from the goal [G], the step's outcome [D] and its action [A]."""

  def __call__(self, goal: chex.Array, outcome: chex.Array, action: chex.Array, /) -> chex.Array: ...


class Achieved(Protocol):
  """The goal [G] that an episode achieved, from its outcomes [T, D] and which of its steps are valid [T]."""

  def __call__(self, outcome: chex.Array, valid: chex.Array, /) -> chex.Array: ...


@dataclasses.dataclass(frozen=True)
class TaskFamily:
  """A distribution of tasks on one robot.

  All functions are pure and take one task; batch them with `jax.vmap`. Different tasks, dynamics included, run in one
  compiled program because they are arguments.

  Attributes:
    name: the name it is registered under.
    backend: the physics backend of the simulation.
    sample: draws a task from the training ranges.
    sample_far: draws a task that lies outside one training range: that of the goal or of one dynamics parameter.
    reset: begins an episode, with a new start for every key.
    step: takes one step.
    reward: the reward of a step from goal, outcome and action; the one that `step` gives. None where the reward needs
      more than these, so that it cannot be computed again for another goal.
    is_far_goal: (goal) -> [] bool, whether a goal lies outside the training range; None where `sample_far` draws none
      that does.
    achieved: the goal that an episode achieved; None where tasks have no goal, or where it cannot be told.
    privileged: (task) -> [P] float32 of order 1, the whole task as numbers; the A * A of a wiring come last. For
      task-conditioned sources only.
    describe: (task) -> str, the task in words.
    picture: (task, q) -> {'lines': [L, 2, 2], 'goal': [2]}, what to draw of a configuration q, in metres.
    view: (left, right, bottom, top) of the drawing in metres.
    observation_size: O.
    action_size: A.
    goal_size: G.
    outcome_size: D.
    privileged_size: P.
    episode_length: T, steps until the time limit.
    can_terminate: False if only the time limit ends an episode.
    ranges: name -> what `sample` draws each dynamics parameter from.
    far_only: whether `sample` draws far tasks too.
    definition: the family in words.
    time_step: seconds of a step.
    practice_reward: a dense reward with the same best policies, for families whose own reward is sparse: what a source
      that is told the goal practises with, see `practice`. All experience and all figures have the family's own.
    properties: what can be measured of an episode and said of it, in words; see `language`.
  """

  name: str
  backend: str
  sample: Sample
  sample_far: Sample
  reset: Reset
  step: Step
  reward: Reward | None
  achieved: Achieved | None
  is_far_goal: Callable[[chex.Array], chex.Array] | None
  privileged: Callable[[Task], chex.Array]
  describe: Callable[[Task], str]
  picture: Callable[[Task, chex.Array], dict[str, chex.Array]]
  view: tuple[float, float, float, float]
  observation_size: int
  action_size: int
  goal_size: int
  outcome_size: int
  privileged_size: int
  episode_length: int
  can_terminate: bool = True
  ranges: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
  far_only: bool = False
  definition: str = ''
  time_step: float = 1.0
  practice_reward: Reward | None = None
  properties: tuple[Property, ...] = dataclasses.field(default=(), repr=False)

  @property
  def is_wired(self) -> bool:
    """Whether tasks differ in how the robot is wired; see `robots.wiring`."""
    return 'wiring' in self.ranges

  @property
  def told_size(self) -> int:
    """How many of the privileged numbers a network is given: all but those of the wiring."""
    return self.privileged_size - (self.action_size**2 if self.is_wired else 0)


def distribution_of(family: TaskFamily) -> dict[str, Any]:
  """Plain data that says which tasks a family draws, to be stored with what was made on them."""
  return {
    'task_suite_version': TASK_SUITE_VERSION, 'family': family.name, 'backend': family.backend,
    'dynamics': {name: r.distribution() for name, r in family.ranges.items()}, 'far_only': family.far_only,
  }
