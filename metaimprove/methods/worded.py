"""Asks in words: sentences that are true of stored policies, and how much of what was said the answers do."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from metaimprove import asks
from metaimprove.asks import Ask
from metaimprove.histories.dataset import Dataset
from metaimprove.language.clauses import Property, is_kept_out
from metaimprove.language.grammar import Said, is_new_pair, joined, may_train, say
from metaimprove.methods.asked import Judge
from metaimprove.rng import generator
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.hindsight import measured
from metaimprove.types import Trajectory

GROUPS = ('known words', 'new words', 'new pairs', 'new numbers', 'goals')
"""Sentences such as in training; with ways of saying a thing, pairs of things, and numbers that training never has; and
sentences about what a goal says too, so that the same can be asked for as a goal in numbers."""
_OF_GOALS = {'heading', 'side', 'distance'}
_SAME = 0.05
"""A property that is the achieved goal itself, but for so much, is one of them too."""
_MOST_DRAWS = 200
"""For each sentence; where none is found there are no such sentences on a family."""


@dataclasses.dataclass(frozen=True)
class Questions:
  """A sentence for each of B tasks.

  Attributes:
    said: the clauses of each.
    texts: the sentences.
    goals: [B, G] what the stored policies achieved of which they are true; None where that is not known.
  """

  said: tuple[tuple[Said, ...], ...]
  texts: tuple[str, ...]
  goals: np.ndarray | None

  def clauses(self) -> list[list[str]]:
    """What is meant by each sentence, as plain data."""
    return [[f'{one.property.name} {one.clause.low:g} {one.clause.high:g}' for one in said] for said in self.said]

  def ask(self, shift: int = 0) -> Ask:
    """The asks [B]; with a `shift` each task is asked another one's."""
    return asks.ask(words=np.roll(self.texts, shift))

  def in_numbers(self) -> Ask:
    """The asks [B] for the same goals in numbers."""
    return asks.ask(goal=self.goals)


def questions(dataset: Dataset, group: str, num: int, seed: int) -> Questions | None:
  """Sentences of a group of `GROUPS`, each true of some stored policy; None if the family has no such sentences.

  Args:
    dataset: the histories, see `with_hindsight`.
    group: of the sentences.
    num: B.
    seed: of what is drawn.
  """
  rng, found, goals = generator(seed, f'questions {group}'), [], []
  of_goals = [index for index, of in enumerate(dataset.properties) if _says_goal(dataset, index, of)]
  for _ in range(num * _MOST_DRAWS):
    row = rng.integers(dataset.num_histories), rng.integers(dataset.num_checkpoints)
    said = _clauses(dataset.properties, of_goals, dataset.measured[row], group, rng)
    if said:
      found.append(tuple(said))
      goals.append(None if dataset.achieved is None else dataset.achieved[row])
    if len(found) == num:
      return Questions(
        said=tuple(found), texts=tuple(joined(one, rng) for one in found),
        goals=None if dataset.achieved is None else np.stack(goals),
      )
  return None


def _says_goal(dataset: Dataset, index: int, of: Property) -> bool:
  """Whether a goal determines a property."""
  if dataset.achieved is None or of.name in _OF_GOALS:
    return dataset.achieved is not None
  goals, values = dataset.achieved, dataset.measured[..., index]
  return goals.shape[-1] == 1 and bool(np.nanmax(np.abs(goals[..., 0] - values)) < _SAME)


def _clauses(
  properties: Sequence[Property], of_goals: Sequence[int], values: np.ndarray, group: str, rng: np.random.Generator
) -> list[Said]:
  """One or two clauses that are true of measured values; none where the group has no such."""
  usable = list(range(len(properties))) if group != 'goals' else of_goals
  if group == 'new numbers':
    usable = [index for index in usable if properties[index].number is not None]
  said = []
  for index in rng.permutation(usable)[:1 if group == 'new numbers' else 2]:
    number = {'new numbers': True, 'new pairs': False}.get(group)
    new = say(properties[index], values[index], rng, 'new' if group == 'new words' else 'seen', number)
    if new is not None and (group in ('new pairs', 'new numbers') or may_train(said, new)):
      said.append(new)
  if group == 'new pairs':
    return said if len(said) == 2 and is_new_pair(*said) else []
  if group == 'new numbers':
    return [one for one in said if is_kept_out(one.property.numeral(one.value))]
  return said


def judge_of(family: TaskFamily, asked: Sequence[Questions]) -> Judge:
  """Judges the answers to each of several questions: how much of what was said is true of what they do."""
  measure, names = jax.jit(jax.vmap(functools.partial(measured, family))), [of.name for of in family.properties]

  def judge(index: int, trajectory: Trajectory) -> np.ndarray:
    return share_true(asked[index].said, names, np.asarray(measure(trajectory)))

  return judge


def share_true(said: Sequence[Sequence[Said]], names: Sequence[str], values: np.ndarray) -> np.ndarray:
  """[B], how many of the clauses that were said to each of B policies are true of its measured values [B, P] of the
  properties with these names."""
  return np.array([
    np.mean([one.holds(row[names.index(one.property.name)]) for one in clauses]) for clauses, row in zip(said, values)
  ])
