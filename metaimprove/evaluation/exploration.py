"""Exploring runs seen from above: which places the episodes of each policy went to, and when the goal was found."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.iteration import ImproveBatch, Iterate, RememberBatch, iterate
from metaimprove.tasks.family import TaskFamily
from metaimprove.trees import batch_size
from metaimprove.types import Params, Play, Task, Trajectory, mean_return


def shows_places(family: TaskFamily, task: Task) -> bool:
  """Whether the goals of a family are places of its picture, so that a path through them can be drawn there."""
  if family.achieved is None or family.goal_size != 2:
    return False
  start = family.reset(task, jax.random.key(0)).physics.q
  return bool(np.allclose(family.picture(task, start)['goal'], task.goal, atol=1e-6))


def paths_of(family: TaskFamily, trajectory: Trajectory) -> chex.Array:
  """[E, T, 2] where the robot was after each step of a trajectory [E, T, ...], as a goal that it has achieved there."""
  num_steps = trajectory.valid.shape[1]
  first = jnp.tril(jnp.ones((num_steps, num_steps), bool))  # the first 1, 2, ... T steps

  def one_episode(outcome, valid):
    return jax.vmap(lambda steps: family.achieved(outcome, valid & steps))(first)

  return jax.vmap(one_episode)(trajectory.outcome, trajectory.valid)


def record_exploration(
  family: TaskFamily, improve: ImproveBatch, remember: RememberBatch, play: Play, params: Params, tasks: Task,
  rng_key: chex.PRNGKey, *, num_applications: int,
) -> list[dict[str, Any]]:
  """The experience of an operator on B tasks as paths.

  Args:
    family: one whose goals are places; see `shows_places`.
    improve, remember, play, params, tasks, rng_key, num_applications: see `iterate`.

  Returns:
    [B] of {'goal': [2], 'description': str, 'policies': [num_applications + 1] of {'paths': [E][T][2] in metres,
    'return': float, 'found': the first step with a reward above 0, counted from 1 over all E episodes, or None}}.
  """
  place = jax.jit(jax.vmap(lambda trajectory: paths_of(family, trajectory)))
  shown = [
    {'goal': np.asarray(task.goal).round(4).tolist(), 'description': family.describe(task), 'policies': []}
    for task in (jax.tree.map(lambda x: x[index], tasks) for index in range(batch_size(tasks)))
  ]
  for found in iterate(improve, remember, play, params, tasks, rng_key, num_applications=num_applications):
    for task, policy in zip(shown, _policies(found, np.asarray(place(found.trajectory)))):
      task['policies'].append(policy)
  return shown


def _policies(found: Iterate, paths: np.ndarray) -> list[dict[str, Any]]:
  """What is shown of each of B policies, their paths being [B, E, T, 2]."""
  returns = np.asarray(mean_return(found.trajectory))
  rewards = np.asarray(found.trajectory.reward).reshape(len(paths), -1)
  rewarded = [np.flatnonzero(steps > 0) for steps in rewards]
  return [
    {'paths': path.round(3).tolist(), 'return': round(float(value), 2), 'found': int(at[0]) + 1 if len(at) else None}
    for path, value, at in zip(paths, returns, rewarded)
  ]
