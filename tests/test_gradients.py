"""How precise gradients are, by hand, and that the policy gradient is one."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_variance import surrogate_loss
from metaimprove.evaluation.gradients import precision
from metaimprove.policies import make_policy
from metaimprove.types import Trajectory


def test_precision_by_hand():
  """Two estimates, (3, 1) and (3, -1): their mean is (3, 0) and their variance 2, of which half is taken off 9."""
  found = precision(np.array([[3.0, 1.0], [3.0, -1.0]]))
  assert found.relative_variance == 2 / (9 - 1) and abs(found.cosine - 0.8) < 1e-12


def test_estimates_that_are_all_alike_are_precise():
  found = precision(np.ones((5, 3)))
  assert found.relative_variance == 0 and abs(found.cosine - 1) < 1e-12


def test_noise_has_no_precision_and_less_variance_in_larger_batches():
  rng = np.random.default_rng(0)
  noise = precision(rng.normal(size=(400, 30)))
  assert noise.relative_variance > 10 and abs(noise.cosine) < 0.05
  one = rng.normal(size=(4096, 30)) + 1
  many = one.reshape(256, 16, 30).mean(axis=1)
  assert abs(precision(one).relative_variance / precision(many).relative_variance / 16 - 1) < 0.2


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
