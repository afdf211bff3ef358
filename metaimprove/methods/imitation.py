"""Behave as the one that is watched: an operator reads episodes of somebody of any make, and is asked for k = 0.

Of the one that is watched nothing is known but what it did: observations, actions and rewards. Beside it stands
behaviour cloning of the very same episodes, which needs no rewards; and the operator without rewards.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaimprove import asks, files, parallel
from metaimprove.improvers.demonstrations import make_act
from metaimprove.improvers.source import Source
from metaimprove.methods.method import Curve, Method
from metaimprove.operators.memory import Memory, join, recorded_behaviour, watched_memory
from metaimprove.operators.operator import Operator
from metaimprove.policies import Policy
from metaimprove.rng import stream
from metaimprove.rollouts import unroll
from metaimprove.tasks.family import TaskFamily
from metaimprove.trees import batch_size
from metaimprove.types import Params, Play, Progress, Task, Trajectory, mean_return

AGAIN = (1, 4, 30)
"""After so many imitations, each of the one before, it is measured; the first one is of the one that is watched."""
_CLONE_STEPS, _CLONE_RATE = 1000, 3e-3
_EPISODES = 8
"""That measure the one that is watched."""


class PlayWatched(Protocol):
  """What it does on tasks [B] in a number of episodes, [B, E, T, ...]."""

  def __call__(self, tasks: Task, rng_key: chex.PRNGKey, num_episodes: int, /) -> Trajectory: ...


class ActWatched(Protocol):
  """What it would do at observations [B, S, O] on tasks [B], without noise: actions [B, S, A]."""

  def __call__(self, tasks: Task, observation: chex.Array, /) -> chex.Array: ...


@dataclasses.dataclass(frozen=True)
class Watched:
  """Somebody who is watched on a task.

  Attributes:
    name: in figures; lower case letters, digits and underscores.
    play, act: see there.
    settings: plain data that determines both.
  """

  name: str
  play: PlayWatched
  act: ActWatched
  settings: Mapping[str, Any]


def watched_level(source: Source, snapshot: Any, policy: Policy, play_of: Callable[[int], Play], name: str) -> Watched:
  """The policies of a source's snapshot, told everything; `play_of` gives a play of a number of episodes."""
  def play(tasks, rng_key, num_episodes):
    return play_of(num_episodes)(source.params_of(snapshot, tasks), tasks, rng_key)

  def act(tasks, observation):
    return mean_action(policy, source.params_of(snapshot, tasks), observation)

  return Watched(name, play, act, {'snapshot': files.checksum(files.tree_to_bytes(snapshot))})


def watched_script(
  family: TaskFamily, controller: Callable[[chex.Array, chex.Array], chex.Array], name: str, **settings: Any
) -> Watched:
  """A controller (goal [G], observation [O]) -> action [A] that is told the goal, and `settings`, plain data that
  determine it; see `experiments.scripts`."""
  def one(task, key, num_episodes):
    act = make_act(family, lambda observation, _: controller(task.goal, observation))
    return unroll(family, act, task, key, num_episodes=num_episodes)[0]

  compiled = jax.jit(jax.vmap(one, in_axes=(0, 0, None)), static_argnums=2)

  def play(tasks, rng_key, num_episodes):
    return compiled(tasks, jax.random.split(rng_key, batch_size(tasks)), num_episodes)

  def act(tasks, observation):
    return jnp.clip(jax.vmap(jax.vmap(controller, in_axes=(None, 0)))(tasks.goal, observation), -1.0, 1.0)

  return Watched(name, play, act, {'controller': controller.__name__, **settings})


def mean_action(policy: Policy, params: Params, observation: chex.Array) -> chex.Array:
  """[B, S, A], what policies [B, ...] do at [B, S, O] without noise."""
  return jax.vmap(lambda theta, seen: policy.distribution.mode(policy.apply(theta, seen)))(params, observation)


def imitation_method(
  operator: Operator, operator_params: Any, watched: Watched, play: Play, measure: tuple[Play, int], *,
  num_episodes: int, **options: Any,
) -> Method:
  """Returns, as the points of a curve: of the one that is watched, of its imitation, of imitations of imitations as
  `AGAIN` says, of an imitation without rewards, of behaviour cloning, and again of the one that is watched, as often as
  the others are measured: so far apart are two measurements. `num_episodes` are watched, and are those of `play`."""
  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    shown = watched.play(tasks, stream(rng_key, 'watched'), num_episodes)
    imitate = functools.partial(imitated, operator, operator_params)
    found = [mean_return(watched.play(tasks, stream(rng_key, 'measured'), _EPISODES))]
    trajectory = shown
    for number in range(1, AGAIN[-1] + 1):
      params = imitate(trajectory)
      if number in AGAIN:
        found.append(mean_return(measure[0](params, tasks, stream(rng_key, f'imitation {number}'))))
      trajectory = play(params, tasks, stream(rng_key, f'imitated {number}'))
      progress(options['title'], number, AGAIN[-1], {})
    for name, params in {
      'without rewards': imitate(without_rewards(shown)),
      'cloned': cloned(operator.policy, shown, stream(rng_key, 'clone')),
    }.items():
      found.append(mean_return(measure[0](params, tasks, stream(rng_key, name))))
    found.append(mean_return(watched.play(tasks, stream(rng_key, 'measured again'), measure[1])))
    used = np.full(len(found), num_episodes)
    return Curve(episodes=used, env_steps=used * operator.config.episode_length, returns=np.stack(found))

  settings = {
    **_settings(operator, operator_params, watched, num_episodes), 'again': list(AGAIN),
    'measured': [_EPISODES, measure[1]],
  }
  return Method(run=run, settings=settings, **options)


