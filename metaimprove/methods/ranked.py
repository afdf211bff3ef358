"""An operator that improves by rewards which nobody gave: learned on each task from the ranks of noise alone.

On each task one policy is shown, the demonstrator, which need not be good. Rewards are learned from it as
`histories.ranking` says, and the operator reads these wherever it would read the family's. What is reported is the
family's returns, which neither the rewards nor the operator has seen.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import chex
import numpy as np

from metaimprove import asks, files
from metaimprove.histories.ranking import RankingSettings, learn_rewards, with_rewards
from metaimprove.improvers.source import Source
from metaimprove.iteration import iterate
from metaimprove.methods.imitation import without_rewards
from metaimprove.methods.method import Curve, Method, initial_policies
from metaimprove.methods.operator import other_tasks_of
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import Operator
from metaimprove.policies import Policy
from metaimprove.rng import stream
from metaimprove.tasks.family import TaskFamily
from metaimprove.trees import batch_size, take
from metaimprove.types import Params, Play, Progress, Task, mean_return


@dataclasses.dataclass(frozen=True)
class Demonstrator:
  """Who is shown on each task.

  Attributes:
    family: the task family.
    policy: the shape of the policies.
    source, snapshot: its policies are those of the source at this snapshot.
    settings: of learning rewards.
  """

  family: TaskFamily
  policy: Policy
  source: Source
  snapshot: Any
  settings: RankingSettings

  def params(self, tasks: Task) -> Params:
    """Its policies [B, ...] on tasks [B]."""
    return self.source.params_of(self.snapshot, tasks)

  def rewards(self, tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Params:
    """The rewards [B, ...] learned on tasks [B]."""
    return learn_rewards(
      self.family, self.policy, self.params(tasks), tasks, rng_key, self.settings, progress=progress
    )

  @property
  def made_with(self) -> dict[str, Any]:
    """Plain data that determine it."""
    return {'snapshot': files.checksum(files.tree_to_bytes(self.snapshot)), **dataclasses.asdict(self.settings)}


def ranked_method(
  operator: Operator, operator_params: Any, demonstrator: Demonstrator, play: Play, *, num_applications: int,
  num_episodes: int, from_demonstrator: bool = False, another_task: bool = False, no_rewards: bool = False,
  **options: Any,
) -> Method:
  """An operator as a method, asked for the best again and again, that reads learned rewards.

  Args:
    operator: see `Operator`; trained on `histories.ranked`.
    operator_params: its parameters.
    demonstrator: who is shown.
    play: makes the experience of `num_episodes` episodes.
    num_applications: in a row.
    num_episodes: of experience before each application.
    from_demonstrator: whether it begins with the demonstrator's policies instead of random ones.
    another_task: a control: rewards learned on another task; see `other_tasks_of`.
    no_rewards: a control: all rewards that it reads are 0.
    **options: further fields of `Method`.

  Returns:
    The method; of its curve the returns are those by the family's rewards.
  """
  remember, improve = make_remember(operator), make_improve(operator, operator_params, asks.ask(steps='best'))

  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    num, returns = batch_size(tasks), []
    rewards = demonstrator.rewards(tasks, stream(rng_key, 'demonstrator'), progress)
    if another_task:
      rewards = take(rewards, other_tasks_of(tasks))

    def play_and_note(params, tasks, rng_key):
      trajectory = play(params, tasks, rng_key)
      returns.append(np.asarray(mean_return(trajectory)))
      progress(options['title'], len(returns), num_applications + 1, {})
      return without_rewards(trajectory) if no_rewards else with_rewards(rewards, trajectory)

    first = demonstrator.params(tasks) if from_demonstrator else initial_policies(operator.policy, num, rng_key)
    for _ in iterate(
      improve, remember, play_and_note, first, tasks, stream(rng_key, 'episodes'), num_applications=num_applications,
    ):
      pass
    shown = demonstrator.settings.num_rungs * demonstrator.settings.num_episodes
    episodes = shown + num_episodes * np.arange(num_applications + 1)
    return Curve(
      episodes=episodes, env_steps=episodes * operator.config.episode_length, returns=np.stack(returns)
    )

  settings = {
    'operator': dataclasses.asdict(operator.config), 'demonstrator': demonstrator.made_with,
    'operator_params': files.checksum(files.tree_to_bytes(operator_params)), 'num_applications': num_applications,
    'num_episodes': num_episodes, 'from_demonstrator': from_demonstrator, 'another_task': another_task,
    'no_rewards': no_rewards,
  }
  return Method(run=run, settings=settings, **options)


def levels_method(
  demonstrator: Demonstrator, snapshots: Sequence[Any], play: Play, *, num_episodes: int, predicted: bool = False,
  another_task: bool = False, **options: Any,
) -> Method:
  """The returns of the source's policies at several of its snapshots, a point each: by the family's rewards or, as
  `predicted`, by those that were learned from the demonstrator on the task, or on `another_task`. The same key gives
  the same episodes of `play`, which are `num_episodes`."""
  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    rewards, returns = None, []
    if predicted:
      rewards = demonstrator.rewards(tasks, stream(rng_key, 'demonstrator'), progress)
      rewards = take(rewards, other_tasks_of(tasks)) if another_task else rewards
    for index, snapshot in enumerate(snapshots):
      trajectory = play(demonstrator.source.params_of(snapshot, tasks), tasks, stream(rng_key, f'level {index}'))
      trajectory = with_rewards(rewards, trajectory) if predicted else trajectory
      returns.append(np.asarray(mean_return(trajectory)))
      progress(options['title'], index + 1, len(snapshots), {})
    used = np.full(len(snapshots), num_episodes)
    return Curve(episodes=used, env_steps=used * demonstrator.family.episode_length, returns=np.stack(returns))

  settings = {
    'snapshots': [files.checksum(files.tree_to_bytes(one)) for one in snapshots], 'num_episodes': num_episodes,
    'demonstrator': demonstrator.made_with if predicted else None, 'another_task': another_task,
  }
  return Method(run=run, settings=settings, **options)
