"""Prints figures as tables in Markdown: those of README and docs are made with it, so that none is typed by hand.

  python -m experiments.tabulate_results --results=runs/quickstart/results.json

prints one evaluation; and the rows that `measure_needs` or `benchmark_operators` writes, the latter with a picture:

  python -m experiments.tabulate_results --json=docs/results/operators.json --picture=docs/results/operators.png

or writes the parts of README and docs that are made of such rows, between two comments:

  python -m experiments.tabulate_results --write
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import console
from experiments.console import interval, shown
from metaimprove import files
from metaimprove.evaluation import results as results_
from metaimprove.evaluation import rows as rows_
from metaimprove.evaluation.results import SMALL_NEED, Results, is_sparse
from metaimprove.evaluation.comparison_page import costs, headline
from metaimprove.evaluation.rows import (
  ANSWERS, GOT, AblationRow, AskRow, ComparisonRow, NeedsRow, OperatorRow, ScalingRow,
)
from metaimprove.tasks.registry import backends_of

FLAGS = flags.FLAGS
APPLICATIONS = (0, 1, 2, 3, 4, 6, 10, 20, 30)

if __name__ == '__main__':
  flags.DEFINE_string('results', 'runs/quickstart/results.json', 'The figures of one evaluation.')
  flags.DEFINE_string('json', None, 'Rows of many families, to be printed instead.')
  flags.DEFINE_string('picture', None, 'Where to draw the curves of these rows, a PNG.')
  flags.DEFINE_bool('write', False, 'Write the tables of README.md and docs anew, from the rows in docs/results.')

_CURVES = {
  'identify': 'identify the task', 'shuffled_experience': "another task's experience",
  'operator_no_explore': 'not asked to explore',
}
_APPLIED = {
  'operator': 'most likely answer', 'operator_sampled': 'drawn answer', 'operator_no_explore': 'not asked to explore',
}
_CONSTANTS = {
  'told_goal': '`told_goal`: told the true goal, and that the robot is stock',
  'no_experience': '`no_experience`: one policy for the whole family, told nothing',
}


_COMPARED = {'operator': 'operator', 'identify': 'identify', 'ppo': 'PPO from scratch'}
"""Methods whose steps to the target are told."""


def counted(value: int | None) -> str:
  """A number of environment steps."""
  return 'not reached' if value is None else f'{value:,d}'


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


def naming_is_enough(row: OperatorRow | NeedsRow) -> bool:
  """Whether a family asks for no more than naming the task: both other needs are known and small."""
  needs = row.need['dynamics'], row.need['second_look']
  return None not in needs and max(needs) < SMALL_NEED


def _family(row: OperatorRow | NeedsRow | AskRow | ComparisonRow | ScalingRow) -> str:
  """Its name, with the backend where that is not the family's first."""
  return f'`{row.family}`' + ('' if row.backend == next(iter(backends_of(row.family))) else f' on {row.backend}')


def _named(row: OperatorRow | NeedsRow) -> str:
  return _family(row) + (' (naming the task is enough)' if naming_is_enough(row) else '')


def families_table(rows: Sequence[NeedsRow]) -> list[str]:
  """What families ask for, with intervals, and the mean returns that scores of 0 and 1 stand for."""
  lines = [['family', 'backend', 'tasks', *(need.replace('_', ' ') for need in rows_.NEEDS), 'random', 'oracle']]
  for row in rows:
    needs = [f'{shown(row.need[need])} [{shown(row.low[need])}, {shown(row.high[need])}]' for need in rows_.NEEDS]
    returns = ['-' if value is None else f'{value:.1f}' for value in (row.initial, row.oracle)]
    lines.append([_named(row), row.backend, row.tasks, *needs, *returns])
  return table(lines)


def operators_table(rows: Sequence[OperatorRow]) -> list[str]:
  """The operators' curves: the IQM, and where rewards are sparse the mean score and the share of tasks found."""
  points = [1, 2, 3, 4, 8, 10, 20, 30]
  lines = [['family', 'tasks, seeds', 'score', *(f'after {n}' for n in points), 'far, at the end']]
  for row in rows:
    name = _named(row)
    sizes = f'{row.tasks}, {len(row.seeds)}; {row.episodes[1]} episode{"s" * (row.episodes[1] > 1)} each'
    for end in ('iqm', 'mean', 'found') if is_sparse(row.family) else ('iqm',):
      main, far = row.methods['operator'][end], row.methods['operator_far'][end]
      values = [shown(main[n]) if n < len(main) else '' for n in points]
      lines.append([name, sizes, end.replace('iqm', 'IQM'), *values, shown(far[-1])])
      name, sizes = '', ''
  return table(lines)


