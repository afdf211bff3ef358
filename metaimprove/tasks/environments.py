"""A family whose observations, starts and ends are those of an environment of another library."""

import dataclasses
from typing import Any
from collections.abc import Callable, Mapping

import chex
import jax.numpy as jnp

from metaimprove.errors import IncompatibleError
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.goal import Goal, no_goal
from metaimprove.tasks.parameters import Parameter
from metaimprove.tasks.robots.build import make_family
from metaimprove.tasks.robots.physics import Physics

Reward = Callable[..., chex.Array]
"""With an outcome: (goal, outcome, action) -> []. Without: (goal, state before, action, state after) -> [], these being
the environment's own states."""
Outcome = Callable[[Any, Any], chex.Array]
"""(state before, state after) -> [D] float32, what a reward refers to besides goal and action."""


@chex.dataclass(frozen=True)
class EnvState:
  """An environment's own state, as what a family's simulator carries.

  Attributes:
    env: the state, with `reward` and `done`.
    q, qd: positions and velocities; empty for an environment without them.
  """

  env: Any
  q: chex.Array
  qd: chex.Array


def family_of(
  physics: Physics, *, name: str, goal: Goal | None, reward: Reward | None, outcome: Outcome | None,
  observe: Callable[[Any], chex.Array], ranges: Mapping[str, Parameter], **settings: Any,
) -> TaskFamily:
  """A family from an environment as a simulator.

  Args:
    physics: its `init` takes (parameters, key, None) and gives an `EnvState`.
    name: of the family.
    goal: what differs between tasks; nothing by default.
    reward: the environment's own by default.
    outcome: what `reward` refers to besides goal and action.
    observe: (the environment's state) -> [O].
    ranges: of the dynamics to randomise.
    settings: what `make_family` takes besides.

  Raises:
    IncompatibleError: for an `outcome` without a `reward`, or a goal's `achieved` without an `outcome`.
  """
  if outcome is not None and reward is None:
    raise IncompatibleError('An `outcome` needs a `reward` of (goal, outcome, action); none was given.')
  if outcome is None and goal is not None and goal.achieved is not None:
    raise IncompatibleError('`achieved` of the goal is computed from an `outcome`; none was given.')
  family = make_family(
    name, physics, goal=goal or no_goal(f'do what {name} asks for'), start=lambda goal, rng_key: (rng_key, None),
    observe=lambda state: observe(state.env),
    outcome=_own_reward if outcome is None else lambda before, after: outcome(before.env, after.env),
    reward=(lambda goal, own, action: own[0]) if outcome is None else reward,
    terminated=lambda state: state.env.done > 0.5, ranges=ranges, **settings,
  )
  return _rewarded_by_states(family, reward) if reward is not None and outcome is None else family


def _own_reward(before: EnvState, after: EnvState) -> chex.Array:
  del before
  return jnp.asarray(after.env.reward, jnp.float32)[None]


def _rewarded_by_states(family: TaskFamily, reward: Callable[..., chex.Array]) -> TaskFamily:
  """The family with a reward (goal, state before, action, state after) -> [], which cannot be relabelled."""
  def step(task, state, action):
    after = family.step(task, state, action)
    return after.replace(reward=reward(task.goal, state.physics.env, action, after.physics.env))

  return dataclasses.replace(family, step=step, reward=None)
