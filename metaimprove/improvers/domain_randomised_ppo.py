"""One PPO learner for all tasks that is told nothing of the task: domain randomisation.

Its last policy is the best that PPO finds for the whole distribution without experience of the task at hand. As a
control it shows how much there is to gain from experience (Tobin et al., "Domain Randomization for Transferring Deep
Neural Networks from Simulation to the Real World", arXiv:1703.06907).
"""

from metaimprove import policies
from metaimprove.improvers.ppo import PPOSettings
from metaimprove.improvers.shared_ppo import shared_ppo
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily

NAME = 'domain_randomised_ppo'


def domain_randomised_ppo(
  family: TaskFamily, settings: PPOSettings, num_updates: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES,
) -> Source:
  """The source; see `shared_ppo`."""
  return shared_ppo(NAME, family, settings, num_updates, hidden_sizes, task_conditioned=False)
