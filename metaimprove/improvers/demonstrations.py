"""A user's own demonstrations, imitated into θ by likelihood: the imitator's checkpoints are the history.

They are played by any callable policy, or come from a log. What an imitator can not do that was shown to it, because a
policy of its size or a view of one observation does not suffice, is measured: see `imitation_gap`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaimprove import files, policies
from metaimprove.episodes import read_episode
from metaimprove.errors import IncompatibleError
from metaimprove.improvers.source import Learning, Source
from metaimprove.rollouts import Act, rollout, unroll
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Task, mean_return

NAME = 'demonstrations'

_MAX_ACTION = 0.999
"""Actions are clipped to it, for tanh reaches 1 nowhere; a larger one would move θ far for hardly another action."""


@dataclasses.dataclass(frozen=True)
class ImitationSettings:
  """What an imitator is tuned by.

  Attributes:
    steps_per_update: steps of Adam in an update.
    batch_size: of the demonstrated steps drawn for each.
    learning_rate: of Adam.
    num_episodes: that the imitator's return is measured with in an update.
  """

  steps_per_update: int = 20
  batch_size: int = 256
  learning_rate: float = 3e-3
  num_episodes: int = 2


@chex.dataclass(frozen=True)
class Demonstrations:
  """What is imitated on one task: S steps, in no order, of whatever episodes.

  Attributes:
    observation: [S, O] float32.
    action: [S, A] float32 in [-1, 1].
    weight: [S] float32, 1, or 0 for what is not to be imitated.
    mean_return: [] float32, mean undiscounted return of the episodes; NaN where all of them blew up.
  """

  observation: chex.Array
  action: chex.Array
  weight: chex.Array
  mean_return: chex.Array


def demonstrations(
  family: TaskFamily, policy: Callable[[chex.Array, chex.PRNGKey], Any], settings: ImitationSettings, num_updates: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, *, num_episodes: int, name: str = NAME,
) -> Source:
  """The source that imitates, on each task, `num_episodes` episodes of a policy; see `make_act` for what that may be.

  Episodes that blow up are left out. Another policy is another source: give it another name.
  """
  act = make_act(family, policy)

  def play(rng_key, task):
    trajectory, _, _ = unroll(family, act, task, rng_key, num_episodes=num_episodes)
    weight = (trajectory.valid & trajectory.finite[:, None]).astype(jnp.float32)
    return Demonstrations(
      observation=trajectory.observation.reshape(-1, family.observation_size),
      action=trajectory.action.reshape(-1, family.action_size), weight=weight.ravel(),
      mean_return=mean_return(trajectory),
    )

  return _imitation(family, play, settings, num_updates, hidden_sizes, name, {'num_episodes': num_episodes})


def logged_demonstrations(
  family: TaskFamily, tasks: Task, episodes: Sequence[Sequence[Any]], settings: ImitationSettings, num_updates: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, *, name: str = f'logged_{NAME}',
) -> Source:
  """The source that imitates a log.

  Args:
    family: the task family.
    tasks: [N] tasks the log is of.
    episodes: for each task its episodes, at least one, as `episodes.read_episode` takes them.
    settings: of the imitator.
    num_updates: how many.
    hidden_sizes: of the imitator.
    name: of the source.

  Raises:
    IncompatibleError: if the log does not fit the family; an `ExperienceError` if an episode does not.
  """
  num_tasks = jax.tree.leaves(tasks)[0].shape[0]
  if len(episodes) != num_tasks or not all(len(of_task) for of_task in episodes):
    raise IncompatibleError(f'There must be episodes for each of the {num_tasks} tasks.')
  sizes = {
    'observation_size': family.observation_size, 'action_size': family.action_size, 'longest': family.episode_length,
  }
  read = [
    [read_episode(episode, f'Episode {i} of task {n}', **sizes) for i, episode in enumerate(of_task)]
    for n, of_task in enumerate(episodes)
  ]
  num_steps = max(sum(len(episode.rewards) for episode in of_task) for of_task in read)

  def field(value):
    """[N, S, ...], padded with zeros."""
    joined = [np.concatenate([value(episode) for episode in of_task]) for of_task in read]
    return np.stack([np.pad(x, [(0, num_steps - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in joined])

  rewards = field(lambda episode: episode.rewards)
  data = Demonstrations(
    observation=field(lambda episode: episode.observations[:-1]), action=field(lambda episode: episode.actions),
    weight=field(lambda episode: np.ones_like(episode.rewards)),
    mean_return=rewards.sum(axis=1) / np.array([len(of_task) for of_task in read], np.float32),
  )
  return dataclasses.replace(
    _imitation(
      family, lambda rng_key, task, data: data, settings, num_updates, hidden_sizes, name,
      {'log': files.checksum(files.tree_to_bytes({'tasks': tasks, 'data': data}))},
    ),
    tasks=tasks, data=data,
  )


def make_act(family: TaskFamily, policy: Callable[[chex.Array, chex.PRNGKey], Any]) -> Act:
  """A policy of any make as what `rollouts.unroll` takes.

  Args:
    family: the task family.
    policy: (observation [O], rng_key) -> action [A], clipped to [-1, 1]; or (action, anything), as Brax's inference
      functions return. What JAX can trace is traced, and must be a pure function: random numbers not drawn from the key
      would be the same in every step. What it can not (numpy, a simulator's own controller) is called once a step,
      with arrays of numpy; its key is [2] uint32, good for `numpy.random.default_rng`.

  Raises:
    IncompatibleError: if the action has another shape than the family's.
  """
  def action_of(observation, rng_key):
    output = policy(observation, rng_key)
    return output[0] if isinstance(output, tuple) else output

  def on_host(observation, key_data):
    return np.asarray(action_of(np.asarray(observation), np.asarray(key_data)), np.float32)

  def called(observation, rng_key):
    result = jax.ShapeDtypeStruct((family.action_size,), jnp.float32)
    return jax.pure_callback(on_host, result, observation, jax.random.key_data(rng_key), vmap_method='sequential')

  rng_key = jax.random.key(0)
  observation = np.zeros(family.observation_size, np.float32)
  try:
    shape, choose = jax.eval_shape(action_of, observation, rng_key).shape, action_of
  except Exception:  # whatever a library raises when it is given a tracer; what is really wrong is raised below
    shape, choose = on_host(observation, jax.random.key_data(rng_key)).shape, called
  if shape != (family.action_size,):
    raise IncompatibleError(f'The policy gives actions of shape {shape}; {family.name} needs ({family.action_size},).')
  return lambda observation, rng_key: (jnp.clip(choose(observation, rng_key), -1.0, 1.0).astype(jnp.float32), None)


def _imitation(family, gather, settings, num_updates, hidden_sizes, name, origin) -> Source:
  """The source that imitates what `gather` gives: (rng_key, task) or (rng_key, task, data) -> Demonstrations."""
  policy = policies.make_policy(family.observation_size, family.action_size, hidden_sizes)
  optimizer = optax.adam(settings.learning_rate)

  def init(rng_key, task, *data):
    key_policy, key_gather = jax.random.split(rng_key)
    params = policy.init(key_policy)
    return {
      'params': params, 'optimizer': optimizer.init(params), 'demonstrations': gather(key_gather, task, *data)
    }

  def loss(params, observation, action, weight):
    raw_action = policy.distribution.inverse_postprocess(jnp.clip(action, -_MAX_ACTION, _MAX_ACTION))
    return -jnp.mean(weight * policy.distribution.log_prob(policy.apply(params, observation), raw_action))

  def update(state, task, rng_key):
    key_play, key_steps = jax.random.split(rng_key)
    shown = state['demonstrations']

    def one_step(carry, step_key):
      params, optimizer_state = carry
      drawn = jax.random.choice(step_key, shown.weight.shape[0], (settings.batch_size,), p=shown.weight)
      # The weight of what is drawn is 1, unless there is nothing to imitate.
      gradient = jax.grad(loss)(params, shown.observation[drawn], shown.action[drawn], shown.weight[drawn])
      updates, optimizer_state = optimizer.update(gradient, optimizer_state)
      return (optax.apply_updates(params, updates), optimizer_state), None

    trajectory = rollout(family, policy, state['params'], task, key_play, num_episodes=settings.num_episodes)
    (params, optimizer_state), _ = jax.lax.scan(
      one_step, (state['params'], state['optimizer']), jax.random.split(key_steps, settings.steps_per_update)
    )
    return {**state, 'params': params, 'optimizer': optimizer_state}, mean_return(trajectory)

  return Source(
    name=name, init=init, update=update,
    snapshot=lambda state: {'params': state['params'], 'demonstrated': state['demonstrations'].mean_return},
    params=lambda snapshot, task: snapshot['params'], num_updates=num_updates,
    env_steps_per_update=settings.num_episodes * family.episode_length,
    settings={
      'imitation': dataclasses.asdict(settings), 'num_updates': num_updates, 'hidden_sizes': list(hidden_sizes),
      **origin,
    },
    figures=lambda learning: {'imitation_gap': imitation_gap(learning)},
  )


def imitation_gap(learning: Learning) -> np.ndarray:
  """By how much the imitator falls short of its demonstrations on each task, [N], in return an episode.

  The imitator is the last whose return was measured, in `ImitationSettings.num_episodes` episodes.
  """
  return learning.snapshots[-1]['demonstrated'] - learning.returns[-1]
