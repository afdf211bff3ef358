"""What families ask for, one row a family in a JSON file: experience, dynamics, a second look.

A need is 1 less the score of a policy that does without: one that is trained on the whole family and told nothing, one
that is told the true goal and that the robot is stock, and one that is told what a network estimates from one episode.
No operator is made. Where `benchmark_operators` has already judged these controls its figures are taken; there the
network has also learned from the operator's own runs.

  python -m experiments.measure_needs --families=reacher_wiring,ant_dir

A family after the other; the row of each is written when it is done, and rows of other families stay. Can be stopped at
any moment; run again, it goes on where it was.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from experiments import console, jobs, stages
from experiments.jobs import Job
from metaimprove.errors import NoScoreError
from metaimprove.evaluation import results as results_
from metaimprove.evaluation import rows
from metaimprove.evaluation.evaluate import Evaluation
from metaimprove.evaluation.rows import NeedsRow
from metaimprove.tasks.registry import make_family

FLAGS = flags.FLAGS
NUM_TASKS, NUM_STEPS = 256, 2000
"""Training tasks with a history, and gradient steps of the network, where no other numbers are given."""

if __name__ == '__main__':
  flags.DEFINE_string('benchmark', 'runs/benchmark', 'Folder of `benchmark_operators`, whose figures are taken.')
  jobs.define_row_flags('runs/needs', 'docs/results/needs.json')
  flags.adopt_module_key_flags(jobs)


def known(family: str, backend: str) -> NeedsRow | None:
  """What the benchmark knows of a family on a backend; None if it knows no needs."""
  path = pathlib.Path(FLAGS.benchmark) / family / 'results.json'
  if not path.exists():
    return None
  results = results_.read(path)
  if None in results.need.values() or results.backend != backend:
    return None
  return rows.needs_row(results, [console.benchmark_command(family, backend, results.per_seed['seeds'])])


def measure(job: Job, seeds: Sequence[int], folder: pathlib.Path) -> NeedsRow:
  """The row of a family, from its controls alone; raises `NoScoreError` if no task has a score."""
  evaluations = []
  for seed, part in zip(seeds, jobs.seed_folders(folder, seeds)):
    jobs.collect(job, seed, part.histories, folder)
    evaluations.append(stages.judge_family(
      part.evaluation, part.histories, family=make_family(job.family, job.backend), settings=job.evaluation(),
      num_updates=job.num_updates, training=job.training(),
    ))
  need, low, high = results_.needs(evaluations)
  initial, oracle = (_scored(evaluations, end) for end in ('initial', 'reference'))
  if not len(oracle):
    raise NoScoreError(f'No held-out task of {job.family} has a score: the source is no better than a random policy.')
  return NeedsRow(
    family=job.family, backend=evaluations[0].backend, seeds=list(seeds), tasks=len(oracle), need=need, low=low,
    high=high, oracle=round(float(oracle.mean()), 4), initial=round(float(initial.mean()), 4),
    identify_reads='histories', commands=[
      console.command_for(families=job.family, seeds=','.join(map(str, seeds)), **jobs.given())
    ],
  )


def _scored(evaluations: Sequence[Evaluation], end: str) -> np.ndarray:
  """The returns that scores of 0 or 1 stand for, 'initial' or 'reference', of all held-out tasks that have a score."""
  bounds = [evaluation.bounds['heldout'] for evaluation in evaluations]
  return np.concatenate([getattr(one, end)[one.usable] for one in bounds])


def main() -> None:
  """Measures the families one after the other."""
  families, seeds = jobs.families_and_seeds()
  for family in families:
    job = Job.of(family, **{'num_tasks': NUM_TASKS, 'num_steps': NUM_STEPS, **jobs.given()})
    backend = make_family(family, job.backend).backend
    row = known(family, backend) or measure(job, seeds, pathlib.Path(FLAGS.folder) / family)
    rows.add(FLAGS.json, row)
    print(f'{family}: ' + ', '.join(f'{need.replace("_", " ")} {value}' for need, value in row.need.items()))
  print(f'Rows: {FLAGS.json}')


if __name__ == '__main__':
  console.launch(main)
