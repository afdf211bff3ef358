"""Records what the tests hold the suite to; run it only when a definition changes on purpose:

  python -m tests.record_golden

`golden/stock.safetensors`: q and qd of stock Brax's own environments, stepped by Brax's own code.
`golden/families.safetensors`: observations, rewards and ends of each family on its first backend; raise
`TASK_SUITE_VERSION` with these.
"""

import experiments  # noqa: F401  (sets JAX up)

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files
from metaimprove.tasks.robots import physics
from tests import robots

FOLDER = pathlib.Path(__file__).with_name('golden')


def record_stock(path):
  arrays = files.load_arrays(path) if path.exists() else {}  # delete the file to record all of it anew
  for robot, backend in robots.COMBINATIONS:
    if f'{robot}-{backend}-q' in arrays or backend != physics.simulator_of(backend):
      continue
    env = robots.stock_env(robot, backend)
    q, qd, actions = robots.start_and_actions(env.sys, robot)
    state = jax.jit(env.pipeline_init)(jnp.asarray(q), jnp.asarray(qd))
    step = jax.jit(env.pipeline_step)
    after = []
    for action in actions:
      state = step(state, jnp.asarray(action))
      after.append((state.q, state.qd))
    for name, values in zip(('q', 'qd'), zip(*after)):
      arrays[f'{robot}-{backend}-{name}'] = np.stack(values)
    print(robot, backend, flush=True)
    files.save_tree(path, arrays)


def record_families(path):
  from tests.test_families import COMBINATIONS, Bench, golden_of

  arrays = files.load_arrays(path) if path.exists() else {}  # delete the file to record all of it anew
  for name, backend in COMBINATIONS:
    if f'{name}-{backend}-reward' in arrays or backend != physics.simulator_of(backend):
      continue
    arrays.update({f'{name}-{backend}-{k}': v for k, v in golden_of(Bench(name, backend)).items()})
    print(name, backend, flush=True)
    files.save_tree(path, arrays)


if __name__ == '__main__':
  what = sys.argv[1:] or ['stock', 'families']
  if 'stock' in what:
    record_stock(FOLDER / 'stock.safetensors')
  if 'families' in what:
    record_families(FOLDER / 'families.safetensors')
