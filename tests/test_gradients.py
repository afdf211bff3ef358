"""How precise gradients are, by hand, and that the policy gradient is one."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_variance import surrogate_loss
from metaimprove.evaluation.gradients import precision
from metaimprove.policies import make_policy
from metaimprove.types import Trajectory


def test_precision_by_hand():
  """(3, 1), (3, -1), (3, 0): the mean product of two of them is (8 + 9 + 9) / 3, that of one with itself 29 / 3."""
  found = precision(np.array([[3.0, 1.0], [3.0, -1.0], [3.0, 0.0]]))
  assert abs(found.relative_variance - 1 / (26 / 3)) < 1e-12 and found.low < found.relative_variance < found.high
  # Of (3, 1) with the mean of the others, (3, -0.5); the same the other way round; of (3, 0) with (3, 0).
  wanted = (2 * 8.5 / np.sqrt(10 * 9.25) + 1) / 3
  assert abs(found.cosine - wanted) < 1e-12


def test_estimates_that_are_all_alike_are_precise():
  found = precision(np.ones((5, 3)))
  assert found.relative_variance == 0 and abs(found.cosine - 1) < 1e-12


def test_noise_has_no_precision_and_less_variance_in_larger_batches():
  rng = np.random.default_rng(0)
  noises = [precision(rng.normal(size=(48, 30))) for _ in range(100)]
  assert sum(noise.relative_variance is None for noise in noises) > 90
  assert abs(np.mean([noise.cosine for noise in noises])) < 0.05
  one = rng.normal(size=(4096, 30)) + 1
  many = one.reshape(256, 16, 30).mean(axis=1)
  assert abs(precision(one).relative_variance / precision(many).relative_variance / 16 - 1) < 0.2


def test_the_policy_gradient_by_hand():
  """Two episodes of two steps, the second one ends early. Rewards to go are (3, 2) and (4, 0); the baseline of each is
  those of the other one."""
  policy = make_policy(1, 1, (2,))
  params = policy.init(jax.random.key(0))
  observation, raw = jnp.array([[[0.1], [0.2]], [[0.3], [0.4]]]), jnp.array([[[0.5], [-0.5]], [[1.0], [0.0]]])
  trajectory = Trajectory(
    observation=observation, action=jnp.tanh(raw), reward=jnp.array([[1.0, 2.0], [4.0, 0.0]]),
    next_observation=observation, outcome=jnp.zeros((2, 2, 0)), terminated=jnp.array([[False, False], [True, False]]),
    valid=jnp.array([[True, True], [True, False]]), finite=jnp.ones(2, bool),
  )
  weight = {(0, 0): 3 - 4, (0, 1): 2 - 0, (1, 0): 4 - 3}

  def wanted(params):
    log_probs = [
      by * policy.distribution.log_prob(policy.apply(params, observation[at]), raw[at]) for at, by in weight.items()
    ]
    return -sum(log_probs) / 2

  found = jax.grad(lambda params: surrogate_loss(policy, params, trajectory, raw))(params)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, jax.grad(wanted)(params))


def test_the_policy_gradient_points_to_higher_return():
  """One step, the reward is the action: the mean of many estimates is that of finite differences of the mean return."""
  policy = make_policy(1, 1, (2,))
  params = policy.init(jax.random.key(0))
  num = 200_000

  def play(params, key):
    raw = jax.vmap(lambda k: policy.sample(params, jnp.ones(1), k)[1])(jax.random.split(key, num))
    return policy.distribution.postprocess(raw), raw

  action, raw = jax.jit(play)(params, jax.random.key(1))
  ones = jnp.ones((num, 1))
  trajectory = Trajectory(
    observation=ones[..., None], action=action[:, None], reward=action, next_observation=ones[..., None],
    outcome=jnp.zeros((num, 1, 0)), terminated=jnp.zeros((num, 1), bool), valid=jnp.ones((num, 1), bool),
    finite=jnp.ones(num, bool),
  )
  found = jax.grad(lambda params: surrogate_loss(policy, params, trajectory, raw[:, None]))(params)
  bias = params['mlp/~/linear_1']['b']

  def mean_return(shift):
    shifted = {**params, 'mlp/~/linear_1': {**params['mlp/~/linear_1'], 'b': bias + jnp.array([shift, 0.0])}}
    return play(shifted, jax.random.key(1))[0].mean()

  wanted = -(mean_return(0.05) - mean_return(-0.05)) / 0.1
  assert abs(found['mlp/~/linear_1']['b'][0] - wanted) < 0.02 < abs(wanted)
