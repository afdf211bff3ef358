"""Measures how fast families simulate, side by side in one run, and prints a table.

For each family, backend and batch size, in environment steps a second with random actions:
- stock: Brax's own environment under `vmap`, its own rewards and observations;
- shared: our family, one system for all environments (dynamics 'none');
- per task: our family, other dynamics in every environment.
The best of a few repeats of each, taken in turns. All run on one device; the collector uses every device there is.

  python -m experiments.benchmark_families --families=half_cheetah_vel,reacher_goal --json=runs/benchmark.json
"""

import functools
import pathlib
import time

import jax
from absl import flags

from experiments import console
from metaimprove import files, quiet_brax
from metaimprove.errors import UnknownNameError
from metaimprove.tasks.robots import physics
from metaimprove.tasks.registry import backends_of, family_names, make_family

FLAGS = flags.FLAGS

# The Brax environment that a robot comes from, by how names of its families begin.
_STOCK = {
  'reacher': 'reacher', 'half_cheetah': 'halfcheetah', 'ant': 'ant', 'humanoid': 'humanoid', 'hopper': 'hopper',
  'walker': 'walker2d', 'pusher': 'pusher', 'inverted_pendulum': 'inverted_pendulum',
}


def stock_of(family_name: str) -> str | None:
  """The Brax environment that a family's robot comes from; None for one that has none, such as the point."""
  return next((stock for robot, stock in _STOCK.items() if family_name.startswith(robot)), None)


if __name__ == '__main__':
  flags.DEFINE_list('families', None, 'Which families; all whose robot is one of Brax by default.')
  flags.DEFINE_list('backends', None, 'Which backends; all that each family declares by default.')
  flags.DEFINE_list('batches', ['64', '128', '256', '512'], 'Batch sizes.')
  flags.DEFINE_integer('num_steps', 20, 'Environment steps of a measurement.', 1)
  flags.DEFINE_integer('repeats', 3, 'Measurements of each, of which the best counts.', 1)
  flags.DEFINE_string('json', None, 'Where the figures go as a list.')
  flags.DEFINE_integer('seed', 0, 'Of tasks, starts and actions.')


def stock_stepper(robot, backend):
  """(states, actions [T, B, A]) -> final states, and the states to begin with, of stock Brax."""
  from brax import envs

  with quiet_brax.known_warnings_ignored():
    env = envs.get_environment(robot, backend=physics.simulator_of(backend))

  def step(state, action):
    return jax.vmap(env.step)(state, action), None

  return jax.vmap(env.reset), lambda states, actions: jax.lax.scan(step, states, actions)[0]


def our_stepper(family):
  tasks_of = jax.vmap(family.sample)

  def reset(keys):
    key_task, key_start = jax.vmap(jax.random.split, out_axes=1)(keys)
    tasks = tasks_of(key_task)
    return tasks, jax.vmap(family.reset)(tasks, key_start)

  def run(start, actions):
    tasks, states = start
    return tasks, jax.lax.scan(lambda s, a: (jax.vmap(family.step)(tasks, s, a), None), states, actions)[0]

  return reset, run


def measure(family_name, backend, batch, num_steps, repeats, seed):
  """A row of the table."""
  shared, per_task = (make_family(family_name, backend, preset) for preset in ('none', 'default'))
  steppers = {
    'stock': stock_stepper(stock_of(family_name), backend), 'shared_system': our_stepper(shared),
    'per_task': our_stepper(per_task),
  }
  key_actions, key_start = jax.random.split(jax.random.key(seed))
  keys = jax.random.split(key_start, batch)
  actions = jax.random.uniform(key_actions, (num_steps, batch, shared.action_size), minval=-1.0, maxval=1.0)
  ready = {}
  for name, (reset, run) in steppers.items():
    start = jax.jit(reset)(keys)
    compiled = jax.jit(run).lower(start, actions).compile()
    jax.block_until_ready(compiled(start, actions))
    ready[name] = functools.partial(compiled, start, actions)
  best = dict.fromkeys(ready, float('inf'))
  for _ in range(repeats):
    for name, call in ready.items():  # in turns, so that a busy moment of the machine does not fall on one alone
      began = time.perf_counter()
      jax.block_until_ready(call())
      best[name] = min(best[name], time.perf_counter() - began)
  rates = {f'{name}_steps_per_second': round(batch * num_steps / seconds, 1) for name, seconds in best.items()}
  return {'family': family_name, 'backend': backend, 'batch': batch, **rates}


def print_row(row):
  stock, shared, per_task = (
    row[f'{n}_steps_per_second'] for n in ('stock', 'shared_system', 'per_task')
  )
  print(
    f'{row["family"]:26s} {row["backend"]:12s} {row["batch"]:6d} {stock:11,.0f} {shared:11,.0f} {per_task:11,.0f} '
    f'{stock / per_task:11.2f}', flush=True,
  )


def main():
  families = FLAGS.families or [name for name in family_names() if stock_of(name)]
  for name in families:
    backends_of(name)
    if not stock_of(name):
      raise UnknownNameError(f'{name!r} has no robot of Brax to compare with.')
  rows = []
  columns = ('stock', 'shared', 'per task', 'cost')
  print(f'{"family":26s} {"backend":12s} {"batch":>6s}', *(f'{column:>11s}' for column in columns))
  for name in families:
    for backend in FLAGS.backends or backends_of(name):
      if backend not in backends_of(name):
        continue
      for batch in map(int, FLAGS.batches):
        rows.append(measure(name, backend, batch, FLAGS.num_steps, FLAGS.repeats, FLAGS.seed))
        print_row(rows[-1])
        if FLAGS.json:
          files.write_json(pathlib.Path(FLAGS.json), rows)
  for name, backend in dict.fromkeys((row['family'], row['backend']) for row in rows):
    best = max(
      (row for row in rows if (row['family'], row['backend']) == (name, backend)),
      key=lambda row: row['per_task_steps_per_second'],
    )
    cost = best['stock_steps_per_second'] / best['per_task_steps_per_second']
    print(f'{name} on {backend}: best batch {best["batch"]}, other dynamics in each environment cost {cost:.2f}x')


if __name__ == '__main__':
  console.launch(main)
