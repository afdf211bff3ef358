"""Cloning of the experience: the next policy imitates what the last one did, again and again.

Behaviour cloning (Pomerleau, "ALVINN", NeurIPS 1988) of a task's own experience: what imitation gives by itself, with
no knowledge of which of two policies is better. There is nothing to learn beforehand. Unlike an operator it optimises
at test time, by likelihood.

Where it departs from the paper: who is cloned is no expert, but the clone before, and at first a random policy.
"""

import chex

from metaimprove.methods.baseline import Baseline, Lessons
from metaimprove.methods.imitation import cloned
from metaimprove.methods.method import Curve, Method
from metaimprove.methods.operator import iterated_curve
from metaimprove.types import Params, Play, Progress, Task, Trajectory

NAME, TITLE = 'cloned_experience', 'its own experience, cloned'


def cloned_experience(lessons: Lessons, play: Play) -> Baseline:
  """The baseline; `play` makes the experience of `config.num_episodes` episodes."""
  policy, num_episodes = lessons.dataset.policy, lessons.config.num_episodes
  settings = {'num_applications': lessons.num_applications, 'num_episodes': num_episodes}

  def improve(params: Params, latest: Trajectory, rng_key: chex.PRNGKey) -> Params:
    return cloned(policy, latest, rng_key)

  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    return iterated_curve(
      improve, lambda memory, params, latest: latest, play, policy, tasks, rng_key,
      num_applications=lessons.num_applications, num_episodes=num_episodes, title=TITLE, progress=progress,
    )

  return Baseline(
    method=Method(name=NAME, title=TITLE, run=run, settings=settings), train=lambda progress: {}, acting=None,
  )
