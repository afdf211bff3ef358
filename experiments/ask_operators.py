"""The two operators of `benchmark_asks`, which others use too: trained where they are not there."""

import pathlib

from experiments import ask_methods, stages
from experiments.jobs import Job
from metaimprove.asks import goal, words
from metaimprove.operators.config import OperatorConfig
from metaimprove.tasks.family import TaskFamily


def kinds_of(family: TaskFamily, name: str) -> tuple[str, ...]:
  """What one of both operators understands: 'plain' what suits the family, 'asks' all that the family has."""
  own = OperatorConfig.of(family).asks
  if name == 'plain':
    return own
  has = {goal.NAME: family.achieved is not None, words.NAME: bool(family.properties)}
  return own + ask_methods.OF_NUMBERS + tuple(kind for kind, there in has.items() if there)


def train(job: Job, family: TaskFamily, name: str, seed: int, folder: pathlib.Path) -> pathlib.Path:
  """The folder of one of both operators, trained if it was not."""
  return stages.train_once(
    folder / name, folder / 'histories', family=job.family, backend=job.backend, seed=seed,
    config={'num_episodes': job.num_episodes, 'asks': kinds_of(family, name)}, settings=job.training(),
    num_updates=job.num_updates, explorers_folder=folder / 'explorers', verify=False,
  )
