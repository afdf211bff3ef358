"""The loss of an operator with several answers, worked by hand, and what several answers are for."""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaimprove.asks import ask
from metaimprove.operators.operator import make_operator
from metaimprove.training import loss as module
from metaimprove.training.examples import ANY_ANSWER, Example
from metaimprove.training.loss import loss, mean_loss, negative_log_likelihood

KL = np.log(2) + 2 / 8 - 0.5
"""KL(N(0, 1) ‖ N(1, 2²)); the other way round it would be 1.307."""


def logits(location, scale):
  return jnp.array([location, jnp.log(jnp.expm1(scale - 0.001))])


def answering(operator, answers, likelihood):
  """An operator whose answers do the same everywhere: locations and scales [M, 2]."""
  def decode(operator_params, code):
    params = jax.tree.map(jnp.zeros_like, operator.policy.init(jax.random.key(0)))
    last = sorted(params)[-1]
    return {**params, last: {**params[last], 'b': code}}

  codes = jnp.stack([logits(*answer) for answer in answers])
  return dataclasses.replace(
    operator, config=dataclasses.replace(operator.config, num_answers=len(answers)),
    answers=lambda operator_params, memory, ask: (codes, jnp.log(jnp.array(likelihood))), decode=decode,
  )


@pytest.fixture(scope='module')
def example(operator, every):
  """The right answer is N(0, 1) at all of eight states."""
  memory = operator.remember(None, *jax.tree.map(lambda x: jnp.asarray(x[0, 1]), every))
  return Example(
    memory=memory, ask=ask(steps='best'), states=jnp.linspace(-1, 1, 8)[:, None],
    answer=jnp.tile(logits(0.0, 1.0), (8, 1)), weight=jnp.ones(8), which_answer=jnp.int32(ANY_ANSWER),
    key_data=jnp.zeros(2, jnp.uint32),
  )


def test_the_likelihood_by_hand(operator, example):
  """Of an answer that is right, 0.75 likely, and one whose divergence is KL."""
  two = answering(operator, [(1.0, 2.0), (0.0, 1.0)], [0.25, 0.75])
  value, divergence, log_likelihood = negative_log_likelihood(two, None, example)
  np.testing.assert_allclose(divergence, [KL, 0], atol=1e-4)
  np.testing.assert_allclose(value, -np.log(0.25 * np.exp(-module.SHARPNESS * KL) + 0.75), rtol=1e-4)
  np.testing.assert_allclose(np.exp(log_likelihood), [0.25, 0.75], rtol=1e-5)


def test_the_loss_is_that_of_one_answer_drawn_by_how_likely_it_is_now(operator, example):
  """Given the right answer, the wrong one of the test above has 0.25 exp(-β KL) of 0.25 exp(-β KL) + 0.75. The loss of
  the likelihoods is their cross entropy with that, whichever is drawn."""
  two = answering(operator, [(1.0, 2.0), (0.0, 1.0)], [0.25, 0.75])
  found = np.asarray(jax.vmap(lambda key: loss(two, None, example, key))(jax.random.split(jax.random.key(0), 4000)))
  weight = 0.25 * np.exp(-module.SHARPNESS * KL)
  share = weight / (weight + 0.75)
  likelihood = -(share * np.log(0.25) + (1 - share) * np.log(0.75)) / module.SHARPNESS
  wrong = np.abs(found - KL - likelihood) < 1e-3
  assert (wrong | (np.abs(found - likelihood) < 1e-3)).all()
  np.testing.assert_allclose(wrong.mean(), share, atol=0.02)


def test_answers_that_are_alike_stay_as_likely_as_they_are(operator, example):
  """Whichever is drawn: else their likelihoods would drift until one has it all."""
  codes = jnp.stack([logits(1.0, 2.0)] * 2)

  def of(scores, key):
    alike = dataclasses.replace(
      answering(operator, [(1.0, 2.0)] * 2, [0.5, 0.5]), answers=lambda *_: (codes, jax.nn.log_softmax(scores))
    )
    return loss(alike, None, example, key)

  for key in range(4):
    np.testing.assert_allclose(jax.grad(of)(jnp.array([0.3, -0.4]), jax.random.key(key)), 0.0, atol=1e-5)


@pytest.mark.parametrize(('which', 'divergence', 'likelihood'), [(0, KL, 0.25), (1, 0.0, 0.75)])
def test_an_answer_that_is_said_is_followed_however_far_it_is(operator, example, which, divergence, likelihood):
  """And its likelihood learns that it is right."""
  two = answering(operator, [(1.0, 2.0), (0.0, 1.0)], [0.25, 0.75])
  wanted = divergence - np.log(likelihood) / module.SHARPNESS
  for key in range(3):
    found = loss(two, None, example.replace(which_answer=jnp.int32(which)), jax.random.key(key))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_an_answer_that_the_operator_does_not_have_is_as_if_it_were_not_said(operator, example):
  two = answering(operator, [(1.0, 2.0), (0.0, 1.0)], [0.25, 0.75])
  for key in map(jax.random.key, range(3)):
    assert loss(two, None, example.replace(which_answer=jnp.int32(2)), key) == loss(two, None, example, key)