def without_rewards(trajectory: Trajectory) -> Trajectory:
  """The same experience, all rewards 0."""
  return trajectory.replace(reward=jnp.zeros_like(trajectory.reward))


def divergence_method(
  operator: Operator, operator_params: Any, watched: Watched, play: Play, *, num_episodes: int, **options: Any
) -> Method:
  """How far imitations are from the one that is watched, and how far behaviour cloning is: mean absolute difference of
  actions, at states that either of both visits."""
  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    shown = watched.play(tasks, stream(rng_key, 'watched'), num_episodes)
    found = []
    for name, params in {
      'imitation': imitated(operator, operator_params, shown),
      'clone': cloned(operator.policy, shown, stream(rng_key, 'clone')),
    }.items():
      own = play(params, tasks, stream(rng_key, name))
      other = watched.play(tasks, stream(rng_key, f'beside {name}'), num_episodes)
      found.append(np.mean([
        apart(lambda seen, params=params: mean_action(operator.policy, params, seen),
              lambda seen: watched.act(tasks, seen), trajectory) for trajectory in (own, other)
      ], axis=0))
      progress(options['title'], len(found), 2, {})
    used = np.full(len(found), num_episodes)
    return Curve(episodes=used, env_steps=used * operator.config.episode_length, returns=np.stack(found))

  return Method(run=run, settings=_settings(operator, operator_params, watched, num_episodes), **options)


def apart(
  first: Callable[[chex.Array], chex.Array], second: Callable[[chex.Array], chex.Array], trajectory: Trajectory
) -> np.ndarray:
  """[B] mean absolute difference of the actions that two give at the states of a trajectory [B, E, T, ...]."""
  num = batch_size(trajectory)
  seen = jnp.reshape(trajectory.observation, (num, -1, trajectory.observation.shape[-1]))
  valid = jnp.reshape(trajectory.valid, (num, -1))
  difference = jnp.abs(first(seen) - second(seen)).mean(axis=-1)
  return np.asarray(jnp.sum(difference * valid, axis=1) / jnp.maximum(jnp.sum(valid, axis=1), 1))


def imitated(operator: Operator, operator_params: Any, trajectory: Trajectory) -> Params:
  """The imitations [B, ...] of those whose actions are seen in [B, E, T, ...]."""
  return _imitate(operator, operator_params, parallel.spread(trajectory))


@functools.partial(jax.jit, static_argnames='operator')
def _imitate(operator: Operator, operator_params: Any, trajectory: Trajectory) -> Params:
  def memory_of(one: Trajectory) -> Memory:
    watched = watched_memory(recorded_behaviour(one.action), one, operator.config.steps_kept)
    return join(None, watched, operator.config.capacity)

  def imitate(operator_params: Any, one: Trajectory) -> Params:
    return operator.improve_behaviour(operator_params, memory_of(one), jax.tree.map(jnp.asarray, asks.ask(steps=0)))

  return parallel.vmap(imitate, in_axes=(None, 0))(operator_params, trajectory)


def cloned(policy: Policy, trajectory: Trajectory, rng_key: chex.PRNGKey) -> Params:
  """Policies [B, ...] fitted to the actions of [B, E, T, ...] by likelihood, all steps in each gradient step."""
  return _clone(policy, trajectory, jax.random.split(rng_key, batch_size(trajectory)))


@functools.partial(jax.jit, static_argnames='policy')
def _clone(policy: Policy, trajectory: Trajectory, keys: chex.Array) -> Params:
  optimizer = optax.adam(_CLONE_RATE)

  def one(shown, key):
    actions = recorded_behaviour(shown.action)[..., :shown.action.shape[-1]]  # before tanh

    def loss(params):
      likelihood = policy.distribution.log_prob(policy.apply(params, shown.observation), actions)
      return -jnp.sum(jnp.where(shown.valid, likelihood, 0.0)) / jnp.maximum(shown.valid.sum(), 1)

    def step(carry, _):
      params, state = carry
      changes, state = optimizer.update(jax.grad(loss)(params), state)
      return (optax.apply_updates(params, changes), state), None

    params = policy.init(key)
    return jax.lax.scan(step, (params, optimizer.init(params)), None, length=_CLONE_STEPS)[0][0]

  return jax.vmap(one)(trajectory, keys)


def _settings(operator, operator_params, watched, num_episodes):
  return {
    'operator': dataclasses.asdict(operator.config), 'watched': dict(watched.settings), 'num_episodes': num_episodes,
    'operator_params': files.checksum(files.tree_to_bytes(operator_params)), 'clone': [_CLONE_STEPS, _CLONE_RATE],
  }
