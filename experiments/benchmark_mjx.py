"""Finds out where the time goes on mjx, robot by robot: what leaving out a part saves, and what it changes.

Each variant steps the same states with the same actions. Deviation is the largest difference of a joint position from
stock after the steps, as a share of how far the joints moved: the median over the batch and the worst of it. Contacts
make trajectories part, so there is also stock itself from starts nudged by 1e-6: what deviates no more than that is as
good. The backend `mjx_fast` is '4 line search steps'.

  python -m experiments.benchmark_mjx --robots=halfcheetah,hopper,walker2d
"""

import pathlib
import time

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.tasks.robots import physics

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_list('robots', ['halfcheetah', 'hopper', 'walker2d'], 'Brax environments.')
  flags.DEFINE_integer('batch', 64, 'Environments at once.', 1)
  flags.DEFINE_integer('num_steps', 20, 'Environment steps.', 1)
  flags.DEFINE_integer('repeats', 3, 'Measurements, of which the best counts.', 1)
  flags.DEFINE_integer('seed', 0, 'Of starts and actions.')
  flags.DEFINE_string('json', None, 'Where the figures go as a list.')

NUDGE = 1e-6
VARIANTS = {
  'stock': {},
  'stock, start nudged': {},
  '2 solver iterations': {'opt.iterations': 2},
  '1 solver iteration': {'opt.iterations': 1},
  '4 line search steps': physics.MJX_FAST,
  '2 iterations, 4 steps': {'opt.iterations': 2, 'opt.ls_iterations': 4},
  '1 iteration, 4 steps': {'opt.iterations': 1, 'opt.ls_iterations': 4},
  'no contacts': {'opt.disableflags': mujoco.mjtDisableBit.mjDSBL_CONTACT},
  'no constraints': {'opt.disableflags': mujoco.mjtDisableBit.mjDSBL_CONSTRAINT},
}


def step_function(robot, changes):
  """(states, actions [T, B, A]) -> q [T, B, nq] of a robot with changed options."""
  from brax import envs

  from metaimprove import quiet_brax

  with quiet_brax.known_warnings_ignored():
    env = envs.get_environment(robot, backend='mjx')
  flags_before = env.sys.opt.disableflags
  changes = {k: v | flags_before if k.endswith('flags') else v for k, v in changes.items()}
  env.sys = env.sys.tree_replace(changes)
  made = physics.of_env(env)

  def step(state, action):
    state = jax.vmap(made.step, in_axes=(None, 0, 0))({}, state, action)
    return state, state.q

  return made, lambda states, actions: jax.lax.scan(step, states, actions)[1]


def measure(robot):
  made, _ = step_function(robot, {})
  rng = np.random.default_rng(FLAGS.seed)
  q = made.system.init_q + rng.uniform(-0.1, 0.1, (FLAGS.batch, made.system.q_size()))
  qd = 0.1 * rng.standard_normal((FLAGS.batch, made.system.qd_size()))
  actions = jnp.asarray(rng.uniform(-1, 1, (FLAGS.num_steps, FLAGS.batch, made.system.act_size())), jnp.float32)
  start = jax.jit(jax.vmap(made.init, in_axes=(None, 0, 0)))(
    {}, jnp.asarray(q, jnp.float32), jnp.asarray(qd, jnp.float32)
  )
  rows, stock = [], None
  for name, changes in VARIANTS.items():
    _, run = step_function(robot, changes)
    begin = start.replace(q=start.q + NUDGE) if name.endswith('nudged') else start
    compiled = jax.jit(run).lower(begin, actions).compile()
    after, seconds = np.asarray(compiled(begin, actions)), float('inf')
    for _ in range(FLAGS.repeats):
      began = time.perf_counter()
      jax.block_until_ready(compiled(begin, actions))
      seconds = min(seconds, time.perf_counter() - began)
    stock = after if stock is None else stock
    moved = np.abs(stock - q).max(axis=2) + 1e-6
    deviation = np.abs(after - stock).max(axis=2) / moved
    rows.append({
      'robot': robot, 'variant': name, 'steps_per_second': round(FLAGS.num_steps * FLAGS.batch / seconds, 1),
      'median_deviation': float(np.median(deviation[-1])), 'worst_deviation': float(deviation[-1].max()),
    })
    print(
      f'{robot:14s} {name:24s} {rows[-1]["steps_per_second"]:10,.0f} {rows[-1]["median_deviation"]:10.1e} '
      f'{rows[-1]["worst_deviation"]:10.1e}', flush=True,
    )
  return rows


def main():
  print(f'{"robot":14s} {"variant":24s} {"steps/s":>10s} {"median":>10s} {"worst":>10s}')
  rows = [row for robot in FLAGS.robots for row in measure(robot)]
  if FLAGS.json:
    files.write_json(pathlib.Path(FLAGS.json), rows)


if __name__ == '__main__':
  console.launch(main)
