"""Environment steps a second of MuJoCo Playground's environments, bare and as families with hidden dynamics.

  make playground  # makes the virtual environment that this needs
  .venv-playground/bin/python -m experiments.benchmark_playground --envs=CartpoleBalance,CheetahRun

A step is the environment's own, which may be several of physics. Both are measured in turns, with random actions.
"""

import functools
import pathlib
import time

import jax
from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.adapters.extras import required
from metaimprove.tasks.from_playground import from_playground_env

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_list('envs', ['CartpoleBalance', 'ReacherEasy', 'CheetahRun'], "Of Playground's dm_control suite.")
  flags.DEFINE_integer('batch', 128, 'Environments at once.', 1)
  flags.DEFINE_integer('num_steps', 50, 'Environment steps of a measurement.', 1)
  flags.DEFINE_integer('repeats', 3, 'Measurements of each, of which the best counts.', 1)
  flags.DEFINE_string('json', None, 'Where the figures go as a list.')
  flags.DEFINE_integer('seed', 0, 'Of tasks, starts and actions.')


def measure(name: str) -> dict[str, float | str]:
  """A row: steps a second of an environment, and of the family of it."""
  suite = required('mujoco_playground', 'playground').dm_control_suite
  env = suite.load(name, config_overrides={'impl': 'jax'})
  family = from_playground_env(env, name=name, dynamics=('gear', 'mass'))
  key_actions, *keys = jax.random.split(jax.random.key(FLAGS.seed), 1 + FLAGS.batch)
  actions = jax.random.uniform(
    key_actions, (FLAGS.num_steps, FLAGS.batch, env.action_size), minval=-1.0, maxval=1.0
  )
  tasks = jax.vmap(family.sample)(jax.numpy.stack(keys))

  def run(reset, step, keys):
    states = jax.vmap(reset)(keys)
    return jax.lax.scan(lambda states, action: (step(states, action), None), states, actions)[0]

  ways = {
    'bare': lambda keys: run(env.reset, jax.vmap(env.step), keys),
    'family': lambda keys: run(
      lambda key: family.reset(jax.tree.map(lambda x: x[0], tasks), key),
      functools.partial(jax.vmap(family.step), tasks), keys,
    ),
  }
  compiled = {way: jax.jit(function) for way, function in ways.items()}
  best = dict.fromkeys(ways, float('inf'))
  for repeat in range(1 + FLAGS.repeats):
    for way, function in compiled.items():
      began = time.perf_counter()
      jax.block_until_ready(function(jax.numpy.stack(keys)))
      if repeat:  # the first call compiles
        best[way] = min(best[way], time.perf_counter() - began)
  steps = FLAGS.batch * FLAGS.num_steps
  row = {'env': name, **{f'{way}_steps_per_second': round(steps / seconds) for way, seconds in best.items()}}
  print(name, *(f'{way} {row[f"{way}_steps_per_second"]:,d} steps/s' for way in ways), sep='   ', flush=True)
  return row


def main() -> None:
  """Measures one environment after the other."""
  rows = [measure(name) for name in FLAGS.envs]
  if FLAGS.json:
    files.write_json(pathlib.Path(FLAGS.json), rows)


if __name__ == '__main__':
  console.launch(main)
