"""Imports Brax without its known chatter: import this module before anything of `brax`.

MuJoCo MJX, which Brax imports, prints two lines to standard output when the optional package `warp` is missing. They
are dropped here by their text; whatever else an import prints is passed on, and errors are untouched.
"""

import contextlib
import io
import sys
import warnings

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
