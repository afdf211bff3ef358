"""What a dynamics parameter is drawn from: a range of numbers, or a choice among some values.

Every kind makes a value from numbers u ~ U(0, 1), so that a family draws all of its parameters at once.
"""

import dataclasses
from typing import Any, Protocol

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.errors import IncompatibleError


class Parameter(Protocol):
  """A kind of dynamics parameter.

  Attributes:
    shape: of a value.
    num_uniform: N, how many uniform numbers a draw takes.
    has_far: whether there are values outside of what training tasks have.
  """

  @property
  def shape(self) -> tuple[int, ...]: ...

  @property
  def num_uniform(self) -> int: ...

  @property
  def has_far(self) -> bool: ...

  def inside(self, uniform: chex.Array, /) -> chex.Array:
    """A value of training, validation and held-out tasks, float32, from [N] numbers."""

  def far(self, uniform: chex.Array, sign: chex.Array, /) -> chex.Array:
    """A value that no such task has, from [N] numbers and [N] signs, -1 or 1."""

  def is_outside(self, value: chex.Array, /) -> chex.Array:
    """[] bool, whether no such task has the value, by more than rounding."""

  def relative(self, value: chex.Array, /) -> chex.Array:
    """[R] float32 of order 1, the value as it is told to a task-conditioned source."""

  def distribution(self) -> dict[str, Any]:
    """Plain data, as JSON would give it back, that says what is drawn: numbers, and lists of them."""


@dataclasses.dataclass(frozen=True)
class Range:
  """The range that a dynamics parameter is drawn from.

  Attributes:
    low, high: ends of the training range. Training, validation and held-out tasks are drawn from it.
    far_low, far_high: ends of the far range. A far draw lies in [far_low, low] or in [high, far_high]. If far_low
      equals low, all far draws lie in [high, far_high]; if far_high equals high, all lie in [far_low, low].
    elements: 0 for one number for the whole robot; otherwise the number of elements, each with a draw of its own.
    logarithmic: whether draws are log-uniform, as multipliers are, or uniform.
  """

  low: float = 1 / 2
  high: float = 2.0
  far_low: float = 1 / 3
  far_high: float = 3.0
  elements: int = 0
  logarithmic: bool = True

  def __post_init__(self) -> None:
    in_order = self.far_low <= self.low < self.high <= self.far_high
    if not in_order or self.far_high - self.far_low == self.high - self.low:
      raise IncompatibleError(f'{self} needs far_low <= low < high <= far_high, and a far range on at least one side.')
    if self.logarithmic and self.far_low <= 0:
      raise IncompatibleError(f'{self} is logarithmic, so its ends must be greater than 0.')

  @property
  def shape(self) -> tuple[int, ...]:
    return (self.elements,) if self.elements else ()

  @property
  def num_uniform(self) -> int:
    return max(self.elements, 1)

  @property
  def has_far(self) -> bool:
    return True

  def inside(self, uniform: chex.Array) -> chex.Array:
    low, high = self._end('low'), self._end('high')
    return self._value(low + uniform * (high - low))

  def far(self, uniform: chex.Array, sign: chex.Array) -> chex.Array:
    low, high, far_low, far_high = (self._end(name) for name in ('low', 'high', 'far_low', 'far_high'))
    goes_up = ((sign > 0) & (far_high > high)) | (far_low == low)
    return self._value(jnp.where(goes_up, high + uniform * (far_high - high), low - uniform * (low - far_low)))

  def is_outside(self, value: chex.Array) -> chex.Array:
    return (jnp.abs(self.relative(value)) > 1 + 1e-5).any()

  def relative(self, value: chex.Array) -> chex.Array:
    """Relative to the training range, which is [-1, 1]: on a logarithmic scale where the range is."""
    low, high = self.low, self.high
    low, high, value = (jnp.log(x) for x in (low, high, value)) if self.logarithmic else (low, high, value)
    return jnp.ravel((2 * value - low - high) / (high - low))

  def distribution(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  def _end(self, name: str) -> np.ndarray:
    """An end, on the scale on which draws are uniform."""
    value = getattr(self, name)
    return np.float32(np.log(value) if self.logarithmic else value)

  def _value(self, drawn: chex.Array) -> chex.Array:
    return (jnp.exp(drawn) if self.logarithmic else drawn).reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Choice:
  """Some values, all alike probable.

  Attributes:
    values: numbers, or vectors [n] given as tuples. Training, validation and held-out tasks have one of these.
    far_values: the same, of far tasks; may be empty.
  """

  values: tuple[float | tuple[float, ...], ...]
  far_values: tuple[float | tuple[float, ...], ...] = ()

  def __post_init__(self) -> None:
    shapes = {np.shape(value) for value in (*self.values, *self.far_values)}
    if len(self.values) < 2 or len(shapes) != 1 or set(self.values) & set(self.far_values):
      raise IncompatibleError(f'{self} needs two values or more, all of one shape, and other ones as far values.')

  @property
  def shape(self) -> tuple[int, ...]:
    return np.shape(self.values[0])

  @property
  def num_uniform(self) -> int:
    return 1

  @property
  def has_far(self) -> bool:
    return bool(self.far_values)

  def inside(self, uniform: chex.Array) -> chex.Array:
    return _nth(self.values, uniform[0])

  def far(self, uniform: chex.Array, sign: chex.Array) -> chex.Array:
    del sign
    return _nth(self.far_values, uniform[0])

  def is_outside(self, value: chex.Array) -> chex.Array:
    known = jnp.asarray(self.values, jnp.float32).reshape(len(self.values), -1)
    return jnp.abs(known - jnp.ravel(value)).max(axis=1).min() > 1e-5

  def relative(self, value: chex.Array) -> chex.Array:
    """In units of the largest absolute value of training tasks."""
    return jnp.ravel(value) / np.abs(self.values).max()

  def distribution(self) -> dict[str, Any]:
    return {
      'shape': list(self.shape), 'values': np.asarray(self.values, float).tolist(),
      'far_values': np.asarray(self.far_values, float).tolist(),
    }


def _nth(values: tuple, uniform: chex.Array) -> chex.Array:
  index = jnp.minimum(uniform * len(values), len(values) - 1).astype(jnp.int32)
  return jnp.asarray(values, jnp.float32)[index]
