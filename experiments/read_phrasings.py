"""How much the reader understands of requests that were written by somebody who knew none of its phrases.

  python -m experiments.read_phrasings
  python -m experiments.read_phrasings --phrasings=experiments/phrasings_validation.json

The requests are in `phrasings.json`: the robot, the text, and which ranges of which properties are meant. Nothing of
the reader is chosen by them; for that there are others, in `phrasings_validation.json`. Prints how much is noticed and
how much is understood, with 95% intervals over requests; `--show` also prints what was misunderstood.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.evaluation.metrics import interval_of
from metaimprove.language import reader
from metaimprove.language.clauses import Clause, Property
from metaimprove.language.grammar import Said
from metaimprove.language.ngrams import letters
from metaimprove.language.properties import HEADING, HEIGHT, PLACE, REACH, SAID_TOGETHER

FLAGS = flags.FLAGS
PATH = pathlib.Path(__file__).parent / 'phrasings.json'
_ROBOTS = {'ant': HEADING, 'reacher': REACH, 'point': PLACE, 'walker': HEIGHT}
"""A property that tells a robot from the others; the cheetah has none of them."""

if __name__ == '__main__':
  flags.DEFINE_string('phrasings', str(PATH), 'The requests.')
  flags.DEFINE_bool('show', False, 'Print what was misunderstood of which request.')


@dataclasses.dataclass(frozen=True)
class Phrasing:
  """A request that somebody wrote.

  Attributes:
    text: of it.
    properties: that its robot has.
    said: what is meant by it.
  """

  text: str
  properties: tuple[Property, ...]
  said: tuple[Said, ...]


def properties_of(robot: str) -> tuple[Property, ...]:
  """That a robot has."""
  own = _ROBOTS.get(robot)
  return next(
    together for together in SAID_TOGETHER if (own in together if own else not set(_ROBOTS.values()) & set(together))
  )


def read_phrasings(path: pathlib.Path) -> list[Phrasing]:
  """Those of a file."""
  found = []
  for one in files.read_json(path):
    properties = properties_of(one['robot'])
    named = {of.name: of for of in properties}
    found.append(Phrasing(text=one['text'], properties=properties, said=tuple(
      _said(named[said['property']], said['low'], said['high'], one['text']) for said in one['said']
    )))
  return found


def _said(of: Property, low: float | None, high: float | None, text: str) -> Said:
  """A clause that means a range."""
  clause = Clause(-np.inf if low is None else low, np.inf if high is None else high, (text,))
  return Said(property=of, clause=clause, index=None, value=of.middle(clause), text=text)


def tallies(phrasings: Sequence[Phrasing]) -> tuple[np.ndarray, list[str]]:
  """What the reader makes of each.

  Returns:
    [N, 5] int: clauses, those whose property is noticed, those of which also what is meant is right, properties that
    are not spoken of, and those that are taken to be; and what is misunderstood of each, '' for nothing.
  """
  found = jax.device_get(jax.jit(jax.vmap(reader.meaning))(np.stack([letters(one.text) for one in phrasings])))
  rows, wrong = [], []
  for n, one in enumerate(phrasings):
    noticed, right = np.array(reader.errors([one.said], jax.tree.map(lambda x: x[n:n + 1], found))).T
    spoken = {said.property for said in one.said}
    understood = reader.understood(one.properties, one.text)
    others = [of for of in understood if of.property not in spoken]
    rows.append((
      len(one.said), noticed.sum(), (noticed & right).sum(), len(one.properties) - len(spoken), len(others)
    ))
    missed = [f'{said.property.name} is missed' for said, known in zip(one.said, noticed) if not known]
    taken = [f'taken for {of.words()}' for of in understood if of in others or not all(
      said.holds(np.float64(of.value)) for said in one.said if said.property is of.property
    )]
    wrong.append('; '.join(missed + taken))
  return np.array(rows), wrong


def share(counts: np.ndarray, part: int, whole: int) -> str:
  """One column of tallies [N, 5] in another one, with its interval over rows."""
  def figure(strata):
    return strata[0][part].sum() / max(strata[0][whole].sum(), 1)

  low, high = interval_of(figure, [counts.T])
  return f'{figure([counts.T]):.3f} [{low:.3f}, {high:.3f}]'


def main() -> None:
  """Prints a line for each kind of request."""
  phrasings = read_phrasings(pathlib.Path(FLAGS.phrasings))
  counts, wrong = tallies(phrasings)
  has_digit = np.array([any(letter.isdigit() for letter in one.text) for one in phrasings])
  clauses = counts[:, 0]
  groups = {
    'all': clauses > 0, 'without digits': ~has_digit, 'with digits': has_digit, 'of one property': clauses == 1,
    'of two': clauses == 2, 'of three': clauses == 3,
  }
  print(f'{"requests":18s}{"":5s}{"noticed":>22s}{"right as well":>22s}{"others taken as said":>24s}{"no error":>10s}')
  for name, rows in groups.items():
    if rows.any():
      of, whole = counts[rows], np.mean([not text for text, row in zip(wrong, rows) if row])
      print(f'{name:18s}{rows.sum():5d}{share(of, 1, 0):>22s}{share(of, 2, 0):>22s}{share(of, 4, 3):>24s}{whole:10.3f}')
  if FLAGS.show:
    for one, text in zip(phrasings, wrong):
      if text:
        print(f'{one.text!r}: {text}')


if __name__ == '__main__':
  console.launch(main)
