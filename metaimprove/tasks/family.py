"""What a task family is: a small bundle of pure functions in which task and dynamics are arguments."""

import dataclasses
from typing import Any
from collections.abc import Callable, Mapping

import chex

from metaimprove.types import Task

TASK_SUITE_VERSION = 1
"""Of all definitions here; it goes up when one changes, and histories of another version are refused. `tests` hold the
definitions to it."""


@dataclasses.dataclass(frozen=True)
class Range:
  """What a parameter is drawn from.

  Attributes:
    low, high: of training and held-out tasks.
    far_low, far_high: a far draw lies in [far_low, low] or [high, far_high]; equal ends leave that side out, not both.
    elements: 0 for one number for the whole robot, else how many, drawn each for itself.
    logarithmic: whether it is log-uniform, as a multiplier is.
  """

  low: float = 1 / 2
  high: float = 2.0
  far_low: float = 1 / 3
  far_high: float = 3.0
  elements: int = 0
  logarithmic: bool = True


@chex.dataclass(frozen=True)
class State:
  """An environment between two steps.

  Attributes:
    physics: the simulator's own state (see `physics.Physics`); has fields `q` and `qd`.
    observation: [O] float32.
    reward: [] float32, of the step that led here; 0 after a reset.
    terminated: [] bool, the task ended here.
    memory: what imperfect actuators and sensors carry; empty where there are none.
  """

  physics: Any
  observation: chex.Array
  reward: chex.Array
  terminated: chex.Array
  memory: Mapping[str, chex.Array] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TaskFamily:
  """A distribution of tasks on one robot.

  All functions are pure and take one task; batch them with `jax.vmap`. Different tasks, dynamics included, run in one
  compiled program because they are arguments.

  Attributes:
    name: the name it is registered under.
    backend: the physics backend of the simulation.
    sample: (rng_key) -> Task from the training ranges.
    sample_far: (rng_key) -> Task outside the training range of one dynamics parameter, where any are randomised.
    reset: (task, rng_key) -> State, a true reset: every call draws a new start.
    step: (task, state, action [A]) -> State.
    privileged: (task) -> [D] float32 of order 1, all there is to know of a task. For task-conditioned sources only.
    describe: (task) -> str, the task as a person would say it.
    picture: (task, q) -> {'lines': [L, 2, 2], 'goal': [2]}, what to draw of a configuration q, in metres.
    view: (left, right, bottom, top) of the drawing in metres.
    observation_size: O.
    action_size: A.
    privileged_size: D.
    episode_length: T, steps until the time limit.
    can_terminate: False if only the time limit ends an episode.
    ranges: of the dynamics that `sample` draws.
    far_only: whether `sample` too draws far tasks.
    definition: the family in words.
    time_step: seconds of a step.
  """

  name: str
  backend: str
  sample: Callable[[chex.PRNGKey], Task]
  sample_far: Callable[[chex.PRNGKey], Task]
  reset: Callable[[Task, chex.PRNGKey], State]
  step: Callable[[Task, State, chex.Array], State]
  privileged: Callable[[Task], chex.Array]
  describe: Callable[[Task], str]
  picture: Callable[[Task, chex.Array], dict[str, chex.Array]]
  view: tuple[float, float, float, float]
  observation_size: int
  action_size: int
  privileged_size: int
  episode_length: int
  can_terminate: bool = True
  ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
  far_only: bool = False
  definition: str = ''
  time_step: float = 1.0


def distribution_of(family: TaskFamily) -> dict[str, Any]:
  """Plain data that says which tasks a family draws, to be stored with what was made on them."""
  return {
    'task_suite_version': TASK_SUITE_VERSION, 'family': family.name, 'backend': family.backend,
    'dynamics': {name: dataclasses.asdict(r) for name, r in family.ranges.items()}, 'far_only': family.far_only,
  }
