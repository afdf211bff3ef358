"""Wiring: which command drives which motor, and with which sign.

The wiring of a robot with A motors is a matrix [A, A] with one entry of -1 or 1 in each row and column, and zeros: a
signed permutation. The motors get `wiring @ action`. The stock robot's is the identity. A policy for the stock robot
becomes one for any wiring by `policies.rewire`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaimprove.errors import IncompatibleError

MAX_MOTORS = 20
"""So many signs are drawn by one number in float32."""


@dataclasses.dataclass(frozen=True)
class Wiring:
  """All wirings of a robot, all alike probable.

  Those in which every motor is reversed are left out of training, validation and held-out tasks, and are what far tasks
  have: 2 of the 8 of two motors, and one in 2^A of A motors. Each sign of each motor and each command for it occurs in
  training, so that what is new in far tasks is that all are reversed at once. No training simulates them, but
  operators meet them: some examples are changed to another wiring, see `training.rewiring`. With one motor nothing is
  left out.

  Attributes:
    num_motors: A.
  """

  num_motors: int

  def __post_init__(self) -> None:
    if not 1 <= self.num_motors <= MAX_MOTORS:
      raise IncompatibleError(f'{self} must have 1 to {MAX_MOTORS} motors.')

  @property
  def shape(self) -> tuple[int, ...]:
    return self.num_motors, self.num_motors

  @property
  def num_uniform(self) -> int:
    return 1 + self.num_motors

  @property
  def has_far(self) -> bool:
    return self.num_motors > 1

  def inside(self, uniform: chex.Array) -> chex.Array:
    count = 2**self.num_motors - self.has_far
    pattern = jnp.minimum(uniform[0] * count, count - 1).astype(jnp.int32)
    reversed_ = (pattern >> jnp.arange(self.num_motors)) & 1  # the last pattern, all ones, is left out
    return _matrix(1.0 - 2.0 * reversed_, uniform[1:])

  def far(self, uniform: chex.Array, sign: chex.Array) -> chex.Array:
    del sign
    return _matrix(jnp.full(self.num_motors, -1.0), uniform[1:])

  def is_outside(self, value: chex.Array) -> chex.Array:
    return jnp.logical_and(self.has_far, value.max() < 0.5)

  def relative(self, value: chex.Array) -> chex.Array:
    """[A * A], the entries row by row."""
    return jnp.ravel(value)

  def distribution(self) -> dict[str, Any]:
    return {'shape': list(self.shape), 'left_out_if_all_are_reversed': self.has_far}


def _matrix(signs: chex.Array, order: chex.Array) -> chex.Array:
  """The wiring in which motor i has sign i and gets the command whose number in `order` has rank i."""
  return jnp.where(jax.nn.one_hot(jnp.argsort(order), len(signs)) > 0, signs[:, None], 0.0)


def stock(wiring: chex.Array) -> chex.Array:
  """The stock robot's wiring, of the same shape [..., A, A]."""
  return jnp.broadcast_to(jnp.eye(wiring.shape[-1], dtype=wiring.dtype), wiring.shape)


def nearest(matrix: chex.Array) -> chex.Array:
  """The wiring [A, A] that is nearest to a matrix, such as an estimate, in the sum of squares. A wiring stays as it
  is."""
  matrix = jnp.nan_to_num(matrix)
  rows, columns = optax.assignment.hungarian_algorithm(-jnp.abs(matrix))
  signs = jnp.where(matrix[rows, columns] < 0, -1.0, 1.0)
  return jnp.zeros_like(matrix).at[rows, columns].set(signs)


def in_words(wiring: chex.Array) -> str:
  """Such as 'motors driven by commands +1 -3 +2', or that they are wired as stock."""
  wiring = np.asarray(wiring)
  if (wiring == np.eye(len(wiring))).all():
    return 'motors wired as stock'
  commands = np.abs(wiring).argmax(axis=1)
  signs = wiring[np.arange(len(wiring)), commands]
  driven = ' '.join(f'{"+" if sign > 0 else "-"}{command + 1}' for sign, command in zip(signs, commands))
  return f'motors driven by commands {driven}'


def with_stock_wiring(dynamics: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
  """The same dynamics, name -> value, with the stock robot's wiring where a wiring is among them."""
  return {name: stock(value) if name == 'wiring' else value for name, value in dynamics.items()}


def rewired(action: chex.Array, wiring: chex.Array) -> chex.Array:
  """The motors' commands [A] for an action [A]."""
  # Not in the lower precision that accelerators multiply matrices with: the stock wiring changes no bit.
  return jnp.matmul(wiring, action, precision=jax.lax.Precision.HIGHEST)
