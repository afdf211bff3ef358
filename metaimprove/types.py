"""The data that flows through the package: frozen dataclasses of arrays, shapes first.

Shapes: O observation size, A action size, T episode length, E episodes; leading batch axes are added by `jax.vmap`.
"""

from typing import Any
from collections.abc import Mapping

import chex
import jax.numpy as jnp

Params = Any
"""A Haiku parameter tree."""


@chex.dataclass(frozen=True)
class Task:
  """One problem of a family: what is wanted, and the body it is wanted of.

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
    terminated: [E, T] bool, the task ended here (a time limit does not count).
    valid: [E, T] bool, the step was really taken, the last one of an episode included.
    finite: [E] bool, no number of the episode was infinite or undefined; steps after the first such are not `valid`.
  """

  observation: chex.Array
  action: chex.Array
  reward: chex.Array
  next_observation: chex.Array
  terminated: chex.Array
  valid: chex.Array
  finite: chex.Array


def episode_return(trajectory: Trajectory) -> chex.Array:
  """Undiscounted return of each episode, [..., E]."""
  return trajectory.reward.sum(axis=-1)


def mean_return(trajectory: Trajectory) -> chex.Array:
  """Mean return of the episodes that did not blow up, [...]; NaN where all did.

  One that did lacks the rewards of its remaining steps, which would look good where rewards are negative.
  """
  return jnp.mean(episode_return(trajectory), axis=-1, where=trajectory.finite)
