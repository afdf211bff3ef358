"""Operators, and operators as files."""

import inspect
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.operators import checkpoints
from metaimprove.errors import DamagedDataError, IncompatibleError, UnknownNameError
from metaimprove.asks import steps as asks
from tests.point_family import point_family


@pytest.fixture(scope='module')
def example(every):
  """A stored policy and its experience."""
  return jax.tree.map(lambda x: jnp.asarray(x[0, 1]), every)


def largest_difference(first, second):
  return max(float(np.abs(x - y).max()) for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second)))


def test_it_never_sees_the_task(operator):
  assert list(inspect.signature(operator.improve).parameters) == ['operator_params', 'params', 'trajectory', 'ask']
  assert list(inspect.signature(operator.improve_behaviour).parameters)[1] == 'behaviour'


def test_it_emits_a_policy_of_the_same_shape(operator, operator_params, example):
  params, trajectory = example
  emitted = operator.improve(operator_params, params, trajectory, asks.BEST)
  assert jax.tree.map(jnp.shape, emitted) == jax.tree.map(jnp.shape, params)
  assert operator.policy.apply(emitted, trajectory.observation).shape == (2, 8, 2)


@pytest.mark.parametrize('field', ['observation', 'action', 'reward', 'next_observation'])
def test_everything_in_the_experience_matters(operator, operator_params, example, field):
  params, trajectory = example
  changed = trajectory.replace(**{field: getattr(trajectory, field) + 0.3})
  first, second = (operator.improve(operator_params, params, t, asks.BEST) for t in (trajectory, changed))
  assert largest_difference(first, second) > 1e-5


def test_the_policy_and_the_ask_matter(operator, operator_params, example):
  params, trajectory = example
  best = operator.improve(operator_params, params, trajectory, asks.BEST)
  assert largest_difference(best, operator.improve(operator_params, params, trajectory, 4)) > 1e-5
  other = jax.tree.map(lambda x: x + 0.1, params)
  assert largest_difference(best, operator.improve(operator_params, other, trajectory, asks.BEST)) > 1e-5


def test_episodes_are_a_set_and_padding_is_not_read(operator, operator_params, example):
  params, trajectory = example
  flipped = jax.tree.map(lambda x: x[::-1], trajectory)
  first, second = (operator.improve(operator_params, params, t, 2) for t in (trajectory, flipped))
  assert largest_difference(first, second) < 1e-5
  valid = trajectory.valid.at[:, 5:].set(False)
  padded = trajectory.replace(valid=valid)
  noisy = padded.replace(reward=padded.reward.at[:, 5:].set(77.0))
  first, second = (operator.improve(operator_params, params, t, 2) for t in (padded, noisy))
  assert largest_difference(first, second) == 0


def test_asked_for_nothing_it_gives_the_policy_back(operator, operator_params, example):
  params, trajectory = example
  jax.tree.map(np.testing.assert_array_equal, operator.improve(operator_params, params, trajectory, 0), params)


def test_long_experience_is_thinned_out(operator, operator_params, example):
  params, trajectory = example
  longer = jax.tree.map(lambda x: jnp.concatenate([x] * 20), trajectory)
  emitted = operator.improve(operator_params, params, longer, 1)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(emitted))


def test_experience_or_policies_of_other_sizes_are_refused(operator, operator_params, example):
  params, trajectory = example
  wide = trajectory.replace(observation=jnp.tile(trajectory.observation, 3))
  with pytest.raises(IncompatibleError, match='1 observations and 1 actions; the experience has 3 and 1'):
    operator.improve_behaviour(operator_params, jnp.zeros((2, 8, 2)), wide, 1)
  deep = {**params, 'mlp/~/linear_2': params['mlp/~/linear_1']}
  with pytest.raises(IncompatibleError, match='improve_behaviour'):
    operator.improve(operator_params, deep, trajectory, 1)


def test_asks():
  assert asks.parse('best') == asks.BEST and asks.parse('4') == 4
  assert asks.name(asks.BEST) == 'best' and asks.name(0) == '0'
  with pytest.raises(UnknownNameError, match='not .better.'):
    asks.parse('better')
  np.testing.assert_allclose(asks.features(jnp.asarray(7)), [0, 1, 1])
  np.testing.assert_allclose(asks.features(jnp.asarray(0)), [0, 0, 0])
  np.testing.assert_allclose(asks.features(jnp.asarray(asks.BEST)), [1, 1, 0])


@pytest.fixture
def saved(operator, operator_params, tmp_path):
  checkpoints.save_operator(tmp_path / 'operator', operator, operator_params)
  return tmp_path / 'operator'


def test_a_loaded_operator_does_the_same(saved, operator, operator_params, point, example):
  loaded, loaded_params = checkpoints.load_operator(saved, point)
  assert loaded.config == operator.config
  before = operator.improve(operator_params, *example, 1)
  jax.tree.map(np.testing.assert_array_equal, before, loaded.improve(loaded_params, *example, 1))
  assert sorted(path.name for path in saved.iterdir()) == ['config.json', 'operator.safetensors']


def test_files_that_do_not_fit_are_refused(saved, point, tmp_path):
  with pytest.raises(IncompatibleError, match="family='point', and line"):
    checkpoints.load_operator(saved, point_family(name='line'))
  with pytest.raises(IncompatibleError, match='observation_size=1.*observation_size=2'):
    checkpoints.load_operator(saved, point_family(observation_size=2))
  with pytest.raises(DamagedDataError, match='missing'):
    checkpoints.load_operator(tmp_path / 'nowhere')
  other = shutil.copytree(saved, tmp_path / 'other')
  content = bytearray((other / 'operator.safetensors').read_bytes())
  content[-1] ^= 1
  (other / 'operator.safetensors').write_bytes(content)
  with pytest.raises(DamagedDataError, match='damaged'):
    checkpoints.load_operator(other)
  config = json.loads((saved / 'config.json').read_text())
  (saved / 'config.json').write_text(json.dumps({**config, 'format_version': 99}))
  with pytest.raises(IncompatibleError, match='format version 99'):
    checkpoints.load_operator(saved)
  (saved / 'config.json').write_text(json.dumps({**config, 'operator': {'colour': 'red', 'hidden_sizes': []}}))
  with pytest.raises(DamagedDataError, match='does not describe an operator'):
    checkpoints.load_operator(saved)
  (saved / 'config.json').write_text(json.dumps({**config, 'operator': {**config['operator'], 'width': 64}}))
  with pytest.raises(IncompatibleError, match='shape'):
    checkpoints.load_operator(saved)
