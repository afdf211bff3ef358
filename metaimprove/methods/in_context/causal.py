"""A causal transformer over the steps of a few episodes in a row, that says how it acts at each: the model of Algorithm
Distillation and of both Decision Transformers. They differ in what episodes stand in a row, and in the return to go.

One token a step: the observation, the action, the reward and the end of the step before, and perhaps the return to go.
Positions are learned: the sum of one for the step in its episode and one for the episode in the row.
"""

import dataclasses
import functools
from typing import Protocol

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from metaimprove.methods.baseline import count_params
from metaimprove.methods.in_context import sequences, transformer
from metaimprove.methods.in_context.heads import Head
from metaimprove.methods.in_context.sequences import Previous, Statistics
from metaimprove.methods.in_context.transformer import Kept
from metaimprove.rollouts import Agent
from metaimprove.types import Params, Trajectory, episode_return


@chex.dataclass(frozen=True)
class Context:
  """What an agent remembers of one task.

  Attributes:
    episodes: [M, T, ...] the row, without outcomes; the episode that goes on is one of it.
    place: [] int, of that episode in the row.
    time: [] int, its step.
    kept: of the transformer, [N, M T, H, D].
    seen: [M T] bool, which tokens there are.
    previous: the step before.
    to_go: [] the return that is wanted of the rest of the episode; None where none is said.
  """

  episodes: Trajectory
  place: chex.Array
  time: chex.Array
  kept: Kept
  seen: chex.Array
  previous: Previous
  to_go: chex.Array | None


class NextRow(Protocol):
  """The row for the next episode and its place in it, from the row [M, T, ...] when an episode is over, and the place
  of that episode. Which rows are kept may depend on what happened, the place must not."""

  def __call__(self, episodes: Trajectory, place: chex.Array, /) -> tuple[Trajectory, chex.Array]: ...


