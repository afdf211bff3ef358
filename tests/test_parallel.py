"""Batches over several devices are batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import parallel


def function(weights, x, key):
  return {'y': weights @ x['a'] + x['b'], 'noise': jax.random.normal(key)}


@pytest.mark.parametrize('size', [8, 7, 1])  # the devices divide the first only
def test_it_is_vmap(size):
  assert jax.local_device_count() == 2, 'conftest.py gives the tests two'
  x = {'a': jnp.arange(3.0 * size).reshape(size, 3), 'b': jnp.arange(float(size))}
  arguments = (jnp.array([1.0, 2.0, 3.0]), x, jax.random.split(jax.random.key(0), size))
  mine = jax.jit(parallel.vmap(function, in_axes=(None, 0, 0)))(*arguments)
  theirs = jax.jit(jax.vmap(function, in_axes=(None, 0, 0)))(*arguments)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mine, theirs)
  if size == 8:
    assert len(mine['y'].sharding.device_set) == 2


def test_replicated_arguments_are_not_compiled_for_again():
  update = jax.jit(
    lambda state, x: state + parallel.vmap(lambda v: v * 2)(x).sum(), out_shardings=parallel.replicated_sharding()
  )
  state, x = parallel.replicated((jnp.zeros(()), jnp.arange(4.0)))
  for _ in range(3):
    state = update(state, x)
  assert float(state) == 36.0 and update._cache_size() == 1
