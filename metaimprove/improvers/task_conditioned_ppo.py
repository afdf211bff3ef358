"""One PPO learner that is told the task: its checkpoints, folded, are a history of improvement for every task.

The privileged description of a task enters as further network inputs; a checkpoint folded for a task is an ordinary
policy over observations alone (see `policies.fold`).
"""

from metaimprove import policies
from metaimprove.improvers.ppo import PPOSettings
from metaimprove.improvers.shared_ppo import shared_ppo
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily

NAME = 'task_conditioned_ppo'


def task_conditioned_ppo(
  family: TaskFamily, settings: PPOSettings, num_updates: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES,
) -> Source:
  """The source; see `shared_ppo`."""
  return shared_ppo(NAME, family, settings, num_updates, hidden_sizes, task_conditioned=True)
