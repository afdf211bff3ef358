"""Films of episodes as line drawings, for pages that open offline and for contact sheets."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np

from metaimprove import files
from metaimprove.rollouts import unroll
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Task


def make_film(family: TaskFamily, act: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
  """Films episodes of a family; compiled once.

  Args:
    family: the task family.
    act: (params, observation, rng_key) -> (action, anything).

  Returns:
    (params, task, rng_key) -> {'lines': [T][L][2][2] and 'goals': [T] of [2] or None, both in metres, 'return': float},
    T the steps until the episode's end, at least 1.
  """
  @jax.jit
  def record(params, task, rng_key):
    trajectory, _, q = unroll(
      family, functools.partial(act, params), task, rng_key, num_episodes=1, record=lambda state: state.physics.q
    )
    return jax.vmap(family.picture, in_axes=(None, 0))(task, q[0]), trajectory

  def film(params, task, rng_key):
    pictures, trajectory = jax.device_get(record(params, task, rng_key))
    length = max(1, int(trajectory.valid.sum()))  # the start, if it blows up at once
    goals = [goal.round(4).tolist() if np.isfinite(goal).all() else None for goal in pictures['goal'][:length]]
    return {
      'lines': pictures['lines'][:length].round(4).tolist(), 'goals': goals,
      'return': round(float(trajectory.reward.sum()), 2),
    }

  return film


def make_painter(family: TaskFamily, height: int = 240) -> Callable[[Task, chex.Array], np.ndarray]:
  """Draws moments as pixels: (task, q) -> [height, width, 3] uint8, as wide as the family's view asks for."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  left, right, bottom, top = family.view
  dpi = 80
  figure = Figure(figsize=(height * (right - left) / (top - bottom) / dpi, height / dpi), dpi=dpi)
  canvas, ax = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
  picture = jax.jit(family.picture)

  def paint(task, q):
    drawn = jax.device_get(picture(task, q))
    ax.clear()
    _draw_moment(ax, family, drawn['lines'], drawn['goal'] if np.isfinite(drawn['goal']).all() else None)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]

  return paint


def _draw_moment(ax: Any, family: TaskFamily, lines: Any, goal: Any) -> None:
  """Draws one moment of a film into matplotlib axes."""
  from matplotlib.collections import LineCollection

  left, right, bottom, top = family.view
  ax.add_collection(LineCollection(lines, colors='#27445c', linewidths=2, capstyle='round'))
  if goal is not None:
    ax.plot(*goal, 'o', color='#d33', markersize=4)
  ax.set(xlim=(left, right), ylim=(bottom, top), aspect='equal', xticks=[], yticks=[])


def draw_contact_sheet(
  path: files.Path, family: TaskFamily, films: list[dict[str, Any]], captions: list[str], columns: int = 8
) -> None:
  """Writes a PNG: a row for each film, moments from its beginning to its end."""
  from matplotlib.figure import Figure

  left, right, bottom, top = family.view
  width = 1.5
  figure = Figure(
    figsize=(columns * width, len(films) * (width * (top - bottom) / (right - left) + 0.45)), layout='constrained'
  )
  axes = figure.subplots(len(films), columns, squeeze=False)
  for row, film, caption in zip(axes, films, captions):
    moments = np.linspace(0, len(film['lines']) - 1, columns).astype(int)
    for ax, moment in zip(row, moments):
      _draw_moment(ax, family, film['lines'][moment], film['goals'][moment])
      ax.set_xlabel(f'{moment * family.time_step:.1f} s', fontsize=6)
    # The caption reaches over the next columns, which a title would push aside; an empty one keeps the room for it.
    row[0].set_title(' ', fontsize=7)
    row[0].text(0, 1.08, caption, fontsize=7, transform=row[0].transAxes).set_in_layout(False)
  figure.savefig(path, dpi=110)
