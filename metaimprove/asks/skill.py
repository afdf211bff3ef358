"""The skill: how far along its learner's way the next policy is to be: 0 is the first policy of a history, 1 the best.

It is a rank among policies, whatever their returns are, as the matchmaking rating that tells AlphaStar how good the
player is that it is to act like (Vinyals et al., 2019, doi:10.1038/s41586-019-1724-z).
"""

from typing import Any

import numpy as np

from metaimprove.asks import score
from metaimprove.asks.ask import Kind, Pairs, is_on_level, numbers

NAME = 'skill'


def value(given: Any) -> np.ndarray:
  """A number from 0 to 1, or an array of numbers; raises `UnknownNameError` for others."""
  return numbers(given, 0.0, 1.0, 'A skill is a number from 0 to 1')


def describe(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
  """[B] float32, the rank of each answer as a share of the highest one; 0 where it is on no level."""
  del rng
  share = pairs.of_target(pairs.rank) / np.maximum(pairs.rank[:, -1], 1)
  return np.where(is_on_level(pairs), share, 0).astype(np.float32)


KIND = Kind(
  name=NAME, value=value, words=score.words, num_features=score.KIND.num_features, features=score.features,
  describe=describe, is_known=is_on_level, of_levels=True,
)