@dataclasses.dataclass(frozen=True)
class Causal:
  """The model.

  Attributes:
    head: how actions are distributed.
    observation_size: O.
    action_size: A.
    episode_length: T.
    num_episodes: M.
    first_learned: the actions of this episode of a row, and of those after it, are learned.
    with_return: whether tokens have the return to go.
    width: of tokens.
    num_blocks: of the transformer.
    num_heads: of the transformer.
  """

  head: Head
  observation_size: int
  action_size: int
  episode_length: int
  num_episodes: int
  first_learned: int = 0
  with_return: bool = False
  width: int = 64
  num_blocks: int = 3
  num_heads: int = 2

  @property
  def sizes(self) -> dict[str, int]:
    """Of the transformer."""
    return {'width': self.width, 'num_blocks': self.num_blocks, 'num_heads': self.num_heads}

  @property
  def num_features(self) -> int:
    """Of a token."""
    return sequences.num_step_features(self.observation_size, self.action_size, self.with_return)

  @property
  def num_params(self) -> int:
    """Of the model."""
    return count_params(jax.eval_shape(self.init, jax.random.key(0)))

  @functools.cached_property
  def network(self) -> hk.Transformed:
    """(features [K, F], episodes [K], times [K], what is kept, mask) -> (logits [K, S], what to keep)."""
    return hk.without_apply_rng(hk.transform(functools.partial(_network, self)))

  def init(self, rng_key: chex.PRNGKey) -> Params:
    """The first parameters."""
    one = jnp.zeros(1, int)
    return self.network.init(rng_key, jnp.zeros((1, self.num_features)), one, one, None, jnp.ones((1, 1), bool))

  def read(self, params: Params, statistics: Statistics, episodes: Trajectory) -> tuple[chex.Array, Kept]:
    """The logits [M T, S] at the steps of a row of episodes [M, T, ...], and what to keep of them."""
    previous = jax.tree.map(lambda x: x[:-1], sequences.previous_of(episodes))
    seen = episodes.valid.reshape(-1)
    observation = episodes.observation.reshape(len(seen), -1)
    to_go = sequences.return_to_go(episodes.reward).reshape(-1) if self.with_return else None
    features = sequences.step_features(statistics, observation, previous, to_go)
    steps = jnp.arange(len(seen))
    mask = jnp.tril(seen | jnp.eye(len(seen), dtype=bool))
    return self.network.apply(params, features, steps // self.episode_length, steps % self.episode_length, None, mask)

  def loss(self, statistics: Statistics, params: Params, batch: Trajectory) -> chex.Array:
    """[] mean negative log likelihood of the actions that are learned, of rows of episodes [B, M, T, ...]."""
    logits, _ = jax.vmap(self.read, in_axes=(None, None, 0))(params, statistics, batch)
    logits, learned = logits.reshape(*batch.valid.shape, -1), slice(self.first_learned, None)
    likelihood = self.head.log_likelihood(logits[:, learned], batch.action[:, learned])
    valid = batch.valid[:, learned]
    return -jnp.where(valid, likelihood, 0.0).sum() / jnp.maximum(valid.sum(), 1)

  def agent(
    self, statistics: Statistics, next_row: NextRow, *, first_place: int = 0, target_return: float | None = None
  ) -> Agent:
    """The agent, which draws its actions.

    Args:
      statistics: of what is read.
      next_row: what it remembers of earlier episodes.
      first_place: of its first episode in the row.
      target_return: that is asked of each episode; where the model knows returns to go.
    """
    model, shape = self, (self.num_episodes, self.episode_length)

    def context(params, episodes, place):
      return Context(
        episodes=episodes, place=place, time=jnp.zeros((), int), kept=model.read(params, statistics, episodes)[1],
        seen=episodes.valid.reshape(-1), previous=jax.tree.map(lambda x: x[-1], sequences.previous_of(episodes)),
        to_go=jnp.asarray(target_return, jnp.float32) if model.with_return else None,
      )

    def begin(params):
      empty = empty_episodes(*shape, model.observation_size, model.action_size)
      return context(params, empty, jnp.asarray(first_place))

    def act(params, state, observation, rng_key):
      features = sequences.step_features(statistics, observation, state.previous, state.to_go)
      mask = jnp.concatenate([state.seen, jnp.ones(1, bool)])
      logits, new = model.network.apply(
        params, features[None], state.place[None], state.time[None], state.kept, mask[None]
      )
      kept = transformer.write(state.kept, new, state.place * shape[1] + state.time)
      return model.head.sample(logits[0], rng_key), state.replace(kept=kept)

    def see(params, state, transition):
      finite = state.episodes.finite.at[state.place].min(transition.finite)
      episodes = jax.tree.map(
        lambda x, y: x.at[state.place, state.time].set(y), state.episodes.replace(finite=None),
        transition.replace(finite=None),
      )
      now = Previous(
        action=transition.action, reward=transition.reward, terminated=transition.terminated, there=transition.valid
      )
      return state.replace(
        episodes=episodes.replace(finite=finite), time=state.time + 1,
        seen=state.seen.at[state.place * shape[1] + state.time].set(transition.valid),
        previous=jax.tree.map(lambda x, y: jnp.where(transition.valid, x, y), now, state.previous),
        to_go=state.to_go - transition.reward if model.with_return else None,
      )

    def end_episode(params, state):
      return context(params, *next_row(state.episodes, state.place))

    return Agent(begin=begin, act=act, see=see, end_episode=end_episode)


def empty_episodes(num_episodes: int, length: int, observation_size: int, action_size: int) -> Trajectory:
  """Room for episodes [M, T, ...] without outcomes; none of their steps is valid."""
  zeros = lambda *size: jnp.zeros((num_episodes, length, *size))
  no = jnp.zeros((num_episodes, length), bool)
  return Trajectory(
    observation=zeros(observation_size), action=zeros(action_size), reward=zeros(),
    next_observation=zeros(observation_size), outcome=zeros(0), terminated=no, valid=no,
    finite=jnp.ones(num_episodes, bool),
  )


def slide(episodes: Trajectory, place: chex.Array) -> tuple[Trajectory, chex.Array]:
  """The `NextRow` that remembers the latest M - 1 episodes, in order: whole ones fall out when it is full."""
  last = len(episodes.valid) - 1
  moved = jax.tree.map(lambda x: jnp.where(place == last, jnp.roll(x, -1, axis=0), x), episodes)
  place = jnp.minimum(place + 1, last)
  return _cleared(moved, place), place


def keep_best(episodes: Trajectory, place: chex.Array) -> tuple[Trajectory, chex.Array]:
  """The `NextRow` [2, T] of a prompt, which is the best episode so far, and of the episode that goes on."""
  value = jnp.where(episodes.valid.any(axis=1) & episodes.finite, episode_return(episodes), -jnp.inf)
  best = jnp.where(value[1] > value[0], 1, 0)
  return _cleared(jax.tree.map(lambda x: x.at[0].set(x[best]), episodes), place), place


def forget(episodes: Trajectory, place: chex.Array) -> tuple[Trajectory, chex.Array]:
  """The `NextRow` [1, T] that remembers no earlier episode."""
  return _cleared(episodes, place), place


def _cleared(episodes: Trajectory, place: chex.Array) -> Trajectory:
  """The row with room for a new episode at a place."""
  return episodes.replace(valid=episodes.valid.at[place].set(False), finite=episodes.finite.at[place].set(True))


def _network(
  model: Causal, features: chex.Array, episode: chex.Array, time: chex.Array, before: Kept | None, mask: chex.Array
) -> tuple[chex.Array, Kept]:
  """To be called inside a Haiku transform."""
  initial = hk.initializers.TruncatedNormal(0.1)
  positions = [
    hk.get_parameter(name, (size, model.width), init=initial)[index]
    for name, size, index in (('times', model.episode_length, time), ('episodes', model.num_episodes, episode))
  ]
  tokens = hk.Linear(model.width, name='embed')(features) + sum(positions)
  outputs, new = transformer.attend(tokens, before, mask, **model.sizes)
  return hk.Linear(model.head.num_logits, w_init=hk.initializers.TruncatedNormal(0.01), name='logits')(outputs), new
