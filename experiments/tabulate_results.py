"""Prints results.json as tables in Markdown: README's tables are made with it, so that no figure is typed by hand.

  python -m experiments.tabulate_results --results=runs/quickstart/results.json
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments import console
from metaimprove.evaluation import results as results_
from metaimprove.evaluation.results import Results

FLAGS = flags.FLAGS
APPLICATIONS = (0, 1, 2, 3, 4, 6, 10, 20, 30)

if __name__ == '__main__':
  flags.DEFINE_string('results', 'runs/quickstart/results.json', 'The figures.')

_CURVES = {
  'identify': 'identify the task', 'shuffled_experience': "another task's experience",
  'operator_no_explore': 'not asked to explore',
}
_CONSTANTS = {
  'told_goal': '`told_goal`: told the true goal, and that the robot is stock',
  'no_experience': '`no_experience`: one policy for the whole family, told nothing',
}


_COMPARED = {'operator': 'operator', 'identify': 'identify', 'ppo': 'PPO from scratch'}
"""Methods whose steps to the target are told."""


def shown(value: float | None) -> str:
  """A score."""
  return '-' if value is None else f'{value:.3f}'


def counted(value: int | None) -> str:
  """A number of environment steps."""
  return 'not reached' if value is None else f'{value:,d}'


def interval(figures: Mapping[str, Sequence[float | None]], point: int) -> str:
  """A score with its interval."""
  return f'{shown(figures["iqm"][point])} [{shown(figures["low"][point])}, {shown(figures["high"][point])}]'


def table(rows: Sequence[Sequence[Any]]) -> list[str]:
  """Lines of a table, the first row as its head."""
  head, *body = [f'| {" | ".join(map(str, row))} |' for row in rows]
  return [head, '|' + '---|' * len(rows[0]), *body]


def curve_table(results: Results) -> list[str]:
  """The operator's curve, with controls that have one."""
  main, controls = results.normalised_return, {
    title: results.controls[name] for name, title in _CURVES.items() if name in results.controls
  }
  several = results.num_seeds > 1
  rows = [[
    'applications', 'env steps', 'operator, IQM', *(['range over seeds'] if several else []), 'mean', 'found', 'far',
    *controls,
  ]]
  for point in (n for n in APPLICATIONS if n < len(results.env_steps)):
    seeds = [seed[point] for seed in results.per_seed['iqm'] if seed[point] is not None]
    rows.append([
      point, f'{results.env_steps[point]:,d}', interval(main, point),
      *([f'{min(seeds):.3f} to {max(seeds):.3f}'] if several else []), shown(main['mean'][point]),
      shown(main['found'][point]), shown(results.far['iqm'][point]),
      *(shown(figures['iqm'][point]) for figures in controls.values()),
    ])
  return table(rows)


def control_table(results: Results) -> list[str]:
  """Policies that stay as they are, and the needs that follow."""
  judged = {title: results.controls[name] for name, title in _CONSTANTS.items() if name in results.controls}
  rows = [['control', 'IQM'], *([title, interval(figures, 0)] for title, figures in judged.items())]
  needs = ', '.join(f'{name.replace("_", " ")} {shown(value)}' for name, value in results.need.items())
  return [*table(rows), '', f'Needs: {needs}. {results.verdict}']


def improvement_table(results: Results) -> list[str]:
  """The operator asked for different sizes of improvement."""
  points = [n for n in (1, 2, 4, 8, 12) if all(n < len(figures['iqm']) for figures in results.improvement.values())]
  rows = [['asked for k', *(f'after {n}' for n in points)]]
  rows += [[size, *(shown(figures['iqm'][n]) for n in points)] for size, figures in results.improvement.items()]
  return table(rows)


def sentences(results: Results) -> list[str]:
  """Equal experience, steps to the target, and the bill."""
  lines = []
  if results.equal_experience is not None:
    one, two = (interval(results.equal_experience[name], 0) for name in ('one_application', 'two_applications'))
    lines.append(
      f'At equal experience, {results.equal_experience["env_steps"]:,d} environment steps: one application {one}, two '
      f'applications {two}.'
    )
  reached = {name: results.steps_to_target[name] for name in _COMPARED if name in results.steps_to_target}
  steps = ', '.join(f'{_COMPARED[name]} {counted(value)}' for name, value in reached.items())
  lines.append(f'Environment steps of a task to a score of {results.target}: {steps}.')
  bill = ', '.join(
    f'{name.replace("_", " ")} {value:,d}' for name, value in results.training_env_steps.items() if value is not None
  )
  lines.append(f'Environment steps of training one operator: {bill}; {results.paid_back()}.')
  return lines


def main() -> None:
  """Prints the tables."""
  results = results_.read(pathlib.Path(FLAGS.results))
  results.check_scored()
  print(
    f'`{results.family}`, seeds: {results.num_seeds}, scored held-out tasks: {results.heldout_tasks}, far tasks: '
    f'{results.far_tasks}.'
  )
  for lines in (
    curve_table(results), control_table(results), improvement_table(results), sentences(results)
  ):
    print()
    print('\n'.join(lines))


if __name__ == '__main__':
  console.launch(main)
