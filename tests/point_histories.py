"""Histories of the point family by both PPO sources, in a few seconds."""

from types import ModuleType

import pytest

from metaimprove import policies
from metaimprove.histories.collect import collect
from metaimprove.improvers import tuned
from metaimprove.improvers.independent_ppo import independent_ppo
from metaimprove.improvers.ppo import PPOSettings
from metaimprove.improvers.task_conditioned_ppo import task_conditioned_ppo
from metaimprove.tasks.family import TaskFamily

HIDDEN_SIZES = (8,)
PPO = PPOSettings(
  num_envs=16, unroll_length=4, num_epochs=2, num_minibatches=4, learning_rate=1e-2, reward_scaling=1.0,
  value_hidden_sizes=(16,),
)


def make_sources(family):
  """Both PPO sources on the point family, with the number of tasks each serves."""
  return [
    (task_conditioned_ppo(family, PPO, 30, HIDDEN_SIZES), 6),
    (independent_ppo(family, PPO, 20, HIDDEN_SIZES), 4),
  ]


def collect_point_histories(folder, family, source_list=None, **changes):
  arguments = {
    'seed': 0, 'num_checkpoints': 4, 'num_episodes': 2, 'num_candidates': 6, 'num_measured': 3, 'shard_size': 4,
    'hidden_sizes': HIDDEN_SIZES,
  }
  return collect(folder, family, source_list or make_sources(family), **{**arguments, **changes})


def use_small_family(monkeypatch: pytest.MonkeyPatch, family: TaskFamily, *modules: ModuleType) -> None:
  """Binaries make this family, whatever its name, and its source learns for a few updates."""
  def make_source(name, family, hidden_sizes=policies.HIDDEN_SIZES, num_updates=None, patience=None):
    return task_conditioned_ppo(family, PPO, num_updates or 12, hidden_sizes)

  for module in modules:
    monkeypatch.setattr(module, 'make_family', lambda *_: family)
  monkeypatch.setattr(tuned, 'make_source', make_source)
