"""Trees of arrays with leading batch axes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def take(tree: Any, index: Any) -> Any:
  """The part of a tree at `index` of the leading axes, for example a number, a slice or an array of numbers."""
  return jax.tree.map(lambda x: x[index], tree)


def stack(trees: Sequence[Any]) -> Any:
  """One tree of numpy arrays from several of the same shapes, along a new leading axis."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def concatenate(trees: Sequence[Any], axis: int = 0) -> Any:
  """One tree of numpy arrays from several, along an axis they have."""
  return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=axis), *trees)


def batch_size(tree: Any) -> int:
  """The size of the leading axis, which all leaves share."""
  return int(jax.tree.leaves(tree)[0].shape[0])
