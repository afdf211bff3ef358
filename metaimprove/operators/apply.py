"""An operator as functions of batches, for `iteration.iterate`."""

from typing import Any

import chex
import jax
import numpy as np

from metaimprove import iteration, parallel
from metaimprove.asks import Ask
from metaimprove.operators.operator import Operator
from metaimprove.trees import batch_size, take


def make_improve(
  operator: Operator, operator_params: Any, ask: Ask, *, reads_from: chex.Array | None = None
) -> iteration.Improve:
  """The operator applied to B policies, each with its own memory; compiled once.

  Args:
    operator: see `Operator`.
    operator_params: its parameters.
    ask: one for all, or [B].
    reads_from: [B] int, whose memory and parameters the operator is given for each policy; each one's own by default.
      With others', on their tasks, it is the control for leaks: a gain that survives this does not come from the
      experience.
  """
  @jax.jit
  def apply(operator_params, params, memory, ask):
    num = batch_size(params)
    ask = jax.tree.map(lambda x: jax.numpy.broadcast_to(x, (num, *x.shape[1:])), ask)
    if reads_from is not None:
      params, memory = take((params, memory), reads_from)
    return parallel.vmap(operator.improve, in_axes=(None, 0, 0, 0))(operator_params, params, memory, ask)

  ask = jax.tree.map(np.asarray, ask)
  return lambda params, memory: apply(operator_params, params, memory, ask)


def make_remember(operator: Operator) -> iteration.Remember:
  """What the operator remembers, for B policies; compiled once."""
  @jax.jit
  def apply(memory, params, trajectory):
    if memory is None:
      return jax.vmap(lambda p, t: operator.remember(None, p, t))(params, trajectory)
    return jax.vmap(operator.remember)(memory, params, trajectory)

  return apply