def test_with_one_answer_the_loss_is_the_divergence(operator, example):
  one = answering(operator, [(1.0, 2.0)], [1.0])
  for key in range(3):
    np.testing.assert_allclose(loss(one, None, example, jax.random.key(key)), KL, rtol=1e-3)


def test_states_without_weight_do_not_count(operator, example):
  """Where the answer is another one and has no weight, it is not seen; without any weight nothing is lost."""
  one = answering(operator, [(1.0, 2.0)], [1.0])
  half = example.replace(
    answer=example.answer.at[4:].set(jnp.array([9.0, 9.0])), weight=example.weight.at[4:].set(0.0)
  )
  np.testing.assert_allclose(loss(one, None, half, jax.random.key(0)), KL, rtol=1e-3)
  assert loss(one, None, half.replace(weight=jnp.zeros(8)), jax.random.key(0)) == 0


def test_its_gradient_is_on_average_that_of_the_likelihood(operator, operator_params, example):
  """Over the sharpness, and where every fourth state tells what all tell: the right answer here differs from the first
  four states to the last four. The answers of the tiny operator are far apart. 20,000 keys."""
  steep = example.replace(
    states=jnp.repeat(jnp.array([-1.0, 1.0]), 4)[:, None],
    answer=jnp.repeat(jnp.stack([logits(-0.5, 0.5), logits(0.3, 1.0)]), 4, axis=0),
  )
  keys = jax.random.split(jax.random.key(0), 20_000)
  network = {**operator_params['network'], 'code': jax.tree.map(lambda x: 6 * x, operator_params['network']['code'])}
  of = lambda function: jax.jit(jax.grad(lambda n: function({**operator_params, 'network': n})))(network)
  mean = of(lambda params: jax.vmap(lambda key: loss(operator, params, steep, key))(keys).mean())
  exact = of(lambda params: negative_log_likelihood(operator, params, steep)[0] / module.SHARPNESS)
  for part in (lambda gradient: gradient['likelihood'], lambda gradient: gradient):
    first, second = (jax.flatten_util.ravel_pytree(part(gradient))[0] for gradient in (mean, exact))
    size = float(jnp.linalg.norm(second))
    assert size > 0.1 and float(jnp.linalg.norm(first - second)) < 0.1 * size


@pytest.mark.parametrize('num_answers', [1, 2])
def test_what_is_open_is_answered_twice_or_by_the_middle(operator, operator_params, example, num_answers, monkeypatch):
  """The right answer is -2 in half of the cases and 2 in the other half: two answers become the two, each half likely;
  a single one is 0. The less sharp, the more an answer in the middle is worth: at a sharpness of 1 it would be the only
  one, for it costs log 5 / 2, hardly more than the log 2 of two answers."""
  monkeypatch.setattr(module, 'SHARPNESS', 4.0)
  small = make_operator(dataclasses.replace(operator.config, num_answers=num_answers))
  params = small.init(jax.random.key(1), operator_params['statistics'])
  batch = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 8), example)
  locations = jnp.tile(jnp.array([-2.0, 2.0]), 4)
  batch = batch.replace(answer=jax.vmap(lambda location: jnp.tile(logits(location, 1.0), (8, 1)))(locations))
  optimiser = optax.adam(3e-3)

  def step(state, key):
    params, moments = state
    keyed = batch.replace(key_data=jax.random.key_data(jax.random.split(key, 8)))
    gradient = jax.grad(lambda n: mean_loss(small, {**params, 'network': n}, keyed))(params['network'])
    updates, moments = optimiser.update(gradient, moments)
    return ({**params, 'network': optax.apply_updates(params['network'], updates)}, moments), None

  run = jax.jit(functools.partial(jax.lax.scan, step))
  (params, _), _ = run((params, optimiser.init(params['network'])), jax.random.split(jax.random.key(2), 200))
  codes, log_likelihood = small.answers(params, example.memory, example.ask)
  found = [float(small.policy.apply(small.decode(params, code), example.states)[:, 0].mean()) for code in codes]
  np.testing.assert_allclose(sorted(found), [0.0] if num_answers == 1 else [-2.0, 2.0], atol=0.4)
  np.testing.assert_allclose(np.exp(log_likelihood), 1 / num_answers, atol=0.15)
