"""The physics of every robot on every backend: stock Brax where nothing is changed, and really changed where it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import files
from metaimprove.errors import UnknownNameError
from metaimprove.tasks.robots import dynamics, physics
from metaimprove.tasks.registry import backends_of, make_family
from metaimprove.tasks.splits import SPLITS, far_parameter, sample_tasks
from tests import robots
from tests.record_golden import FOLDER


@pytest.mark.parametrize(('robot', 'backend'), [
  pytest.param(*pair, id='-'.join(pair), marks=pytest.mark.xdist_group('-'.join(pair))) for pair in robots.COMBINATIONS
])
def test_stock_and_real(robot, backend):
  """A multiplier of 1 is stock Brax step for step, and 0.6 of each parameter moves the robot a hundred times as much as
  rounding does."""
  golden = files.load_arrays(FOLDER / 'stock.safetensors')
  q, qd = robots.run_variants(robot, backend)
  # Rounding grows where contacts or solvers switch: the first step is held to the last digits, the others to the third.
  for mine, name in ((q, 'q'), (qd, 'qd')):
    stock = golden[f'{robot}-{physics.simulator_of(backend)}-{name}']
    scale = np.abs(stock).max(axis=1, keepdims=True) + 1e-3
    error = (np.abs(mine[:, 0] - stock) / scale).max(axis=1)
    assert error[0] < 1e-4 and error.max() < 1e-2, (name, error)
  assert np.isfinite(qd).all()
  names = list(robots.scaled_variants(robot, backend))
  moved = np.abs(qd - qd[:, :1]).max(axis=(0, 2)) / np.abs(qd[:, 0]).max()
  real, rounding = dict(zip(names, moved[1:])), moved[-1]
  assert min(real.values()) > 1e-4 and min(real.values()) > 100 * rounding, (real, rounding)


def test_a_parameter_that_does_nothing_is_refused():
  with pytest.raises(UnknownNameError, match="'friction' does nothing.* on reacher_goal.*choose among: gear, damping"):
    make_family('reacher_goal', 'mjx', ('gear', 'friction'))
  with pytest.raises(UnknownNameError, match="'colour' is unknown"):
    make_family('reacher_goal', 'mjx', ('colour',))
  with pytest.raises(UnknownNameError, match='none, default, far'):
    make_family('reacher_goal', 'mjx', 'much')


def test_what_is_simulated_is_what_is_scaled():
  """Brax's hopper has spring_mass_scale 1: every link weighs 1 on spring, and a multiplier acts on that."""
  robot = physics.load('hopper', 'spring')
  np.testing.assert_array_equal(robot.system.link.inertia.mass, 1.0)
  heavier = dynamics.apply(robot.system, 'spring', {'mass': np.array([2.0, 1.0, 1.0, 0.5], np.float32)})
  np.testing.assert_array_equal(heavier.link.inertia.mass, [2.0, 1.0, 1.0, 0.5])
  # Joints are held less tightly where a link is lighter, and not more where it is heavier.
  np.testing.assert_allclose(heavier.link.constraint_stiffness / robot.system.link.constraint_stiffness, [1, 1, 1, 0.5])


def test_multipliers_by_hand():
  system = physics.load('reacher', 'mjx').system
  changed = dynamics.apply(system, 'mjx', {'gear': np.float32(2), 'inertia': np.float32(3)})
  np.testing.assert_array_equal(changed.actuator_gear, 2 * system.actuator_gear)
  np.testing.assert_array_equal(changed.dof_armature, 3 * system.dof_armature)
  np.testing.assert_array_equal(changed.body_mass, system.body_mass)
  untouched = dynamics.apply(system, 'mjx', {'action_noise': np.float32(0.1)})
  assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), untouched, system))


@pytest.mark.parametrize('backend', ['mjx', 'generalized', 'spring'])
def test_outside_forces_by_hand(backend):
  """Uphill along x gravity pulls back, the wind adds to it, and stock values change no bit."""
  system = physics.load('halfcheetah', backend).system
  gravity = lambda **parameters: dynamics.apply(
    system, backend, {name: np.float32(value) for name, value in parameters.items()}
  )
  of = lambda changed: np.asarray(changed.opt.gravity if backend == 'mjx' else changed.gravity)
  np.testing.assert_array_equal(of(gravity(slope=0, wind=0, gravity=1)), of(system))
  g = -of(system)[2]
  assert g > 9.7 and not of(system)[:2].any()
  np.testing.assert_allclose(of(gravity(slope=np.pi / 6)), [-g / 2, 0, -g * np.sqrt(3) / 2], rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(of(gravity(slope=np.pi / 6, gravity=2, wind=3)), [3 - g, 0, -g * np.sqrt(3)], rtol=1e-6)
  np.testing.assert_allclose(of(gravity(wind=[1, -2])), [1, -2, -g], rtol=1e-6)


@pytest.mark.xdist_group('halfcheetah-spring')
def test_the_wind_by_hand():
  """In 4 steps of 0.05 s a falling robot is 0.2 s times the wind faster. The program is that of the family."""
  made, size = physics.load('halfcheetah', 'spring'), robots.BATCH
  names = backends_of('half_cheetah_vel_wind')['spring']
  parameters = {**{name: jnp.ones(size) for name in names}, 'wind': jnp.arange(size, dtype=jnp.float32)}
  q, qd, _ = robots.start_and_actions(made.system, 'halfcheetah')
  q[1] += 1
  batched = lambda x: jnp.broadcast_to(x, (size, *np.shape(x)))
  state = jax.vmap(made.init)(parameters, batched(q), batched(qd))
  for _ in range(4):
    state = jax.vmap(made.step)(parameters, state, jnp.zeros((size, 6)))
  np.testing.assert_allclose(state.qd[:, 0] - state.qd[0, 0], 0.2 * np.arange(size), atol=0.02 * size)


def test_where_forces_are_offered():
  with pytest.raises(UnknownNameError, match="'wind' does nothing.* on reacher_goal"):
    make_family('reacher_goal', 'mjx', ('wind',))
  for name in ('hopper_rand_params', 'walker_rand_params', 'ant_dir', 'half_cheetah_dir'):
    assert list(make_family(name, 'spring', ('wind', 'slope')).ranges) == ['wind', 'slope']


@pytest.mark.parametrize('name', ['half_cheetah_vel_broken', 'ant_dir_broken'])
def test_broken_motors_of_each_split(name):
  """Each motor but those left out is broken now and then, and at most one group at a time."""
  family = make_family(name)
  count = {}
  for split in SPLITS:
    tasks = sample_tasks(family, 0, 300, split)
    broken = np.asarray(tasks.dynamics['broken'])
    assert set(broken.sum(axis=1)) <= {0.0, 1.0 if 'cheetah' in name else 2.0}
    is_far = np.array(far_parameter(family, tasks)) == 'broken'
    assert (split == 'far') == is_far.any()
    count[split] = broken[is_far].any(axis=0) if split == 'far' else broken.any(axis=0)
    assert not (broken[is_far].sum(axis=1) == 0).any()
  np.testing.assert_array_equal(count['far'], ~count['train'])
  np.testing.assert_array_equal(count['train'], count['heldout'])
