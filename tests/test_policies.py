"""Policies: the same function as Brax's, folding, divergence."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import policies
from metaimprove.errors import IncompatibleError
from brax.training.agents.ppo import networks as ppo_networks


def test_same_function_as_brax():
  policy = policies.make_policy(5, 2, (16, 8))
  params = policy.init(jax.random.key(0))
  network = ppo_networks.make_ppo_networks(5, 2, policy_hidden_layer_sizes=(16, 8))
  x = jax.random.normal(jax.random.key(1), (7, 5))
  theirs = network.policy_network.apply(None, policies.to_brax(params), x)
  np.testing.assert_array_equal(policy.apply(params, x), theirs)
  back = policies.from_brax(policies.to_brax(params))
  jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize('between', [(), (3,), (3, 2)])
def test_without_jax_it_is_the_same_function(between):
  """For a batch of policies, each at its own observations."""
  policy = policies.make_policy(5, 2, (16, 8))
  params = jax.vmap(policy.init)(jax.random.split(jax.random.key(0), 4))
  params = jax.tree.map(lambda x: np.asarray(x + 0.1), params)  # biases are 0 at first
  x = np.random.default_rng(0).normal(size=(4, *between, 5)).astype(np.float32)
  found = policies.apply_numpy(params, x)
  assert found.dtype == np.float32 and found.shape == (4, *between, 4)
  np.testing.assert_allclose(found, jax.vmap(policy.apply)(params, x), atol=1e-5)
  assert np.isfinite(policies.apply_numpy(params, 1e4 * x)).all(), 'large inputs do not overflow'


def test_widened_policies_go_where_they_went_with_larger_deviations():
  policy = policies.make_policy(3, 2, (4,))
  params = jax.tree.map(np.asarray, jax.vmap(policy.init)(jax.random.split(jax.random.key(0), 2)))
  x = np.ones((2, 1, 3), np.float32)
  change = policies.apply_numpy(policies.widened(params, np.array([0.0, 1.5])), x) - policies.apply_numpy(params, x)
  np.testing.assert_allclose(change[:, 0], [[0, 0, 0, 0], [0, 0, 1.5, 1.5]], atol=1e-6)


def test_more_than_ten_layers_keep_their_order():
  policy = policies.make_policy(3, 1, (4,) * 11)
  names = policies.layer_names(policy.init(jax.random.key(0)))
  assert names == [f'mlp/~/linear_{i}' for i in range(12)]


def exact_logits(params, x):
  """In float64, by hand: what rounding is measured against."""
  names = policies.layer_names(params)
  for name in names:
    x = x @ np.float64(params[name]['w']) + np.float64(params[name]['b'])
    x = x if name == names[-1] else x / (1 + np.exp(-x))
  return x


@hypothesis.given(st.integers(0, 2**31), st.floats(1e-6, 10), st.floats(-20, 20))
def test_folding_is_exact_up_to_rounding(seed, scale, shift):
  """Also where observations hardly vary: a learner that normalises by foldable deviations loses nothing by folding."""
  keys = jax.random.split(jax.random.key(seed), 4)
  params = policies.make_policy(4 + 2, 1, (8,)).init(keys[0])
  params = jax.tree.map(lambda x: x + 0.1, params)  # biases are 0 at first
  mean, std = shift + jax.random.normal(keys[1], (4,)), scale * (0.5 + jax.random.uniform(keys[2], (4,)))
  x, privileged = mean + std * jax.random.normal(keys[3], (10, 4)), jnp.array([0.3, -0.7])
  std = policies.foldable_deviation(mean, std)
  normalised = (np.float64(x) - np.float64(mean)) / np.float64(std)
  before = exact_logits(params, np.concatenate([normalised, np.tile(np.float64(privileged), (10, 1))], axis=-1))
  after = policies.make_policy(4, 1, (8,)).apply(policies.fold(params, mean, std, privileged), x)
  np.testing.assert_allclose(after, before, atol=1e-3)


def test_deviations_that_can_be_folded_by_hand():
  """At least a thousandth of the mean, whatever its sign."""
  found = policies.foldable_deviation(jnp.array([2.0, -2.0, 2.0, 0.0]), jnp.array([1.0, 1e-6, 0.0, 1e-6]))
  np.testing.assert_allclose(found, [1.0, 2e-3, 2e-3, 1e-6], rtol=1e-6)


def test_deviations_too_small_to_be_folded_are_refused():
  """Folded all the same, the logits would be off by about 0.1."""
  params = policies.make_policy(2, 1, (8,)).init(jax.random.key(0))
  mean, std = jnp.array([1.0, 1.0]), jnp.array([1.0, 1e-6])
  with pytest.raises(IncompatibleError, match='normalise by policies.foldable_deviation'):
    policies.fold(params, mean, std)
  policies.fold(params, mean, policies.foldable_deviation(mean, std))


def test_what_is_folded_may_be_known_while_the_rest_is_traced():
  """As where a snapshot is folded for tasks inside of a compiled function."""
  params = policies.make_policy(3, 1, (4,)).init(jax.random.key(0))
  mean, std, told = np.ones(2, np.float32), np.full(2, 2, np.float32), jnp.ones(1)
  folded = jax.jit(lambda told: policies.fold(params, mean, std, told))(told)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), folded, policies.fold(params, mean, std, told)
  )
  with pytest.raises(IncompatibleError, match='normalise by'):
    jax.jit(lambda told: policies.fold(params, mean, std * 1e-9, told))(told)


def logits_of(location, scale):
  """Raw scale such that softplus(raw) + 0.001 is the scale."""
  return jnp.array([location, jnp.log(jnp.expm1(scale - 0.001))])


def test_divergence_by_hand():
  """KL(N(0, 1) ‖ N(1, 2²)) = log 2 + (1 + 1) / 8 - 1/2."""
  distribution = policies.make_policy(1, 1).distribution
  value = policies.divergence(distribution, logits_of(0.0, 1.0), logits_of(1.0, 2.0))
  np.testing.assert_allclose(value, np.log(2) + 2 / 8 - 0.5, rtol=1e-4)


@hypothesis.given(st.lists(st.floats(-3, 3), min_size=8, max_size=8))
def test_divergence_is_zero_only_for_the_same(numbers):
  distribution = policies.make_policy(1, 2).distribution
  first, second = jnp.asarray(numbers[:4]), jnp.asarray(numbers[4:])
  np.testing.assert_allclose(policies.divergence(distribution, first, first), 0, atol=1e-6)
  hypothesis.assume(np.abs(first - second).max() > 0.1)
  assert policies.divergence(distribution, first, second) > 1e-5


def test_sampled_actions_have_the_stated_spread():
  policy = policies.make_policy(1, 1, (4,))
  params = policy.init(jax.random.key(0))
  observation = jnp.array([0.3])
  action, raw = jax.vmap(lambda key: policy.sample(params, observation, key))(jax.random.split(jax.random.key(1), 4000))
  normal = policy.distribution.create_dist(policy.apply(params, observation))
  np.testing.assert_allclose(raw.mean(), normal.loc[0], atol=0.05)
  np.testing.assert_allclose(raw.std(), normal.scale[0], rtol=0.05)
  np.testing.assert_allclose(action, np.tanh(raw), atol=1e-6)
