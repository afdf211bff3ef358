"""Rewards that nobody gave: learned from the ranks of noise alone (D-REX, Brown et al., arXiv:1907.03976).

A policy is played with more and less noise, and episodes with less noise are probably better. A small network learns
rewards of states whose sums rank episodes so (T-REX, Brown et al., arXiv:1904.06387), for each task by itself. They may
go on rising beyond the policy that was shown. The network reads states alone: from actions it could tell the noise.
Unlike D-REX's, it is one network and no ensemble, and noise is in all rungs of the ladder equally often.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaimprove import parallel, policies
from metaimprove.policies import Policy, make_policy
from metaimprove.rng import stream
from metaimprove.rollouts import unroll
from metaimprove.tasks.family import TaskFamily
from metaimprove.trees import batch_size, concatenate, take
from metaimprove.types import Params, Progress, Task, Trajectory, silent

_AT_ONCE = 64
"""Tasks whose rewards are learned side by side."""


@dataclasses.dataclass(frozen=True)
class RankingSettings:
  """How rewards are learned.

  Attributes:
    num_rungs: L; the share of steps with a random action falls evenly from 1 to 0.
    num_episodes: E of each rung.
    hidden_sizes: of the network.
    num_steps: gradient steps.
    batch_size: pairs of pieces of episodes in each.
    piece_length: steps of a piece.
    learning_rate: of Adam.
    weight_decay: of the weights.
  """

  num_rungs: int = 8
  num_episodes: int = 2
  hidden_sizes: tuple[int, ...] = (32, 32)
  num_steps: int = 600
  batch_size: int = 32
  piece_length: int = 1
  learning_rate: float = 5e-3
  weight_decay: float = 1e-3

  def network(self, observation_size: int) -> Policy:
    """Of the rewards: that of a policy, whose first location is the reward."""
    return make_policy(observation_size, 1, self.hidden_sizes)


def learn_rewards(
  family: TaskFamily, policy: Policy, params: Params, tasks: Task, rng_key: chex.PRNGKey,
  settings: RankingSettings = RankingSettings(), *, progress: Progress = silent,
) -> Params:
  """Learns rewards for each of B tasks from the ladder of one policy there; the family's own rewards are not read.

  Args:
    family: the task family.
    policy: the shape of the policies.
    params: [B, ...] the policies that are shown, however good.
    tasks: [B].
    rng_key: of episodes and learning.
    settings: see there.
    progress: told of the tasks.

  Returns:
    [B, ...] parameters of the rewards, for `with_rewards`. Of the states of its ladder a task's rewards have mean 0 and
    deviation 1.
  """
  num, found = batch_size(tasks), []
  learn = jax.jit(parallel.vmap(functools.partial(_learn_one, family, policy, settings)))
  for start in range(0, num, _AT_ONCE):
    rows = np.resize(np.arange(start, min(start + _AT_ONCE, num)), min(_AT_ONCE, num))  # of one length: compiled once
    keys = jax.random.split(stream(rng_key, f'tasks from {start}'), len(rows))
    rewards = jax.device_get(learn(take(params, rows), take(tasks, rows), keys))
    found.append(take(rewards, slice(num - start)))
    progress('learn rewards from ranks', min(start + _AT_ONCE, num), num, {})
  return concatenate(found)


def with_rewards(rewards: Params, trajectory: Trajectory) -> Trajectory:
  """Experience [B, ..., T, ...] with the learned rewards [B, ...] instead of its own, 0 where not `valid`; numpy."""
  found = policies.apply_numpy(rewards, np.asarray(trajectory.next_observation))[..., 0]
  return trajectory.replace(reward=np.where(trajectory.valid, found, 0.0).astype(np.float32))


def play_ladder(
  family: TaskFamily, policy: Policy, params: Params, task: Task, rng_key: chex.PRNGKey, settings: RankingSettings
) -> Trajectory:
  """A policy on a task with less and less noise, [L, E, T, ...]; the last rung is without."""
  def rung(noise, key):
    def act(observation, step_key):
      key_own, key_random, key_which = jax.random.split(step_key, 3)
      own, extras = policy.sample(params, observation, key_own)
      random = jax.random.uniform(key_random, own.shape, minval=-1.0, maxval=1.0)
      return jnp.where(jax.random.bernoulli(key_which, noise), random, own), extras

    return unroll(family, act, task, key, num_episodes=settings.num_episodes)[0]

  keys = jax.random.split(rng_key, settings.num_rungs)
  return jax.vmap(rung)(jnp.linspace(1.0, 0.0, settings.num_rungs), keys)


def _learn_one(
  family: TaskFamily, policy: Policy, settings: RankingSettings, params: Params, task: Task, rng_key: chex.PRNGKey
) -> Params:
  """The rewards of one task."""
  key_play, key_learn = jax.random.split(rng_key)
  ladder = play_ladder(family, policy, params, task, key_play, settings)
  return rank(ladder.next_observation, ladder.valid, key_learn, settings)


def rank(states: chex.Array, valid: chex.Array, rng_key: chex.PRNGKey, settings: RankingSettings) -> Params:
  """Rewards of which pieces of later rungs have more; from states [L, E, T, O] of rungs, and [L, E, T] which count.

  Two rungs, an episode of each and the piece's place in it are drawn at random. The loss is the cross entropy of the
  better one's softmax over both sums.
  """
  states, valid = jnp.asarray(states), jnp.asarray(valid)
  key_init, key_steps = jax.random.split(rng_key)
  weight = valid[..., None] / jnp.maximum(valid.sum(), 1)
  mean = jnp.sum(states * weight, axis=(0, 1, 2))
  deviation = jnp.sqrt(jnp.sum(jnp.square(states - mean) * weight, axis=(0, 1, 2)))
  deviation = policies.foldable_deviation(mean, deviation) + 1e-6
  network = settings.network(states.shape[-1])
  optimizer = optax.adamw(settings.learning_rate, weight_decay=settings.weight_decay)
  num_rungs, num_episodes, length = valid.shape
  piece = min(settings.piece_length, length)
  normal = (states - mean) / deviation

  def summed(params, key):
    """[2] sums of rewards of two pieces, that of more noise first."""
    key_rung, key_episode, key_start = jax.random.split(key, 3)
    rungs = jnp.sort(jax.random.choice(key_rung, num_rungs, (2,), replace=False))[:, None]
    episodes = jax.random.randint(key_episode, (2, 1), 0, num_episodes)
    places = jax.random.randint(key_start, (), 0, length - piece + 1) + jnp.arange(piece)
    rewards = network.apply(params, normal[rungs, episodes, places])[..., 0]
    return jnp.sum(rewards * valid[rungs, episodes, places], axis=1)

  def loss(params, key):
    sums = jax.vmap(summed, in_axes=(None, 0))(params, jax.random.split(key, settings.batch_size))
    return optax.softmax_cross_entropy_with_integer_labels(sums, jnp.ones(len(sums), jnp.int32)).mean()

  def step(carry, key):
    params, state = carry
    changes, state = optimizer.update(jax.grad(loss)(params, key), state, params)
    return (optax.apply_updates(params, changes), state), None

  params = network.init(key_init)
  params, _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key_steps, settings.num_steps))[0]
  rewards = network.apply(params, normal)[..., 0]
  offset = jnp.sum(rewards * weight[..., 0])
  scale = jnp.sqrt(jnp.sum(jnp.square(rewards - offset) * weight[..., 0])) + 1e-6
  last = policies.layer_names(params)[-1]
  params[last] = {'w': params[last]['w'] / scale, 'b': (params[last]['b'] - offset) / scale}
  return policies.fold(params, mean, deviation)
