"""The ask: how much better θⁿ⁺ᵏ is to be.

k = 0 asks for the policy that was watched, k = 1, 2, 4, ... for one that many checkpoints better, `BEST` for as good a
one as the operator knows.
"""

import chex
import jax.numpy as jnp

from metaimprove.errors import UnknownNameError

BEST = -1
TRAINED = (0, 1, 2, 4, 8, BEST)
"""The asks an operator is trained on, and
"""
TRAINED_SHARES = (0.1, 0.15, 0.15, 0.15, 0.15, 0.3)
"""how often each."""
NUM_FEATURES = 3


def features(ask: chex.Array) -> chex.Array:
  """[] int to [3] float32: is it 'best', is it more than nothing, log2(1 + k) / 3."""
  k = jnp.maximum(ask, 0)
  return jnp.stack([ask == BEST, ask != 0, jnp.log2(1.0 + k) / 3]).astype(jnp.float32)


def parse(text: str) -> int:
  """'best' or a number of checkpoints. Raises `UnknownNameError` for anything else."""
  if text == 'best':
    return BEST
  if text.isdecimal():
    return int(text)
  raise UnknownNameError(f"An ask is 'best' or a number of checkpoints such as 0, 1 or 4, not {text!r}.")


def name(ask: int) -> str:
  """The inverse of `parse`."""
  return 'best' if ask == BEST else str(ask)
