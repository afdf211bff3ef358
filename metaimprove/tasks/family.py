"""What a task family is: a small bundle of pure functions in which task and dynamics are arguments."""

import dataclasses
from typing import Any
from collections.abc import Callable

import chex

from metaimprove.types import Task


@chex.dataclass(frozen=True)
class State:
  """An environment between two steps.

  Attributes:
    physics: the simulator's own state (see `physics.Physics`); has fields `q` and `qd`.
    observation: [O] float32.
    reward: [] float32, of the step that led here; 0 after a reset.
    terminated: [] bool, the task ended here.
  """

  physics: Any
  observation: chex.Array
  reward: chex.Array
  terminated: chex.Array


@dataclasses.dataclass(frozen=True)
class TaskFamily:
  """A distribution of tasks on one robot.

  All functions are pure and take one task; batch them with `jax.vmap`. Different tasks, dynamics included, run in one
  compiled program because they are arguments.

  Attributes:
    name: the name it is registered under.
    backend: the physics backend of the simulation.
    sample: (rng_key) -> Task from the training ranges.
    sample_far: (rng_key) -> Task outside the training range of at least one dynamics parameter.
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
