"""One PPO learner that serves all tasks: it practises on the whole distribution, whether or not it is told the task."""

import dataclasses
from typing import Any

import chex
import jax

from metaimprove.improvers.ppo import LearnerState, PPOSettings, make_learner
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily


def shared_ppo(
  name: str, family: TaskFamily, settings: PPOSettings, num_updates: int, hidden_sizes: tuple[int, ...], *,
  task_conditioned: bool,
) -> Source:
  """The source. In every update it practises on fresh tasks of the training distribution, not only on those given."""
  learner = make_learner(family, settings, task_conditioned=task_conditioned, shared=True, hidden_sizes=hidden_sizes)

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
