"""A small job in a process of its own, to be killed: collects histories of the point family, or trains on them.

  python -m tests.point_job collect FOLDER [WORKER NUM_WORKERS]
  python -m tests.point_job train FOLDER [COORDINATOR PROCESS NUM_PROCESSES]

Training writes the operator's parameters to FOLDER/operator.safetensors, the losses to FOLDER/losses.json, and the
first step that it made to FOLDER/first_step.txt.
"""

import os
import pathlib
import subprocess
import sys
import traceback

import experiments  # noqa: F401  (sets up JAX's compilation cache)

import jax
import numpy as np

from metaimprove import files
from metaimprove.histories.dataset import load_dataset
from metaimprove.improvers import run as runs
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.operator import make_operator
from metaimprove.rollouts import make_play
from metaimprove.tasks.robots import physics
from metaimprove.training import fit
from metaimprove.training.loop import train as train_on
from metaimprove.training.settings import TrainingSettings
from tests.point_family import point_family
from tests.point_histories import HIDDEN_SIZES, collect_point_histories

SETTINGS = TrainingSettings(
  num_steps=120, batch_size=16, num_states=8, rounds=(0.1, 0.6), round_applications=2, round_tasks=8, num_validation=2,
  num_evaluations=2, learning_rate=1e-2, tries_share=0.25,
)


def start(job, folder, *arguments, num_devices=2):
  """The job in a process of its own."""
  return subprocess.Popen(
    [sys.executable, '-m', 'tests.point_job', job, str(folder), *map(str, arguments)],
    cwd=pathlib.Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    # XLA takes the last of two values of a flag.
    env={**os.environ, 'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={num_devices}'},
  )


def finish(process):
  """Waits for a job, which must succeed."""
  _, err = process.communicate(timeout=300)
  assert process.returncode == 0, err


def collect(folder, worker=0, num_workers=1):
  runs._SAVE_SECONDS = 0.3
  collect_point_histories(folder / 'histories', point_family(), worker=int(worker), num_workers=int(num_workers))


def train(folder, coordinator=None, process=0, num_processes=1):
  if coordinator:
    jax.distributed.initialize(coordinator, int(num_processes), int(process))
    robot = physics.load('inverted_pendulum', 'mjx')  # MJX would put it where the other processes can not reach it
    jax.block_until_ready(robot.step({}, robot.init({}, np.zeros(2), np.zeros(2)), np.zeros(1)))
  fit._SAVE_SECONDS, fit._LOG_STEPS = 0.3, 1
  family = point_family()
  operator = make_operator(OperatorConfig.of(
    family, hidden_sizes=HIDDEN_SIZES, width=32, num_latents=2, num_blocks=1, code_size=8, capacity=4, num_answers=2,
    asks=('steps', 'explore'),
  ))
  losses, steps = {}, []

  def log(step, figures):
    if 'train/loss' in figures:
      losses[step] = figures['train/loss']

  def progress(stage, done, total, figures):
    if stage != 'train operator':
      return
    if not steps and jax.process_index() == 0:
      (folder / 'first_step.txt').write_text(str(done))
    steps.append(done)

  params = train_on(
    operator, make_play(family, operator.policy, num_episodes=2), load_dataset(folder / 'histories', family), SETTINGS,
    seed=0, folder=folder / 'training', log=log, progress=progress,
  )
  if jax.process_index() == 0:
    files.save_tree(folder / 'operator.safetensors', params)
    files.write_json(folder / 'losses.json', losses)


if __name__ == '__main__':
  job, folder, *rest = sys.argv[1:]
  try:
    {'collect': collect, 'train': train}[job](pathlib.Path(folder), *rest)
  except RuntimeError:  # a peer has died, for which an orderly end would wait
    traceback.print_exc()
    os._exit(1)
