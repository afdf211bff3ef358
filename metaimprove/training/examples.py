"""Training examples: what an operator is shown and what it should answer, drawn from histories and its own iterates.

The host draws and reads, ahead of time; the device picks the states and computes. Which examples a step gets follows
from the seed and the step alone, so that a resumed training sees the same.
"""

from collections.abc import Iterator

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import Dataset
from metaimprove.asks import steps as asks
from metaimprove.types import Params, Trajectory

_PREFETCHED = 4


@chex.dataclass(frozen=True)
class Iterates:
  """A round of an operator's own iterates: [R] policies with their experience, and where they stand in a history.

  Attributes:
    params: [R, ...] θ.
    trajectory: [R, E, T, ...] its experience.
    history: [R] int, which history of the dataset its task belongs to.
    level: [R] int, the checkpoint of that history it is nearest to in return.
  """

  params: Params
  trajectory: Trajectory
  history: np.ndarray
  level: np.ndarray


@chex.dataclass(frozen=True)
class Drawn:
  """An example as it is read; shapes of one.

  Attributes:
    params: θⁿ.
    trajectory: its experience τⁿ, [E, T, ...].
    ask: [] int.
    aim_params: of the checkpoint that is aimed at.
    aim_trajectory: its experience.
    key_data: [2] uint32, for the choice of states.
  """

  params: Params
  trajectory: Trajectory
  ask: chex.Array
  aim_params: Params
  aim_trajectory: Trajectory
  key_data: chex.Array


@chex.dataclass(frozen=True)
class Example:
  """What the loss is taken of; shapes of one example.

  Attributes:
    params: θⁿ.
    trajectory: its experience τⁿ, [E, T, ...].
    ask: [] int.
    target_params: θⁿ⁺ᵏ.
    states: [S, O] where the divergence is taken.
    weight: [S] 1 for a state that was visited, 0 for padding.
  """

  params: Params
  trajectory: Trajectory
  ask: chex.Array
  target_params: Params
  states: chex.Array
  weight: chex.Array


def target_level(level: np.ndarray, ask: np.ndarray, best: np.ndarray, num_checkpoints: int) -> np.ndarray:
  """The checkpoint that is asked for: `ask` further on than `level`, at most the last; the best one for BEST."""
  return np.where(ask == asks.BEST, best, np.minimum(level + np.maximum(ask, 0), num_checkpoints - 1))


def _visited_states(trajectory: Trajectory, num: int, rng_key) -> tuple[chex.Array, chex.Array]:
  """`num` random visited observations [num, O] of a trajectory, and weights [num]: 0 if it has none."""
  observation = trajectory.observation.reshape(-1, trajectory.observation.shape[-1])
  valid = trajectory.valid.reshape(-1)
  index = jax.random.categorical(rng_key, jnp.where(valid, 0.0, -1e9), shape=(num,))
  return observation[index], valid[index].astype(jnp.float32)


