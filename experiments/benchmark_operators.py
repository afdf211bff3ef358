"""How good operators are on many families, with controls, on held-out and far tasks: one row a family in a JSON file.

  python -m experiments.benchmark_operators --families=point_goal_sparse_h20 --seeds=0,1,2

A family after the other; the row of each is written when it is done, and rows of other families stay. Can be stopped at
any moment; run again, it goes on where it was. `tabulate_results --json` makes tables and a picture of the rows.
"""

import pathlib

from absl import flags

from experiments import console, jobs
from experiments.jobs import Job
from metaimprove.evaluation import rows
from metaimprove.evaluation.report import write_report

FLAGS = flags.FLAGS

if __name__ == '__main__':
  jobs.define_row_flags('runs/benchmark', 'docs/results/operators.json')
  flags.adopt_module_key_flags(jobs)


def main() -> None:
  """Runs the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  if path.exists():
    rows.read(path, rows.OperatorRow)  # a damaged file is refused before any work
  for family in families:
    folder = pathlib.Path(FLAGS.folder) / family
    panel = jobs.run(Job.of(family, **jobs.given()), seeds, folder)
    commands = [console.command_for(families=family, seeds=','.join(map(str, seeds)), **jobs.given())]
    write_report(folder / 'report.html', panel, commands)
    rows.add(path, rows.operator_row(panel.results, commands))
    console.print_results(panel.results)
    print(f'Report:       {folder}/report.html')
  print(f'Rows:         {path}')


if __name__ == '__main__':
  console.launch(main)
