"""Histories without the family's rewards: with learned ones, and with levels in the order that these give them."""

import dataclasses

import numpy as np

from metaimprove import files
from metaimprove.histories.dataset import Dataset, best_level, ranks
from metaimprove.histories.levels import standard_error
from metaimprove.histories.ranking import with_rewards
from metaimprove.trees import take
from metaimprove.types import Params, Play, Task, Trajectory, episode_return

_AT_ONCE = 512


@dataclasses.dataclass(frozen=True)
class RankedHistories(Dataset):
  """Histories whose levels are ranked by learned rewards. `read_tasks` gives pairs (tasks, rewards), for `ranked_play`.

  Attributes:
    rewards: [H, ...] of each history; see `ranking.learn_rewards`.
    order: [H, N + 1] int, which stored level is on each level, worst first.
  """

  rewards: Params = None
  order: np.ndarray = None

  @property
  def checksum(self) -> str:
    """Of the histories and the rewards."""
    return files.checksum(files.tree_to_bytes({'rewards': self.rewards}) + super().checksum.encode())

  def read(self, history: np.ndarray, level: np.ndarray) -> tuple[Params, Trajectory]:
    """See `Dataset`; with the learned rewards."""
    params, trajectory = super().read(history, level)
    return params, with_rewards(take(self.rewards, np.asarray(history)), trajectory)

  def read_tasks(self, history: np.ndarray) -> tuple[Task, Params]:
    """The tasks of histories [B], and their rewards."""
    return super().read_tasks(history), take(self.rewards, np.asarray(history))

  def _rows(self, name: str, history: np.ndarray, *level: np.ndarray) -> np.ndarray:
    return super()._rows(name, history, *(self.order[history, one] for one in level))


def ranked_histories(dataset: Dataset, rewards: Params) -> RankedHistories:
  """The histories, with learned rewards [H, ...]; what is known of returns and levels is measured anew with these, in
  the stored episodes."""
  every, size = np.arange(dataset.num_histories * dataset.num_checkpoints), dataset.returns.shape
  of_episodes, finite = [], []
  for start in range(0, len(every), _AT_ONCE):
    history, level = divmod(every[start:start + _AT_ONCE], size[1])
    trajectory = with_rewards(take(rewards, history), dataset.read(history, level)[1])
    of_episodes.append(episode_return(trajectory))
    finite.append(trajectory.finite)
  # All are finite: other histories are no part of a dataset.
  of_episodes, finite = (np.concatenate(found).reshape(*size, -1) for found in (of_episodes, finite))
  error = standard_error(np.moveaxis(of_episodes, 1, 0), np.moveaxis(finite, 1, 0)).T  # as of the family's returns
  returns = _mean_of_policies(of_episodes.mean(axis=-1), dataset.rank)
  order = np.argsort(returns, axis=1, kind='stable')
  which = np.take_along_axis(dataset.rank, order, axis=1)
  return RankedHistories(**{
    **{field.name: getattr(dataset, field.name) for field in dataclasses.fields(Dataset)},
    'returns': np.take_along_axis(returns, order, axis=1),
    'return_error': np.take_along_axis(np.nan_to_num(error), order, axis=1), 'rewards': rewards,
    'order': order, 'best': best_level(which), 'rank': ranks(which), 'achieved': None, 'properties': (),
    'measured': None,
  })


def _mean_of_policies(returns: np.ndarray, rank: np.ndarray) -> np.ndarray:
  """[H, N + 1] returns, of which levels that are one policy, and so have one rank, get the mean: they stay together."""
  rows, sums, counts = np.arange(len(rank))[:, None], np.zeros_like(returns), np.zeros_like(returns)
  np.add.at(sums, (rows, rank), returns)
  np.add.at(counts, (rows, rank), 1)
  return (sums / np.maximum(counts, 1))[rows, rank]


def ranked_play(play: Play) -> Play:
  """A play on tasks that are pairs (tasks, rewards) [B]: none of the family's rewards is seen."""
  def played(params, tasks, rng_key):
    of_family, rewards = tasks
    return with_rewards(rewards, play(params, of_family, rng_key))

  return played
