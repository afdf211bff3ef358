"""What differs between the tasks of a family besides dynamics."""

import dataclasses
from collections.abc import Callable

import chex
import jax.numpy as jnp

from metaimprove.errors import IncompatibleError
from metaimprove.tasks.family import Achieved


@dataclasses.dataclass(frozen=True)
class Goal:
  """What differs between the tasks of a family besides dynamics.

  Attributes:
    sample: (rng_key) -> [G] float32, a goal of the training range.
    describe: (goal) -> str, such as 'run forward at 1.4 m/s'.
    scale: what goals are divided by to be of order 1.
    position: (goal, q) -> [2] metres in the drawing, NaN for none.
    achieved: the goal that an episode achieved; None if that cannot be told. See `hindsight`.
    sample_far: (rng_key) -> [G] float32, a goal outside the training range; None where no such goals make sense.
    is_far: (goal) -> [] bool, whether a goal lies outside the training range; given with `sample_far`.
  """

  sample: Callable[[chex.PRNGKey], chex.Array]
  describe: Callable[[chex.Array], str]
  scale: float = 1.0
  position: Callable[[chex.Array, chex.Array], chex.Array] = lambda goal, q: jnp.full(2, jnp.nan)
  achieved: Achieved | None = None
  sample_far: Callable[[chex.PRNGKey], chex.Array] | None = None
  is_far: Callable[[chex.Array], chex.Array] | None = None

  def __post_init__(self) -> None:
    if (self.sample_far is None) != (self.is_far is None):
      raise IncompatibleError('A goal needs both `sample_far` and `is_far`, or neither.')


def no_goal(words: str) -> Goal:
  """For families whose tasks differ in dynamics only."""
  return Goal(sample=lambda rng_key: jnp.zeros(0), describe=lambda goal: words)
