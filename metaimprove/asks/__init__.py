"""What can be asked of an operator: one file a kind.

To add a kind: write its file with a `Kind`, and add it to `KINDS`, or in code of your own call `register`.
"""

import re
from typing import Any

from metaimprove.asks import augmentation as _augmentation
from metaimprove.asks import explore as _explore
from metaimprove.asks import goal as _goal
from metaimprove.asks import mean_return as _mean_return
from metaimprove.asks import score as _score
from metaimprove.asks import skill as _skill
from metaimprove.asks import steps as _steps
from metaimprove.asks import words as _words
from metaimprove.asks.ask import OWN, SAME, Ask, Kind, Pairs, is_on_level, make_ask, numbers
from metaimprove.errors import UnknownNameError

KINDS: dict[str, Kind] = {kind.NAME: kind.KIND for kind in (
  _steps, _explore, _mean_return, _score, _skill, _goal, _words, _augmentation,
)}
__all__ = [
  'KINDS', 'OWN', 'SAME', 'Ask', 'Kind', 'Pairs', 'ask', 'from_words', 'is_on_level', 'numbers', 'of_levels',
  'register', 'say_all', 'says_all',
]


def register(kind: Kind) -> None:
  """Adds a kind of your own, before operators that understand it are made or loaded; raises `UnknownNameError` for a
  name that is another kind's."""
  if KINDS.get(kind.name, kind) is not kind:
    raise UnknownNameError(f'There is a kind of ask {kind.name!r} already; give yours another name.')
  KINDS[kind.name] = kind


def of_levels() -> tuple[str, ...]:
  """The names of the kinds that describe any level as an answer, worse ones than the policy shown too."""
  return tuple(name for name, kind in KINDS.items() if kind.of_levels)


def say_all() -> tuple[str, ...]:
  """The names of the kinds that say what is wanted even where nothing was tried yet."""
  return tuple(name for name, kind in KINDS.items() if kind.says_all)


def says_all(ask: Ask) -> bool:
  """Whether an ask says what is wanted even where nothing was tried yet."""
  return bool({*ask.given} & {*say_all()})


def ask(**wanted: Any) -> Ask:
  """An ask by its kinds, such as `ask(steps='best')` or `ask(steps=4)`; arrays make a batch of asks.

  Raises:
    UnknownNameError: for a kind or value that does not exist.
  """
  return make_ask(KINDS, wanted)


def from_words(text: str) -> Ask:
  """An ask as it is written on a command line: 'best' or a number of levels, or kinds and values such as
  'score=0.5' or 'steps=best,mean_return=-20'. Words come last: 'steps=best,words=forward slowly, with little effort'.

  Raises:
    UnknownNameError: for a kind or value that does not exist.
  """
  if '=' not in text:
    return ask(steps=text)
  found = re.search(rf'(^|,)\s*{_words.NAME}=', text)
  others, words = (text, None) if found is None else (text[:found.start()], text[found.end():])
  parts = [part.strip().partition('=') for part in others.split(',')] if others.strip() else []
  if not all(equals for _, equals, _ in parts):
    raise UnknownNameError(f"{text!r} is no ask; write 'best', a number of levels, or KIND=VALUE,KIND=VALUE.")
  wanted = {name: value for name, _, value in parts}
  if len(wanted) < len(parts):
    raise UnknownNameError(f'{text!r} names a kind of ask twice.')
  if words is not None and (late := re.search(rf',\s*({"|".join(KINDS)})=', words)):
    raise UnknownNameError(f'Words come last in an ask; write {late[1]}= before {_words.NAME}=.')
  return ask(**wanted, **({} if words is None else {_words.NAME: words}))
