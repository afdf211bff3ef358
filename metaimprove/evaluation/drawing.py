"""What pages are made of: figures as SVG, and templates that are filled."""

import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
import matplotlib
from matplotlib.axes import Axes

from metaimprove import files
from metaimprove.evaluation.results import Figures


def figure_of(draw: Callable[[Axes], None], width: float = 7.2, height: float = 3.6, columns: int = 2) -> str:
  """Draws on matplotlib axes, with the legend below them, and gives the SVG as text."""
  from matplotlib.figure import Figure

  with matplotlib.rc_context({'svg.hashsalt': 'metaimprove', 'font.size': 9, 'axes.spines.top': False,
                              'axes.spines.right': False}):
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots()
    draw(axes)
    if axes.get_legend_handles_labels()[0]:
      figure.legend(frameon=False, loc='outside lower left', ncols=columns)
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None})
  return text.getvalue()[text.getvalue().index('<svg'):]


def draw_curve(axes: Axes, x: Sequence[float], values: Sequence[float | None], label: str, colour: str) -> None:
  """A curve without an interval; a single point is a line across."""
  if None in values:
    return
  if len(values) == 1:
    axes.axhline(values[0], color=colour, label=label, linewidth=1.2, linestyle=':')
    return
  axes.plot(x, values, color=colour, label=label)


def draw_band(axes: Axes, x: Sequence[float], figures: Figures, label: str, colour: str) -> None:
  """A curve with its interval; a single point is a line across."""
  draw_curve(axes, x, figures['iqm'], label, colour)
  if None in figures['iqm']:
    return
  if len(figures['iqm']) == 1:
    axes.axhspan(figures['low'][0], figures['high'][0], color=colour, alpha=0.1, linewidth=0)
    return
  axes.fill_between(x, figures['low'], figures['high'], color=colour, alpha=0.2, linewidth=0)


def render(path: files.Path, template: str, **values: Any) -> None:
  """Fills a template of this folder and writes the page."""
  loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
  environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
  environment.filters['number'] = number
  files.write_bytes(path, environment.get_template(template).render(**values).encode())


def number(value: float | None, form: str = '.3f') -> str:
  """A figure in words; '-' for one that is not known."""
  return '-' if value is None else format(value, form)
