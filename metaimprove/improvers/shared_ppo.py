"""One PPO learner that serves all tasks: it practises on the whole distribution, whether or not it is told the task."""

import dataclasses
from typing import Any

import chex
import jax

from metaimprove.improvers.ppo import LearnerState, PPOSettings, make_learner
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.practice import practice_family


def shared_ppo(
  name: str, family: TaskFamily, settings: PPOSettings, num_updates: int, hidden_sizes: tuple[int, ...], *,
  task_conditioned: bool,
) -> Source:
  """The source. In every update it practises on fresh tasks of the training distribution, not only on those given.

  A learner that is told the task gets the dense reward of a sparse family, see `practice`. The returns of its updates
  are then of that reward: they rise as the policy improves, and are not to be compared with the family's own.
  """
  practised = practice_family(family) if task_conditioned else family
  learner = make_learner(practised, settings, task_conditioned=task_conditioned, shared=True, hidden_sizes=hidden_sizes)

  def update(state: LearnerState, _: Any, rng_key: chex.PRNGKey) -> tuple[LearnerState, chex.Array]:
    key_tasks, key_update = jax.random.split(rng_key)
    practice = jax.vmap(family.sample)(jax.random.split(key_tasks, settings.num_envs))
    return learner.update(state, practice, key_update)

  return Source(
    name=name, init=lambda rng_key, _: learner.init(rng_key), update=update, snapshot=learner.snapshot,
    params=learner.params, num_updates=num_updates, env_steps_per_update=learner.env_steps_per_update, shared=True,
    settings={
      'ppo': dataclasses.asdict(settings), 'num_updates': num_updates, 'hidden_sizes': list(hidden_sizes),
    },
  )
