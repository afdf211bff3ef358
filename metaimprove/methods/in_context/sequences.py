"""What in-context agents read: episodes of learning histories, and their steps as vectors of order 1."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.histories.dataset import Dataset
from metaimprove.rng import generator
from metaimprove.types import Trajectory, hide_outcome

_PREFETCHED = 4
_LARGEST = 10.0

Statistics = Mapping[str, chex.Array]
"""Of `operators.reading.experience_statistics`."""


class ReadEpisodes(Protocol):
  """Episodes [B, M, T, ...] without outcomes of histories [B]: those at places [B, M], counted from the first episode
  of a history to its last."""

  def __call__(self, history: np.ndarray, place: np.ndarray, /) -> Trajectory: ...


def read_stored(dataset: Dataset) -> ReadEpisodes:
  """Reads stored histories: the episodes of the first level come first, then those of the second, ..."""
  num_episodes = dataset.header['num_episodes']

  def read(history: np.ndarray, place: np.ndarray) -> Trajectory:
    level, episode = divmod(place, num_episodes)
    experience = dataset.read_experience(np.repeat(history, place.shape[1]), level.reshape(-1))
    chosen = jax.tree.map(lambda x: x[np.arange(place.size), episode.reshape(-1)], hide_outcome(experience))
    return jax.tree.map(lambda x: x.reshape(*place.shape, *x.shape[1:]), chosen)

  return read


def num_stored(dataset: Dataset) -> int:
  """Episodes of a stored history."""
  return dataset.num_checkpoints * dataset.header['num_episodes']


def draw_histories(dataset: Dataset, histories: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
  """[num] random ones of the histories, of each source equally often."""
  source = dataset.source[histories]
  share = 1 / np.bincount(source)[source]
  return rng.choice(histories, size=num, p=share / share.sum())


def window(num_places: int, num_episodes: int, rng: np.random.Generator) -> np.ndarray:
  """[num_episodes] places in order, evenly spaced: consecutive ones, every second, ..., up to the whole history."""
  stride = 1 + int(rng.integers(max(1, (num_places - 1) // max(1, num_episodes - 1))))
  start = int(rng.integers(num_places - stride * (num_episodes - 1)))
  return start + stride * np.arange(num_episodes)


def prefetched(draw: Callable[[np.random.Generator], Any], seed: int, first: int, last: int) -> Iterator[Any]:
  """Batches of the steps `first` to `last` - 1, drawn ahead of time by a thread; each follows from seed and step."""
  drawn = grain.MapDataset.range(first, last).map(lambda step: draw(generator(seed, 'sequences', int(step))))
  return iter(drawn.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED)))


def scaled(statistics: Statistics, name: str, value: chex.Array) -> chex.Array:
  """A value in deviations from its mean."""
  return jnp.clip((value - statistics[f'{name}_mean']) / statistics[f'{name}_std'], -_LARGEST, _LARGEST)


@chex.dataclass(frozen=True)
class Previous:
  """The step before a step, if there is one; leading axes are those of the steps.

  Attributes:
    action: [..., A], zeros where there is none.
    reward: [...], the same.
    terminated: [...] bool.
    there: [...] bool.
  """

  action: chex.Array
  reward: chex.Array
  terminated: chex.Array
  there: chex.Array


def previous_of(trajectory: Trajectory) -> Previous:
  """Of the steps of M episodes [M, T, ...] in a row, flattened, and of one that would follow: [M T + 1].

  It is the latest step that was taken, so that the last one of an episode is seen in the first one of the next.
  """
  valid = trajectory.valid.reshape(-1)
  latest = jax.lax.cummax(jnp.where(valid, jnp.arange(len(valid)), -1))
  latest = jnp.concatenate([jnp.full(1, -1), latest])
  there = latest >= 0
  action, reward, terminated = (
    x.reshape(len(valid), *x.shape[2:])[latest] for x in (trajectory.action, trajectory.reward, trajectory.terminated)
  )
  return Previous(
    action=jnp.where(there[:, None], action, 0.0), reward=jnp.where(there, reward, 0.0),
    terminated=terminated & there, there=there,
  )


def return_to_go(reward: chex.Array) -> chex.Array:
  """[..., T] what an episode of rewards [..., T] still brings at each step."""
  return jnp.flip(jnp.cumsum(jnp.flip(reward, axis=-1), axis=-1), axis=-1)


def step_features(
  statistics: Statistics, observation: chex.Array, previous: Previous, to_go: chex.Array | None
) -> chex.Array:
  """[..., F] what a token is made of: the observation [..., O], the step before, and perhaps a return to go [...]."""
  there = previous.there.astype(jnp.float32)
  numbers = [scaled(statistics, 'reward', previous.reward) * there, previous.terminated.astype(jnp.float32), there]
  if to_go is not None:
    numbers.append(scaled(statistics, 'return', to_go))
  return jnp.concatenate(
    [scaled(statistics, 'observation', observation), previous.action, jnp.stack(numbers, axis=-1)], axis=-1
  )


def num_step_features(observation_size: int, action_size: int, with_return: bool) -> int:
  """F of `step_features`."""
  return observation_size + action_size + 3 + with_return


def transition_features(statistics: Statistics, trajectory: Trajectory) -> chex.Array:
  """[..., F] of whole transitions: observation, action, change of the observation, reward, end."""
  change = trajectory.next_observation - trajectory.observation
  return jnp.concatenate([
    scaled(statistics, 'observation', trajectory.observation), trajectory.action, scaled(statistics, 'change', change),
    scaled(statistics, 'reward', trajectory.reward)[..., None], trajectory.terminated[..., None].astype(jnp.float32),
  ], axis=-1)


def query_features(statistics: Statistics, observation: chex.Array, action_size: int) -> chex.Array:
  """[..., F] of an observation [..., O] alone: a transition all else of which is zero."""
  rest = jnp.zeros((*observation.shape[:-1], num_transition_features(observation.shape[-1], action_size)))
  return rest.at[..., :observation.shape[-1]].set(scaled(statistics, 'observation', observation))


def num_transition_features(observation_size: int, action_size: int) -> int:
  """F of `transition_features`."""
  return 2 * observation_size + action_size + 2
