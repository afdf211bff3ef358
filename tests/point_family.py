"""A point on a line that must go to a hidden place: small enough to compute by hand and to compile in a moment."""

import chex
import jax
import jax.numpy as jnp

from metaimprove.tasks import dynamics
from metaimprove.tasks.family import State, TaskFamily
from metaimprove.types import Task

LIMIT = 3.0


@chex.dataclass(frozen=True)
class PointState:
  q: chex.Array
  qd: chex.Array


def point_family(name='point', observation_size=1, blow_up_beyond=None) -> TaskFamily:
  """x moves by `gear` times the action; reward -|x - goal|; ends beyond |x| > 3; 8 steps.

  Args:
    name: of the family.
    observation_size: x, repeated.
    blow_up_beyond: where x turns infinite, for tests of that.
  """
  def observe(x):
    return jnp.full((observation_size,), x)

  def sample(rng_key, far=False):
    key_goal, key_dynamics = jax.random.split(rng_key)
    goal = jax.random.uniform(key_goal, (1,), minval=-1, maxval=1)
    return Task(goal=goal, dynamics=dynamics.sample(key_dynamics, ('gear',), far))

  def state(x, reward):
    return State(
      physics=PointState(q=x[None], qd=jnp.zeros(1)), observation=observe(x), reward=reward,
      terminated=jnp.abs(x) > LIMIT,
    )

  def reset(task, rng_key):
    del task
    return state(jax.random.uniform(rng_key, minval=-0.1, maxval=0.1), jnp.zeros(()))

  def step(task, before, action):
    x = before.physics.q[0] + task.dynamics['gear'] * action[0]
    if blow_up_beyond is not None:
      x = jnp.where(jnp.abs(x) > blow_up_beyond, jnp.inf, x)
    return state(x, -jnp.abs(x - task.goal[0]))

  return TaskFamily(
    name=name, backend='none', sample=sample, sample_far=lambda key: sample(key, far=True), reset=reset, step=step,
    privileged=lambda task: jnp.concatenate([task.goal, dynamics.privileged(task.dynamics)]),
    describe=lambda task: f'go to {float(task.goal[0]):.2f}',
    picture=lambda task, q: {
      'lines': jnp.stack([jnp.zeros(2), jnp.stack([q[0], jnp.zeros(())])])[None],
      'goal': jnp.stack([task.goal[0], jnp.zeros(())]),
    },
    view=(-3.0, 3.0, -1.0, 1.0), observation_size=observation_size, action_size=1, privileged_size=2, episode_length=8,
  )
