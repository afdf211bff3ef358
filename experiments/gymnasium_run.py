"""Improvement in a Gymnasium environment, printed as it happens, with films of its own pictures."""

import base64
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from metaimprove import files
from metaimprove.adapters.extras import required
from metaimprove.adapters.numpy_policy import NumpyPolicy
from metaimprove.asks import Ask
from metaimprove.errors import IncompatibleError
from metaimprove.operators.operator import Operator
from metaimprove.types import Params

_LONGEST_FILM = 200
_PAGE = jinja2.Template("""<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>body { font-family: sans-serif; max-width: 60rem; margin: 2rem auto; }
figure { display: inline-block; margin: 0.5rem; } figcaption { font-size: 0.9rem; }</style>
<h1>{{ title }}</h1><p>{{ description }}</p>
{% for film in films %}<figure><img src="data:image/gif;base64,{{ film.gif }}" alt="{{ film.caption }}">
<figcaption>{{ film.caption }}</figcaption></figure>{% endfor %}</html>
""", autoescape=True)


def run(
  name: str, operator: tuple[Operator, Params], ask: Ask, page: pathlib.Path, *, num_applications: int,
  num_episodes: int | None, seed: int, mapping: dict[str, Any],
) -> None:
  """Improves in the environment `name`; prints a row an application, and leaves a page.

  Raises:
    IncompatibleError: if there is no such environment, or it does not fit.
  """
  gymnasium = required('gymnasium')
  from metaimprove.adapters import mujoco
  from metaimprove.adapters.gymnasium import ImprovingAgent

  # Gymnasium's own may show what an operator must not see, or show it otherwise.
  bridge, settings = mujoco.BRIDGES.get(operator[0].config.family), {}
  if bridge is not None and name == bridge.simulator.env_name:
    name, settings = bridge.registered, {'backend': operator[0].config.backend}
  try:
    env = gymnasium.make(name, render_mode='rgb_array', **settings)
  except gymnasium.error.Error as error:
    raise IncompatibleError(f'Gymnasium cannot make {name!r}: {error}') from None
  agent, films = ImprovingAgent(operator, env, seed=seed, **mapping), []
  task = env.reset(seed=seed)[1].get('task', '')
  print(f'{name}: {task}' if task else name)
  print(f'{"after":>5}  {"episodes":>8}  {"return":>9}  {"lowest":>9}  {"highest":>9}')
  used = 0
  for application in range(num_applications + 1):
    returns = agent.run(0, num_episodes=num_episodes)[0, 0]
    films.append(_film(env, agent.agents[0].policy, seed, application, float(returns.mean())))
    shown = '  '.join(f'{value:>9.2f}' for value in (returns.mean(), returns.min(), returns.max()))
    print(f'{application:>5}  {used:>8}  {shown}', flush=True)
    used += len(returns)
    if application < num_applications:
      agent.agents[0].improve(ask)
  env.close()
  text = _PAGE.render(title=f'metaimprove: one improvement in {name}', description=task, films=films)
  files.write_bytes(page, text.encode())


def _film(env: Any, policy: NumpyPolicy, seed: int, application: int, mean: float) -> dict[str, str]:
  """An episode of a policy as it is most of the time, always from the same start; nothing of it is remembered."""
  observation, frames, over = env.reset(seed=seed)[0], [], False
  while not over and len(frames) < _LONGEST_FILM:
    frames.append(env.render())
    observation, _, terminated, truncated, _ = env.step(policy(observation))
    over = terminated or truncated
  when = f'after {application} application{"s" * (application > 1)}' if application else 'before'
  return {'gif': _gif(frames, env.metadata.get('render_fps', 20)), 'caption': f'{when}: mean return {mean:.1f}'}


def _gif(frames: Sequence[np.ndarray], frames_per_second: float) -> str:
  images, content = [Image.fromarray(frame) for frame in frames], io.BytesIO()
  for image in images:
    image.thumbnail((320, 320))
  images[0].save(
    content, 'GIF', save_all=True, append_images=images[1:], duration=max(20, round(1000 / frames_per_second)), loop=0
  )
  return base64.b64encode(content.getvalue()).decode()
