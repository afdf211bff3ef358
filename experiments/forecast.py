"""What a run will take, said before it begins: roughly, from what was measured on two cores (docs/task_suite.md)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from metaimprove import policies
from metaimprove.histories.collect import NUM_CANDIDATES, NUM_MEASURED
from metaimprove.improvers.source import Source
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.memory import first_memory
from metaimprove.policies import Policy
from metaimprove.rollouts import rollout
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Trajectory

_LEARNING_RATES = {
  'reacher': 15_000, 'half_cheetah': 7_000, 'hopper': 12_000, 'walker': 9_000, 'ant': 8_000, 'humanoid': 3_000,
  'inverted_pendulum': 12_000, 'pusher': 8_000, 'point': 40_000,
}
"""Environment steps a second of PPO on the default backend of a robot, on two cores."""
_PLAYING = 4.3
"""Playing without learning is so many times as fast."""
_REMEMBERED_STEP_SECONDS = 1.75e-4
"""A gradient step, for each step that a memory has room for."""
_COMPILING_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Forecast:
  """What a run will take.

  Attributes:
    minutes: on two cores; None where the speed of the family was not measured.
    megabytes: on disk while it runs.
    megabytes_kept: when it is done.
  """

  minutes: float | None
  megabytes: float
  megabytes_kept: float

  def __str__(self) -> str:
    time = 'a time that was not measured' if self.minutes is None else f'roughly {self.minutes:.0f} minutes'
    return (
      f'This will take {time} on two cores, and about {self.megabytes:,.0f} MB on disk, of which '
      f'{self.megabytes_kept:,.0f} MB are kept.'
    )


def forecast(
  family: TaskFamily, *, learning: dict[Source, int], num_histories: int, num_checkpoints: int, history_episodes: int,
  num_episodes: int, num_steps: int, iterates: int, num_judged: int, num_seeds: int = 1,
) -> Forecast:
  """What collecting, training and judging will take.

  Args:
    family: the task family.
    learning: sources and how many learners each has.
    num_histories: to record.
    num_checkpoints: levels of a history.
    history_episodes: of each level.
    num_episodes: of each iterate, in training and in judging.
    num_steps: gradient steps.
    iterates: policies that training plays and stores.
    num_judged: how many policies the evaluation plays.
    num_seeds: how often all that.
  """
  learned = sum(source.num_updates * source.env_steps_per_update * num for source, num in learning.items())
  recorded, measured = num_histories * num_checkpoints, num_histories * max(NUM_CANDIDATES, num_checkpoints)
  episodes = measured * max(NUM_MEASURED, history_episodes) + (iterates + num_judged) * num_episodes
  played = episodes * family.episode_length
  rate = next((rate for robot, rate in _LEARNING_RATES.items() if family.name.startswith(robot)), None)
  config = OperatorConfig.of(family, num_episodes=num_episodes)
  gradient_step = _REMEMBERED_STEP_SECONDS * config.capacity * min(config.steps_kept, family.episode_length)
  seconds = None
  if rate is not None:
    seconds = (learned + played / _PLAYING) / rate + num_steps * gradient_step + _COMPILING_SECONDS
  kept = num_seeds * recorded * _bytes_of_a_policy(family, history_episodes) / 1e6
  return Forecast(
    minutes=None if seconds is None else num_seeds * seconds / 60,
    # The iterates of a seed are deleted before the next one begins.
    megabytes=kept + iterates * _bytes_of_an_iterate(family, num_episodes) / 1e6, megabytes_kept=kept,
  )


def _bytes_of_a_policy(family: TaskFamily, num_episodes: int) -> int:
  """Of θ and its experience, as histories store them."""
  return _bytes(family, num_episodes, lambda policy, *experienced: experienced)


def _bytes_of_an_iterate(family: TaskFamily, num_episodes: int) -> int:
  """Of what is remembered of a policy, as rounds store it."""
  steps_kept = OperatorConfig.of(family, num_episodes=num_episodes).steps_kept
  return _bytes(family, num_episodes, functools.partial(first_memory, num_steps=steps_kept))


def _bytes(family: TaskFamily, num_episodes: int, stored: Callable[[Policy, Params, Trajectory], Any]) -> int:
  policy = policies.make_policy(family.observation_size, family.action_size)

  def experienced(rng_key):
    params = policy.init(rng_key)
    trajectory = rollout(family, policy, params, family.sample(rng_key), rng_key, num_episodes=num_episodes)
    return stored(policy, params, trajectory)

  shapes = jax.tree.leaves(jax.eval_shape(experienced, jax.random.key(0)))
  return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in shapes)
