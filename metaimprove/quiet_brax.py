"""Brax as it should be: import this module before anything of `brax`, and make its environments in `making`.

MuJoCo MJX, which Brax imports, prints two lines to standard output when the optional package `warp` is missing. They
are dropped here by their text; whatever else an import prints is passed on, and errors are untouched.
"""

import contextlib
import io
import sys
import warnings

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
def making():
  """Within the block environments and MJX's data are made without warnings, and where this process can reach them: MJX
  takes the first of all processes' devices, which may be another's."""
  everywhere = jax.devices
  if jax.process_count() > 1:
    jax.devices = lambda backend=None: jax.local_devices(backend=backend)
  try:
    with known_warnings_ignored():
      yield
  finally:
    jax.devices = everywhere


@contextlib.contextmanager
def known_warnings_ignored():
  """Ignores, within the block, Brax's notice that its pipelines are no longer maintained (we call them knowingly), and
  MuJoCo's that Brax's cheetah uses an old attribute, which it would print and append to a MUJOCO_LOG.TXT."""
  import mujoco

  mujoco.set_mju_user_warning(_warn)
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings('ignore', message='Brax System, piplines and environments are not actively')
      yield
  finally:
    mujoco.set_mju_user_warning(None)
