"""What operators give when they are asked for less, or for more, than the best: asked against got, on held-out tasks.

  python -m experiments.benchmark_asks --families=reacher_goal --seeds=0,1,2

Two operators learn from the same histories: one that understands asks for a return, a score, a skill, a goal and words
too, and one that does not. The first one gathers experience, asked for the best, and is then asked for one thing after
the other. The control is given another task's experience. Where tasks have goals, it is also asked for the best at the
goal of the task, without any experience and with it; there the control is asked for another task's goal. Asked in words
it is judged by how much of what was said its answers do; there the control is what another task was asked. Asked to
behave as somebody of whom it sees only actions, it is compared with behaviour cloning of the same episodes. Both
operators are asked for the best as well, which shows what the asks cost.

A family after the other; its rows are written when it is done, and rows of other families and binaries stay. Can be
stopped at any moment; run again, it goes on where it was.
"""

import dataclasses
import pathlib

from absl import flags

from experiments import ask_methods, ask_operators, ask_rows, console, jobs, judging
from experiments.jobs import Job
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation import rows
from metaimprove.evaluation.evaluate import Evaluation
from metaimprove.evaluation.rows import AskRow
from metaimprove.files import claim
from metaimprove.histories.dataset import Dataset, load_dataset, with_hindsight
from metaimprove.histories.reference import load_conditioned
from metaimprove.operators.checkpoints import load_operator
from metaimprove.tasks.registry import make_family

FLAGS = flags.FLAGS

if __name__ == '__main__':
  jobs.define_row_flags('runs/asks', 'docs/results/asks.json')
  flags.adopt_module_key_flags(jobs)


def judge(job: Job, name: str, seed: int, folder: pathlib.Path) -> tuple[Evaluation, Dataset]:
  """Collects, trains one of both operators and judges it; and the histories."""
  claim(folder, dataclasses.asdict(job))
  family = make_family(job.family, job.backend)
  jobs.collect(job, seed, folder / 'histories', folder)
  operator, operator_params = load_operator(ask_operators.train(job, family, name, seed, folder), family)
  if operator.config.asks != ask_operators.kinds_of(family, name):
    raise IncompatibleError(
      f'The operator in {folder / name} understands {", ".join(operator.config.asks)}, not '
      f'{", ".join(ask_operators.kinds_of(family, name))}; delete the folder {folder / name}, and run again.'
    )
  conditioned, learning, _ = load_conditioned(folder / 'histories', family)
  dataset = with_hindsight(load_dataset(folder / 'histories', family, verify=False), family)
  playground = judging.playground_of(job, family, operator.policy)
  methods = [ask_methods.best_method(operator, operator_params, playground, job)]
  if name == 'asks':
    methods += ask_methods.ask_methods(operator, operator_params, family, playground, job, dataset, seed)
    methods += ask_methods.watching_methods(
      operator, operator_params, family, playground, job, conditioned, learning
    )
  return judging.judge(
    methods, job, family, operator.policy, playground, folder / 'histories', folder / name / 'evaluation', seed=seed,
    stage=f'judge {name}', wall=folder,
  ), dataset


def main() -> None:
  """Judges the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  if path.exists():
    rows.read(path, AskRow)  # a damaged file is refused before any work
  for name in families:
    job, folder = Job.of(name, **jobs.given()), pathlib.Path(FLAGS.folder) / name
    judged = {
      kind: [judge(job, kind, seed, folder / f'seed_{seed}') for seed in seeds] for kind in ('plain', 'asks')
    }
    found = ask_rows.rows_of(ask_rows.Judged(
      job=job, family=make_family(name, job.backend), seeds=seeds,
      command=console.command_for(families=name, seeds=','.join(map(str, seeds)), **jobs.given()),
      plain=[one for one, _ in judged['plain']], asked=[one for one, _ in judged['asks']],
      datasets=[dataset for _, dataset in judged['asks']],
    ))
    ask_rows.write(path, found)
    ask_rows.show(found)
  print(f'Rows: {path}')


if __name__ == '__main__':
  console.launch(main)
