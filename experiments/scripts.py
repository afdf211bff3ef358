"""Controllers written by hand, to be watched: they are told the goal, and are no networks."""

from collections.abc import Callable

import chex
import jax.numpy as jnp

from metaimprove.tasks.robots.reacher import LENGTH_UNIT, LINK_LENGTHS

GAINS = {'point': 4.0, 'reacher': 60.0, 'reacher_damping': 1.0}


def to_point(goal: chex.Array, observation: chex.Array) -> chex.Array:
  """Straight to the goal [2], more slowly the nearer it is."""
  return jnp.clip(GAINS['point'] * (goal - observation), -1.0, 1.0)


def to_place(goal: chex.Array, observation: chex.Array) -> chex.Array:
  """Pulls the reacher's fingertip to the goal [2] as a spring would, by the transposed Jacobian; damps both joints."""
  cosine, sine, velocity, tip = (observation[start:start + 2] for start in (0, 2, 4, 6))
  upper, lower = LINK_LENGTHS
  elbow = jnp.stack([cosine[0] * cosine[1] - sine[0] * sine[1], sine[0] * cosine[1] + cosine[0] * sine[1]])
  of_elbow = lower * jnp.stack([-elbow[1], elbow[0]])
  of_shoulder = upper * jnp.stack([-sine[0], cosine[0]]) + of_elbow
  force = goal - LENGTH_UNIT * tip
  torque = GAINS['reacher'] * jnp.stack([of_shoulder @ force, of_elbow @ force])
  return jnp.clip(torque - GAINS['reacher_damping'] * velocity, -1.0, 1.0)


def script_of(family: str) -> Callable[[chex.Array, chex.Array], chex.Array] | None:
  """The controller of a family; None where there is none."""
  if family.startswith('point_goal'):
    return to_point
  return to_place if family.startswith('reacher_goal') else None
