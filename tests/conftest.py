"""Shared by all tests: the compilation cache, and a family that compiles in a moment."""

import os

# Two devices whatever the machine has, before JAX is imported: what is spread over devices is tested everywhere.
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=2'.strip()

import experiments  # noqa: F401  (sets up JAX's compilation cache)

import hypothesis
import jax
import numpy as np
import pytest

from metaimprove.improvers.independent_ppo import independent_ppo
from metaimprove.improvers.ppo import PPOSettings
from metaimprove.improvers.task_conditioned_ppo import task_conditioned_ppo
from metaimprove.histories.collect import collect
from metaimprove.histories.dataset import load_dataset
from metaimprove.operators.operator import OperatorConfig, experience_statistics, make_operator
from tests.point_family import point_family

hypothesis.settings.register_profile('tests', deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile('tests')

HIDDEN_SIZES = (8,)
PPO = PPOSettings(
  num_envs=16, unroll_length=4, num_epochs=2, num_minibatches=4, learning_rate=1e-2, reward_scaling=1.0,
  value_hidden_sizes=(16,),
)


class Killed(Exception):
  """Stands for the moment a process dies."""


def kill_at(when):
  """A progress callback that ends the run at an update or step."""
  def progress(done, figures):
    if done == when:
      raise Killed

  return progress


@pytest.fixture(scope='session')
def point():
  return point_family()


def make_sources(family):
  """Both PPO sources on the point family, with the number of tasks each serves."""
  return [
    (task_conditioned_ppo(family, PPO, 30, HIDDEN_SIZES), 6),
    (independent_ppo(family, PPO, 20, HIDDEN_SIZES), 4),
  ]


def collect_point_histories(folder, family, source_list=None, **changes):
  arguments = {'seed': 0, 'num_checkpoints': 4, 'num_episodes': 2, 'shard_size': 4, 'hidden_sizes': HIDDEN_SIZES}
  return collect(folder, family, source_list or make_sources(family), **{**arguments, **changes})


@pytest.fixture(scope='session')
def histories(point, tmp_path_factory):
  """A folder of histories of the point family."""
  folder = tmp_path_factory.mktemp('histories')
  collect_point_histories(folder, point)
  return folder


@pytest.fixture(scope='session')
def dataset(point, histories):
  return load_dataset(histories, point)


@pytest.fixture(scope='session')
def every(dataset):
  """θ and experience of all checkpoints of the dataset, leaves [H, N + 1, ...]."""
  size = dataset.num_histories, dataset.num_checkpoints
  whole = dataset.read(*(index.reshape(-1) for index in np.indices(size)))
  return jax.tree.map(lambda x: x.reshape(*size, *x.shape[1:]), whole)


@pytest.fixture(scope='session')
def operator(point):
  return make_operator(OperatorConfig.of(
    point, hidden_sizes=HIDDEN_SIZES, width=32, num_latents=2, num_blocks=1, code_size=8,
  ))


@pytest.fixture(scope='session')
def operator_params(operator, every):
  return operator.init(jax.random.key(0), experience_statistics(every[1]))
