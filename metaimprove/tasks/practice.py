"""Practice with a dense reward, for sources that are told the goal of a family whose own reward is sparse."""

import dataclasses

import chex

from metaimprove.tasks.family import State, TaskFamily
from metaimprove.types import Task


def practice_family(family: TaskFamily) -> TaskFamily:
  """The family with its `practice_reward` as reward; the family itself where it has none.

  Only a learner that is told the goal may practise on it: the dense reward tells where the goal is. Nothing that is
  stored or reported comes from there, except the learner's own curve, by which candidates are put in order.
  """
  dense = family.practice_reward
  if dense is None:
    return family

  def step(task: Task, state: State, action: chex.Array) -> State:
    after = family.step(task, state, action)
    return after.replace(reward=dense(task.goal, after.outcome, action))

  return dataclasses.replace(family, step=step, reward=dense, practice_reward=None)
