"""Two processes train one operator: the same curve as one, and on again when one has died."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from metaimprove import files
from tests.test_experiments import ROOT

pytestmark = pytest.mark.xdist_group('kills')


def start(folder, coordinator, process):
  environment = {**os.environ, 'XLA_FLAGS': '--xla_force_host_platform_device_count=1 --xla_cpu_max_isa=AVX2'}
  return subprocess.Popen(
    [sys.executable, '-m', 'tests.point_job', 'train', str(folder), coordinator, str(process), '2'], cwd=ROOT,
    env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )


def start_both(folder):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    coordinator = f'localhost:{free.getsockname()[1]}'
  return [start(folder, coordinator, process) for process in range(2)]


def finish(processes):
  for process in processes:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


@pytest.fixture(scope='module')
def alone(histories, tmp_path_factory):
  folder = tmp_path_factory.mktemp('alone')
  shutil.copytree(histories, folder / 'histories')
  subprocess.run([sys.executable, '-m', 'tests.point_job', 'train', str(folder)], cwd=ROOT, check=True, timeout=300)
  return folder


@pytest.fixture(scope='module')
def together(alone, tmp_path_factory):
  folder = tmp_path_factory.mktemp('together')
  (folder / 'histories').symlink_to(alone / 'histories')
  finish(start_both(folder))
  return folder


def test_two_processes_have_the_loss_curve_of_one(alone, together):
  losses = [list(json.loads((folder / 'losses.json').read_text()).values()) for folder in (alone, together)]
  assert len(losses[0]) == 120
  np.testing.assert_allclose(losses[0][:30], losses[1][:30], rtol=1e-3)  # before rounding has had time to grow


def test_one_dies_and_both_run_again(together, tmp_path):
  (tmp_path / 'histories').symlink_to(together / 'histories')
  first, second = start_both(tmp_path)
  until = time.monotonic() + 120
  while not list((tmp_path / 'training').glob('training_state_*')) and time.monotonic() < until:
    time.sleep(0.05)
  second.kill()
  second.communicate()
  first.communicate(timeout=120)
  assert first.returncode != 0 and not (tmp_path / 'operator.safetensors').exists()
  finish(start_both(tmp_path))
  trees = [files.load_arrays(folder / 'operator.safetensors') for folder in (together, tmp_path)]
  jax.tree.map(np.testing.assert_array_equal, *trees)
