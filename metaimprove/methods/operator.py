"""An operator as a method: applied again and again to random policies, each on its own task."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import chex
import jax
import numpy as np

from metaimprove import files
from metaimprove.asks import KINDS, Ask
from metaimprove.errors import IncompatibleError
from metaimprove.iteration import ImproveBatch, Iterate, RememberBatch, iterate
from metaimprove.methods.method import Curve, Method, initial_policies
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import Operator
from metaimprove.policies import Policy
from metaimprove.rng import stream
from metaimprove.trees import batch_size
from metaimprove.types import Play, Progress, Task, mean_return


def operator_method(
  operator: Operator, operator_params: Any, play: Play, *, ask: Ask, num_applications: int, num_episodes: int,
  num_measured: int | None = None, explores: bool = False, sample: bool = False, another_task: bool = False,
  name: str = 'operator', title: str = 'operator', **options: Any,
) -> Method:
  """An operator as a method.

  Args:
    operator: see `Operator`.
    operator_params: its parameters.
    play: makes the experience of `num_episodes` episodes.
    ask: for each application, the same for all tasks.
    num_applications: in a row.
    num_episodes: of experience before each application.
    num_measured: how many of them returns are measured with; all by default.
    explores, sample: whether it explores, and whether answers are drawn; see `make_improve`.
    another_task: the control "another task's experience": the operator is given experience and policy of another task
      instead of its own; see `other_tasks_of`.
    name: of the method.
    title: of the method.
    **options: further fields of `Method`.
  """
  remember = make_remember(operator)

  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    experience_of = other_tasks_of(tasks) if another_task else None
    improve = make_improve(
      operator, operator_params, ask, sample=sample, explores=explores, experience_of=experience_of
    )
    return iterated_curve(
      improve, remember, play, operator.policy, tasks, rng_key, num_applications=num_applications,
      num_episodes=num_episodes, num_measured=num_measured, title=title, progress=progress,
    )

  settings = {
    'operator': dataclasses.asdict(operator.config),
    'operator_params': files.checksum(files.tree_to_bytes(operator_params)), 'ask': words_of(ask),
    'num_applications': num_applications, 'num_episodes': num_episodes, 'num_measured': num_measured,
    'explores': 'where the newest policy met nothing' if explores else False, 'sample': sample,
    'another_task': another_task,
  }
  return Method(name=name, title=title, run=run, settings=settings, **options)


def words_of(ask: Ask) -> dict[str, str]:
  """One ask as plain data: kind -> its value in words, of the kinds that are given."""
  return {name: KINDS[name].words(value) for name, value in ask.values.items() if np.all(ask.given[name])}


def iterated_curve(
  improve: ImproveBatch, remember: RememberBatch, play: Play, policy: Policy, tasks: Task, rng_key: chex.PRNGKey, *,
  num_applications: int, num_episodes: int, title: str, progress: Progress, num_measured: int | None = None,
) -> Curve:
  """The curve of anything that `iterate` applies, from random policies on; see there and `Method`."""
  iterates = iterate(
    improve, remember, play, initial_policies(policy, batch_size(tasks), rng_key), tasks, stream(rng_key, 'episodes'),
    num_applications=num_applications,
  )
  progress_of = functools.partial(progress, title)
  return curve_of(
    iterates, num_points=num_applications + 1, num_episodes=num_episodes, num_measured=num_measured,
    progress_of=progress_of,
  )


def curve_of(
  iterates: Iterable[Iterate], *, num_points: int, num_episodes: int, progress_of: Any, num_measured: int | None = None
) -> Curve:
  """The returns of iterates over their first `num_measured` episodes, one point each; nothing else of them is kept."""
  returns, length = [], 0
  for point, found in enumerate(iterates):
    episodes, length = found.trajectory.reward.shape[1:]
    if episodes != num_episodes:
      raise IncompatibleError(f'Experience of {num_episodes} episodes was announced, and {episodes} were played.')
    returns.append(np.asarray(mean_return(jax.tree.map(lambda x: x[:, :num_measured], found.trajectory))))
    progress_of(point + 1, num_points, {})
  before = num_episodes * np.arange(num_points)
  return Curve(episodes=before, env_steps=before * length, returns=np.stack(returns))


def other_tasks_of(tasks: Task) -> np.ndarray:
  """[B] int, for each task another one whose goal differs, the next one that does.

  Where tasks have no goal, or all have the same, it is the next task.
  """
  goal = np.asarray(jax.device_get(tasks.goal)).reshape(batch_size(tasks), -1)
  num = len(goal)
  following = (np.arange(num)[:, None] + 1 + np.arange(max(num - 1, 1))) % num
  differs = (goal[following] != goal[:, None]).any(axis=-1)
  return following[np.arange(num), differs.argmax(axis=1)]  # the first one that differs; the next one if none does
