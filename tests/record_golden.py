"""Records what the tests hold the suite to; run it only when a definition changes on purpose:

  python -m tests.record_golden                # what is missing
  python -m tests.record_golden FAMILY ...     # and these families anew

`golden/stock.safetensors`: q and qd of stock Brax's own environments, stepped by Brax's own code.
`golden/families.safetensors`: observations, rewards and ends of each family on each backend; `golden/ranges.json`: what
each family draws. Raise `TASK_SUITE_VERSION` when one of these changes; a new family is only added to them.
"""

import experiments  # noqa: F401  (sets JAX up)

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files
from metaimprove.tasks.family import TASK_SUITE_VERSION
from metaimprove.tasks.registry import family_names
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


def record_families(path, anew):
  from tests.test_families import COMBINATIONS, Bench, golden_of

  arrays = files.load_arrays(path) if path.exists() else {}
  for name, backend in COMBINATIONS:
    if (f'{name}-{backend}-reward' in arrays and name not in anew) or backend != physics.simulator_of(backend):
      continue
    arrays.update({f'{name}-{backend}-{k}': v for k, v in golden_of(Bench(name, backend)).items()})
    print(name, backend, flush=True)
    files.save_tree(path, arrays)


def record_ranges(path, anew):
  from tests.test_families import drawn_of

  recorded = files.read_json(path)['families'] if path.exists() else {}
  kept = {name: recorded[name] for name in recorded if name not in anew}
  families = {name: kept.get(name) or drawn_of(name) for name in family_names()}
  files.write_json(path, {'task_suite_version': TASK_SUITE_VERSION, 'families': families})


if __name__ == '__main__':
  record_stock(FOLDER / 'stock.safetensors')
  record_families(FOLDER / 'families.safetensors', sys.argv[1:])
  record_ranges(FOLDER / 'ranges.json', sys.argv[1:])
