"""Controls: policies that do not improve, but are told or know something. They show what a family asks for.

| control | is told | its score near 1 says |
|---|---|---|
| `told_everything` | goal and dynamics | it is the reference |
| `told_goal` | the goal, and that the robot is stock | that dynamics need not be known |
| `no_experience` | nothing | that one policy does for all tasks |
| `random_policies` | nothing | it is where methods begin |

Two more are in files of their own: `identify`, and in `operator` the option `another_task`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import chex
import jax
import numpy as np

from metaimprove import files
from metaimprove.improvers import run as runs
from metaimprove.improvers.source import Source
from metaimprove.methods.method import Curve, Method, initial_policies
from metaimprove.policies import Policy
from metaimprove.rng import stream
from metaimprove.tasks.robots import dynamics
from metaimprove.trees import batch_size, take
from metaimprove.types import Params, Play, Progress, Task, mean_return


class Policies(Protocol):
  """One policy for each of [B] tasks, leaves [B, ...]."""

  def __call__(self, tasks: Task, rng_key: chex.PRNGKey, progress: Progress, /) -> Params: ...


def fixed_policies(
  name: str, title: str, policies: Policies, play: Play, *, settings: Mapping[str, Any], **options: Any
) -> Method:
  """Policies that stay as they are, as a method: its curve is one point, which uses no experience.

  Args:
    name: of the method.
    title: of the method.
    policies: gives a policy for each task.
    play: measures them.
    settings: plain data that determines policies and play.
    **options: further fields of `Method`.
  """
  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    params = policies(tasks, rng_key, progress)
    returns = np.asarray(mean_return(play(params, tasks, stream(rng_key, 'measure'))))
    progress(title, 1, 1, {})
    return Curve(episodes=np.zeros(1, int), env_steps=np.zeros(1, int), returns=returns[None])

  return Method(name=name, title=title, run=run, settings=settings, **options)


def random_policies(policy: Policy, play: Play, num_episodes: int) -> Method:
  """The policies that methods begin with; their returns count as 0."""
  return fixed_policies(
    'initial', 'random policies', lambda tasks, rng_key, _: initial_policies(policy, batch_size(tasks), rng_key), play,
    settings={'num_episodes': num_episodes, 'hidden_sizes': list(policy.hidden_sizes)},
  )


def told_everything(conditioned: Source, snapshot: Any, play: Play, num_episodes: int) -> Method:
  """The task-conditioned source's policy at `snapshot`, told goal and dynamics; its returns count as 1."""
  return fixed_policies(
    'told_everything', "the task-conditioned source's final policy",
    lambda tasks, *_: conditioned.params_of(snapshot, tasks), play, settings=_settings(snapshot, num_episodes),
  )


def told_goal(conditioned: Source, snapshot: Any, play: Play, num_episodes: int) -> Method:
  """The same, told the true goal, and of the dynamics that they are the stock robot's."""
  def policies(tasks, *_):
    return conditioned.params_of(snapshot, tasks.replace(dynamics=dynamics.stock(tasks.dynamics)))

  return fixed_policies(
    'told_goal', 'told the goal, not the dynamics', policies, play, settings=_settings(snapshot, num_episodes)
  )


def no_experience(source: Source, play: Play, num_episodes: int, *, folder: files.Path, seed: int) -> Method:
  """One policy for all tasks, which is trained on the whole family and told nothing: domain randomisation alone.

  Args:
    source: a shared one; see `improvers.domain_randomised_ppo`.
    play: measures the policy.
    num_episodes: E of `play`.
    folder: where learning is kept, so that it can be stopped and go on.
    seed: of learning.
  """
  title = 'one policy for all tasks'

  def policies(tasks, rng_key, progress):
    learning = runs.learn(
      source, take(tasks, slice(1)), stream(seed, 'no_experience'), folder=folder,
      progress=lambda _, *done: progress(f'train: {title}', *done),
    )
    return source.params_of(learning.snapshots[-1], tasks)

  return fixed_policies('no_experience', title, policies, play, settings={
    'source': source.name, 'settings': dict(source.settings), 'num_updates': source.num_updates, 'seed': seed,
    'num_episodes': num_episodes,
  })


def _settings(snapshot: Any, num_episodes: int) -> dict[str, Any]:
  return {'conditioned': files.checksum(files.tree_to_bytes(jax.device_get(snapshot))), 'num_episodes': num_episodes}