def needs_table(rows: Sequence[OperatorRow]) -> list[str]:
  """Needs, and what controls and PPO reach at their last point: IQM with intervals, and the mean where rewards are
  sparse."""
  names = {
    'told_goal': 'told goal', 'no_experience': 'no experience', 'identify': 'identify',
    'shuffled_experience': "another task's experience", 'operator_sampled': 'drawn answers',
    'operator_no_explore': 'not asked to explore', 'ppo': 'PPO from scratch',
  }
  lines = [['family', 'needs: experience', 'dynamics', 'second look', *names.values()]]
  for row in rows:
    means = {name: f'; mean {shown(row.methods[name]["mean"][-1])}' for name in row.methods if is_sparse(row.family)}
    reached = [interval(row.methods[name], -1) + means.get(name, '') if name in row.methods else '' for name in names]
    lines.append([_family(row), *(shown(row.need[need]) for need in rows_.NEEDS), *reached])
  return table(lines)


def operator_tables(rows: Sequence[OperatorRow]) -> list[str]:
  """All lines of the tables of rows."""
  return [*operators_table(rows), '', *needs_table(rows)]


def ablation_table(rows: Sequence[AblationRow]) -> list[str]:
  """Variants: the mean score, and in brackets the share of tasks found; their answers, and their speed."""
  points = (1, 2, 4, 8, 10, 20, 30)
  lines = [[
    'variant', 'applied', *(f'after {n}' for n in points), 'loss', 'divergence', 'answers in use', 'ms, first and last',
  ]]
  for row in rows:
    name = f'`{row.variant}`'
    about = [f'{row.answers[end]:.2f}' for end in ANSWERS] + [', '.join(f'{value:.2f}' for value in row.milliseconds)]
    for method, applied in _APPLIED.items():
      if method in row.methods:
        figures = row.methods[method]
        values = [
          f'{shown(figures["mean"][n])} ({figures["found"][n]:.2f})' for n in points if n < len(figures['mean'])
        ]
        lines.append([name, applied, *values, *about])
        name, about = '', ['', '', '', '']
  return table(lines)


def ablation_tables(rows: Sequence[AblationRow]) -> list[str]:
  """A table of variants for each family."""
  lines = []
  for family in dict.fromkeys(row.family for row in rows):
    lines += [f'On `{family}`:', '', *ablation_table([row for row in rows if row.family == family]), '']
  return lines


def asks_tables(rows: Sequence[AskRow]) -> list[str]:
  """Figures of asks beside their controls; then what was asked and got."""
  lines = [['ask', 'family', 'tasks, seeds', 'metric', 'value', 'control', 'its value']]
  got: dict[tuple[str, str], list[list[str]]] = {}
  for row in rows:
    name, wanted = row.ask.replace('_', ' '), row.metric.removeprefix(GOT)
    family = _family(row)
    if wanted != row.metric:
      got.setdefault((name, family), []).append([wanted, f'{row.value:.4g}', f'{row.control_value:.4g}'])
    else:
      lines.append([
        name, family, f'{row.tasks}, {len(row.seeds)}', row.metric,
        f'{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]', row.control,
        f'{row.control_value:.3f}',
      ])
  curves = [
    [name, family, *(', '.join(values) for values in zip(*points))] for (name, family), points in got.items()
  ]
  return [*table(lines), '', *table([['ask', 'family', 'asked', 'got', "with another task's experience"], *curves])]


def comparison_tables(rows: Sequence[ComparisonRow]) -> list[str]:
  """Methods beside the operator: for each row a table of scores and one of costs."""
  lines = []
  for row in rows:
    budget = {'examples': 'as many examples', 'time': 'as much computing time'}[row.budget]
    lines += [
      f'On {_family(row)}, {row.tasks} held-out tasks, seeds {", ".join(map(str, row.seeds))}, histories by '
      f'{row.source}, {budget}:', '', *table(headline(row)), '', *table(costs(row)), '',
    ]
  return lines


