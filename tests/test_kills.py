"""Collection and training die at random moments, again and again, and end with the very same bytes.

METAIMPROVE_KILLS and METAIMPROVE_KILL_SEED set how often and when; 100 kills take about 20 minutes.
"""

import os
import signal
import subprocess

import numpy as np
import pytest

from tests.point_job import finish, start

pytestmark = pytest.mark.xdist_group('kills')

NUM_KILLS = int(os.environ.get('METAIMPROVE_KILLS', '4'))
SEED = int(os.environ.get('METAIMPROVE_KILL_SEED', '0'))
NUM_WORKERS = 3
SECONDS = 12.0  # a job is over in about as many


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith('.')}


def kill_sometimes(begin, rng, num_kills):
  """Runs what `begin` starts, killing it at random moments, until it is done after the last kill."""
  kills = 0
  while kills < num_kills:
    process = begin()
    try:
      process.communicate(timeout=rng.uniform(2.0, SECONDS))
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.communicate()
    kills += 1  # one that was over before its time has been a run again of what is done
  finish(begin())


def test_three_workers_of_which_one_is_killed_at_random(whole, tmp_path):
  rng = np.random.default_rng([SEED, 0])
  victim = int(rng.integers(NUM_WORKERS))
  others = [start('collect', tmp_path, worker, NUM_WORKERS) for worker in range(NUM_WORKERS) if worker != victim]
  kill_sometimes(lambda: start('collect', tmp_path, victim, NUM_WORKERS), rng, -(-NUM_KILLS // 2))
  for other in others:
    finish(other)
  assert contents(tmp_path / 'histories' / 'shards') == contents(whole / 'histories' / 'shards')


def test_a_training_killed_at_random_ends_with_the_same_operator(whole, tmp_path):
  rng = np.random.default_rng([SEED, 1])
  (tmp_path / 'histories').symlink_to(whole / 'histories')
  kill_sometimes(lambda: start('train', tmp_path), rng, NUM_KILLS // 2)
  assert (tmp_path / 'operator.safetensors').read_bytes() == (whole / 'operator.safetensors').read_bytes()
