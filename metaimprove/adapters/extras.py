"""Libraries that are optional."""

import importlib
import types


def required(module: str, extra: str | None = None) -> types.ModuleType:
  """The module of an optional library; raises `ImportError` with the line that installs it."""
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name != module.partition('.')[0]:
      raise
    extra = extra or module
    raise ImportError(f"This needs {module}, which is not installed: pip install 'metaimprove[{extra}]'") from None
