"""The physics of every robot on every backend: stock Brax where nothing is changed, and really changed where it is."""

import jax
import numpy as np
import pytest

from metaimprove import files
from metaimprove.errors import UnknownNameError
from metaimprove.tasks.robots import dynamics, physics
from metaimprove.tasks.registry import make_family
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