def scaling_tables(rows: Sequence[ScalingRow]) -> list[str]:
  """For each family the loss and the scores against the number of tasks learned from, and the power laws."""
  lines = []
  for row in rows:
    title = 'mean score' if is_sparse(row.family) else 'IQM'
    figures = [['tasks learned from', 'loss', 'divergence', *(f'{title} after {n}' for n in row.after)]]
    for index, num in enumerate(row.training_tasks):
      scores = [
        f'{shown(score[index])} [{shown(low[index])}, {shown(high[index])}]'
        for score, low, high in zip(row.score, row.low, row.high)
      ]
      figures.append([f'{num:,d}', f'{row.loss[index]:.3f}', f'{row.divergence[index]:.3f}', *scores])
    first = row.training_tasks[0]
    laws = [['', 'exponent', 'of each seed', f'fitted at {first} tasks', 'fitted for endless tasks']]
    for name, law in row.laws.items():
      ends = '' if law['low'] is None else f' [{law["low"]:.2f}, {law["high"]:.2f}]'
      laws.append([
        name, f'{law["exponent"]:.2f}{ends}', ', '.join(f'{one:.2f}' for one in law['per_seed']),
        f'{law["floor"] + law["scale"]:.3f}', f'{law["floor"]:.3f}',
      ])
    lines += [
      f'On {_family(row)}, {row.tasks} held-out tasks, seeds {", ".join(map(str, row.seeds))}:', '', *table(figures),
      '', *table(laws), '',
    ]
  return lines


def import_tables(found: Mapping[str, Any]) -> list[str]:
  """What `benchmark_import` wrote, a table for each part that it has."""
  lines = []
  if 'gymnasium' in found:
    controls = {'identify': 'identify', 'told_goal': 'told goal', 'no_experience': 'no experience'}
    lines += table([
      ('environment', 'dynamics', 'tasks', 'episodes used', 'IQM', 'at the end', 'mean, at the end',
       *(f'{title}, IQM at the end' for title in controls.values())), *((
        row['env'], row['split'].replace('_', ' '), row['tasks'], ', '.join(map(str, row['episodes'])),
        ', '.join(shown(value) for value in row['iqm']), interval(row, -1), shown(row['mean'][-1]),
        *(interval(row['controls'][name], -1) if name in row['controls'] else '' for name in controls),
      ) for row in found['gymnasium'])
    ]) + ['']
  if 'scratch' in found:
    lines += table([
      ('environment', "Stable-Baselines3's PPO: environment steps", 'score of each task at the end', 'to 0.95'), *((
        row['env'], f'{row["env_steps"]:,d}', ', '.join(shown(value) for value in row['score']),
        ', '.join(map(counted, row['steps_to_95'])),
      ) for row in found['scratch'])
    ]) + ['']
  if 'black_box' in found:
    lines += table([
      ('operator', 'tasks', 'episodes used', 'policies are known', 'only their actions are read'), *((
        f'`{row["operator"]}`', row['tasks'], ', '.join(map(str, row['episodes'])),
        *(', '.join(shown(value) for value in row[kind]) for kind in ('known', 'actions_only')),
      ) for row in found['black_box'])
    ]) + ['']
  if 'brax_warm_start' in found:
    names = {'scratch': 'a random policy', 'usual': 'what it begins with', 'operator': "the operator's output"}
    learned, curves = [found['brax_warm_start'], *found['brax_warm_start']['others']], found['brax_curves']
    lines += table([
      ('family', "Brax's PPO begins with", 'steps to the last return from a random policy, by task',
       'steps to the last return from what it begins with', 'returns at first', 'returns at the end'), *((
        f'`{one["family"]}`', title, *('; '.join(map(counted, of[name])) for of in one['needed'].values()),
        *(', '.join(f'{curve[point][1]:.1f}' for curve in curves[one['family']]['curves'][name]) for point in (0, -1)),
      ) for one in learned for name, title in names.items())
    ]) + ['']
  if 'improve_ms' in found:
    lines += table([
      ('an action of the agent', 'of the numpy policy', 'of the same network in JAX', '`improve`, warm'),
      tuple(f'{found[name]} {unit}' for name, unit in (
        ('act_us', 'µs'), ('numpy_us', 'µs'), ('jax_us', 'µs'), ('improve_ms', 'ms'),
      )),
    ]) + ['']
  if 'checks' in found:
    lines += ['Families that pass: ' + ', '.join(
      f'{adapter} {sum(passed.values())} of {len(passed)}' for adapter, passed in found['checks'].items()
    ) + '.']
  return lines


