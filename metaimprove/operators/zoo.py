"""Trained operators that come with the package, each with a card: what it learned from, and how good it is.

`experiments.add_to_zoo` puts one there.
"""

import pathlib
from typing import Any

from metaimprove import files
from metaimprove.errors import UnknownNameError

FOLDER = pathlib.Path(__file__).with_name('trained')
CARD = 'card.json'


def zoo_names() -> tuple[str, ...]:
  """The operators there are, named after the family they were trained on."""
  return tuple(sorted(path.parent.name for path in FOLDER.glob(f'*/{CARD}')))


def zoo_folder(name: str) -> pathlib.Path:
  """The folder of an operator, for `load_operator`; raises `UnknownNameError` for one that does not exist."""
  if name not in zoo_names():
    raise UnknownNameError(f'There is no trained operator {name!r}; choose among: {", ".join(zoo_names())}.')
  return FOLDER / name


def zoo_card(name: str) -> dict[str, Any]:
  """What is to be known of an operator.

  Returns:
    {'family', 'backend', 'seed', 'command': that makes it and judges it, 'licence', 'training_env_steps': stage ->
    environment steps, 'versions', 'num_seeds' and 'heldout_tasks': of the figures, which are of operators of several
    seeds together, of which this one is the first, 'episodes': [P] used before each point, 'normalised_return', 'far':
    see `evaluation.results.Results`, 'controls': name -> the last IQM, 'need', 'first_tasks': 'initial' and 'reference'
    [64], the returns on the first held-out tasks that stand for 0 and 1}.

  Raises:
    UnknownNameError: for one that does not exist.
  """
  return files.read_json(zoo_folder(name) / CARD)
