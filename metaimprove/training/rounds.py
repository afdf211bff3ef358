"""Rounds of an operator's own runs: it is applied to training tasks again and again, and learns from what it met.

Trained on histories alone an operator drifts when applied to its own results, and never learns what to do when it has
tried something in vain. So each iterate is matched to the levels of its task's history that may be as good as it is,
and is improved from there (the idea of DAgger: Ross et al., arXiv:1011.0686), with the memory that the operator had.
Policies of other tasks are mixed in: they are sensible, but not right, which is what early runs lack.
"""

import functools
import itertools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import chex
import jax
import numpy as np

from metaimprove import files
from metaimprove.asks import explore, of_levels, steps
from metaimprove.errors import DamagedDataError, NonFiniteSimulationError, WaitingError
from metaimprove.histories.dataset import Dataset
from metaimprove.iteration import ImproveBatch, iterate
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.memory import EMPTY, Memory, first_memory, newest_met_nothing
from metaimprove.operators.operator import Operator
from metaimprove.policies import widened
from metaimprove.rng import generator
from metaimprove.training.pairs import describe_pairs, draw_sizes, pairs_of
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import batch_size, concatenate, take
from metaimprove.types import Params, Play, Trajectory, episode_return, mean_return

_LITTLE = 0.01
"""Less than this share of what can be gained is nothing."""
_MUCH = 0.3
"""A gain is much above this share."""
_ASKED_FOR_BEST = 0.5
"""Share of the runs that are asked for the best alone, as tests do, where there are many other things to ask for."""
_EARLY = 4
"""So many policies of a run are the first ones."""
_WIDEST = 4.0
"""What is added at most to the raw scales of policies that are mixed in: some cover more ground than any source's."""
_POLL_SECONDS = 0.5
_WAIT_SECONDS = 3600.0
_LEAST_ERROR = 1e-3
"""Of a return, as a share of the range of returns in a history: no measurement is trusted further."""


