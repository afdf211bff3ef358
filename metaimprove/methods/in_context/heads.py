"""What the outputs of a transformer mean: the distribution of an action."""

import dataclasses
from typing import Protocol

import chex
import jax
import jax.numpy as jnp

from metaimprove import policies
from metaimprove.operators.memory import recorded_behaviour
from metaimprove.policies import Policy


class Sample(Protocol):
  """Draws an action [A] for logits [S]."""

  def __call__(self, logits: chex.Array, rng_key: chex.PRNGKey, /) -> chex.Array: ...


class LogLikelihood(Protocol):
  """The log likelihood [...] of actions [..., A] for logits [..., S]."""

  def __call__(self, logits: chex.Array, action: chex.Array, /) -> chex.Array: ...


class Divergence(Protocol):
  """KL(target ‖ other) [...] of the distributions of logits [..., S]."""

  def __call__(self, target_logits: chex.Array, logits: chex.Array, /) -> chex.Array: ...


@dataclasses.dataclass(frozen=True)
class Head:
  """A distribution of actions.

  Attributes:
    num_logits: S.
    sample: see there.
    log_likelihood: see there.
    divergence: see there.
  """

  num_logits: int
  sample: Sample
  log_likelihood: LogLikelihood
  divergence: Divergence


def tanh_normal(policy: Policy) -> Head:
  """The distribution of the policies that operators emit, for continuous actions."""
  distribution, size = policy.distribution, policy.action_size

  def log_likelihood(logits: chex.Array, action: chex.Array) -> chex.Array:
    return distribution.log_prob(logits, recorded_behaviour(action)[..., :size])  # before tanh

  return Head(
    num_logits=distribution.param_size,
    sample=lambda logits, rng_key: distribution.postprocess(distribution.sample_no_postprocessing(logits, rng_key)),
    log_likelihood=log_likelihood,
    divergence=lambda target, logits: policies.divergence(distribution, target, logits),
  )


def categorical(num_actions: int) -> Head:
  """For A discrete actions, each a unit vector [A]."""
  def divergence(target: chex.Array, logits: chex.Array) -> chex.Array:
    target = jax.nn.log_softmax(target)
    return jnp.sum(jnp.exp(target) * (target - jax.nn.log_softmax(logits)), axis=-1)

  return Head(
    num_logits=num_actions,
    sample=lambda logits, rng_key: jax.nn.one_hot(jax.random.categorical(rng_key, logits), num_actions),
    log_likelihood=lambda logits, action: jnp.sum(action * jax.nn.log_softmax(logits), axis=-1),
    divergence=divergence,
  )
