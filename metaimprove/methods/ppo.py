"""PPO from scratch, or any other source with a learner a task, as a method."""

import hashlib
import pathlib

import chex
import jax
import numpy as np

from metaimprove import files
from metaimprove.improvers import run as runs
from metaimprove.improvers.source import Source
from metaimprove.methods.method import Curve, Method
from metaimprove.rng import stream
from metaimprove.types import Play, Progress, Task, mean_return


def learner_method(
  source: Source, play: Play, *, num_episodes: int, folder: files.Path, name: str = 'ppo',
  title: str = 'PPO from scratch', num_tasks: int | None = None, splits: tuple[str, ...] | None = ('heldout',),
) -> Method:
  """A source that learns each task from scratch, from a random policy of its own, as a method.

  Its curve has a point for each update, the mean return that `Source.update` tells of the policy before it, and a last
  point for the policy after all updates.

  Args:
    source: with a learner a task.
    play: measures the last policies.
    num_episodes: E of `play`.
    folder: where learning is kept, so that it can be stopped and go on.
    name: of the method.
    title: of the method.
    num_tasks: see `Method`.
    splits: see `Method`.
  """
  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    learning = runs.learn(
      source, tasks, stream(rng_key, name), folder=pathlib.Path(folder) / f'{name}_{_checksum(tasks)}',
      progress=lambda _, *done: progress(title, *done),
    )
    last = source.params_of(learning.snapshots[-1], tasks)
    trajectory = play(last, tasks, stream(rng_key, 'measure'))
    returns = np.concatenate([learning.returns, np.asarray(mean_return(trajectory))[None]])
    env_steps = source.env_steps_per_update * np.arange(len(returns))
    return Curve(episodes=env_steps // trajectory.reward.shape[-1], env_steps=env_steps, returns=returns)

  return Method(
    name=name, title=title, run=run, num_tasks=num_tasks, splits=splits,
    settings={
      'source': source.name, 'settings': dict(source.settings), 'num_updates': source.num_updates,
      'env_steps_per_update': source.env_steps_per_update, 'num_episodes': num_episodes, 'num_tasks': num_tasks,
    },
  )


def _checksum(tasks: Task) -> str:
  """A few letters that stand for tasks: the learning of each set of tasks has its own folder."""
  return hashlib.sha256(files.tree_to_bytes(jax.device_get(tasks))).hexdigest()[:12]
