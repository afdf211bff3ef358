"""`comparison.html`: one self-contained page of methods beside the operator, family by family; it opens offline."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaimprove import files
from metaimprove.evaluation.comparison import OURS
from metaimprove.evaluation.drawing import draw_band, figure_of, number, render
from metaimprove.evaluation.results import is_sparse
from metaimprove.evaluation.rows import ComparisonRow

_COLOURS = (
  '#c8553d', '#3a9d5d', '#8a5aa8', '#d39b2a', '#444444', '#8a8a8a', '#7fbf9a', '#c9a8d8', '#e08fb0', '#5f7f9f',
  '#a0522d', '#2aa7a7', '#b5bd3c', '#f0a878', '#6a5acd', '#9c6b4a', '#2f5d3a', '#ad1457',
)
_OUR_COLOUR = '#1b6ca8'


def write_comparison(path: files.Path, rows: Sequence[ComparisonRow]) -> None:
  """Writes the page of all rows."""
  render(path, 'comparison_template.html', title='metaimprove: methods compared', families=[
    {
      'row': row, 'curves': [_curves(row, 'episodes'), _curves(row, 'env_steps')], 'profiles': _profiles(row),
      'headline': headline(row), 'costs': costs(row), 'behind': behind(row),
    } for row in rows
  ])


def end_of(row: ComparisonRow) -> str:
  """What methods are set beside one another by: the mean score where rewards are sparse, the IQM elsewhere."""
  return 'mean' if is_sparse(row.family) else 'iqm'


def point_after(method: Mapping[str, Any], episodes: int) -> int:
  """The last point of a method's curve that used at most so many episodes."""
  return max(point for point, used in enumerate(method['episodes']) if used <= episodes)


def score_after(row: ComparisonRow, name: str, episodes: int) -> float | None:
  """The score of a method."""
  method = row.methods[name]
  return method[end_of(row)][point_after(method, episodes)]


def headline(row: ComparisonRow) -> list[list[str]]:
  """The head of a table and a line a method: scores with intervals after some episodes, at the end and on far tasks,
  and how often the operator is better."""
  after, sparse = row.after, is_sparse(row.family)
  lines = [[
    'method', 'tasks', *(f'after {n}' for n in after), 'at the end', 'far, at the end',
    *(f'operator is better, after {n}' for n in after),
  ]]
  for method in row.methods.values():
    points = [point_after(method, n) for n in after] + [-1]
    scores = [
      f'{number(method["iqm"][n])} [{number(method["low"][n])}, {number(method["high"][n])}]'
      + (f'; mean {number(method["mean"][n])}' if sparse else '') for n in points
    ]
    above = method['ours_above']
    lines.append([
      method['title'], method['tasks'], *scores, number(method['far'][end_of(row)][-1]) if method['far'] else '',
      *('' if one is None else f'{one[0]:.2f} [{one[1]:.2f}, {one[2]:.2f}]' for one in above),
    ])
  return lines


def costs(row: ComparisonRow) -> list[list[str]]:
  """The head of a table and a line for each method that learns: what it costs."""
  lines = [[
    'method', 'parameters', 'examples', 'seconds of learning', 'environment steps of learning', 'ms a step',
    'times a policy', 'KiB', 'ms between episodes',
  ]]
  for method in row.methods.values():
    if method['params'] is not None:
      lines.append([
        method['title'],
        *(number(method[name], ',.0f') for name in ('params', 'examples', 'training_seconds', 'training_env_steps')),
        number(method['act_ms']), number(method['act_ratio'], '.2f'), number(method['act_kib'], ',.0f'),
        number(method['between_ms'], '.1f'),
      ])
  return lines


def behind(row: ComparisonRow) -> list[str]:
  """Where the operator's score is below another method's, in words."""
  found = []
  for name, method in row.methods.items():
    for n in row.after:
      ours, theirs = score_after(row, OURS, n), score_after(row, name, n)
      if name != OURS and None not in (ours, theirs) and theirs > ours:
        found.append(f'{method["title"]}, after {n} episodes: {theirs:.3f}, the operator {ours:.3f}')
  return found


def _curves(row: ComparisonRow, axis: str) -> str:
  """Score against episodes or environment steps of a task."""
  def draw(axes):
    for method, colour in zip(row.methods.values(), _colours(row)):
      # The first point has used nothing; a quarter of the next one stands for it on the logarithmic axis.
      used = np.asarray(method[axis], float)
      used = np.maximum(used, used[1] / 4) if len(used) > 1 else used
      draw_band(axes, used, {**method, 'iqm': method[end_of(row)]} | (
        {'low': method['mean'], 'high': method['mean']} if end_of(row) == 'mean' else {}
      ), method['title'], colour)
    axes.set(
      xscale='log', xlabel=f'{axis.replace("env_steps", "environment steps")} of a task',
      ylabel='score (mean)' if end_of(row) == 'mean' else 'score (IQM)', ylim=(-0.3, 1.2),
    )

  return figure_of(draw, width=9.2, height=5.8)


def _profiles(row: ComparisonRow) -> list[str]:
  """For each number of episodes the share of tasks above each score."""
  def drawn(index, episodes):
    def draw(axes):
      for method, colour in zip(row.methods.values(), _colours(row)):
        if method['profile'][index] is not None:
          axes.plot(row.thresholds, method['profile'][index], color=colour, label=method['title'])
      axes.set(xlabel=f'score after {episodes} episodes', ylabel='share of tasks above it', ylim=(-0.02, 1.02))

    return figure_of(draw, width=9.2, height=5.2)

  return [drawn(index, episodes) for index, episodes in enumerate(row.after)]


def _colours(row: ComparisonRow) -> list[str]:
  """Of each method."""
  others = iter(_COLOURS * (1 + len(row.methods) // len(_COLOURS)))
  return [_OUR_COLOUR if name == OURS else next(others) for name in row.methods]
