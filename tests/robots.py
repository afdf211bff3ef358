"""Every robot of the suite on every backend that a family declares, and a short run of it that touches the ground."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import quiet_brax
from metaimprove.tasks.robots import physics
from metaimprove.tasks.registry import backends_of, make_family

# Robot -> (metres that its root is lowered to stand on the ground, the families on it).
ROBOTS = {
  'reacher': (0.0, ('reacher_goal', 'reacher_goal_sparse', 'reacher_wiring', 'reacher_lag')),
  'halfcheetah': (0.1, (
    'half_cheetah_vel', 'half_cheetah_vel_sparse', 'half_cheetah_dir', 'half_cheetah_vel_wiring',
    'half_cheetah_vel_broken', 'half_cheetah_vel_wind',
  )),
  'ant': (0.25, ('ant_dir', 'ant_goal', 'ant_goal_sparse', 'ant_dir_broken')),
  'humanoid': (0.15, ('humanoid_dir',)),
  'hopper': (0.1, ('hopper_rand_params',)),
  'walker2d': (0.1, ('walker_rand_params',)),
  'pusher': (0.0, ('pusher_goal',)),
  'inverted_pendulum': (0.0, ('inverted_pendulum_balance',)),
}
COMBINATIONS = [(robot, backend) for robot, (_, families) in ROBOTS.items() for backend in backends_of(families[0])]
SLIDING = {'ant': 6.0, 'hopper': 6.0}
"""m/s where 1 is not enough to slip on spring."""
NUM_STEPS = 4
BATCH = 8
"""Batch of all runs of a robot's physics in the tests: one program serves them all."""


def stock_env(robot, backend):
  from brax import envs

  with quiet_brax.known_warnings_ignored():
    return envs.get_environment(robot, backend=backend)


def start_and_actions(system, robot):
  """(q, qd, actions [NUM_STEPS, A]) of the short run, sliding along x where the robot can."""
  rng = np.random.default_rng(0)
  q = np.array(system.init_q, np.float32)
  height = {'halfcheetah': 1, 'hopper': 1, 'walker2d': 1, 'ant': 2, 'humanoid': 2}.get(robot)
  qd = rng.uniform(-0.1, 0.1, system.qd_size()).astype(np.float32)
  if height is not None:
    q[height] -= ROBOTS[robot][0]
    qd[0] = SLIDING.get(robot, 1.0)
  return q, qd, rng.uniform(-1, 1, (NUM_STEPS, system.act_size())).astype(np.float32)


def scaled_variants(robot, backend):
  """{name: [BATCH] or [BATCH, elements]}: the first variant is stock, each other one has one parameter at 0.6; in the
  last one all are off by rounding. Shapes are those of the robot's family, so that its programs are shared."""
  name = ROBOTS[robot][1][0]
  ranges = make_family(name, backend, backends_of(name)[backend]).ranges
  variants = {}
  for index, (parameter, r) in enumerate(ranges.items(), start=1):
    values = np.where(np.arange(BATCH) == index, 0.6, 1.0).astype(np.float32)
    values[-1] = 1 + np.finfo(np.float32).eps
    variants[parameter] = np.repeat(values[:, None], r.elements, axis=1) if r.elements else values
  return variants


@functools.cache
def run_variants(robot, backend):
  """([NUM_STEPS, BATCH, nq], [NUM_STEPS, BATCH, nv]): q and qd of the variants after each step."""
  made = physics.load(robot, backend)
  parameters = jax.tree.map(jnp.asarray, scaled_variants(robot, backend))
  q, qd, actions = start_and_actions(made.system, robot)
  batched = lambda x: jnp.broadcast_to(x, (BATCH, *np.shape(x)))
  state = jax.vmap(made.init)(parameters, batched(q), batched(qd))
  after = []
  for action in actions:
    state = jax.vmap(made.step)(parameters, state, batched(action))
    after.append((state.q, state.qd))
  return tuple(np.stack(x) for x in zip(*after))


