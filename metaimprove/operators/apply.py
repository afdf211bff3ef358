"""An operator as functions of batches, for `iteration.iterate`."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import iteration, parallel
from metaimprove.asks import Ask, explore, steps
from metaimprove.asks.ask import batched
from metaimprove.operators.memory import Memory, newest_met_nothing
from metaimprove.operators.operator import Operator
from metaimprove.trees import batch_size, take
from metaimprove.types import Params, Trajectory


def make_improve(
  operator: Operator, operator_params: Params, ask: Ask, *, sample: bool | chex.Array = False,
  explores: bool = False, experience_of: chex.Array | None = None,
) -> iteration.ImproveBatch:
  """The operator applied to B policies, each with its own memory; one compiled program an operator, whatever its
  parameters.

  Args:
    operator: see `Operator`.
    operator_params: its parameters.
    ask: one for all, or [B].
    sample: whether to draw one of the possible answers, each as often as it is likely, or to take the most likely one;
      one for all, or [B] bool.
    explores: whether to ask to explore instead where the policy that acted last met no reward above 0, unless
      k = 0 is asked for.
    experience_of: [B] int, whose memory and parameters the operator is given for each policy; each one's own by
      default. With those of another task it is the control "another task's experience": a gain that survives it does
      not come from the experience.
  """
  ask = jax.tree.map(np.asarray, ask)

  def improve(params: Params, memory: Memory, rng_key: chex.PRNGKey) -> Params:
    if experience_of is not None:
      params, memory = take((params, memory), experience_of)
    params, memory = parallel.spread((params, memory))
    if not np.ndim(sample):
      return _improve(operator, operator_params, params, memory, ask, rng_key if sample else None, explores)
    return _improve_some(operator, operator_params, params, memory, ask, rng_key, explores, np.asarray(sample))

  return improve


def make_guided(
  operator: Operator, operator_params: Params, low: Ask, high: Ask, weight: float
) -> iteration.ImproveBatch:
  """The operator's answers to two asks, and beyond the second one: the code of the answer to `low`, and `weight` times
  what leads from it to that of `high`. 0 and 1 are these answers; more may be better than anything that was seen
  (classifier-free guidance, Ho and Salimans, arXiv:2207.12598, with a lower ask instead of none)."""
  low, high = (jax.tree.map(np.asarray, ask) for ask in (low, high))

  def improve(params: Params, memory: Memory, rng_key: chex.PRNGKey) -> Params:
    return _guided(operator, operator_params, parallel.spread(memory), low, high, weight)

  return improve


def make_remember(operator: Operator) -> iteration.RememberBatch:
  """What the operator remembers, for B policies; two compiled programs an operator, the first to begin."""
  return lambda *experience: _remember(operator, *parallel.spread(experience))


@functools.partial(jax.jit, static_argnames=('operator', 'explores'))
def _improve(
  operator: Operator, operator_params: Params, params: Params, memory: Memory, ask: Ask, rng_key: chex.PRNGKey | None,
  explores: bool,
) -> Params:
  num = batch_size(params)
  ask = batched(ask, num)
  if explores:
    ask = explore.instead(ask, newest_met_nothing(memory) & ~steps.is_same(ask))
  keys = None if rng_key is None else jax.random.split(rng_key, num)
  axes = (None, 0, 0, 0, None if keys is None else 0)
  return parallel.vmap(operator.improve, in_axes=axes)(operator_params, params, memory, ask, keys)


@functools.partial(jax.jit, static_argnames=('operator', 'explores'))
def _improve_some(
  operator: Operator, operator_params: Params, params: Params, memory: Memory, ask: Ask, rng_key: chex.PRNGKey,
  explores: bool, drawn: chex.Array,
) -> Params:
  """Drawn answers where `drawn` [B] holds. Both are in one program, in which the compiler reads memories once: it takes
  hardly longer than one of them."""
  found, likeliest = (
    _improve(operator, operator_params, params, memory, ask, key, explores) for key in (rng_key, None)
  )
  return jax.tree.map(lambda x, y: jnp.where(drawn.reshape(-1, *[1] * (x.ndim - 1)), x, y), found, likeliest)


@functools.partial(jax.jit, static_argnames='operator')
def _guided(
  operator: Operator, operator_params: Params, memory: Memory, low: Ask, high: Ask, weight: chex.Array
) -> Params:
  def likeliest(memory, ask):
    codes, log_likelihood = operator.answers(operator_params, memory, ask)
    return codes[jnp.argmax(log_likelihood)]

  def of_one(memory):
    start, end = likeliest(memory, low), likeliest(memory, high)
    return operator.decode(operator_params, start + weight * (end - start))

  return parallel.vmap(of_one)(memory)


@functools.partial(jax.jit, static_argnames='operator')
def _remember(operator: Operator, memory: Memory | None, params: Params, trajectory: Trajectory) -> Memory:
  if memory is None:
    return jax.vmap(lambda p, t: operator.remember(None, p, t))(params, trajectory)
  return jax.vmap(operator.remember)(memory, params, trajectory)
