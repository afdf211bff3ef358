"""Applies an operator again and again: act, read the experience, become better, act."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import parallel
from metaimprove.operators.operator import Operator
from metaimprove.rollouts import rollout
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Task, Trajectory, episode_return


@chex.dataclass(frozen=True)
class Curve:
  """What became of B policies in A applications.

  Attributes:
    returns: [A + 1, B] mean return an episode of each iterate; index 0 is the initial policy.
    finite: [A + 1, B] bool, whether its simulation was.
    params: θ of every iterate, leaves [A + 1, B, ...].
    trajectory: what each experienced, leaves [A + 1, B, E, T, ...].
  """

  returns: chex.Array
  finite: chex.Array
  params: Params
  trajectory: Trajectory


def iterate(
  operator: Operator, operator_params, family: TaskFamily, tasks: Task, params: Params, rng_key: chex.PRNGKey, *,
  num_applications: int, num_episodes: int, ask: chex.Array, reads_from: chex.Array | None = None,
) -> Curve:
  """Improves B policies, each on its own task, by inference alone; jit it with the keyword arguments but `ask` static.

  Args:
    operator: see `Operator`.
    operator_params: its parameters.
    family: the task family.
    tasks: [B].
    params: [B, ...] the initial policies.
    rng_key: for the episodes.
    num_applications: A.
    num_episodes: E, episodes of experience before each application.
    ask: [B] or [] int, what is asked for each time.
    reads_from: [B] int, whose experience each policy's operator is given; its own by default. With others', on their
      tasks, it is the control for leaks: a gain that survives this does not come from the experience.

  Returns:
    The curve. It takes (A + 1) * E episodes a task; those before point n are n * E.
  """
  num_tasks = tasks.goal.shape[0]
  ask = jnp.broadcast_to(ask, (num_tasks,))

  experience = functools.partial(rollout, family, operator.policy, num_episodes=num_episodes)

  def apply_once(params, key):
    trajectory = parallel.vmap(experience)(params, tasks, jax.random.split(key, num_tasks))
    seen = (params, trajectory)
    if reads_from is not None:
      seen = jax.tree.map(lambda x: x[reads_from], seen)
    following = jax.vmap(operator.improve, in_axes=(None, 0, 0, 0))(operator_params, *seen, ask)
    return following, Curve(
      returns=episode_return(trajectory).mean(axis=-1), finite=trajectory.finite.all(axis=-1), params=params,
      trajectory=trajectory,
    )

  return jax.lax.scan(apply_once, params, jax.random.split(rng_key, num_applications + 1))[1]


def make_iterate(
  operator: Operator, family: TaskFamily, *, num_applications: int, num_episodes: int, chunk: int = 64
):
  """`iterate` for any number of tasks: compiled once, for `chunk` at a time (more fall out of the cache).

  Returns:
    (operator_params, tasks [B], params [B, ...], rng_key, ask [B] or [], shuffle_experience=False,
    progress=(tasks done) -> None) -> Curve, of numpy arrays. Shuffled, each policy's operator reads its neighbour's
    experience.
  """
  compiled = jax.jit(functools.partial(
    iterate, operator, family=family, num_applications=num_applications, num_episodes=num_episodes
  ))

  def run(operator_params, tasks, params, rng_key, ask, shuffle_experience=False, progress=lambda done: None):
    reads_from = np.roll(np.arange(chunk), 1) if shuffle_experience else np.arange(chunk)
    num_tasks = tasks.goal.shape[0]
    ask = np.broadcast_to(ask, (num_tasks,))
    parts = []
    for start in range(0, num_tasks, chunk):
      index = np.arange(start, start + chunk) % num_tasks  # the last chunk is filled up, then cut
      part = compiled(
        operator_params, tasks=jax.tree.map(lambda x: x[index], tasks), params=jax.tree.map(lambda x: x[index], params),
        rng_key=jax.random.fold_in(rng_key, start), ask=ask[index], reads_from=reads_from,
      )
      count = min(chunk, num_tasks - start)
      parts.append(jax.tree.map(lambda x: np.asarray(x[:, :count]), part))
      progress(start + count)
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)

  return run
