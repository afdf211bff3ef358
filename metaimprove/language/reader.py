"""Reads texts: of each standard property whether it is spoken of, and which number is meant.

A small network on hashed strings of letters. It has learned from sentences of the grammar alone, by
`python -m experiments.train_reader`, and comes with the package; operators read what it gives.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files
from metaimprove.language.clauses import Property
from metaimprove.language.grammar import Said
from metaimprove.language.ngrams import counts, letters
from metaimprove.language.properties import STANDARD
from metaimprove.language.ways import WAYS
from metaimprove.types import Params

PATH = pathlib.Path(__file__).parent / 'reader.safetensors'
_HIDDEN = 128, 128
_SCALE = 16.0
"""Counts of a text have length 1 over hundreds of numbers; so they are of order 1."""
_SPOKEN = 0.5
"""What is more likely spoken of than this, is."""
_TURNS = (2.0, 6.0)
"""Numbers are also given as sines and cosines of so many times themselves, so that near ones can be told apart."""


@chex.dataclass(frozen=True)
class Meaning:
  """What is meant by a text; N properties.

  Attributes:
    spoken: [..., N] from 0 to 1, how likely each is spoken of.
    number: [..., N, 2] what is meant: from -1 to 1 within the property's span, and 0; of an angle cosine and sine.
  """

  spoken: chex.Array
  number: chex.Array


def network(found: chex.Array, kept: chex.Array | float = 1.0) -> Meaning:
  """[LONGEST] letters of a text to its meaning, `spoken` as logits; to be called inside a Haiku transform. In training
  some counts are not `kept` [SIZE], for new words have strings of letters that are new."""
  hidden = hk.nets.MLP(_HIDDEN, activation=jax.nn.swish, activate_final=True)(_SCALE * counts(found) * kept)
  output = hk.Linear(3 * len(STANDARD))(hidden).reshape(len(STANDARD), 3)
  return Meaning(spoken=output[:, 0], number=output[:, 1:])


TRANSFORMED = hk.without_apply_rng(hk.transform(network))


def number_of(of: Property, value: float) -> np.ndarray:
  """[2], a value as `Meaning.number` has it."""
  if of.period is not None:
    turn = 2 * np.pi * value / of.period
    return np.array([np.cos(turn), np.sin(turn)], np.float32)
  low, high = of.span
  return np.array([np.clip(2 * (value - low) / (high - low) - 1, -1.2, 1.2), 0.0], np.float32)


def value_of(of: Property, number: np.ndarray) -> float:
  """The inverse of `number_of`."""
  if of.period is not None:
    return float(np.arctan2(number[1], number[0]) / (2 * np.pi) * of.period % of.period)
  low, high = of.span
  return float(low + (number[0] + 1) / 2 * (high - low))


@functools.cache
def params() -> Params:
  """The parameters that come with the package."""
  like = jax.eval_shape(TRANSFORMED.init, jax.random.key(0), jnp.zeros(letters('').shape, jnp.uint8))
  return files.load_tree(PATH, jax.tree.map(lambda _: None, like))


def meaning(found: chex.Array) -> Meaning:
  """What the letters [LONGEST] of a text mean; nothing, where there is no text."""
  read = TRANSFORMED.apply(params(), found)
  return Meaning(spoken=jax.nn.sigmoid(read.spoken) * (found > 0).any(), number=read.number)


def made_with(properties: Sequence[Property]) -> dict[str, Any]:
  """Plain data that determines what is said of properties and how it is read."""
  said = [[of.name, [[clause.low, clause.high, *clause.ways] for clause in of.clauses],
           None if of.number is None else list(of.number.ways)] for of in properties]
  return {'said': files.checksum(json.dumps(said).encode()), 'reader': files.checksum(PATH.read_bytes())}


NUM_FEATURES = len(STANDARD) * (3 + 4 * len(_TURNS))


def features(found: chex.Array) -> chex.Array:
  """[NUM_FEATURES] float32 of the letters [LONGEST] of a text, for a network; zeros for what is not spoken of."""
  read = meaning(found)
  turned = [function(turns * read.number) for turns in _TURNS for function in (jnp.sin, jnp.cos)]
  parts = jnp.concatenate([jnp.ones((len(STANDARD), 1)), read.number, *turned], axis=-1)
  return (parts * read.spoken[:, None]).reshape(-1)


@dataclasses.dataclass(frozen=True)
class Understood:
  """What is understood of one property: which, and the number that is meant."""

  property: Property
  value: float

  def words(self) -> str:
    index = self.property.clause_of(self.value)
    return f'{self.property.name} {self.value:.3g}' + (
      '' if index is None else f' ({self.property.clauses[index].ways[0]})'
    )


def understood(properties: Sequence[Property], text: str) -> list[Understood]:
  """What a text says of the properties that a family has."""
  read = jax.device_get(meaning(letters(text)))
  known = [(STANDARD.index(of), of) for of in properties if of in STANDARD]
  return [Understood(of, value_of(of, read.number[n])) for n, of in known if read.spoken[n] > _SPOKEN]


def unknown_words(properties: Sequence[Property], text: str) -> list[str]:
  """The words of a text that neither say something of the properties nor stand around what does, but for short ones and
  numbers."""
  ways = [way for of in properties for clause in of.clauses for way in clause.ways[:-1]]  # the last one is not learned
  ways += [way for of in properties if of.number is not None for way in of.number.ways[:-1]]
  ways += [way for around in ('leads', 'before', 'after') for way in WAYS[around]]
  known = {word.strip(',.') for way in ways for word in way.split()}
  words = [word.strip(',.') for word in text.lower().split()]
  return [word for word in words if len(word) > 3 and word.isalpha() and word not in known and word not in _EMPTY]


_EMPTY = {'about', 'walk', 'with', 'seven'}
"""Words that say nothing by themselves."""


def errors(said: Sequence[Sequence[Said]], found: Meaning) -> list[tuple[bool, bool]]:
  """For each clause of some texts, whether it is known that its property is spoken of, and whether its number is right:
  within what the clause means."""
  result = []
  for row, clauses in enumerate(said):
    for one in clauses:
      index = STANDARD.index(one.property)
      value = value_of(one.property, found.number[row, index])
      result.append((bool(found.spoken[row, index] > _SPOKEN), bool(one.holds(np.float64(value)))))
  return result
