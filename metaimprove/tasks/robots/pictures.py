"""Drawings of a robot as lines, without a renderer."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

_SEGMENTS = ('CAPSULE', 'CYLINDER')
_TICK_SPACING = 0.5
"""Metres between the marks on the ground."""


def project(points: chex.Array, camera: str) -> chex.Array:
  """[..., 3] -> [..., 2]: 'side' looks along y, 'top' from above, 'oblique' from in front, above and to the right."""
  x, y, z = points[..., 0], points[..., 1], points[..., 2]
  if camera == 'side':
    return jnp.stack([x, z], axis=-1)
  if camera == 'top':
    return jnp.stack([x, y], axis=-1)
  return jnp.stack([x + 0.4 * y, z + 0.3 * y], axis=-1)


def lines(system: Any, q: chex.Array, camera: str) -> chex.Array:
  """[L, 2, 2] metres: an axis for each capsule of a Brax system at configuration q, then marks on the ground.

  The side and oblique cameras follow the robot's first link, so that the marks show how it moves.
  """
  import mujoco  # needed for drawing only
  from brax import kinematics, math
  from brax.base import Transform

  x, _ = kinematics.forward(system, q, jnp.zeros(system.qd_size()))
  x = x.concatenate(Transform.zero((1,)))  # link -1 is the world
  kinds = [getattr(mujoco.mjtGeom, f'mjGEOM_{kind}') for kind in _SEGMENTS]
  chosen = np.flatnonzero(np.isin(system.geom_type, kinds) & (np.asarray(system.geom_bodyid) > 0))
  link = np.asarray(system.geom_bodyid)[chosen] - 1
  half = jnp.asarray(system.geom_size)[chosen, 1]
  rotate = jax.vmap(math.rotate)

  def end(sign: float) -> chex.Array:
    local = jnp.zeros((len(chosen), 3)).at[:, 2].set(sign * half)
    at = jnp.asarray(system.geom_pos)[chosen] + rotate(local, jnp.asarray(system.geom_quat)[chosen])
    return x.pos[link] + rotate(at, x.rot[link])

  segments = jnp.stack([end(-1.0), end(1.0)], axis=1)
  if camera == 'top':
    return project(segments, camera)
  centre = x.pos[0].at[2].set(0.0)
  offsets = (jnp.arange(-3, 4) - 0.5) * _TICK_SPACING
  ticks = offsets - jnp.mod(centre[0], _TICK_SPACING)
  ground = jnp.stack([
    jnp.stack([ticks, jnp.zeros(7), jnp.full(7, depth)], axis=-1) for depth in (0.0, -0.06)
  ], axis=1)
  return project(jnp.concatenate([segments - centre, ground]), camera)
