"""What a baseline is: a method that first learns from what an operator learns from, with about as many parameters."""

import bisect
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import chex
import jax
import numpy as np

from metaimprove.histories.dataset import Dataset
from metaimprove.methods.method import Method
from metaimprove.operators.config import OperatorConfig
from metaimprove.tasks.family import TaskFamily
from metaimprove.training.fit import FitSettings
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Params, Progress


@dataclasses.dataclass(frozen=True)
class Lessons:
  """What a supervised baseline learns from, and as what it is judged: the same for all of them.

  Attributes:
    family: the task family.
    dataset: the histories that the operator learns from.
    histories: those to train on; the operator's validation histories are not among them.
    config: of the operator that a baseline stands beside: its sizes, its episodes before each application.
    num_params: of that operator; a baseline has as many within a tenth.
    settings: how it learns: steps, batch size, learning rate.
    num_states: states of one of a batch at which it is told what is right, as of an operator's examples.
    seed: of the training.
    folder: for its states; each baseline has one of its own in it.
    num_applications: a curve has one more points.
  """

  family: TaskFamily
  dataset: Dataset
  histories: np.ndarray
  config: OperatorConfig
  num_params: int
  settings: FitSettings
  seed: int
  folder: pathlib.Path
  num_applications: int
  num_states: int = TrainingSettings.num_states


class Train(Protocol):
  """The parameters; a training that was stopped goes on, one that is done is only read."""

  def __call__(self, progress: Progress, /) -> Params: ...


@dataclasses.dataclass(frozen=True)
class Acting:
  """How B agents act, each on its own task; for timing. What they remember has its full size from the first step on.

  Attributes:
    begin: (params, B) -> what they remember.
    step: (params, what they remember, observations [B, O]) -> actions [B, A].
    between: (params, what they remember) -> what they remember when an episode has ended; None: nothing happens then.
  """

  begin: Callable[[Params, int], Any]
  step: Callable[[Params, Any, chex.Array], chex.Array]
  between: Callable[[Params, Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Baseline:
  """A baseline.

  Attributes:
    method: what is judged; it trains where that was not done.
    train: see there.
    acting: see there; None where it acts by policies of the kind that operators emit.
    env_steps: that it took besides the histories.
    examples_a_step: of learning: states of which it is told what is right; None where it learns in another way.
  """

  method: Method
  train: Train
  acting: Acting | None
  env_steps: int = 0
  examples_a_step: int | None = None


def examples_a_step(lessons: Lessons) -> int:
  """Of a baseline that learns from batches of these lessons."""
  return lessons.settings.batch_size * lessons.num_states


def count_params(params: Params) -> int:
  """How many numbers there are in a tree."""
  return sum(int(np.prod(np.shape(x))) for x in jax.tree.leaves(params))


def matched_size(num_params_of: Callable[[int], int], num_params: int, sizes: Sequence[int]) -> int:
  """Of rising sizes the one with which a network, which grows with it, comes nearest to a number of parameters."""
  above = bisect.bisect_left(sizes, num_params, key=num_params_of)
  around = sizes[max(0, above - 1):above + 1]
  return min(around, key=lambda size: abs(num_params_of(size) - num_params))


def in_contexts(lessons: Lessons, num_states: int) -> Lessons:
  """Lessons whose batches are of contexts that tell what is right at so many states each, at about as many in all.

  They are an even number of contexts, so that two devices can share them.
  """
  size = 2 * max(1, round(lessons.settings.batch_size * lessons.num_states / num_states / 2))
  settings = dataclasses.replace(lessons.settings, batch_size=size)
  return dataclasses.replace(lessons, settings=settings, num_states=num_states)
