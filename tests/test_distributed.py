"""Two processes train one operator: the same curve as one, and on again when one has died."""

import json
import socket
import time

import jax
import numpy as np
import pytest

from metaimprove import files
from tests.point_job import finish, start

pytestmark = pytest.mark.xdist_group('kills')


def start_both(folder):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    coordinator = f'localhost:{free.getsockname()[1]}'
  return [start('train', folder, coordinator, process, 2, num_devices=1) for process in range(2)]


def finish_both(processes):
  for process in processes:
    finish(process)


@pytest.fixture(scope='module')
def together(whole, tmp_path_factory):
  folder = tmp_path_factory.mktemp('together')
  (folder / 'histories').symlink_to(whole / 'histories')
  finish_both(start_both(folder))
  return folder


def test_two_processes_have_the_loss_curve_of_one(whole, together):
  losses = [list(json.loads((folder / 'losses.json').read_text()).values()) for folder in (whole, together)]
  assert len(losses[0]) == 120
  # Before rounding has had time to grow, and beyond the first round of own runs, at step 12.
  np.testing.assert_allclose(losses[0][:30], losses[1][:30], rtol=1e-3)


def test_one_dies_and_both_run_again(together, tmp_path):
  (tmp_path / 'histories').symlink_to(together / 'histories')
  first, second = start_both(tmp_path)
  until = time.monotonic() + 120
  while not list((tmp_path / 'training').glob('training_state_*')) and time.monotonic() < until:
    time.sleep(0.05)
  assert list((tmp_path / 'training').glob('training_state_*')), 'it is killed when there is something to go on from'
  second.kill()
  second.communicate()
  first.communicate(timeout=120)
  assert first.returncode != 0 and not (tmp_path / 'operator.safetensors').exists()
  finish_both(start_both(tmp_path))
  assert int((tmp_path / 'first_step.txt').read_text()) > 1
  trees = [files.load_arrays(folder / 'operator.safetensors') for folder in (together, tmp_path)]
  jax.tree.map(np.testing.assert_array_equal, *trees)