@chex.dataclass(frozen=True)
class Runs:
  """R runs of an operator: P policies one after the other and the one that they led to, each with E episodes.

  Attributes:
    episodes: [R, (P + 1) E, ...], all that was experienced, as a memory that forgets nothing.
    kept: [R, P, C] int, which of the episodes were remembered after each policy had acted, `EMPTY` for none.
    history: [R] int, which history of the dataset each run's task belongs to.
    returns: [R, P + 1] mean return of each policy, and of the one after them; NaN where every episode blew up.
    gained: [R, P + 1] the same, from 0 to 1 between the least and the greatest return of a level on the task.
    gain: [R, P + 1] what each policy led to, see `asks.explore.gain`.
    chance: [R, P, N + 1], how likely it is as good as each level of that history; see `match`.
  """

  episodes: Memory
  kept: np.ndarray
  history: np.ndarray
  returns: np.ndarray
  gained: np.ndarray
  gain: np.ndarray
  chance: np.ndarray

  def draw(self, num: int, rng: np.random.Generator, early_share: float = 0.0) -> np.ndarray:
    """[2, num] int, random moments: rows of runs, and policies whose experience did not blow up; a share of them of the
    first few policies of their runs."""
    found = np.argwhere(np.isfinite(self.returns[:, :self.kept.shape[1]]))
    if not early_share:
      return found[rng.integers(len(found), size=num)].T
    early = found[found[:, 1] < _EARLY]
    early = early if len(early) else found
    moments = [some[rng.integers(len(some), size=num)] for some in (early, found)]
    return np.where(rng.random(num) < early_share, *(some.T for some in moments))

  def draw_tries(self, num: int, rng: np.random.Generator) -> np.ndarray:
    """[2, num] int, random moments before policies of which is known what they led to; half of them led to much, where
    there are such."""
    usable = self._tries()
    every, much = np.argwhere(usable), np.argwhere(usable & (np.nan_to_num(self.gain[:, 1:]) > _MUCH))
    much = much if len(much) else every
    parts = (every, num - num // 2), (much, num // 2)
    return np.concatenate([moments[rng.integers(len(moments), size=size)] for moments, size in parts]).T

  def draw_unmet(self, num: int, rng: np.random.Generator) -> np.ndarray:
    """[2, num] int, random moments at which no policy had met more than the least; any, where there are none.

    Tests ask to explore at some moments more: where only the newest policy met nothing. There the operator does what it
    learned of these.
    """
    before = np.maximum.accumulate(np.nan_to_num(self.gained[:, :self.kept.shape[1]]), axis=1)
    found = np.argwhere(before < _LITTLE)
    return found[rng.integers(len(found), size=num)].T if len(found) else self.draw(num, rng)

  def has_tries(self) -> bool:
    """Whether it is known of any policy what it led to."""
    return bool(self._tries().any())

  def _tries(self) -> np.ndarray:
    """[R, P] bool, the moments before policies of which is known what they led to."""
    return np.isfinite(self.returns[:, :-1]) & np.isfinite(self.gain[:, 1:])

  def following(self, moments: np.ndarray) -> Memory:
    """[B, E, ...], the episodes of the policy after each moment [2, B]."""
    run, policy = moments
    num = self.episodes.number.shape[1] // self.returns.shape[1]
    places = (policy + 1)[:, None] * num + np.arange(num)
    return jax.tree.map(lambda x: x[run[:, None], places], self.episodes)

  def draw_levels(self, moments: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[B] int, for the policies at moments [2, B] a level each, by chance."""
    below = np.cumsum(self.chance[tuple(moments)], axis=1)[:, :-1]
    return (rng.random((moments.shape[1], 1)) >= below).sum(axis=1)

  def memory(self, moments: np.ndarray) -> Memory:
    """[B, C, ...], what was remembered at moments [2, B]."""
    run, policy = moments
    kept = self.kept[run, policy]
    memory = jax.tree.map(lambda x: x[run[:, None], np.maximum(kept, 0)], self.episodes)
    there = kept != EMPTY
    return memory.replace(
      number=np.where(there, memory.number, EMPTY),
      trajectory=memory.trajectory.replace(valid=memory.trajectory.valid & there[..., None]),
    )


def steps_of(settings: TrainingSettings) -> list[int]:
  """The step before which each round is played."""
  return [int(at * settings.num_steps) for at in settings.rounds]


def env_steps(settings: TrainingSettings, config: OperatorConfig) -> int:
  """Environment steps of all rounds of a training; episodes that end early count as whole ones."""
  num_policies = len(settings.rounds) * settings.round_tasks * (settings.round_applications + 1)
  return num_policies * config.num_episodes * config.episode_length


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
  settings: TrainingSettings, rng: np.random.Generator, *, first: bool = False, explorers: Params | None = None,
) -> dict[str, Any]:
  """Applies the operator to training tasks, from stored policies and from fresh random ones.

  Args:
    operator: see `Operator`.
    operator_params: its parameters.
    play: makes experience of the operator's number of episodes.
    dataset: the histories.
    histories: those to train on.
    settings: of the training.
    rng: of all that is drawn.
    first: whether the operator is still untrained: then policies of other tasks are mixed into all runs.
    explorers: [X, ...] θ of policies to explore with, which are mixed in too; see `improvers.explorers`.

  Returns:
    {'episodes', 'kept', 'history', 'returns', 'error'}: see `Runs`; 'error' [R, P + 1] is that of returns.

  Raises:
    NonFiniteSimulationError: if every policy blew up.
  """
  num = settings.round_tasks
  history = _draw_histories(dataset, histories, num, rng)
  use_fresh = rng.random(num) < settings.round_fresh
  level = np.where(use_fresh, 0, rng.integers(dataset.num_checkpoints, size=num))
  keys = jax.random.split(jax.random.key(rng.integers(2**31)), num)
  fresh = jax.device_get(jax.vmap(operator.policy.init)(keys))
  start = _where(use_fresh, fresh, dataset.read_params(history, level))
  improve = _improver(operator, operator_params, dataset, histories, history, level, settings, rng, first, explorers)
  policies, kept = [], []
  remember = make_remember(operator)

  def remember_and_note(memory, params, trajectory):
    memory = remember(memory, params, trajectory)
    kept.append(np.asarray(memory.number))
    return memory

  for after in iterate(
    improve, remember_and_note, play, start, dataset.read_tasks(history), jax.random.key(rng.integers(2**31)),
    num_applications=settings.round_applications,
  ):
    policies.append(_experience(operator, after.params, after.trajectory))
  return _joined(policies, kept, history)


def _improver(
  operator: Operator, operator_params: Params, dataset: Dataset, histories: np.ndarray, history: np.ndarray,
  level: np.ndarray, settings: TrainingSettings, rng: np.random.Generator, first: bool,
  explorers: Params | None,
) -> ImproveBatch:
  """The operator as it is applied in a round: from run to run with other asks, with the most likely answers or drawn
  ones, and with policies of other tasks mixed in."""
  num = len(history)
  pairs = pairs_of(dataset, history, level, draw_sizes(settings, num, rng), settings, rng)
  ask = describe_pairs(pairs, operator.config.asks, settings, rng)
  if {*operator.config.asks} & {*of_levels()} and steps.NAME in operator.config.asks:
    ask = steps.best_instead(ask, rng.random(num) < _ASKED_FOR_BEST)
  explores = explore.NAME in operator.config.asks
  until = rng.integers(1 + settings.round_applications // 2, size=num) * (rng.random(num) < settings.round_explores)
  sampled = rng.random(num) < settings.round_sampled
  mixed = rng.random(num) * (first | (rng.random(num) < settings.round_mixed))
  as_tested = explores & (not first) & (rng.random(num) < settings.round_as_tested)
  mixed = np.where(as_tested, 0.0, mixed)
  count = itertools.count()

  def improve(params, memory, rng_key):
    exploring = np.where(as_tested, newest_met_nothing(memory), next(count) < until)
    now = explore.instead(ask, exploring) if explores else ask
    answered = make_improve(operator, operator_params, now, sample=sampled)(params, memory, rng_key)
    others = rng.choice(histories, size=num)
    others = dataset.read_params(others, dataset.best[others])
    wider = rng.uniform(0, _WIDEST, size=num) * (rng.random(num) < 0.5)
    given = _where(rng.random(num) < mixed, widened(others, wider), answered)
    if explorers is None:
      return given
    some = take(explorers, rng.integers(batch_size(explorers), size=num))
    return _where(rng.random(num) < np.where(exploring & ~as_tested, 0.5, mixed / 2), some, given)

  return improve


def _where(mask: np.ndarray, first: Params, second: Params) -> Params:
  """Of policies [B, ...] the first where the mask [B] holds, else the second."""
  return jax.tree.map(lambda x, y: np.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y), first, second)


def _experience(operator: Operator, params: Params, trajectory: Trajectory) -> dict[str, Any]:
  """What is kept of policies [R, ...] and their experience [R, E, T, ...]."""
  episodes = _first_memories(operator, params, trajectory)
  return jax.device_get({
    'episodes': episodes, 'returns': mean_return(trajectory), 'error': standard_error(trajectory),
  })


@functools.partial(jax.jit, static_argnames='operator')
def _first_memories(operator: Operator, params: Params, trajectory: Trajectory) -> Memory:
  first = functools.partial(first_memory, operator.policy, num_steps=operator.config.steps_kept)
  return jax.vmap(first)(params, trajectory)


def _joined(policies: Sequence[dict[str, Any]], kept: Sequence[np.ndarray], history: np.ndarray) -> dict[str, Any]:
  """A round from its policies one after the other; moments are those at which something was remembered."""
  episodes = concatenate([policy['episodes'] for policy in policies], axis=1)
  per_policy = policies[0]['episodes'].number.shape[1]
  number = np.arange(episodes.number.shape[1], dtype=np.int32)
  episodes = episodes.replace(
    number=np.tile(number, (len(history), 1)), application=np.tile(number // per_policy, (len(history), 1))
  )
  returns, error = (np.stack([policy[name] for policy in policies], axis=1) for name in ('returns', 'error'))
  if not np.isfinite(returns[:, :len(kept)]).any():
    raise NonFiniteSimulationError(
      'Every policy of a round blew up, so that there is nothing to learn from; check the simulation with smaller time '
      'steps or narrower dynamics.'
    )
  return {
    'episodes': episodes, 'kept': np.stack(kept, axis=1), 'history': history, 'returns': returns, 'error': error,
  }


def _draw_histories(dataset, histories, num, rng):
  """[num] histories, each source as often as any other, however many histories it has."""
  source = dataset.source[histories]
  several = len(np.unique(source)) > 1
  chance = 1.0 / np.bincount(source)[source] if several else np.ones(len(histories))
  return rng.choice(histories, size=num, replace=several or num > len(histories), p=chance / chance.sum())


def add_round(
  index: int, operator: Operator, operator_params: Params, play: Play, dataset: Dataset, histories: np.ndarray,
  settings: TrainingSettings, *, seed: int, folder: files.Path, explorers: Params | None = None,
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
    found = play_round(
      operator, operator_params, play, dataset, histories, settings, rng, first=index == 0, explorers=explorers
    )
    files.save_tree(path, found)
  wait_for(path)


def wait_for(path: pathlib.Path) -> None:
  """Waits until the first process has written a file; raises `WaitingError` if it has not within an hour."""
  until = time.monotonic() + _WAIT_SECONDS
  while not path.exists():
    if time.monotonic() > until:
      raise WaitingError(
        f'The first process has not written {path} within {_WAIT_SECONDS / 60:.0f} minutes; look at its output, and '
        'run all processes again.'
      )
    time.sleep(_POLL_SECONDS)


def load(folder: files.Path, dataset: Dataset, indices: Sequence[int] | None = None) -> list[Runs]:
  """The rounds that a training on a dataset has stored in its folder; all, or those with `indices`.

  Raises:
    DamagedDataError: if one is missing or altered, or is not of this dataset.
  """
  stored = sorted(pathlib.Path(folder).glob('runs_*.safetensors'))
  paths = stored if indices is None else [_path(folder, index) for index in indices]
  fields = {field: None for field in Trajectory.__dataclass_fields__}
  episodes = Memory(**{
    **{field: None for field in Memory.__dataclass_fields__}, 'trajectory': Trajectory(**fields)
  })
  like = {'episodes': episodes, **{name: None for name in ('kept', 'history', 'returns', 'error')}}
  found = []
  for path in paths:
    round_ = files.load_tree(path, like)
    if not _is_of(round_, dataset):
      raise DamagedDataError(f'{path} does not hold runs on these histories; delete it, and run the training again.')
    found.append(_matched(round_, dataset))
  return found


def _is_of(stored: dict[str, Any], dataset: Dataset) -> bool:
  """Whether what was read fits: histories are some of the dataset's, shapes are those of its policies, and all that is
  known is finite."""
  kept, reward = stored['kept'], stored['episodes'].trajectory.reward
  if kept.ndim != 3 or not kept.size or reward.ndim != 3:
    return False
  like = _like(kept.shape, reward.shape, dataset.header['observation_size'], dataset.header['action_size'])
  if not all(jax.tree.leaves(jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), stored, like))):
    return False
  history, returns, num = stored['history'], stored['returns'], kept.shape[1]
  known = jax.tree.leaves({**stored, 'returns': np.nan_to_num(returns, posinf=np.nan, neginf=np.nan)})
  return (
    0 <= history.min() and history.max() < dataset.num_histories
    and EMPTY <= kept.min() and kept.max() < reward.shape[1] and reward.shape[1] % (num + 1) == 0
    and np.isfinite(returns[:, :num]).any() and all(np.isfinite(leaf).all() for leaf in known)
  )


def _like(
  kept: tuple[int, ...], steps: tuple[int, ...], observation_size: int, action_size: int
) -> dict[str, Any]:
  """Arrays of the shapes and types of a round whose 'kept' has the shape [R, P, C] and whose rewards have `steps`."""
  def array(dtype, *shape):
    return np.broadcast_to(np.zeros((), dtype), shape)

  runs, episodes = kept[0], (kept[0], steps[1])
  trajectory = Trajectory(
    observation=array(np.float32, *steps, observation_size), action=array(np.float32, *steps, action_size),
    reward=array(np.float32, *steps), next_observation=array(np.float32, *steps, observation_size),
    outcome=array(np.float32, *steps, 0), terminated=array(bool, *steps), valid=array(bool, *steps),
    finite=array(bool, *episodes),
  )
  memory = Memory(
    trajectory=trajectory, behaviour=array(np.float32, *steps, 2 * action_size), time=array(np.int32, *steps),
    episode_return=array(np.float32, *episodes), largest_reward=array(np.float32, *episodes),
    application=array(np.int32, *episodes), number=array(np.int32, *episodes),
  )
  return {
    'episodes': memory, 'kept': array(np.int32, *kept), 'history': array(np.int64, runs),
    'returns': array(np.float32, runs, kept[1] + 1), 'error': array(np.float64, runs, kept[1] + 1),
  }


def _matched(stored: dict[str, Any], dataset: Dataset) -> Runs:
  num = stored['kept'].shape[1]
  returns, levels = stored['returns'], dataset.returns[stored['history']]
  lowest, highest = levels.min(axis=1), levels.max(axis=1)
  gained = (returns - lowest[:, None]) / np.maximum(highest - lowest, 1e-9)[:, None]
  gain = explore.gain(returns, lowest, highest)
  history = np.repeat(stored['history'], num)
  chance = match(
    np.nan_to_num(returns[:, :num].reshape(-1)), stored['error'][:, :num].reshape(-1), dataset.returns[history],
    dataset.return_error[history], dataset.rank[history],
  )
  return Runs(
    episodes=stored['episodes'], kept=stored['kept'], history=stored['history'], returns=returns, gain=gain,
    gained=gained, chance=chance.reshape(*returns[:, :num].shape, -1),
  )


def _path(folder: files.Path, index: int) -> pathlib.Path:
  return pathlib.Path(folder) / f'runs_{index:02d}.safetensors'
