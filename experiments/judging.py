"""Judging methods on tasks of a job: 0 is what random policies get, 1 what the source of its histories does."""

import pathlib
from collections.abc import Sequence

from experiments import console
from experiments.jobs import Job
from metaimprove.evaluation.evaluate import Evaluation, evaluate
from metaimprove.histories.reference import load_conditioned
from metaimprove.methods import controls
from metaimprove.methods.method import Method
from metaimprove.methods.standard import Playground
from metaimprove.policies import Policy
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily


def playground_of(job: Job, family: TaskFamily, policy: Policy) -> Playground:
  """Where policies of a kind act, in as many episodes as the job says."""
  return Playground(
    play=make_play(family, policy, num_episodes=job.num_episodes), num_episodes=job.num_episodes,
    settings=job.evaluation(),
  )


def judge(
  methods: Sequence[Method], job: Job, family: TaskFamily, policy: Policy, playground: Playground,
  histories: pathlib.Path, folder: pathlib.Path, *, seed: int, split: str = 'heldout', stage: str, wall: pathlib.Path,
) -> Evaluation:
  """Judges methods on the tasks of one split.

  Args:
    methods: what is judged.
    job: says how many tasks.
    family: of the tasks.
    policy: of the random policies.
    playground: where these and the reference are measured.
    histories: whose task-conditioned source, told everything, is the reference.
    folder: where curves are kept.
    seed: of the tasks.
    split: of `tasks.splits.SPLITS`.
    stage: what progress calls it.
    wall: where seconds are kept.
  """
  conditioned, learning, _ = load_conditioned(histories, family)
  measure = playground.measure()
  with console.stage(wall, stage) as progress:
    return evaluate(
      methods, family, initial=controls.random_policies(policy, *measure), seed=seed,
      references=[controls.told_everything(conditioned, learning.snapshots[-1], *measure)],
      num_tasks=job.heldout_tasks, folder=folder, splits=(split,), progress=progress,
    )
