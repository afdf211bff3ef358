"""Training examples: what an operator is shown and what it should answer, drawn from histories and its own iterates."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import Dataset
from metaimprove.operators import ask as asks
from metaimprove.types import Params, Trajectory


@chex.dataclass(frozen=True)
class Contexts:
  """What an operator may be shown: [R] policies with their experience, and where they stand in a history.

  Attributes:
    params: [R, ...] θ.
    trajectory: [R, E, T, ...] its experience.
    history: [R] int, which history of the dataset its task belongs to.
    level: [R] int, the checkpoint of that history it is, or is nearest to in return.
  """

  params: Params
  trajectory: Trajectory
  history: chex.Array
  level: chex.Array


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


def _assemble(stored, context: Contexts, ask, target, rng_key, *, num_states: int) -> Example:
  """One example of a context; `target` is the checkpoint of the context's history to aim at."""
  aim = jax.tree.map(lambda x: x[context.history, target], stored)
  # k = 0 asks for the very policy that acted, which for an iterate is no checkpoint.
  target_params = jax.tree.map(lambda same, other: jnp.where(ask == 0, same, other), context.params, aim['params'])
  keys = jax.random.split(rng_key)
  halves = [_visited_states(t, num_states // 2, k) for t, k in zip((context.trajectory, aim['trajectory']), keys)]
  states, weight = (jnp.concatenate(parts) for parts in zip(*halves))
  return Example(
    params=context.params, trajectory=context.trajectory, ask=ask, target_params=target_params, states=states,
    weight=weight,
  )


@functools.partial(jax.jit, static_argnames='num_states')
def _assemble_batch(stored, pool, rows, ask, target, keys, num_states):
  """[B] examples of the contexts `rows` of a pool."""
  contexts = jax.tree.map(lambda x: x[rows], pool)
  return jax.vmap(functools.partial(_assemble, num_states=num_states), in_axes=(None, 0, 0, 0, 0))(
    stored, contexts, ask, target, keys
  )


@functools.partial(jax.jit, static_argnames='num_states')
def _assemble_stored(stored, history, level, ask, target, keys, num_states):
  """[B] examples of stored checkpoints."""
  params, trajectory = jax.tree.map(lambda x: x[history, level], (stored['params'], stored['trajectory']))
  contexts = Contexts(params=params, trajectory=trajectory, history=history, level=level)
  return _assemble_batch(stored, contexts, jnp.arange(len(history)), ask, target, keys, num_states)


class Examples:
  """Draws examples; which ones follows from the generator given, so a resumed training sees the same.

  Attributes:
    training: [.] histories to train on.
    validation: [.] histories of tasks that are kept out of training.
  """

  def __init__(self, dataset: Dataset, *, num_states: int, num_validation: int):
    """Makes examples with `num_states` states each; the last `num_validation` tasks are kept out of training."""
    self._stored = {'params': dataset.histories.params, 'trajectory': dataset.histories.trajectory}
    self._returns, self._best = dataset.returns, dataset.returns.argmax(axis=1)
    self._num_checkpoints, self._num_states = dataset.num_checkpoints, num_states
    kept_out = dataset.task_index > dataset.task_index.max() - num_validation
    self.validation = np.flatnonzero(kept_out)
    sources = [np.flatnonzero((dataset.source == s) & ~kept_out) for s in range(len(dataset.source_names))]
    self._sources = [rows for rows in sources if len(rows)]
    if not self._sources:
      raise IncompatibleError(f'No histories are left to train on: {num_validation} tasks are kept out. Collect more.')
    self.training = np.concatenate(self._sources)
    self._rounds: list[Contexts] = []

  def add_iterates(self, params: Params, trajectory: Trajectory, history: np.ndarray, returns: np.ndarray) -> None:
    """Adds a round of the operator's own iterates, each matched to its history's checkpoint of nearest return.

    Args:
      params: [R, ...].
      trajectory: [R, E, T, ...].
      history: [R] the history of each one's task.
      returns: [R] mean return of each.
    """
    level = np.abs(self._returns[history] - returns[:, None]).argmin(axis=1)
    self._rounds.append(jax.tree.map(
      jnp.asarray, Contexts(params=params, trajectory=trajectory, history=history, level=level)
    ))

  def of_histories(self, rng: np.random.Generator, ask: np.ndarray, history: np.ndarray | None = None) -> Example:
    """Examples [B] of stored checkpoints for the asks [B]; each source equally often, unless histories are given."""
    if history is None:
      source = rng.integers(len(self._sources), size=len(ask))
      history = np.array([rng.choice(self._sources[s]) for s in source])
    level = rng.integers(self._num_checkpoints, size=len(ask))
    target = target_level(level, ask, self._best[history], self._num_checkpoints)
    return _assemble_stored(self._stored, history, level, ask, target, _keys(rng, len(ask)), self._num_states)

  def of_iterates(self, rng: np.random.Generator, ask: np.ndarray) -> Example:
    """Examples [B] of a random round of iterates; of stored checkpoints while there is none."""
    if not self._rounds:
      return self.of_histories(rng, ask)
    pool = self._rounds[rng.integers(len(self._rounds))]
    rows = rng.integers(len(pool.level), size=len(ask))
    history = np.asarray(pool.history)[rows]
    target = target_level(np.asarray(pool.level)[rows], ask, self._best[history], self._num_checkpoints)
    return _assemble_batch(self._stored, pool, rows, ask, target, _keys(rng, len(ask)), self._num_states)

  def batch(self, rng: np.random.Generator, size: int) -> Example:
    """[size] examples with random asks, half of histories and half of iterates."""
    ask = rng.choice(asks.TRAINED, size=(2, size // 2), p=asks.TRAINED_SHARES)
    halves = self.of_histories(rng, ask[0]), self.of_iterates(rng, ask[1])
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), *halves)


def _keys(rng: np.random.Generator, num: int) -> chex.Array:
  return jax.random.split(jax.random.key(rng.integers(2**31)), num)
