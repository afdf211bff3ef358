"""The data that flows through the package, as frozen dataclasses of arrays; and the callables that are passed around.

Shapes: O observation size, A action size, T episode length, E episodes, G goal size, D outcome size; leading batch axes
(B policies, each on its own task) are added by `jax.vmap`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import chex
import jax.numpy as jnp

Params = Any
"""A Haiku parameter tree."""


@chex.dataclass(frozen=True)
class Task:
  """One problem of a family: a goal and a body.

  Attributes:
    goal: [G] float32, what the reward refers to; hidden from the observation. Units are the family's.
    dynamics: name -> [] or [n] float32, multipliers of the stock robot's physical constants; 1 leaves them alone.
  """

  goal: chex.Array
  dynamics: Mapping[str, chex.Array]


@chex.dataclass(frozen=True)
class Trajectory:
  """Experience: E episodes of at most T steps, padded after an early end.

  Attributes:
    observation: [E, T, O] float32, before the action.
    action: [E, T, A] float32 in [-1, 1].
    reward: [E, T] float32, 0 where not `valid`.
    next_observation: [E, T, O] float32, after the action; never that of a new episode.
    outcome: [E, T, D] float32, what the rewards of the family's tasks refer to besides goal and action; 0 where not
      `valid`. It is for relabelling in hindsight (`tasks.hindsight`), and hidden from policies and operators.
    terminated: [E, T] bool, the task ended here (a time limit does not count).
    valid: [E, T] bool, the step was really taken, the last one of an episode included.
    finite: [E] bool, no number of the episode was infinite or undefined; steps after the first such are not `valid`.
  """

  observation: chex.Array
  action: chex.Array
  reward: chex.Array
  next_observation: chex.Array
  outcome: chex.Array
  terminated: chex.Array
  valid: chex.Array
  finite: chex.Array


def episode_return(trajectory: Trajectory) -> chex.Array:
  """Undiscounted return of each episode, [..., E]."""
  return trajectory.reward.sum(axis=-1)


def mean_return(trajectory: Trajectory) -> chex.Array:
  """Mean return of the episodes that did not blow up, [...]; NaN where all did.

  This is the one rule for the return of a policy, used wherever one is measured. An episode that blew up lacks the
  rewards of its remaining steps, which would look good where rewards are negative.
  """
  return jnp.mean(episode_return(trajectory), axis=-1, where=trajectory.finite)


def hide_outcome(trajectory: Trajectory) -> Trajectory:
  """Experience [..., E, T] with outcomes of size 0: they say what rewards refer to, which an operator must not see."""
  return trajectory.replace(outcome=trajectory.outcome[..., :0])


class Act(Protocol):
  """A policy that acts: observation [O] and a key to an action [A], and anything to record of the step."""

  def __call__(self, observation: chex.Array, rng_key: chex.PRNGKey, /) -> tuple[chex.Array, Any]: ...


class Play(Protocol):
  """All that collection, iteration and measurement know of an environment: B policies, each on its own task, to the
  experience of each, leaves [B, E, T, ...]. See `rollouts.make_play`; one that is no JAX program fits too."""

  def __call__(self, params: Params, tasks: Task, rng_key: chex.PRNGKey, /) -> Trajectory: ...


class Progress(Protocol):
  """Told how far long work is: the stage in words, how much is done, of how much, and figures to show."""

  def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float], /) -> None: ...


def silent(stage: str, done: int, total: int, figures: Mapping[str, float], /) -> None:
  """The `Progress` that tells nobody."""
