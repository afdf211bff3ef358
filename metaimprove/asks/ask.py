"""An ask: what is wanted of the next policy, as a description of what was in fact achieved.

Training draws a pair first, a policy that is shown and a policy that is the answer, and then describes that pair. Each
kind of description has a file of its own. An ask holds any of them, each with a mask that says whether it is given, so
that any combination can be asked for ("Just Ask for Generalization", Jang, 2021).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.language.clauses import Property

SAME = -2
"""The target of a pair whose answer is the very policy that is shown."""
OWN = -3
"""The target of a pair whose answer is what an operator gave in a run of its own; it is on no level."""


@chex.dataclass(frozen=True)
class Ask:
  """What is wanted of the next policy; leading batch axes as everywhere.

  Attributes:
    values: kind -> its value, of the shape and type that the kind has.
    given: kind -> [] bool, whether it counts. A value that is not given is never read.
  """

  values: Mapping[str, chex.Array]
  given: Mapping[str, chex.Array]


@chex.dataclass(frozen=True)
class Pairs:
  """B pairs of policies of improvement histories: the one that is shown, and the one that is the answer.

  Attributes:
    level: [B] int, which level of its history the policy shown is, or is nearest to in return.
    target: [B] int, the level that is the answer; `SAME`: the policy shown is itself the answer; `OWN`: it is what an
      operator gave.
    rank: [B, N + 1] int, how many different policies come before each level of the history: levels that are one policy
      have the same rank, and those of the highest rank are the best policy.
    returns: [B, N + 1] measured mean return of each level of the history.
    size_shares: how often each size of `steps.SIZES` is drawn, by which the pairs were chosen.
    gain: [B] what the answer led to in a run, see `explore.gain`; NaN where that is not known.
    achieved: [B, G] the goal that the answer achieved in hindsight; NaN where that is not known.
    properties: P things that are measured of an episode; see `language`.
    measured: [B, P] these of the answer; NaN where that is not known.
  """

  level: np.ndarray
  target: np.ndarray
  rank: np.ndarray
  returns: np.ndarray
  size_shares: tuple[float, ...]
  gain: np.ndarray
  achieved: np.ndarray
  properties: tuple[Property, ...]
  measured: np.ndarray

  def of_target(self, levels: np.ndarray) -> np.ndarray:
    """[B], of values of all levels [B, N + 1] that of the answer; any where the answer is on no level."""
    return np.take_along_axis(levels, np.maximum(self.target, 0)[:, None], axis=1)[:, 0]


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of description.

  Attributes:
    name: as it is called in an `Ask` and in `OperatorConfig`.
    value: (given by the user: a number, a word, an array) -> array; raises `UnknownNameError` for what is none.
    words: (value []) -> str, as it is shown and written on a command line; the inverse of `value`.
    num_features: F.
    features: (value []) -> [F] float32 of order 1, what an operator reads.
    describe: (pairs, numpy generator) -> values [B], a true description of each pair; one of them at random, where
      several are true.
    is_known: (pairs) -> [B] bool, for which pairs there is a true description of this kind.
    ndim: number of axes of a value: 0 for a number, 1 for several.
    of_levels: whether it describes any level as an answer, worse ones than the policy shown too.
    says_all: whether it says what is wanted even where nothing was tried yet.
    nothing: of a kind that does not say which policy is wanted, the value that is the same as not giving it; None for
      all others.
  """

  name: str
  value: Callable[[Any], np.ndarray]
  words: Callable[[Any], str]
  num_features: int
  features: Callable[[chex.Array], chex.Array]
  describe: Callable[[Pairs, np.random.Generator], np.ndarray]
  is_known: Callable[[Pairs], np.ndarray]
  ndim: int = 0
  of_levels: bool = False
  says_all: bool = False
  nothing: int | None = None


def is_on_level(pairs: Pairs) -> np.ndarray:
  """[B] bool, whether the answer is a level of its history, of which all was measured."""
  return pairs.target >= 0


def numbers(given: Any, low: float, high: float, what: str) -> np.ndarray:
  """A number, its text, or an array of numbers, float32; raises `UnknownNameError`, that says `what` it should be, for
  what is none from `low` to `high`."""
  try:
    array = np.asarray(float(given) if isinstance(given, str) else given, np.float32)
  except (TypeError, ValueError):
    array = np.float32('nan')
  if not ((low <= array) & (array <= high)).all():
    raise UnknownNameError(f'{what}, not {given!r}.')
  return array