def darkroom_table(found: Sequence[Mapping[str, Any]]) -> list[str]:
  """What `benchmark_darkroom` wrote: mean returns of goals that were held out, with intervals."""
  episodes = (1, 2, 4, 8, 16, 32, 64, 80)
  lines = [['agent', 'goals', *(f'episode {episode}' for episode in episodes), 'at best']]
  for name in dict.fromkeys(row['method'] for row in found):
    rows = {row['episode']: row for row in found if row['method'] == name}
    known = [rows[episode] for episode in episodes if episode in rows]
    lines.append([
      name.replace('_', ' '), known[0]['goals'],
      *(f'{row["mean_return"]:.1f} [{row["low"]:.1f}, {row["high"]:.1f}]' for row in known),
      f'{known[0]["optimal_return"]:.1f}',
    ])
  return table(lines)


def gradients_table(found: Sequence[Mapping[str, Any]]) -> list[str]:
  """What `gradient_variance` wrote."""
  lines = [['family', 'steps of training', 'tasks of a batch', 'supervised: variance', 'cosine']]
  for name in ('own starts', 'one start'):
    lines[0] += [f'policy gradient, {name}: variance', 'cosine', 'rollouts for the same']
  for row in found:
    line = [f'`{row["family"]}`', row['after'], row['tasks']]
    for name in ('supervised', 'own_starts', 'one_start'):
      of = row[name]
      line += ['-' if of['relative_variance'] is None else f'{of["relative_variance"]:.3g}', f'{of["cosine"]:.3f}']
      if 'rollouts_needed' in of:
        needed = of['rollouts_needed']
        line.append('-' if needed is None else f'{needed[0]:,d} [{needed[1]:,d}, {needed[2]:,d}]')
    lines.append(line)
  return table(lines)


