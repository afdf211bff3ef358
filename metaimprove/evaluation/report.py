"""`report.html`: one self-contained page that shows what an operator does, and opens offline."""

import functools
import io
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import jinja2
import matplotlib
import numpy as np

from metaimprove import files
from metaimprove.evaluation.films import make_film
from metaimprove.operators.operator import Operator
from metaimprove.rollouts import rollout
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Task

_COLOURS = {'operator': '#1b6ca8', 'far': '#3a9d5d', 'ppo': '#c8553d', 'shuffled': '#8a8a8a'}


def record_improvement(
  family: TaskFamily, operator: Operator, operator_params, task: Task, params: Params, rng_key, *,
  num_applications: int, num_episodes: int, ask: int,
) -> list[dict[str, Any]]:
  """Films of a policy before and after each application, all from the same start.

  Returns:
    [num_applications + 1] films, see `films.make_film`, with a 'caption' each.
  """
  experience = jax.jit(functools.partial(rollout, family, operator.policy, num_episodes=num_episodes))
  improve = jax.jit(operator.improve)
  film = make_film(family, operator.policy.sample)
  key_show, key_act = jax.random.split(rng_key)
  films = [film(params, task, key_show)]
  for application in range(num_applications):
    trajectory = experience(params, task, jax.random.fold_in(key_act, application))
    params = improve(operator_params, params, trajectory, jnp.asarray(ask))
    films.append(film(params, task, key_show))
  for index, shown in enumerate(films):
    when = f'after {index} application{"s" * (index > 1)}' if index else 'before'
    shown['caption'] = f'{when}: return {shown["return"]:.1f}'
  return films


def _figure(draw, width=7.2, height=3.6) -> str:
  """Draws on matplotlib axes and gives the SVG as text."""
  from matplotlib.figure import Figure

  with matplotlib.rc_context({'svg.hashsalt': 'metaimprove', 'font.size': 9, 'axes.spines.top': False,
                              'axes.spines.right': False}):
    figure = Figure(figsize=(width, height), layout='constrained')
    draw(figure.subplots())
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None})
  return text.getvalue()[text.getvalue().index('<svg'):]


def _draw_band(axes, x, curve, label, colour):
  axes.plot(x, curve['iqm'], color=colour, label=label)
  axes.fill_between(x, curve['low'], curve['high'], color=colour, alpha=0.2, linewidth=0)


def _improvement_figure(results: dict[str, Any]) -> str:
  def draw(axes):
    # An initial policy has used no steps; half an episode stands for it on the logarithmic axis.
    start = results['env_steps'][1] / 4
    at = np.maximum(results['env_steps'], start)
    _draw_band(axes, at, results['normalised_return'], 'operator, held-out tasks', _COLOURS['operator'])
    _draw_band(axes, at, results['far'], 'operator, far tasks', _COLOURS['far'])
    _draw_band(axes, at, results['shuffled_experience'], "operator, another task's experience", _COLOURS['shuffled'])
    _draw_band(
      axes, np.maximum(results['ppo']['env_steps'], start), results['ppo'], 'PPO from scratch', _COLOURS['ppo']
    )
    axes.axhline(results['target'], color='black', linewidth=0.5, linestyle='--')
    axes.set(xscale='log', xlabel='environment steps per task', ylabel='normalised return (IQM)', ylim=(-0.3, 1.2))
    axes.legend(frameon=False, loc='lower right')

  return _figure(draw)


def _spread_figure(results: dict[str, Any]) -> str:
  scores = np.asarray(results['per_task']['normalised_return'])
  points = [p for p in (0, 1, 2, 3, 4, 8, 16, len(scores) - 1) if p < len(scores)]

  def draw(axes):
    jitter = np.random.default_rng(0).uniform(-0.25, 0.25, scores.shape[1])
    for place, point in enumerate(points):
      axes.plot(place + jitter, scores[point], '.', markersize=3, color=_COLOURS['operator'], alpha=0.5)
      axes.plot([place - 0.3, place + 0.3], [np.median(scores[point])] * 2, color='black', linewidth=1)
    axes.set(xlabel='applications', ylabel='normalised return of a task', ylim=(-0.5, 1.3))
    axes.set_xticks(range(len(points)), points)

  return _figure(draw, height=3.0)


def _render(path: files.Path, template: str = 'report_template.html', **values) -> None:
  loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
  environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
  files.write_bytes(path, environment.get_template(template).render(**values).encode())


def write_family_page(path: files.Path, family: TaskFamily, films: list[dict[str, Any]]) -> None:
  """Writes a page that shows a family: its definition, its ranges, and films with a 'caption' each."""
  _render(path, 'family_template.html', title=f'metaimprove: {family.name}', family=family, rollouts=films)


def write_report(
  path: files.Path, family: TaskFamily, results: dict[str, Any], rollouts: list[dict[str, Any]], description: str,
  commands: list[str],
) -> None:
  """Writes the page.

  Args:
    path: of the page.
    family: the task family.
    results: as README describes `results.json`.
    rollouts: of `record_improvement`.
    description: of the task they are on.
    commands: that made the results.
  """
  iqm = results['normalised_return']
  rows = [
    (n, results['episodes'][n], results['env_steps'][n], *(f'{iqm[k][n]:.3f}' for k in ('iqm', 'low', 'high')),
     f'{results["far"]["iqm"][n]:.3f}', f'{results["shuffled_experience"]["iqm"][n]:.3f}')
    for n in range(len(iqm['iqm'])) if n <= 5 or n % 5 == 0
  ]
  _render(
    path, title=f'metaimprove: {results["family"]}', family=family, results=results, rows=rows, commands=commands,
    description=description, rollouts=rollouts, improvement_figure=_improvement_figure(results),
    spread_figure=_spread_figure(results),
  )


def write_rollouts(path: files.Path, family: TaskFamily, rollouts: list[dict[str, Any]], description: str) -> None:
  """Writes a page with the rollouts alone."""
  _render(
    path, title=f'metaimprove: one improvement on {family.name}', family=family, results=None, rows=[], commands=[],
    description=description, rollouts=rollouts, improvement_figure='', spread_figure='',
  )
