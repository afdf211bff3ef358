"""Brax without its known warnings. Import this module before anything of `brax`, and make environments in `making`.

MuJoCo MJX, which Brax imports, prints two lines to standard output when the optional package `warp` is missing. These
two are recognised by their text and dropped. Everything else that the import prints is printed, and errors are raised.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator

import jax

_KNOWN_LINES = ('Failed to import warp', 'Failed to import mujoco_warp')

with contextlib.redirect_stdout(io.StringIO()) as _printed:
  import brax  # noqa: F401

for _line in _printed.getvalue().splitlines():
  if not _line.startswith(_KNOWN_LINES):
    print(_line, file=sys.stdout)


_KNOWN_MUJOCO_WARNING = "compiler attribute 'settotalmass' is deprecated"


def _warn(message: str) -> None:
  if _KNOWN_MUJOCO_WARNING not in message:
    warnings.warn(f'MuJoCo: {message}', stacklevel=2)


@contextlib.contextmanager
def making() -> Iterator[None]:
  """A block in which environments and MJX's data are made: without warnings, and on a device of this process. MJX
  takes the first device of all processes, which may belong to another one."""
  everywhere = jax.devices
  if jax.process_count() > 1:
    jax.devices = lambda backend=None: jax.local_devices(backend=backend)
  try:
    with known_warnings_ignored():
      yield
  finally:
    jax.devices = everywhere


@contextlib.contextmanager
def known_warnings_ignored() -> Iterator[None]:
  """A block in which two warnings are ignored: Brax's, that its pipelines are no longer maintained, and MuJoCo's, that
  Brax's cheetah uses an old attribute, which MuJoCo would also append to a MUJOCO_LOG.TXT."""
  import mujoco

  mujoco.set_mju_user_warning(_warn)
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings('ignore', message='Brax System, piplines and environments are not actively')
      yield
  finally:
    mujoco.set_mju_user_warning(None)
