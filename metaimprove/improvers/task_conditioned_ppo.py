"""One PPO learner that is told the task: its checkpoints, folded, are a history of improvement for every task.

The privileged description of a task enters as further network inputs; a checkpoint folded for a task is an ordinary
policy over observations alone (see `policies.fold`).
"""

import dataclasses

import jax

from metaimprove import policies
from metaimprove.improvers.ppo import PPOSettings, make_learner
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily

NAME = 'task_conditioned_ppo'


def task_conditioned_ppo(
  family: TaskFamily, settings: PPOSettings, num_updates: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES,
) -> Source:
  """The source. It practises on fresh tasks of the training distribution at every update, not only on those given."""
  learner = make_learner(family, settings, task_conditioned=True, hidden_sizes=hidden_sizes)

  def update(state, _, rng_key):
    key_tasks, key_update = jax.random.split(rng_key)
    practice = jax.vmap(family.sample)(jax.random.split(key_tasks, settings.num_envs))
    return learner.update(state, practice, key_update)

  return Source(
    name=NAME, init=lambda rng_key, _: learner.init(rng_key), update=update, snapshot=learner.snapshot,
    params=learner.params, num_updates=num_updates, env_steps_per_update=learner.env_steps_per_update, shared=True,
    settings={'ppo': dataclasses.asdict(settings), 'num_updates': num_updates},
  )
