"""Many PPO learners from scratch, one a task, in one compiled program.

It is a source of improvement histories and, on held-out tasks, the baseline that an operator is measured against.
"""

import jax
import jax.numpy as jnp

from metaimprove import parallel, policies
from metaimprove.improvers.ppo import PPOSettings, make_learner
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily

NAME = 'independent_ppo'


def independent_ppo(
  family: TaskFamily, settings: PPOSettings, num_updates: int, num_tasks: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES,
) -> Source:
  """The source: `num_tasks` learners, each with its own random θ⁰, optimiser and normaliser."""
  learner = make_learner(family, settings, task_conditioned=False, hidden_sizes=hidden_sizes)

  def keys_by_index(rng_key):
    # Folded in, not split, so that a learner's run does not depend on how many there are.
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng_key, jnp.arange(num_tasks))

  def init(rng_key, tasks):
    del tasks
    return jax.vmap(learner.init)(keys_by_index(rng_key))

  def update_one(state, task, rng_key):
    same_task = jax.tree.map(lambda x: jnp.broadcast_to(x, (settings.num_envs, *x.shape)), task)
    return learner.update(state, same_task, rng_key)

  def update(state, tasks, rng_key):
    return parallel.vmap(update_one)(state, tasks, keys_by_index(rng_key))

  return Source(
    name=NAME, init=init, update=update, snapshot=learner.snapshot, params=jax.vmap(learner.params),
    num_updates=num_updates, env_steps_per_update=num_tasks * learner.env_steps_per_update,
  )
