"""What can be asked of an operator: one file a kind.

To add a kind: write its file with a `Kind`, and add it to `KINDS`.
"""

from collections.abc import Mapping
from typing import Any

from metaimprove.asks import explore as _explore
from metaimprove.asks import steps as _steps
from metaimprove.asks.ask import OWN, SAME, Ask, Kind, Pairs, make_ask

KINDS: Mapping[str, Kind] = {kind.NAME: kind.KIND for kind in (_steps, _explore)}

__all__ = ['KINDS', 'OWN', 'SAME', 'Ask', 'Kind', 'Pairs', 'ask']


def ask(**wanted: Any) -> Ask:
  """An ask by its kinds, such as `ask(steps='best')` or `ask(steps=4)`; arrays make a batch of asks.

  Raises:
    UnknownNameError: for a kind or value that does not exist.
  """
  return make_ask(KINDS, wanted)
