"""Rounds of an operator's own iterates: it is applied to training tasks, and learns to go on from what it met.

Trained on histories alone an operator drifts when applied to its own results. So each iterate is matched to the
levels of its task's history that may be as good as it is, and is improved from there (the idea of DAgger: Ross et
al., arXiv:1011.0686).
"""

import pathlib
import time
from collections.abc import Sequence

import chex
import jax
import numpy as np

from metaimprove import files
from metaimprove.errors import DamagedDataError, NonFiniteSimulationError, WaitingError
from metaimprove.histories.dataset import Dataset
from metaimprove.histories.storage import history_structure
from metaimprove.iteration import iterate
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import Operator, OperatorConfig
from metaimprove.rng import generator
from metaimprove.training.pairs import describe_pairs, draw_sizes, pairs_of
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import concatenate, take
from metaimprove.types import Params, Play, Trajectory, episode_return, hide_outcome, mean_return

_POLL_SECONDS = 0.5
_WAIT_SECONDS = 3600.0
_LEAST_ERROR = 1e-3
"""Of a return, as a share of the range of returns in a history: no measurement is trusted further."""


@chex.dataclass(frozen=True)
class Iterates:
  """R of an operator's own iterates with their experience, and where they may stand in a history.

  Attributes:
    params: [R, ...] θ.
    trajectory: [R, E, T, ...] its experience, without outcomes.
    history: [R] int, which history of the dataset its task belongs to.
    chance: [R, N + 1], how likely it is as good as each level of that history; see `match`.
  """

  params: Params
  trajectory: Trajectory
  history: np.ndarray
  chance: np.ndarray

  def draw_levels(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[B] int, for iterates [B] a level each, by chance."""
    below = np.cumsum(self.chance[rows], axis=1)[:, :-1]
    return (rng.random((len(rows), 1)) >= below).sum(axis=1)


def steps_of(settings: TrainingSettings) -> list[int]:
  """The step before which each round is played."""
  return [int(at * settings.num_steps) for at in settings.rounds]


def env_steps(settings: TrainingSettings, config: OperatorConfig) -> int:
  """Environment steps of all rounds of a training; episodes that end early count as whole ones."""
  policies = len(settings.rounds) * settings.round_tasks * (settings.round_applications + 1)
  return policies * config.num_episodes * config.episode_length


def match(
  returns: np.ndarray, error: np.ndarray, level_returns: np.ndarray, level_error: np.ndarray, rank: np.ndarray
) -> np.ndarray:
  """How likely policies are as good as the levels of a history, given that returns are measured with errors.

  Args:
    returns: [R] measured mean return of each policy.
    error: [R] its standard error.
    level_returns: [R, N + 1] measured mean return of each level.
    level_error: [R, N + 1] its standard error.
    rank: [R, N + 1] of each level; see `Pairs`.

  Returns:
    [R, N + 1] proportional to exp(-(r - R_level)² / (2 σ²)) with σ² the sum of both squared errors, at the first level
    of each policy, and 0 at further levels that are the same policy; rows add up to 1.
  """
  first = np.diff(rank, axis=1, prepend=-1) > 0
  least = _LEAST_ERROR * np.ptp(level_returns, axis=1, keepdims=True) + 1e-9
  variance = np.square(error)[:, None] + np.square(level_error) + np.square(least)
  exponent = np.where(first, -np.square(returns[:, None] - level_returns) / (2 * variance), -np.inf)
  weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
  return weight / weight.sum(axis=1, keepdims=True)


def standard_error(trajectory: Trajectory) -> np.ndarray:
  """[...] standard error of `mean_return`, from the spread of the episodes that did not blow up; 0 for less than two,
  of which nothing is known."""
  returns, finite = np.asarray(episode_return(trajectory), np.float64), np.asarray(trajectory.finite)
  num = finite.sum(axis=-1)
  mean = np.sum(returns * finite, axis=-1) / np.maximum(num, 1)
  squares = np.sum(np.square(returns - mean[..., None]) * finite, axis=-1)
  return np.sqrt(squares / np.maximum(num - 1, 1) / np.maximum(num, 1))


def play_round(
  operator: Operator, operator_params: Params, play: Play, dataset: Dataset, histories: np.ndarray,
  settings: TrainingSettings, rng: np.random.Generator,
) -> dict[str, np.ndarray]:
  """Applies the operator to training tasks, from stored policies and from fresh random ones.

  Args:
    operator: see `Operator`.
    operator_params: its parameters.
    play: makes experience of the operator's number of episodes.
    dataset: the histories.
    histories: those to train on.
    settings: of the training.
    rng: of all that is drawn.

  Returns:
    Of the iterates that did not blow up: {'params' [R, ...], 'trajectory' [R, E, T, ...], 'history' [R]}.

  Raises:
    NonFiniteSimulationError: if all of them did.
  """
  num = settings.round_tasks
  history = _draw_histories(dataset, histories, num, rng)
  use_fresh = rng.random(num) < settings.round_fresh
  level = np.where(use_fresh, 0, rng.integers(dataset.num_checkpoints, size=num))
  stored = dataset.read_params(history, level)
  keys = jax.random.split(jax.random.key(rng.integers(2**31)), num)
  start = jax.tree.map(
    lambda x, y: np.where(use_fresh.reshape(-1, *[1] * (x.ndim - 1)), x, y),
    jax.device_get(jax.vmap(operator.policy.init)(keys)), stored,
  )
  pairs = pairs_of(dataset, history, level, draw_sizes(settings, num, rng), settings)
  ask = describe_pairs(pairs, operator.config.asks, settings, rng)
  found = [
    jax.device_get((iterate.params, hide_outcome(iterate.trajectory))) for iterate in iterate(
      make_improve(operator, operator_params, ask), make_remember(operator), play, start, dataset.read_tasks(history),
      jax.random.key(rng.integers(2**31)), num_applications=settings.round_applications,
    )
  ]
  params, trajectory = concatenate(found)
  kept = np.flatnonzero(np.isfinite(mean_return(trajectory)))
  if not kept.size:
    raise NonFiniteSimulationError(
      'Every policy of a round blew up, so that there is nothing to learn from; check the simulation of '
      f'{operator.config.family} with smaller time steps or narrower dynamics.'
    )
  params, trajectory = take((params, trajectory), kept)
  return {'params': params, 'trajectory': trajectory, 'history': np.tile(history, len(found))[kept]}


def _draw_histories(dataset, histories, num, rng):
  """[num] histories, each source as often as any other, however many histories it has."""
  source = dataset.source[histories]
  several = len(np.unique(source)) > 1
  chance = 1.0 / np.bincount(source)[source] if several else np.ones(len(histories))
  return rng.choice(histories, size=num, replace=several or num > len(histories), p=chance / chance.sum())


def add_round(
  index: int, operator: Operator, operator_params: Params, play: Play, dataset: Dataset, histories: np.ndarray,
  settings: TrainingSettings, *, seed: int, folder: files.Path,
) -> None:
  """Plays a round and stores it in `folder`, unless it is there. Of several processes the first one plays, and the
  others wait until they can read what it has written: all learn from the same.

  Raises:
    WaitingError: if the first process has not written it within an hour.
  """
  path = _path(folder, index)
  if path.exists():
    return
  if jax.process_index() == 0:
    rng = generator(seed, 'round', index)
    files.save_tree(path, play_round(operator, operator_params, play, dataset, histories, settings, rng))
  _wait_for(path)


def _wait_for(path: pathlib.Path) -> None:
  until = time.monotonic() + _WAIT_SECONDS
  while not path.exists():
    if time.monotonic() > until:
      raise WaitingError(
        f'The first process has not written {path} within {_WAIT_SECONDS / 60:.0f} minutes; look at its output, and '
        'run all processes again.'
      )
    time.sleep(_POLL_SECONDS)


def load(folder: files.Path, dataset: Dataset, indices: Sequence[int] | None = None) -> list[Iterates]:
  """The rounds that a training on a dataset has stored in its folder; all, or those with `indices`.

  Raises:
    DamagedDataError: if one is missing or altered, or is not of this dataset.
  """
  stored = sorted(pathlib.Path(folder).glob('iterates_*.safetensors'))
  paths = stored if indices is None else [_path(folder, index) for index in indices]
  like = history_structure(dataset.header)
  like = {'params': like.params, 'trajectory': like.trajectory, 'history': None}
  found = []
  for path in paths:
    stored = files.load_tree(path, like)
    _check_stored(stored, dataset, path)
    found.append(_matched(stored, dataset))
  return found


def _check_stored(stored, dataset, path) -> None:
  """Nothing that is read is believed: shapes are those of the dataset's policies, and histories are some of its."""
  history = stored['history']
  whole = history.ndim == 1 and history.size > 0 and history.dtype.kind in 'iu'
  if whole and 0 <= history.min() and history.max() < dataset.num_histories:
    first = np.zeros(1, int)
    params, trajectory = dataset.read(first, first)
    wanted = jax.tree.map(lambda x: ((len(history), *x.shape[1:]), x.dtype), (params, hide_outcome(trajectory)))
    found = jax.tree.map(lambda x: (x.shape, x.dtype), (stored['params'], stored['trajectory']))
    if wanted == found and all(np.isfinite(x).all() for x in jax.tree.leaves(stored['params'])):
      return
  raise DamagedDataError(f'{path} does not hold iterates of these histories; delete it, and run the training again.')


def _matched(stored, dataset) -> Iterates:
  trajectory, history = stored['trajectory'], stored['history']
  chance = match(
    np.asarray(mean_return(trajectory)), standard_error(trajectory), dataset.returns[history],
    dataset.return_error[history], dataset.rank[history],
  )
  return Iterates(params=stored['params'], trajectory=trajectory, history=history, chance=chance)


def _path(folder, index) -> pathlib.Path:
  return pathlib.Path(folder) / f'iterates_{index:02d}.safetensors'
