"""Measures the candidates of a source on each task, and makes histories of those that become levels."""

from collections.abc import Callable
from typing import Any, Protocol

import chex
import jax
import numpy as np

from metaimprove.histories.levels import choose_levels, standard_error
from metaimprove.histories.storage import History
from metaimprove.improvers.source import Source
from metaimprove.trees import take
from metaimprove.types import Params, Play, Task, Trajectory, episode_return, mean_return


@chex.dataclass(frozen=True)
class Candidates:
  """K snapshots for each of H tasks.

  Attributes:
    snapshots: leaves [K, ...] of a shared learner, [K, H, ...] of learners of their own.
    update: [K, H] int, after how many updates each was taken.
  """

  snapshots: Any
  update: np.ndarray


@chex.dataclass(frozen=True)
class Measured:
  """One candidate on H tasks, measured in M episodes.

  Attributes:
    params: [H, ...] θ.
    trajectory: [H, E, T, ...] the first E episodes.
    returns: [H, M] of each episode.
    finite: [H, M] bool, the episode did not blow up.
    mean_return: [H] of those that did not.
  """

  params: Params
  trajectory: Trajectory
  returns: chex.Array
  finite: chex.Array
  mean_return: chex.Array


class MakeHistories(Protocol):
  """Candidates measured on tasks [H], with a key, to histories [H] and the number of episodes that blew up."""

  def __call__(self, candidates: Candidates, tasks: Task, rng_key: chex.PRNGKey, /) -> tuple[History, int]: ...


def make_histories(source: Source, play: Play, *, num_episodes: int, num_checkpoints: int) -> MakeHistories:
  """The function that measures candidates of a source and chooses the levels of each task.

  Args:
    source: whose candidates they are.
    play: plays the M episodes that a candidate is measured with.
    num_episodes: E, how many of them are the experience of a checkpoint.
    num_checkpoints: N + 1.
  """
  params_of = jax.jit(source.params_of)

  @jax.jit
  def keep(params: Params, trajectory: Trajectory) -> Measured:
    return Measured(
      params=params, trajectory=jax.tree.map(lambda x: x[:, :num_episodes], trajectory),
      returns=episode_return(trajectory), finite=trajectory.finite, mean_return=mean_return(trajectory),
    )

  def measure(snapshot: Any, tasks: Task, rng_key: chex.PRNGKey) -> Measured:
    params = params_of(snapshot, tasks)
    return keep(params, play(params, tasks, rng_key))

  def histories_of(candidates: Candidates, tasks: Task, rng_key: chex.PRNGKey) -> tuple[History, int]:
    keys = jax.random.split(rng_key, len(candidates.update))
    measured = _one_ahead(
      lambda k: measure(take(candidates.snapshots, k), tasks, keys[k]), len(candidates.update)
    )
    means = np.stack([m.mean_return for m in measured])
    finite = np.stack([m.finite for m in measured])  # [K, H, M]
    errors = standard_error(np.stack([m.returns for m in measured]), finite)
    chosen = np.stack([choose_levels(curve, num_checkpoints) for curve in means.T])  # [H, N + 1]
    row = np.arange(len(chosen))[:, None]
    histories = History(
      task=jax.device_get(tasks), params=_pick([m.params for m in measured], chosen),
      trajectory=_pick([m.trajectory for m in measured], chosen), returns=means[chosen, row],
      return_error=errors[chosen, row].astype(np.float32), finite=finite.all(axis=-1)[chosen, row],
      update=candidates.update[chosen, row].astype(np.int32),
    )
    return histories, int((~finite).sum())

  return histories_of


def _one_ahead(compute: Callable[[int], Any], num: int) -> list[Any]:
  """compute(0), compute(1), ... on the host; each is fetched when the device has been given the next one."""
  fetched, current = [], compute(0)
  for index in range(1, num + 1):
    following = compute(index) if index < num else None
    fetched.append(jax.device_get(current))
    current = following
  return fetched


def _pick(trees: list[Any], chosen: np.ndarray) -> Any:
  """Leaves [H, N + 1, ...]: row h of the tree chosen[h, n], from K trees with leaves [H, ...]."""
  picked = jax.tree.map(lambda x: np.empty((*chosen.shape, *x.shape[1:]), x.dtype), trees[0])
  for k, tree in enumerate(trees):
    row, level = np.nonzero(chosen == k)
    for whole, leaf in zip(jax.tree.leaves(picked), jax.tree.leaves(tree)):
      whole[row, level] = leaf[row]
  return picked