def draw(rows: Sequence[OperatorRow], path: pathlib.Path) -> None:
  """A panel a family: score against episodes of a task, with controls; the mean where rewards are sparse, else IQM."""
  from matplotlib.figure import Figure

  curves = {
    'operator': '#1b6ca8', 'operator_no_explore': '#7fbf9a', 'identify': '#8a5aa8', 'shuffled_experience': '#8a8a8a'
  }
  constants = {'told_goal': '#d39b2a', 'no_experience': '#444444'}
  columns = min(3, len(rows))
  figure = Figure(figsize=(4.2 * columns, 3.2 * -(-len(rows) // columns)), layout='constrained')
  for index, row in enumerate(rows):
    axes = figure.add_subplot(-(-len(rows) // columns), columns, index + 1)
    end = 'mean' if is_sparse(row.family) else 'iqm'
    for name in (name for name in curves if name in row.methods):
      axes.plot(row.episodes, row.methods[name][end], color=curves[name], label=name.replace('_', ' '))
    main = row.methods['operator']
    if end == 'iqm':
      axes.fill_between(row.episodes, main['low'], main['high'], color=curves['operator'], alpha=0.2, linewidth=0)
    for name in (name for name in constants if name in row.methods):
      axes.axhline(row.methods[name][end][0], color=constants[name], linestyle='--', label=name.replace('_', ' '))
    axes.set_title(_family(row).replace('`', ''))
    axes.set(xlabel='episodes of a task', ylabel='mean score' if end == 'mean' else 'score (IQM)')
    axes.legend(frameon=False, fontsize=7)
  figure.savefig(path, dpi=110)


_COLOURS = ('#d39b2a', '#c0392b', '#8a5aa8', '#1b6ca8')
"""Of the numbers of applications of `draw_scaling`."""


def draw_scaling(rows: Sequence[ScalingRow], path: pathlib.Path) -> None:
  """Loss and regret against the number of tasks learned from, with the power laws; a row of panels for each family."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(8.4, 3.2 * len(rows)), layout='constrained')
  for row, panels in zip(rows, figure.subplots(len(rows), 2, squeeze=False)):
    sizes = np.array(row.training_tasks)
    between = np.geomspace(sizes[0], sizes[-1], 100)

    def draw_law(axes, name, colour):
      law = row.laws[name]
      axes.plot(
        between, law['floor'] + law['scale'] * (between / sizes[0]) ** -law['exponent'], c=colour, linestyle=':'
      )

    panels[0].plot(sizes, row.loss, 'o', c='black')
    draw_law(panels[0], 'loss', 'black')
    for n, score, low, high, colour in zip(row.after, row.score, row.low, row.high, _COLOURS):
      regret, most, least = (1 - np.array(values) for values in (score, low, high))
      panels[1].errorbar(
        sizes, regret, [regret - least, most - regret], fmt='o', c=colour, ms=4, label=f'after {n}'
      )
      draw_law(panels[1], f'regret after {n}', colour)
    panels[0].set(ylabel='loss on tasks not learned from')
    panels[1].set(ylabel=f'regret (1 - {"mean score" if is_sparse(row.family) else "IQM"})')
    panels[1].legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    for axes in panels:
      axes.set_title(_family(row).replace('`', ''), fontsize=10)
      axes.set(xscale='log', xlabel='tasks learned from')
      axes.set_xticks(sizes, [f'{size:,}' for size in sizes], rotation=45)
      axes.minorticks_off()
  figure.savefig(path, dpi=110)


def print_rows(path: pathlib.Path, picture: str | None) -> None:
  """The tables of a file of rows, or of that of `benchmark_import`; a picture of the curves of operators if wanted."""
  if isinstance(found := files.read_json(path), dict):
    print('\n'.join(import_tables(found)))
    return
  rows = rows_.read_any(path)
  tables = {
    NeedsRow: families_table, AblationRow: ablation_tables, AskRow: asks_tables, ComparisonRow: comparison_tables,
    ScalingRow: scaling_tables,
  }
  print('\n'.join(tables.get(type(rows[0]) if rows else OperatorRow, operator_tables)(rows)))
  if picture and rows and isinstance(rows[0], OperatorRow):
    draw(rows, pathlib.Path(picture))
  if picture and rows and isinstance(rows[0], ScalingRow):
    draw_scaling(rows, pathlib.Path(picture))


DOCUMENTS = (
  ('README.md', 'operators.json', operators_table), ('docs/operators.md', 'operators.json', operator_tables),
  ('docs/operators.md', 'ablations.json', ablation_tables), ('docs/task_suite.md', 'needs.json', families_table),
  ('docs/import.md', 'import.json', import_tables), ('docs/asks.md', 'asks.json', asks_tables),
  ('docs/comparison.md', 'comparison.json', comparison_tables),
  ('docs/comparison.md', 'scaling.json', scaling_tables),
  ('docs/comparison.md', 'darkroom.json', darkroom_table), ('docs/comparison.md', 'gradients.json', gradients_table),
)
"""Document, the file in docs/results that a part of it is made from, and the tables of that part."""


def with_tables(text: str, name: str, lines: Sequence[str]) -> str:
  """A document whose part between `<!-- NAME -->` and `<!-- end -->` is these lines."""
  part = re.compile(rf'(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)', re.DOTALL)
  return part.sub(lambda marks: marks[1] + ''.join(f'{line}\n' for line in lines) + marks[2], text, count=1)


def document_with_tables(root: pathlib.Path, document: str, name: str, tables: Any) -> str:
  """A document as it should be: with the tables of the rows that are kept, or as it is where there are none."""
  text, kept = (root / document).read_text(), root / 'docs' / 'results' / name
  read = files.read_json if tables in (import_tables, gradients_table, darkroom_table) else rows_.read_any
  return with_tables(text, name, tables(read(kept))) if kept.exists() else text


def main() -> None:
  """Prints the tables, or writes those of the documents."""
  if FLAGS.write:
    for document, *made_from in DOCUMENTS:
      files.write_bytes(document, document_with_tables(pathlib.Path(), document, *made_from).encode())
    return
  if FLAGS.json:
    print_rows(pathlib.Path(FLAGS.json), FLAGS.picture)
    return
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
