"""Films of episodes as line drawings, for pages that open offline and for contact sheets."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from metaimprove import files
from metaimprove.rollouts import unroll
from metaimprove.tasks.family import TaskFamily


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


def draw_contact_sheet(
  path: files.Path, family: TaskFamily, films: list[dict[str, Any]], captions: list[str], columns: int = 8
) -> None:
  """Writes a PNG: a row for each film, moments from its beginning to its end."""
  from matplotlib.collections import LineCollection
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
      ax.add_collection(LineCollection(film['lines'][moment], colors='#27445c', linewidths=2, capstyle='round'))
      if film['goals'][moment] is not None:
        ax.plot(*film['goals'][moment], 'o', color='#d33', markersize=4)
      ax.set(xlim=(left, right), ylim=(bottom, top), aspect='equal', xticks=[], yticks=[])
      ax.set_xlabel(f'{moment * family.time_step:.1f} s', fontsize=6)
    # The caption reaches over the next columns, which a title would push aside; an empty one keeps the room for it.
    row[0].set_title(' ', fontsize=7)
    row[0].text(0, 1.08, caption, fontsize=7, transform=row[0].transAxes).set_in_layout(False)
  figure.savefig(path, dpi=110)
