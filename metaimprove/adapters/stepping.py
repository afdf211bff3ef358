"""A family stepped one step at a time, as the environments of other libraries are."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from metaimprove.errors import ExperienceError, IncompatibleError, UnknownNameError
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family
from metaimprove.types import Task


class Step(NamedTuple):
  """What a step led to.

  Attributes:
    observation: [O].
    reward: of the step.
    terminated: whether the task ended.
    truncated: whether the episode ended by itself, at the time limit or because the simulation blew up.
    finite: False if it blew up: then the observation is the last finite one, and the reward is 0.
  """

  observation: np.ndarray
  reward: float
  terminated: bool
  truncated: bool
  finite: bool


class Stepper:
  """Runs episodes of one task, or of hidden tasks that it draws.

  Attributes:
    family: the task family.
    task: it is in; None before the first reset, if it is to be drawn.
  """

  def __init__(
    self, family: str | TaskFamily, task: Task | None = None, dynamics: Mapping[str, Any] | None = None, *,
    backend: str | None = None, episodes_per_task: int | None = None, far: bool = False,
  ):
    """Nothing is simulated yet.

    Args:
      family: or its name.
      task: to be in; by default a hidden one is drawn at the first reset.
      dynamics: parameter -> multiplier, instead of what the task has.
      backend: of the physics; the family's first by default.
      episodes_per_task: after so many episodes another hidden task is drawn; never by default.
      far: whether drawn tasks are far tasks, outside of the training ranges.

    Raises:
      UnknownNameError: for names that do not exist.
      IncompatibleError: for a task and `episodes_per_task`, which contradict each other.
    """
    family = make_family(family, backend) if isinstance(family, str) else family
    if task is not None and episodes_per_task is not None:
      raise IncompatibleError('An environment has one task, or draws another one every so many episodes, not both.')
    for name in dynamics or {}:
      if name not in family.ranges:
        raise UnknownNameError(
          f'{family.name} ({family.backend}) has no dynamics parameter {name!r}; choose among: '
          f'{", ".join(family.ranges)}.'
        )
    self.family, self._dynamics = family, jax.tree.map(np.float32, dict(dynamics or {}))
    self._draws, self._every, self._num_episodes = task is None, episodes_per_task, 0
    self._sample = jax.jit(family.sample_far if far else family.sample)
    self._last, self._time = None, 0
    self.task = None if task is None else self._with_dynamics(task)
    self._prepare()

  def _prepare(self) -> None:
    """Makes the simulator ready; another simulator of the same robot overrides this, and the next three."""
    self._reset, self._step, self._state = jax.jit(self.family.reset), jax.jit(self.family.step), None

  def _begin(self, rng: np.random.Generator) -> np.ndarray:
    """Begins an episode of `self.task`; the first observation [O]."""
    self._state = self._reset(self.task, _key(rng))
    return np.asarray(self._state.observation)

  def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """A step with an action [A] in [-1, 1]: observation [O], reward, terminated."""
    self._state = self._step(self.task, self._state, action)
    return np.asarray(self._state.observation), float(self._state.reward), bool(self._state.terminated)

  @property
  def q(self) -> jax.Array | None:
    """The configuration, to be drawn; None before the first reset."""
    return None if self._state is None else self._state.physics.q

  def _with_dynamics(self, task: Task) -> Task:
    return task.replace(dynamics={**task.dynamics, **self._dynamics})

  def reset(self, rng: np.random.Generator, *, task: Task | None = None, afresh: bool = False) -> np.ndarray:
    """Begins an episode.

    Args:
      rng: for its start, and for a task that is drawn.
      task: to be in from now on.
      afresh: whether to draw a hidden task even if it is not yet time to, as after seeding.

    Returns:
      [O] the first observation.
    """
    if task is not None:
      self.task, self._draws, self._num_episodes = self._with_dynamics(task), False, 0
    elif self._draws and (self.task is None or afresh or (self._every and self._num_episodes == self._every)):
      self.task, self._num_episodes = self._with_dynamics(self._sample(_key(rng))), 0
    self._num_episodes, self._time = self._num_episodes + 1, 0
    self._last = self._begin(rng)
    return self._last

  def step(self, action: np.ndarray) -> Step:
    """Takes a step with an action [A], which is clipped to [-1, 1]; raises `ExperienceError` for one that is none."""
    action, size = np.asarray(action, np.float32), self.family.action_size
    if action.shape != (size,) or not np.isfinite(action).all():
      raise ExperienceError(f'An action must be {size} finite numbers, not {action}.')
    if self._last is None:
      raise ExperienceError('Reset the environment before the first step.')
    observation, reward, terminated = self._advance(np.clip(action, -1, 1))
    self._time += 1
    if not (np.isfinite(observation).all() and np.isfinite(reward)):
      return Step(self._last, 0.0, False, True, False)
    self._last = observation
    return Step(observation, reward, terminated, self._time >= self.family.episode_length, True)


def _key(rng: np.random.Generator) -> jax.Array:
  return jax.random.key(int(rng.integers(2**31)))
