"""Counts what XLA compiles."""

import contextlib
import logging


@contextlib.contextmanager
def counted():
  """A list that fills with the names of the programs compiled within the block (or read from the persistent cache)."""
  import jax

  names = []

  class Handler(logging.Handler):
    def emit(self, record):
      message = record.getMessage()
      if message.startswith('Compiling '):
        names.append(message.split()[1])

  handler, logger = Handler(), logging.getLogger('jax._src.interpreters.pxla')
  logger.addHandler(handler)
  propagate, logger.propagate = logger.propagate, False
  try:
    with jax.log_compiles():
      yield names
  finally:
    logger.removeHandler(handler)
    logger.propagate = propagate
