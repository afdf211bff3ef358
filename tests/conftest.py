"""Shared by all tests: the compilation cache, and a family that compiles in a moment."""

import os

# Before JAX is imported: two devices whatever the machine has, for tests of what is spread over devices everywhere;
# and compiling, which is most of what the tests do, without optimisation.
os.environ['XLA_FLAGS'] = ' '.join([
  os.environ.get('XLA_FLAGS', ''), '--xla_force_host_platform_device_count=2', '--xla_backend_optimization_level=0',
]).strip()

import experiments  # noqa: F401  (sets up JAX's compilation cache)

import hypothesis
import jax
import numpy as np
import pytest

from metaimprove.histories.dataset import load_dataset
from metaimprove.operators.operator import OperatorConfig, make_operator
from metaimprove.operators.reading import experience_statistics
from tests import point_job
from tests.point_family import point_family
from tests.point_histories import HIDDEN_SIZES, collect_point_histories

hypothesis.settings.register_profile('tests', deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile('tests')

class Killed(Exception):
  """Stands for the moment a process dies."""


def kill_at(when):
  """A `Progress` that ends the run when so much of a stage is done."""
  def progress(stage, done, total, figures):
    if done == when:
      raise Killed

  return progress


@pytest.fixture(scope='session')
def point():
  return point_family()


@pytest.fixture(scope='session')
def histories(point, tmp_path_factory):
  """A folder of histories of the point family."""
  folder = tmp_path_factory.mktemp('histories')
  collect_point_histories(folder, point)
  return folder


@pytest.fixture(scope='session')
def whole(tmp_path_factory):
  """Histories and an operator of the point family, made by processes that nobody disturbs."""
  folder = tmp_path_factory.mktemp('whole')
  for job in ('collect', 'train'):
    point_job.finish(point_job.start(job, folder))
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
    point, hidden_sizes=HIDDEN_SIZES, width=32, num_latents=2, num_blocks=1, code_size=8, capacity=4, num_answers=2,
    asks=('steps', 'explore'),
  ))


@pytest.fixture(scope='session')
def operator_params(operator, every):
  return operator.init(jax.random.key(0), experience_statistics(every[1]))
