"""`report.html`: one self-contained page that shows what an operator does, and opens offline."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files
from metaimprove.asks import Ask
from metaimprove.evaluation.drawing import draw_band, draw_curve, figure_of, number, render
from metaimprove.evaluation.films import make_film
from metaimprove.evaluation.results import Figures, Results
from metaimprove.iteration import iterate
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import Operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily
from metaimprove.trees import take
from metaimprove.types import Params, Task

_COLOURS = {
  'operator': '#1b6ca8', 'far': '#3a9d5d', 'ppo': '#c8553d', 'shuffled_experience': '#8a8a8a', 'identify': '#8a5aa8',
  'told_goal': '#d39b2a', 'no_experience': '#444444', 'identify_once': '#c9a8d8', 'sampled': '#6fb1e0',
  'operator_no_explore': '#7fbf9a',
}
_TITLES = {
  'told_goal': 'told the goal, not the dynamics', 'no_experience': 'one policy for all tasks',
  'identify': 'identify the task', 'identify_once': 'identify the task by one episode',
  'shuffled_experience': "another task's experience", 'operator_no_explore': 'operator, not asked to explore',
}
"""Of the controls."""
_SIZE_COLOURS = {'1': '#d39b2a', '2': '#c8553d', '4': '#8a5aa8', 'best': '#1b6ca8'}


@dataclasses.dataclass(frozen=True)
class Shown:
  """An operator at work.

  Attributes:
    description: of the task that the films are on.
    films: of `record_improvement`.
    exploration: of `exploration.record_exploration`; empty where there is nothing to see.
  """

  description: str
  films: Sequence[Mapping[str, Any]]
  exploration: Sequence[Mapping[str, Any]] = ()


@dataclasses.dataclass(frozen=True)
class Panel:
  """What a report tells of a family.

  Attributes:
    family: the task family.
    results: the figures.
    shown: its operator at work.
    made_by: the command that made the operator, where it was not made for this report.
  """

  family: TaskFamily
  results: Results
  shown: Shown
  made_by: str | None = None


def record_improvement(
  family: TaskFamily, operator: Operator, operator_params: Any, task: Task, params: Params, rng_key: chex.PRNGKey, *,
  num_applications: int, num_episodes: int, ask: Ask, explores: bool = False,
) -> list[dict[str, Any]]:
  """Films of a policy before and after each application, all from the same start; see `make_improve` for `explores`.

  Returns:
    [num_applications + 1] films, see `films.make_film`, with a 'caption' each.
  """
  film = make_film(family, operator.policy.sample)
  one_task, one_policy = jax.tree.map(lambda x: jnp.asarray(x)[None], (task, params))
  iterates = iterate(
    make_improve(operator, operator_params, ask, explores=explores), make_remember(operator),
    make_play(family, operator.policy, num_episodes=num_episodes), one_policy, one_task, stream(rng_key, 'episodes'),
    num_applications=num_applications,
  )
  films = []
  for index, found in enumerate(iterates):
    shown = film(take(found.params, 0), task, stream(rng_key, 'film'))
    when = f'after {index} application{"s" * (index > 1)}' if index else 'before'
    films.append({**shown, 'caption': f'{when}: return {shown["return"]:.1f}'})
  return films


def _curves(results: Results) -> list[tuple[Figures, str, str]]:
  """(figures, title, colour) of the operator and the controls."""
  curves = [(results.normalised_return, 'operator, held-out tasks', _COLOURS['operator'])]
  if results.sampled is not None:
    curves.append((results.sampled, 'operator, answers drawn at random', _COLOURS['sampled']))
  curves.append((results.far, 'operator, far tasks', _COLOURS['far']))
  return curves + [(figures, _TITLES[name], _COLOURS[name]) for name, figures in results.controls.items()]


def _improvement_figure(results: Results) -> str:
  def draw(axes):
    # An initial policy has used no steps; a quarter of the first experience stands for it on the logarithmic axis.
    start = results.env_steps[1] / 4
    at = np.maximum(results.env_steps, start)
    for figures, title, colour in _curves(results):
      draw_band(axes, at, figures, title, colour)
    if results.ppo is not None:
      steps = np.maximum(results.ppo['env_steps'], start)
      draw_band(axes, steps, results.ppo, 'PPO from scratch', _COLOURS['ppo'])
    axes.axhline(results.target, color='black', linewidth=0.5, linestyle='--', label=f'target, {results.target}')
    axes.set(xscale='log', xlabel='environment steps of a task', ylabel='score (IQM)', ylim=(-0.3, 1.2))

  return figure_of(draw, height=4.6)


def _found_figure(results: Results) -> str:
  """What an IQM hides where rewards are sparse: the share of tasks found, and the mean score of the operator."""
  def draw(axes):
    for figures, title, colour in _curves(results):
      if len(figures['found']) > 1:
        draw_curve(axes, range(len(figures['found'])), figures['found'], f'found: {title}', colour)
    mean = results.normalised_return['mean']
    if None not in mean:
      axes.plot(range(len(mean)), mean, '--', color=_COLOURS['operator'], label='mean score: operator, held-out tasks')
    axes.set(xlabel='applications', ylabel='share of tasks found', ylim=(-0.05, 1.05))

  return figure_of(draw, height=3.8)


def _sizes_figure(results: Results) -> str:
  def draw(axes):
    length = max((len(figures['iqm']) for size, figures in results.improvement.items() if size != 'best'), default=None)
    for size, figures in results.improvement.items():
      shown = {name: figures[name][:length] for name in ('iqm', 'low', 'high')}
      draw_band(axes, range(len(shown['iqm'])), shown, f'k = {size}', _SIZE_COLOURS[size])
    axes.set(xlabel='applications', ylabel='score (IQM)', ylim=(-0.3, 1.2))

  return figure_of(draw, height=3.4, columns=4)


def _spread_figure(results: Results) -> str:
  scores = np.asarray(results.per_task['normalised_return'])
  points = [p for p in (0, 1, 2, 3, 4, 8, 16, len(scores) - 1) if p < len(scores)]

  def draw(axes):
    jitter = np.random.default_rng(0).uniform(-0.25, 0.25, scores.shape[1])
    for index, point in enumerate(points):
      axes.plot(index + jitter, scores[point], '.', markersize=3, color=_COLOURS['operator'], alpha=0.5)
      axes.plot([index - 0.3, index + 0.3], [np.median(scores[point])] * 2, color='black', linewidth=1)
    axes.set(xlabel='applications', ylabel='score of a task', ylim=(-0.5, 1.3))
    axes.set_xticks(range(len(points)), points)

  return figure_of(draw, height=3.0)


def write_family_page(path: files.Path, family: TaskFamily, films: list[dict[str, Any]]) -> None:
  """Writes a page that shows a family: its definition, its ranges, and films with a 'caption' each."""
  render(path, 'family_template.html', title=f'metaimprove: {family.name}', family=family, films=films)


def write_report(
  path: files.Path, panel: Panel, commands: Sequence[str], second: Panel | None = None
) -> None:
  """Writes the page.

  Args:
    path: of the page.
    panel: what it is about.
    commands: that made the results.
    second: another family, which is shown in short.
  """
  results = panel.results
  render(
    path, 'report_template.html', title=f'metaimprove: {results.family}', family=panel.family, panel=panel,
    results=results, rows=_rows(results), commands=commands, description=panel.shown.description,
    films=panel.shown.films, second=second,
    improvement_figure=_improvement_figure(results), found_figure=_found_figure(results) if results.sparse else '',
    sizes_figure=_sizes_figure(results), spread_figure=_spread_figure(results),
    second_figures=[] if second is None else [_improvement_figure(second.results), _found_figure(second.results)],
  )


def _rows(results: Results) -> list[list[str]]:
  """The table of figures: its head, and a row for each of some applications. Where rewards are sparse, controls have
  mean and share found beside their IQM."""
  main, beside = results.normalised_return, ('mean', 'found') if results.sparse else ()
  curves = {'answers drawn at random': results.sampled} if results.sampled is not None else {}
  curves = {'far': results.far, **curves} | {
    _TITLES[name]: figures for name, figures in results.controls.items() if len(figures['iqm']) > 1
  }
  head = ['applications', 'steps', 'IQM', 'low', 'high', 'mean', 'found']
  head += [name if end == 'iqm' else f'{name}, {end}' for name in curves for end in ('iqm', *beside)]
  return [head] + [
    [str(n), f'{results.env_steps[n]:,d}']
    + [number(main[name][n]) for name in ('iqm', 'low', 'high', 'mean', 'found')]
    + [number(figures[end][n]) for figures in curves.values() for end in ('iqm', *beside)]
    for n in range(len(main['iqm'])) if n <= 5 or n % 5 == 0
  ]


def write_ask_page(
  path: files.Path, family: TaskFamily, description: str, known: int, scores: list[dict[str, Any]],
  sentences: list[dict[str, Any]],
) -> None:
  """Writes a page where a slider of `scores` and a box for words show films of what was answered.

  Args:
    path: of the page.
    family: the task family.
    description: of the task.
    known: policies whose experience the operator had when it was asked for scores.
    scores, sentences: films with what was 'asked' and what the answer 'did', in words; may be empty.
  """
  render(
    path, 'ask_template.html', title=f'metaimprove: ask it, on {family.name}', family=family, description=description,
    known=known, scores=scores, sentences=sentences,
  )


def write_films(path: files.Path, family: TaskFamily, films: list[dict[str, Any]], description: str) -> None:
  """Writes a page with the films alone."""
  render(
    path, 'report_template.html', title=f'metaimprove: one improvement on {family.name}', family=family, results=None,
    panel=None, second=None, description=description, films=films,
  )
