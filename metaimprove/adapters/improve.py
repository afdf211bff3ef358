"""One application of an operator to plain arrays: what a policy of any make did, to a better policy."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import asks, policies
from metaimprove.adapters.numpy_policy import NumpyPolicy
from metaimprove.asks import Ask, explore, says_all, steps
from metaimprove.episodes import Episode, as_trajectory, read_episode
from metaimprove.errors import ExperienceError, IncompatibleError, NonFinitePolicyError
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.memory import (
  Memory, empty_memory, join, newest_met_nothing, recorded_behaviour, watched_memory
)
from metaimprove.operators.operator import Operator
from metaimprove.trees import stack
from metaimprove.types import Params, Trajectory

BlackBox = Callable[[np.ndarray], Any]
"""A policy of any make: observations [L, O] to (location, scale), [L, A] each, of the normal before
tanh that it draws from, actions in [-1, 1]. One that is a normal without tanh has the location arctanh of its mean."""
AnyPolicy = NumpyPolicy | Params | BlackBox | None
"""None: nothing is known of it but the actions that it took."""


def improve(
  operator: tuple[Operator, Params], policy: AnyPolicy, episodes: Sequence[Any], ask: Ask | str | int = 'best', *,
  before: Sequence[tuple[AnyPolicy, Sequence[Any]]] = (), explores: bool | None = None,
  rng_key: chex.PRNGKey | None = None,
) -> NumpyPolicy:
  """A better policy, from episodes of one. Observations and actions are those that the operator knows; see `Spaces`.

  Args:
    operator: as `load_operator` gives it.
    policy: that acted: one of ours, its parameters, those of Brax's PPO, a `BlackBox`, or None.
    episodes: what it did, at least one, or none where a goal is asked for before anything was tried; `Episode`s of any
      lengths up to the operator's, or objects or mappings with these fields, such as Minari's.
    ask: see `metaimprove.ask`; a size of improvement may be given as such, and any ask as its text.
    before: policies that acted before on the same task, the first one first, and the episodes of each.
    explores: whether to ask to explore instead where `policy` met no reward above 0; by default if the operator
      understands it, and no more than a size of improvement is asked for.
    rng_key: to draw one of several possible answers; by default it is the most likely one.

  Raises:
    ExperienceError: for episodes that it cannot read; says which, and why.
    IncompatibleError: for a policy of another shape, and an ask that it does not understand.
    NonFinitePolicyError: if the answer is no policy.
  """
  memory, ask = None, checked_ask(operator[0], ask)
  for acted, experienced in (*before, (policy, episodes)):
    is_nothing = memory is None and hasattr(experienced, '__len__') and not len(experienced)
    if not is_nothing or not says_all(ask):
      memory = remember(operator[0], memory, acted, experienced)
  return answer(operator, memory, policy, ask, explores=explores, rng_key=rng_key)


def remember(operator: Operator, memory: Memory | None, policy: AnyPolicy, episodes: Sequence[Any]) -> Memory:
  """What is remembered after a policy has acted, from what was before (None at first); see `improve`."""
  config = operator.config
  if not hasattr(episodes, '__len__') or hasattr(episodes, 'keys'):
    raise ExperienceError('Episodes are given as a list; write [episode] for a single one.')
  if not 1 <= len(episodes) <= config.capacity:
    raise ExperienceError(
      f'There are {len(episodes)} episodes, and this operator reads 1 to {config.capacity} of a policy; it was trained '
      f'with {config.num_episodes}.'
    )
  sizes = {
    'observation_size': config.observation_size, 'action_size': config.action_size, 'longest': config.episode_length,
  }
  read = [read_episode(episode, f'Episode {index}', **sizes) for index, episode in enumerate(episodes)]
  behaviour = np.zeros((len(read), config.episode_length, 2 * config.action_size), np.float32)
  for row, episode in zip(behaviour, read):
    row[:len(episode.rewards)] = _behaviour(policy, episode, config)
  return _join(memory, as_trajectory(read, config.episode_length), behaviour, config.capacity, config.steps_kept)


def answer(
  operator: tuple[Operator, Params], memory: Memory | None, policy: AnyPolicy, ask: Ask | str | int = 'best', *,
  explores: bool | None = None, rng_key: chex.PRNGKey | None = None,
) -> NumpyPolicy:
  """A better policy than the one that acted last, from what is remembered, None if nothing is; see `improve`."""
  (shapes, operator_params), own, ask = operator, _own(policy), checked_ask(operator[0], ask)
  if own is not None and own.layer_sizes == shapes.config.layer_sizes and bool(steps.is_same(ask)):
    return own
  if explores is None:
    explores = explore.NAME in shapes.config.asks and set(ask.given) == {steps.NAME}
  if memory is None:
    config, explores = shapes.config, False
    kept = min(config.steps_kept, config.episode_length)
    memory = empty_memory(config.capacity, kept, config.observation_size, config.action_size)
  params = jax.device_get(_answer(shapes, operator_params, memory, ask, rng_key, explores))
  if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
    raise NonFinitePolicyError(
      'The operator gave a policy that is not finite. Its own parameters, or what it has read, are too large; look at '
      'the experience, or train it again.'
    )
  return NumpyPolicy.of(params)


def checked_ask(operator: Operator, ask: Ask | str | int) -> Ask:
  """An ask for one policy.

  Raises:
    UnknownNameError: for what is no ask.
    IncompatibleError: for one that the operator does not understand, or that is for several policies.
  """
  if not isinstance(ask, Ask):
    ask = asks.from_words(ask) if isinstance(ask, str) else asks.ask(steps=ask)
  for name, given in ask.given.items():
    if name not in operator.config.asks:
      raise IncompatibleError(
        f'This operator does not understand an ask for {name!r}; it understands: {", ".join(operator.config.asks)}.'
      )
    if np.ndim(given):
      raise IncompatibleError('Ask for one thing at a time: each value of the ask is a single number or word.')
  return ask


@functools.partial(jax.jit, static_argnames=('capacity', 'num_steps'))
def _join(
  memory: Memory | None, trajectory: Trajectory, behaviour: chex.Array, capacity: int, num_steps: int
) -> Memory:
  return join(memory, watched_memory(behaviour, trajectory, num_steps), capacity)


@functools.partial(jax.jit, static_argnames=('operator', 'explores'))
def _answer(
  operator: Operator, operator_params: Params, memory: Memory, ask: Ask, rng_key: chex.PRNGKey | None, explores: bool
) -> Params:
  if explores:
    ask = jax.tree.map(jnp.asarray, ask)
    ask = explore.instead(ask, newest_met_nothing(memory) & ~steps.is_same(ask))
  return operator.improve_behaviour(operator_params, memory, ask, rng_key)


def _own(policy: AnyPolicy) -> NumpyPolicy | None:
  """A policy of our shape of network; None for one of another make."""
  if isinstance(policy, NumpyPolicy):
    return policy
  return None if policy is None or callable(policy) else NumpyPolicy.of(policy)


def _behaviour(policy: AnyPolicy, episode: Episode, config: OperatorConfig) -> np.ndarray:
  """[L, 2A] what a policy would do at the observations of an episode before its actions: location and raw scale."""
  own, observations = _own(policy), episode.observations[:-1]
  if own is not None:
    if (own.layer_sizes[0], own.layer_sizes[-1]) != (config.observation_size, 2 * config.action_size):
      raise IncompatibleError(
        f'This policy has {own.layer_sizes[0]} observations and {own.layer_sizes[-1] // 2} actions; the operator knows '
        f'{config.observation_size} and {config.action_size}.'
      )
    return policies.apply_numpy(stack([own.params]), observations[None])[0]
  if policy is None:
    return np.asarray(recorded_behaviour(episode.actions))
  found = policy(observations.copy())
  try:
    location, scale = (np.asarray(part, np.float32) for part in found)
  except (TypeError, ValueError):
    location = scale = np.zeros(0)
  if not location.shape == scale.shape == episode.actions.shape:
    raise ExperienceError(
      f'A policy that is a function must give (location, scale), {list(episode.actions.shape)} each, for observations '
      f'{list(observations.shape)}; give None instead of one that gives actions only.'
    )
  if not (np.isfinite(location) & np.isfinite(scale) & (scale > 0)).all():
    raise ExperienceError('The policy gave locations or scales that are not finite, or scales that are not positive.')
  return np.concatenate([location, policies.raw_scale_of(scale)], axis=-1)
