"""Errors a user can act on: each message says what is wrong and what to do about it."""


class MetaImproveError(Exception):
  """Base of every error that `metaimprove` raises on bad input."""


class UnknownNameError(MetaImproveError, ValueError):
  """A family, backend, source, split or dynamics parameter that does not exist."""


class DamagedDataError(MetaImproveError):
  """A file that is missing, torn or altered: its checksum or its contents do not fit."""


class IncompatibleError(MetaImproveError, ValueError):
  """Things that do not fit together: an operator and a family, a run folder and its settings, two format versions."""


class ExperienceError(IncompatibleError):
  """Experience that cannot be read: wrong shapes, numbers that are not finite, actions out of range, no steps."""


class NonFiniteSimulationError(MetaImproveError, FloatingPointError):
  """A simulation that blew up in more episodes than can be left out."""


class NonFinitePolicyError(MetaImproveError, FloatingPointError):
  """A policy of an operator that has infinite or undefined parameters."""


class NonFiniteLossError(MetaImproveError, FloatingPointError):
  """A training whose loss has become infinite or undefined."""


class WaitingError(MetaImproveError, TimeoutError):
  """Another process has not done in time what this one waits for."""


class NoScoreError(MetaImproveError):
  """An evaluation in which no task has a score, so that nothing can be said."""
