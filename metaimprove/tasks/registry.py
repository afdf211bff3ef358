"""Families by name."""

from metaimprove.errors import UnknownNameError
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.inverted_pendulum import inverted_pendulum_balance
from metaimprove.tasks.reacher import reacher_goal

_FAMILIES = {make.__name__: make for make in (inverted_pendulum_balance, reacher_goal)}


def family_names() -> tuple[str, ...]:
  """The names `make_family` knows."""
  return tuple(_FAMILIES)


def make_family(name: str, backend: str = 'mjx') -> TaskFamily:
  """Builds a family by name.

  Raises:
    UnknownNameError: for a name or backend that does not exist.
  """
  if name not in _FAMILIES:
    raise UnknownNameError(f'Task family {name!r} is unknown; choose one of: {", ".join(_FAMILIES)}.')
  return _FAMILIES[name](backend)
