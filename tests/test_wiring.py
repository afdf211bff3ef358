"""Wirings are drawn alike probable, some are left out, and a policy undoes one exactly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import policies
from metaimprove.errors import IncompatibleError
from metaimprove.improvers.ppo import PPOSettings, make_learner, policy_for
from metaimprove.rollouts import unroll
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.robots import wiring
from metaimprove.tasks.robots.wiring import Wiring
from metaimprove.tasks.splits import SPLITS, far_parameter, sample_tasks


def all_wirings(size):
  """[N, A, A], every signed permutation, listed without the code under test."""
  return np.stack([
    np.diag(signs).astype(np.float32)[:, list(order)]
    for order in itertools.permutations(range(size)) for signs in itertools.product((-1, 1), repeat=size)
  ])


def drawn(draw, num_uniform, num):
  keys = jax.random.split(jax.random.key(0), num)
  return np.asarray(jax.vmap(lambda key: draw(jax.random.uniform(key, (num_uniform,))))(keys))


@pytest.mark.parametrize('size', [1, 2, 3])
def test_all_but_those_left_out_are_alike_probable(size):
  """So that a sign or an order which is never drawn, or drawn twice as often, is noticed."""
  kind = Wiring(size)
  left_out = [w for w in all_wirings(size) if size > 1 and w.sum() == -size]
  known = [w for w in all_wirings(size) if not (size > 1 and w.sum() == -size)]
  for draw, possible in ((kind.inside, known), (lambda u: kind.far(u, None), left_out)):
    if possible:
      values, counts = np.unique(drawn(draw, kind.num_uniform, 6000), axis=0, return_counts=True)
      assert {w.tobytes() for w in values + 0.0} == {(w + 0.0).tobytes() for w in possible}
      np.testing.assert_allclose(counts / 6000, 1 / len(possible), atol=5 * np.sqrt(1 / len(possible) / 6000))
  assert kind.has_far == bool(left_out)
  np.testing.assert_array_equal([bool(kind.is_outside(w)) for w in all_wirings(size)],
                                [any((w == x).all() for x in left_out) for w in all_wirings(size)])


def test_wirings_left_out_are_those_of_far_tasks_only():
  family = make_family('reacher_wiring')
  for split in SPLITS:
    tasks = sample_tasks(family, 0, 500, split)
    is_left_out = np.asarray(tasks.dynamics['wiring']).sum(axis=(1, 2)) == -2
    np.testing.assert_array_equal(is_left_out, np.array(far_parameter(family, tasks)) == 'wiring')
    assert is_left_out.any() == (split == 'far')


def test_the_nearest_wiring():
  for w in all_wirings(3):
    np.testing.assert_array_equal(wiring.nearest(jnp.asarray(w)), w)
  # Row by row the second column would be taken twice.
  estimate = jnp.array([[0.3, -0.9, 0.0], [0.1, 0.5, -0.05], [0.3, 0.4, 0.1]])
  matrices = all_wirings(3)
  best = matrices[np.square(matrices - estimate).sum(axis=(1, 2)).argmin()]
  np.testing.assert_array_equal(wiring.nearest(estimate), best)


def test_rewired_logits_by_hand():
  """Motor 1 gets minus command 2, and motor 2 command 1: command 2 has to be minus what motor 1 was to get."""
  params = {'mlp/~/linear_0': {'w': jnp.array([[1.0, 2.0, 3.0, 4.0]]), 'b': jnp.array([0.1, 0.2, 0.3, 0.4])}}
  changed = policies.rewire(params, jnp.array([[0.0, -1.0], [1.0, 0.0]]))['mlp/~/linear_0']
  np.testing.assert_array_equal(changed['w'], [[2.0, -1.0, 4.0, 3.0]])
  np.testing.assert_allclose(changed['b'], [0.2, -0.1, 0.4, 0.3])


def test_a_rewired_policy_does_on_any_wiring_what_it_does_on_the_stock_robot():
  """The same trajectory for all 8 wirings of an arm, from what a conditioned learner has learned; and practice, whose
  robot has the stock wiring, is the same in all of them."""
  family = make_family('reacher_wiring')
  learner = make_learner(
    family, PPOSettings(num_envs=8, num_minibatches=2, num_epochs=1), task_conditioned=True, shared=True
  )
  snapshot = learner.snapshot(learner.init(jax.random.key(0)))
  assert family.told_size == family.privileged_size - 4
  task = family.sample(jax.random.key(1))
  wirings = jnp.asarray(all_wirings(2))

  @jax.jit
  @jax.vmap
  def play(wiring):
    wired = task.replace(dynamics={**task.dynamics, 'wiring': wiring})
    params = policy_for(family, snapshot, family.privileged(wired))
    policy = policies.make_policy(family.observation_size, family.action_size)
    act = lambda observation, key: (policy.distribution.mode(policy.apply(params, observation)), None)
    return unroll(family, act, wired, jax.random.key(2), num_episodes=1)[0]

  trajectory = play(wirings)
  assert np.ptp(trajectory.observation[0, 0], axis=0).max() > 1e-2, 'the arm moves'
  stock = next(i for i, w in enumerate(wirings) if (w == jnp.eye(2)).all())
  for i, w in enumerate(wirings):
    np.testing.assert_allclose(trajectory.observation[i], trajectory.observation[stock], atol=1e-5)
    np.testing.assert_allclose(trajectory.action[i] @ w.T, trajectory.action[stock], atol=1e-5)


def test_a_wiring_of_another_robot_is_refused():
  from metaimprove.tasks.robots import dynamics

  with pytest.raises(IncompatibleError, match=r"'wiring' has shape \(2, 2\), and the robot needs \(3, 3\)"):
    dynamics.of_robot({'wiring': Wiring(2)}, 3)
  with pytest.raises(IncompatibleError, match='1 to 20 motors'):
    Wiring(0)
