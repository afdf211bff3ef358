"""Many PPO learners from scratch, one a task, in one compiled program.

It is a source of improvement histories and, on held-out tasks, the baseline that an operator is measured against.
"""

import dataclasses

import jax
import jax.numpy as jnp

from metaimprove import policies
from metaimprove.improvers.ppo import PPOSettings, make_learner
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily

NAME = 'independent_ppo'


def independent_ppo(
  family: TaskFamily, settings: PPOSettings, num_updates: int, hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES,
  patience: int | None = None,
) -> Source:
  """The source: every task has a learner with its own random θ⁰, optimiser and normaliser."""
  learner = make_learner(family, settings, task_conditioned=False, shared=False, hidden_sizes=hidden_sizes)

  def update(state, task, rng_key):
    same_task = jax.tree.map(lambda x: jnp.broadcast_to(x, (settings.num_envs, *x.shape)), task)
    return learner.update(state, same_task, rng_key)

  return Source(
    name=NAME, init=lambda rng_key, task: learner.init(rng_key), update=update, snapshot=learner.snapshot,
    params=learner.params, num_updates=num_updates, env_steps_per_update=learner.env_steps_per_update,
    patience=patience,
    settings={
      'ppo': dataclasses.asdict(settings), 'num_updates': num_updates, 'patience': patience,
      'hidden_sizes': list(hidden_sizes),
    },
  )