def assemble(drawn: Drawn, num_states: int) -> Example:
  """An example with `num_states` states, half of them visited by each of the two policies."""
  # k = 0 asks for the very policy that acted, which for an iterate is no checkpoint.
  target_params = jax.tree.map(
    lambda same, other: jnp.where(drawn.ask == 0, same, other), drawn.params, drawn.aim_params
  )
  keys = jax.random.split(jax.random.wrap_key_data(drawn.key_data))
  halves = [
    _visited_states(trajectory, num_states // 2, key)
    for trajectory, key in zip((drawn.trajectory, drawn.aim_trajectory), keys)
  ]
  states, weight = (jnp.concatenate(parts) for parts in zip(*halves))
  return Example(
    params=drawn.params, trajectory=drawn.trajectory, ask=drawn.ask, target_params=target_params, states=states,
    weight=weight,
  )


class Examples:
  """Draws examples.

  Attributes:
    training: [.] histories to train on.
    validation: [.] histories of tasks that are kept out of training.
  """

  def __init__(self, dataset: Dataset, *, num_validation: int, seed: int = 0):
    """Makes examples of a dataset whose last `num_validation` tasks are kept out of training."""
    self._dataset, self._seed = dataset, seed
    self._best = dataset.returns.argmax(axis=1)
    kept_out = np.isin(dataset.task_index, np.unique(dataset.task_index)[-num_validation:])
    self.validation = np.flatnonzero(kept_out)
    sources = [np.flatnonzero((dataset.source == s) & ~kept_out) for s in range(len(dataset.source_names))]
    sources = [rows for rows in sources if len(rows)]
    if not sources:
      raise IncompatibleError(f'No histories are left to train on: {num_validation} tasks are kept out. Collect more.')
    self.training = np.concatenate(sources)
    # An endless shuffled sequence of histories, each source equally often, whatever its size.
    self._sequence = grain.MapDataset.mix([
      grain.MapDataset.source(rows).seed(seed + index).shuffle().repeat() for index, rows in enumerate(sources)
    ])
    self._rounds: list[Iterates] = []

  def add_iterates(self, params: Params, trajectory: Trajectory, history: np.ndarray, returns: np.ndarray) -> None:
    """Adds a round of the operator's own iterates, each matched to its history's checkpoint of nearest return.

    Args:
      params: [R, ...].
      trajectory: [R, E, T, ...].
      history: [R] the history of each one's task.
      returns: [R] mean return of each.
    """
    level = np.abs(self._dataset.returns[history] - returns[:, None]).argmin(axis=1)
    self._rounds.append(Iterates(params=params, trajectory=trajectory, history=history, level=level))

  def history(self, index: int) -> int:
    """The history at a place of the endless shuffled sequence of those to train on."""
    return int(self._sequence[index])

  def of_histories(self, rng: np.random.Generator, ask: np.ndarray, history: np.ndarray, share=slice(None)) -> Drawn:
    """Examples of stored checkpoints of histories [B] for the asks [B]; the levels are random, so none dominates."""
    level = rng.integers(self._dataset.num_checkpoints, size=len(ask))
    context = self._dataset.read(history[share], level[share])
    return self._towards(rng, context, history, level, ask, share)

  def of_iterates(self, rng: np.random.Generator, ask: np.ndarray, share=slice(None)) -> Drawn:
    """Examples [B] of a random round of iterates."""
    pool = self._rounds[rng.integers(len(self._rounds))]
    rows = rng.integers(len(pool.level), size=len(ask))
    context = jax.tree.map(lambda x: x[rows[share]], (pool.params, pool.trajectory))
    return self._towards(rng, context, pool.history[rows], pool.level[rows], ask, share)

  def _towards(self, rng, context, history, level, ask, share) -> Drawn:
    target = target_level(level, ask, self._best[history], self._dataset.num_checkpoints)
    aim = self._dataset.read(history[share], target[share])
    key_data = rng.integers(2**32, size=(len(ask), 2), dtype=np.uint32)
    return Drawn(
      params=context[0], trajectory=context[1], ask=ask[share], aim_params=aim[0], aim_trajectory=aim[1],
      key_data=key_data[share],
    )

  def draw(self, step: int, size: int, share: tuple[int, int] = (0, 1)) -> Drawn:
    """The examples of a step, with random asks, half of histories and half of iterates once there are any.

    Args:
      step: of the training.
      size: examples of all processes together.
      share: (which, of how many): the part that is read here, for one process of several.
    """
    rng = np.random.default_rng([self._seed, 0, step])
    ask = rng.choice(asks.TRAINED, size=(2, size // 2), p=asks.TRAINED_SHARES)
    history = np.array([self.history(step * size + index) for index in range(size)]).reshape(ask.shape)
    which, num = share
    part = slice(which * (size // 2) // num, (which + 1) * (size // 2) // num)
    halves = [self.of_histories(rng, ask[0], history[0], part)]
    halves.append(
      self.of_iterates(rng, ask[1], part) if self._rounds else self.of_histories(rng, ask[1], history[1], part)
    )
    return jax.tree.map(lambda *x: np.concatenate(x), *halves)

  def stream(self, first: int, last: int, size: int, share: tuple[int, int] = (0, 1)) -> Iterator[Drawn]:
    """The examples of the steps `first` to `last` - 1, read ahead by a thread; see `draw`."""
    steps = grain.MapDataset.range(first, last).map(lambda step: self.draw(step, size, share))
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED)))
