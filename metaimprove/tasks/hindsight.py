"""Goals in hindsight: what a trajectory achieved, and what its rewards would have been for another goal.

Both are computed from what a trajectory stores (outcome, action, valid), without simulating anything again.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.errors import IncompatibleError
from metaimprove.language.clauses import Property
from metaimprove.language.grammar import description
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Trajectory


_AGREED = 0.8
"""Length of the mean of the directions of episodes from which on they have gone one way."""


def achieved(family: TaskFamily, trajectory: Trajectory) -> chex.Array:
  """The goal that each episode of a trajectory achieved, [E, G] float32.

  Raises:
    IncompatibleError: if the family has no goals that an episode could achieve, or the trajectory is of another family.
  """
  if family.achieved is None:
    raise IncompatibleError(
      f'Family {family.name!r} cannot say which goal an episode achieved: its tasks have no goal, or `achieved` of its '
      'goal was not given.'
    )
  _check_outcome(family, trajectory)
  return jax.vmap(family.achieved)(trajectory.outcome, trajectory.valid)


def relabel(family: TaskFamily, trajectory: Trajectory, goal: chex.Array) -> chex.Array:
  """The rewards [E, T] float32 that a trajectory would have got for another goal; 0 where not valid.

  Args:
    family: the family that the trajectory is of.
    trajectory: [E, T, ...].
    goal: [G].

  Raises:
    IncompatibleError: if the family's reward is not a function of goal, outcome and action, or trajectory or goal are
      of another family.
  """
  if family.reward is None:
    raise IncompatibleError(
      f'The rewards of family {family.name!r} cannot be computed for another goal: they refer to states of the '
      'simulator, which are not stored. Give the family an `outcome` and a reward of (goal, outcome, action).'
    )
  _check_outcome(family, trajectory)
  goal = jnp.asarray(goal, jnp.float32)
  if goal.shape != (family.goal_size,):
    raise IncompatibleError(f'A goal of family {family.name!r} has shape [{family.goal_size}], not {list(goal.shape)}.')
  of_episodes = jax.vmap(jax.vmap(family.reward, in_axes=(None, 0, 0)), in_axes=(None, 0, 0))
  rewards = of_episodes(goal, jnp.asarray(trajectory.outcome), jnp.asarray(trajectory.action))
  return jnp.where(trajectory.valid, rewards, 0.0)


def measured(family: TaskFamily, trajectory: Trajectory) -> chex.Array:
  """[P] float32, the mean over episodes of each of the family's properties; of an angle the mean of the
  directions, and NaN where it is not defined in any episode, or where episodes go different ways.

  Raises:
    IncompatibleError: if the trajectory is of another family.
  """
  _check_outcome(family, trajectory)
  trajectory = jax.tree.map(jnp.asarray, trajectory)
  return jnp.stack([_mean(of, jax.vmap(of.measure)(trajectory)) for of in family.properties]).astype(jnp.float32)


def describe_trajectory(family: TaskFamily, trajectory: Trajectory) -> str:
  """All that can be said of episodes [E, T, ...], in words and numbers; see `language.properties`.

  Raises:
    IncompatibleError: if the trajectory is of another family.
  """
  return description(family.properties, np.asarray(measured(family, trajectory)))


def _mean(of: Property, values: chex.Array) -> chex.Array:
  """[] from [E]."""
  known = jnp.isfinite(values)
  if of.period is None:
    return jnp.mean(values, where=known)
  turns = 2 * jnp.pi * values / of.period
  sine, cosine = (jnp.mean(function(turns), where=known) for function in (jnp.sin, jnp.cos))
  angle = jnp.arctan2(sine, cosine) / (2 * jnp.pi) * of.period % of.period
  return jnp.where(known.any() & (jnp.hypot(sine, cosine) > _AGREED), angle, jnp.nan)


def _check_outcome(family: TaskFamily, trajectory: Trajectory) -> None:
  size = trajectory.outcome.shape[-1]
  if size != family.outcome_size:
    raise IncompatibleError(
      f'The trajectory stores outcomes of size {size}; those of family {family.name!r} have {family.outcome_size}.'
    )


def last_outcome(outcome: chex.Array, valid: chex.Array) -> chex.Array:
  """The outcome [D] of an episode's last valid step, from [T, D] and [T]."""
  return outcome[jnp.maximum(jnp.sum(valid) - 1, 0)]


def mean_outcome(outcome: chex.Array, valid: chex.Array) -> chex.Array:
  """The mean outcome [D] of an episode's valid steps, from [T, D] and [T]."""
  return jnp.where(valid[:, None], outcome, 0.0).sum(axis=0) / jnp.maximum(jnp.sum(valid), 1)


def mean_direction(outcome: chex.Array, valid: chex.Array) -> chex.Array:
  """The unit vector [D] along the mean outcome of an episode, from [T, D] and [T]; the first axis where that is 0."""
  mean = mean_outcome(outcome, valid)
  length = jnp.linalg.norm(mean)
  first = jnp.zeros_like(mean).at[0].set(1.0)
  return jnp.where(length > 0, mean / jnp.where(length > 0, length, 1.0), first)
