"""Families by name."""

from collections.abc import Sequence

from metaimprove.errors import UnknownNameError
from metaimprove.tasks.robots import (
  ant, half_cheetah, hopper, humanoid, inverted_pendulum, physics, point, pusher, reacher
)
from metaimprove.tasks.family import TaskFamily

_MODULES = {
  reacher: ('reacher_goal', 'reacher_goal_sparse', 'reacher_wiring', 'reacher_lag'),
  point: ('point_goal_sparse_h20', 'point_goal_sparse_h60', 'point_wind'),
  half_cheetah: (
    'half_cheetah_vel', 'half_cheetah_vel_sparse', 'half_cheetah_dir', 'half_cheetah_vel_wiring',
    'half_cheetah_vel_broken', 'half_cheetah_vel_wind',
  ),
  ant: ('ant_dir', 'ant_goal', 'ant_goal_sparse', 'ant_dir_broken'),
  humanoid: ('humanoid_dir',),
  hopper: ('hopper_rand_params', 'walker_rand_params'),
  pusher: ('pusher_goal',),
  inverted_pendulum: ('inverted_pendulum_balance', 'inverted_pendulum_swingup'),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def family_names() -> tuple[str, ...]:
  """The names `make_family` knows."""
  return tuple(_HOMES)


def backends_of(name: str) -> dict[str, tuple[str, ...]]:
  """The backends of a family, its default first, each with the dynamics parameters that have an effect there.

  Raises:
    UnknownNameError: for a family that does not exist.
  """
  if name not in _HOMES:
    raise UnknownNameError(f'Task family {name!r} is unknown; choose one of: {", ".join(_HOMES)}.')
  module = _HOMES[name]
  only_on = getattr(module, 'ONLY_ON', {}).get(name, module.BACKENDS)
  return {backend: parameters for backend, parameters in module.BACKENDS.items() if backend in only_on}


def make_family(name: str, backend: str | None = None, dynamics: str | Sequence[str] = 'default') -> TaskFamily:
  """Builds a family by name.

  Args:
    name: one of `family_names()`.
    backend: one of `backends_of(name)`; the first of them by default.
    dynamics: what is randomised: 'none', 'default', 'far' (as default, and every task is a far task), or the names of
      parameters, from those of the backend, `dynamics.IMPERFECTIONS`, and where gravity matters `dynamics.FORCES`.

  Raises:
    UnknownNameError: for a name, backend, preset or parameter that does not exist or does nothing there.
  """
  supported = backends_of(name)
  backend = backend or next(iter(supported))
  if backend not in supported:
    physics.check_backend(backend)
    raise UnknownNameError(
      f'Family {name!r} does not support backend {backend!r}; choose one of: {", ".join(supported)}.'
    )
  return getattr(_HOMES[name], name)(backend, dynamics)