def bumps(number: chex.Array, centres: np.ndarray) -> chex.Array:
  """[] to [len(centres)] float32: how near it is to each of the evenly spaced centres, so that near numbers can be told
  apart."""
  width = centres[1] - centres[0]
  return jnp.exp(-jnp.square((number - centres) / width)).astype(jnp.float32)


def make_ask(kinds: Mapping[str, Kind], wanted: Mapping[str, Any]) -> Ask:
  """An ask for what is `wanted`, kind -> value; raises `UnknownNameError` for a kind that does not exist."""
  for name in wanted:
    if name not in kinds:
      raise UnknownNameError(f'There is no kind of ask {name!r}; choose among: {", ".join(kinds)}.')
  saying = [name for name, kind in kinds.items() if kind.nothing is None]
  if not {*wanted} & {*saying}:
    raise UnknownNameError(f'An ask must say what is wanted, by one or more of: {", ".join(saying)}.')
  values = {name: kinds[name].value(value) for name, value in wanted.items()}
  return Ask(values=values, given={name: _is_given(kinds[name], value) for name, value in values.items()})


def _is_given(kind: Kind, value: np.ndarray) -> np.ndarray:
  """[...] bool, of values [...] of a kind those that count."""
  given = np.ones(np.shape(value)[:np.ndim(value) - kind.ndim], bool)
  return given if kind.nothing is None else given & (value != kind.nothing)


def batched(ask: Ask, num: int) -> Ask:
  """Asks [num] from one ask or so many."""
  def spread(value, given):
    return jnp.broadcast_to(value, (num, *jnp.shape(value)[jnp.ndim(given):]))

  return Ask(
    values={name: spread(value, ask.given[name]) for name, value in ask.values.items()},
    given={name: spread(given, given) for name, given in ask.given.items()},
  )


def describe(kinds: Mapping[str, Kind], names: Sequence[str], pairs: Pairs, rng: np.random.Generator) -> Ask:
  """Asks [B] that describe pairs truly, by those of the kinds named that can."""
  values = {name: kinds[name].describe(pairs, rng) for name in names}
  return Ask(values=values, given={name: kinds[name].is_known(pairs) for name in names})


def drop(ask: Ask, rate: float, rng: np.random.Generator) -> Ask:
  """Asks [B] in which kinds are left out, so that asks for fewer kinds are learned too.

  In half of the asks for several kinds one of them stays alone, for so are most asks of users; in the others each is
  left out with probability `rate`, but for one at random, which stays.
  """
  names = list(ask.given)
  given = np.stack([ask.given[name] for name in names])
  stays = np.where(given, rng.random(given.shape), -1).argmax(axis=0) == np.arange(len(names))[:, None]
  kept = given & ((rng.random(given.shape) >= rate) | stays)
  if (given.sum(axis=0) > 1).any():
    kept &= stays | (rng.random(given.shape[1]) < 0.5)
  return Ask(values=ask.values, given=dict(zip(names, kept)))


def num_features(kinds: Mapping[str, Kind], names: Sequence[str]) -> int:
  """The size of `features` for the kinds named."""
  return sum(1 + kinds[name].num_features for name in names)


def features(kinds: Mapping[str, Kind], names: Sequence[str], ask: Ask) -> chex.Array:
  """What an operator that understands the kinds named reads of an ask: [num_features] float32, for each kind whether it
  is given, and if so its features, else zeros.

  Raises:
    IncompatibleError: if the ask holds a kind that is not named.
  """
  for name in ask.values:
    if name not in names:
      raise IncompatibleError(
        f'This operator does not understand an ask for {name!r}; it understands: {", ".join(names)}.'
      )
  parts = []
  for name in names:
    if name in ask.values:
      given = jnp.asarray(ask.given[name])
      parts += [given[None], jnp.where(given, kinds[name].features(jnp.asarray(ask.values[name])), 0.0)]
    else:
      parts.append(jnp.zeros(1 + kinds[name].num_features))
  return jnp.concatenate([part.astype(jnp.float32) for part in parts])
