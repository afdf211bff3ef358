"""What explorers find on the training tasks, in hindsight: the answers to an ask to explore.

While nothing has been met on a task, the right answer is the first explorer that meets something there.
Which one that is depends on the task, which the operator does not know. Learned on many tasks, its answers are as
likely as each explorer is to be the first, given all that was tried in vain. Each explorer is an answer of its own.
"""

import chex
import jax
import numpy as np

from metaimprove.histories.dataset import Dataset
from metaimprove.rng import stream
from metaimprove.trees import batch_size, stack, take
from metaimprove.types import Params, Play, Trajectory, hide_outcome


@chex.dataclass(frozen=True)
class Explored:
  """X explorers on the tasks of H histories.

  Attributes:
    params: [X, ...] θ of each explorer.
    trajectory: [H, X, E, T, ...], what it experiences, without outcomes.
    met: [H, X] bool, whether it meets a reward above 0.
  """

  params: Params
  trajectory: Trajectory
  met: np.ndarray

  def draw(self, history: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Params, Trajectory]:
    """For histories [B] the first explorer each that meets something on its task, or any where none does: which of them
    it is, [B] int32, its θ and its trajectory [B, ...].

    The first: where several would do, the answer is left as little open as can be.
    """
    met = self.met[history]
    anyone = rng.integers(batch_size(self.params), size=len(history))
    which = np.where(met.any(axis=1), met.argmax(axis=1), anyone).astype(np.int32)
    return which, take(self.params, which), jax.tree.map(lambda x: x[history, which], self.trajectory)


def explore_tasks(explorers: Params, play: Play, dataset: Dataset, seed: int) -> Explored:
  """Plays explorers [X, ...] on the tasks of all histories."""
  num = dataset.num_histories
  tasks, trajectories = dataset.read_tasks(np.arange(num)), []
  for index in range(batch_size(explorers)):
    params = jax.tree.map(lambda x: np.broadcast_to(x[index], (num, *x.shape[1:])), explorers)
    trajectories.append(jax.device_get(hide_outcome(play(params, tasks, stream(seed, f'explorer {index} on tasks')))))
  trajectory = jax.tree.map(lambda x: np.moveaxis(x, 0, 1), stack(trajectories))
  return Explored(params=explorers, trajectory=trajectory, met=(trajectory.reward > 0).any(axis=(2, 3)))
