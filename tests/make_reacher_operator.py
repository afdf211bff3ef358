"""Makes the small trained operator that tests use, `tests/data/reacher_operator`, in a few minutes on two cores.

  python -m tests.make_reacher_operator runs/reacher_operator

The folder takes histories and training; a run that was stopped goes on. To be run again, and its result committed, when
the formats of operators, the task suite, or what an operator reads change.
"""

import pathlib
import sys

import experiments  # noqa: F401  (sets up JAX's compilation cache)

from metaimprove.histories.collect import collect
from metaimprove.histories.dataset import load_dataset
from metaimprove.improvers import tuned
from metaimprove.operators.checkpoints import save_operator
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.operator import make_operator
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.training.loop import train
from metaimprove.training.settings import TrainingSettings

FAMILY = 'reacher_goal'
RESULT = pathlib.Path(__file__).parent / 'data' / 'reacher_operator'
HIDDEN_SIZES = (32, 32)
NUM_TASKS = 384
SETTINGS = TrainingSettings(
  num_steps=1500, batch_size=32, learning_rate=2e-3, rounds=(0.0, 0.4, 0.7), round_tasks=192, num_validation=32,
  num_evaluations=2,
)


def main(folder: pathlib.Path) -> None:
  """Collects, trains, and writes the operator."""
  family = make_family(FAMILY)
  source = tuned.make_source('task_conditioned_ppo', family, HIDDEN_SIZES, num_updates=80)
  tell = lambda stage, done, total, figures: (done * 20 // total > (done - 1) * 20 // total) and print(
    stage, f'{done}/{total}', {name: round(float(value), 3) for name, value in figures.items()}, flush=True
  )
  collect(
    folder / 'histories', family, [(source, NUM_TASKS)], seed=0, num_checkpoints=9, hidden_sizes=HIDDEN_SIZES,
    progress=tell,
  )
  operator = make_operator(OperatorConfig.of(
    family, hidden_sizes=HIDDEN_SIZES, width=32, num_latents=4, num_blocks=1, code_size=24
  ))
  operator_params = train(
    operator, make_play(family, operator.policy, num_episodes=2), load_dataset(folder / 'histories', family), SETTINGS,
    seed=0, folder=folder / 'training', log=lambda step, figures: print(step, figures, flush=True), progress=tell,
  )
  save_operator(RESULT, operator, operator_params)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
