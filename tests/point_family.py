"""A point on a line that must go to a hidden position: small enough to compute by hand and to compile in a moment."""

import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from metaimprove.tasks import hindsight
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.parameters import Range
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots.build import make_family
from metaimprove.tasks.robots.physics import Physics, PhysicsState

LIMIT = 3.0


def point_family(
  name: str = 'point', observation_size: int = 1, blow_up_beyond: float | None = None,
  imperfections: Mapping[str, Range] | None = None, far_goals: bool = False,
) -> TaskFamily:
  """x moves by `gear` times the action; reward -|x - goal|; ends beyond |x| > 3; 8 steps.

  Args:
    name: of the family.
    observation_size: x, repeated.
    blow_up_beyond: where x turns infinite, for tests of that.
    imperfections: ranges of delay and noise.
    far_goals: whether far tasks may have goals U(1, 2) instead of U(-1, 1).
  """
  def init(parameters, q, qd):
    return PhysicsState(q=q, qd=qd, qacc_warmstart=qd)

  def step(parameters, state, control):
    x = state.q + parameters['gear'] * control
    if blow_up_beyond is not None:
      x = jnp.where(jnp.abs(x) > blow_up_beyond, jnp.inf, x)
    return state.replace(q=x)

  system = types.SimpleNamespace(act_size=lambda: 1)
  return make_family(
    name, Physics(backend='none', system=system, time_step=1.0, init=init, step=step), definition='',
    goal=Goal(
      sample=lambda key: jax.random.uniform(key, (1,), minval=-1, maxval=1),
      sample_far=(lambda key: jax.random.uniform(key, (1,), minval=1, maxval=2)) if far_goals else None,
      is_far=(lambda goal: jnp.abs(goal[0]) > 1) if far_goals else None,
      describe=lambda goal: f'go to {float(goal[0]):.2f}',
      position=lambda goal, q: jnp.stack([goal[0], jnp.zeros(())]), achieved=hindsight.last_outcome,
    ),
    start=lambda goal, key: (jax.random.uniform(key, (1,), minval=-0.1, maxval=0.1), jnp.zeros(1)),
    observe=lambda state: jnp.full((observation_size,), state.q[0]),
    reward=lambda goal, x, action: -jnp.abs(x[0] - goal[0]), outcome=lambda before, after: after.q,
    terminated=lambda state: jnp.abs(state.q[0]) > LIMIT, ranges={'gear': Range(), **(imperfections or {})},
    lines=lambda q: jnp.stack([jnp.zeros(2), jnp.stack([q[0], jnp.zeros(())])])[None], episode_length=8,
    view=(-3.0, 3.0, -1.0, 1.0),
  )
