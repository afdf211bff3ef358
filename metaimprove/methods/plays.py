"""Plays of other numbers of episodes, made of one that is already there, so that no simulator is compiled again."""

import jax
import jax.numpy as jnp

from metaimprove.rng import stream
from metaimprove.types import Play


def with_episodes(play: Play, episodes_of_play: int, num_episodes: int) -> Play:
  """A play of `num_episodes` episodes of each policy, made of calls of a play of `episodes_of_play`.

  Where the numbers do not divide, episodes that are too many are cut off.
  """
  if num_episodes == episodes_of_play:
    return play
  times = -(-num_episodes // episodes_of_play)

  def repeated(params, tasks, rng_key):
    parts = [play(params, tasks, stream(rng_key, f'part {part}')) for part in range(times)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1)[:, :num_episodes], *parts)

  return repeated
