"""Collection and training die at random moments, again and again, and end with the very same bytes.

METAIMPROVE_KILLS and METAIMPROVE_KILL_SEED set how often and when; 100 kills take about 20 minutes. What is over before
it could be killed is compared, and another one begun: every kill hits work that is not done.
"""

import os
import signal
import subprocess

import numpy as np
import pytest

from tests.point_job import SETTINGS, finish, start

pytestmark = pytest.mark.xdist_group('kills')

NUM_KILLS = int(os.environ.get('METAIMPROVE_KILLS', '4'))
SEED = int(os.environ.get('METAIMPROVE_KILL_SEED', '0'))
NUM_WORKERS = 3
SECONDS = 2.0, 12.0  # the first while it starts; in the last it would be over


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith('.')}


def is_killed(process, seconds):
  """Whether a job still ran after so many seconds, and was killed."""
  try:
    process.communicate(timeout=seconds)
  except subprocess.TimeoutExpired:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return True
  assert process.returncode == 0
  return False


def shards_and_times(folder):
  return {path.name: path.stat().st_mtime_ns for path in folder.glob('histories/shards/[!.]*')}


def test_three_workers_of_which_one_is_killed_at_random(whole, tmp_path):
  rng, kills, jobs = np.random.default_rng([SEED, 0]), 0, 0
  while kills < (NUM_KILLS + 1) // 2:
    folder, victim, made = tmp_path / str(jobs), int(rng.integers(NUM_WORKERS)), {}
    others = [start('collect', folder, worker, NUM_WORKERS) for worker in range(NUM_WORKERS) if worker != victim]
    while is_killed(start('collect', folder, victim, NUM_WORKERS), rng.uniform(*SECONDS)):
      kills += 1
      made |= shards_and_times(folder)
      if kills == (NUM_KILLS + 1) // 2:
        finish(start('collect', folder, victim, NUM_WORKERS))
        break
    for other in others:
      finish(other)
    assert contents(folder / 'histories' / 'shards') == contents(whole / 'histories' / 'shards')
    assert made.items() <= shards_and_times(folder).items(), 'what stood at a kill is not made again'
    jobs += 1


def last_saved_step(folder):
  paths = sorted(folder.glob('training/training_state_*.safetensors'))
  return int(paths[-1].stem.rsplit('_', 1)[1]) if paths else 0


def test_a_training_killed_at_random_ends_with_the_same_operator(whole, tmp_path):
  rng, kills, jobs = np.random.default_rng([SEED, 1]), 0, 0
  while kills < NUM_KILLS // 2:
    folder = tmp_path / str(jobs)
    folder.mkdir()
    (folder / 'histories').symlink_to(whole / 'histories')
    while is_killed(start('train', folder), rng.uniform(*SECONDS)):
      kills += 1
      saved = last_saved_step(folder)
      if kills == NUM_KILLS // 2:
        first_step = folder / 'first_step.txt'
        first_step.unlink(missing_ok=True)
        finish(start('train', folder))
        made = int(first_step.read_text()) if first_step.exists() else SETTINGS.num_steps + 1  # none was left to make
        assert made == saved + 1, 'it goes on from the newest state'
        break
    assert (folder / 'operator.safetensors').read_bytes() == (whole / 'operator.safetensors').read_bytes()
    jobs += 1
