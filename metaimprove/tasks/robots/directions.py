"""Goals that are directions on the ground."""

import math

import chex
import jax
import jax.numpy as jnp

from metaimprove.tasks import hindsight
from metaimprove.tasks.goal import Goal


def sample_direction(rng_key: chex.PRNGKey) -> chex.Array:
  """[2] float32, a unit vector at an angle ~ U(0, 2π)."""
  angle = jax.random.uniform(rng_key, maxval=2 * jnp.pi)
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def direction_goal(verb: str) -> Goal:
  """Move in a direction, for families whose outcome is the velocity [2] over a step; drawn for the oblique camera."""
  return Goal(
    sample=sample_direction,
    describe=lambda goal: f'{verb} towards {math.degrees(math.atan2(goal[1], goal[0])) % 360:.0f}°',
    position=lambda goal, q: jnp.stack([goal[0] + 0.4 * goal[1], 0.3 * goal[1]]),
    achieved=hindsight.mean_direction,
  )
