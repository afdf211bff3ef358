"""The loss: how far the emitted policy is from the answer, at states that policies visited."""

import functools

import chex
import jax
import jax.numpy as jnp

from metaimprove import policies
from metaimprove.operators.operator import Operator
from metaimprove.training.examples import ANY_ANSWER, Example
from metaimprove.types import Params

SHARPNESS = 1.0
"""How fast the likelihood of an answer falls with its divergence from the right one."""


def divergence_of(operator: Operator, operator_params: Params, example: Example, code: chex.Array) -> chex.Array:
  """[] mean KL(right answer ‖ policy of a code) over the states of an example."""
  emitted = operator.decode(operator_params, code)
  logits = operator.policy.apply(emitted, example.states)
  return mean_divergence(operator.policy, example.answer, logits, example.weight)


def mean_divergence(
  policy: policies.Policy, answer: chex.Array, logits: chex.Array, weight: chex.Array
) -> chex.Array:
  """[] mean KL(right answer ‖ other) of logits [S, 2A] at states that count by `weight` [S]."""
  value = policies.divergence(policy.distribution, answer, logits)
  return jnp.sum(value * weight) / jnp.maximum(jnp.sum(weight), 1)


def negative_log_likelihood(
  operator: Operator, operator_params: Params, example: Example
) -> tuple[chex.Array, chex.Array, chex.Array]:
  """-log Σ π exp(-β D) of an example, over answers of likelihoods π and divergences D: [], [M] D and [M] log π."""
  codes, log_likelihood = operator.answers(operator_params, example.memory, example.ask)
  divergence = _divergences(operator, operator_params, example, codes)
  return -jax.nn.logsumexp(log_likelihood - SHARPNESS * divergence), divergence, log_likelihood


def loss(operator: Operator, operator_params: Params, example: Example, rng_key: chex.PRNGKey) -> chex.Array:
  """[] the loss of one example.

  Where any answer may be the right one, its gradient is on average that of `negative_log_likelihood` over `SHARPNESS`,
  and it costs less: only one answer is followed back, drawn by how likely it is given the right answer (stochastic
  expectation maximisation; Celeux and Diebolt, 1985). How likely that is, every fourth state tells, which is enough.
  The likelihoods themselves learn from all answers: with the drawn one alone they would drift while answers are still
  alike, until one has it all.

  Where an example says which answer is to be the right one, that one is followed, and the likelihoods learn that it is
  right. So each explorer has an answer of its own, where otherwise one answer between all of them may win. An operator
  that has no answer of that number learns as if it were not said.
  """
  codes, log_likelihood = operator.answers(operator_params, example.memory, example.ask)
  if operator.config.num_answers == 1:
    return divergence_of(operator, operator_params, example, codes[0])
  held = jax.lax.stop_gradient((operator_params, codes))
  divergence = _divergences(operator, held[0], _few_states(example), held[1])
  log_joint = jax.lax.stop_gradient(log_likelihood) - SHARPNESS * divergence
  is_said = (example.which_answer != ANY_ANSWER) & (example.which_answer < len(codes))
  log_joint = jnp.where(is_said, _only(example.which_answer, len(codes)), log_joint)
  chosen = jax.random.categorical(rng_key, log_joint)
  likelihood_loss = -jnp.sum(jax.nn.softmax(log_joint) * log_likelihood)
  return divergence_of(operator, operator_params, example, codes[chosen]) + likelihood_loss / SHARPNESS


def _only(which: chex.Array, num: int) -> chex.Array:
  """[num] log probabilities of one of `num` answers that is certain."""
  return jnp.where(jnp.arange(num) == which, 0.0, -jnp.inf)


def _few_states(example: Example) -> Example:
  """An example with every fourth state: enough to tell answers apart."""
  states, answer, weight = (x[::4] for x in (example.states, example.answer, example.weight))
  return example.replace(states=states, answer=answer, weight=weight)


def mean_loss(operator: Operator, operator_params: Params, examples: Example) -> chex.Array:
  """[] the mean loss of a batch of examples."""
  keys = jax.vmap(jax.random.wrap_key_data)(examples.key_data)
  return jax.vmap(functools.partial(loss, operator), in_axes=(None, 0, 0))(operator_params, examples, keys).mean()


def _divergences(operator, operator_params, example, codes):
  return jax.vmap(functools.partial(divergence_of, operator), in_axes=(None, None, 0))(operator_params, example, codes)
