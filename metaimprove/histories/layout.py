"""How a checkpoint lies in a shard: θ is one row of numbers, its experience another, so that reading it is two reads.

The layout says which part of a row is what. It is stored with every shard, as JSON:

  {"params": [[name, shape], ...], "experience": [[field of Trajectory, shape], ...]}

The parts follow each other in this order, each in C order. All numbers are float32; in the fields of an experience that
are bool, 0 is false and 1 is true.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from metaimprove import files
from metaimprove.types import Params, Trajectory

_FLAGS = ('terminated', 'valid', 'finite')
_SEPARATOR = '::'


@dataclasses.dataclass(frozen=True)
class Layout:
  """Names and shapes of what a row holds, in order.

  Attributes:
    params: the leaves of θ, named as `files.leaf_names` does.
    experience: the fields of `Trajectory`.
  """

  params: tuple[tuple[str, tuple[int, ...]], ...]
  experience: tuple[tuple[str, tuple[int, ...]], ...]

  @property
  def params_size(self) -> int:
    return sum(math.prod(shape) for _, shape in self.params)

  @property
  def experience_size(self) -> int:
    return sum(math.prod(shape) for _, shape in self.experience)

  def as_json(self) -> dict[str, list[Any]]:
    """As it is stored."""
    return json.loads(json.dumps(dataclasses.asdict(self)))


def layout_of(header: Mapping[str, Any]) -> Layout:
  """The layout of the shards of a dataset with this header."""
  sizes = [header['observation_size'], *header['hidden_sizes'], 2 * header['action_size']]
  params = [
    part for i, (before, after) in enumerate(zip(sizes, sizes[1:]))
    for part in ((f'mlp/~/linear_{i}{_SEPARATOR}b', (after,)), (f'mlp/~/linear_{i}{_SEPARATOR}w', (before, after)))
  ]
  steps = header['num_episodes'], header['episode_length']
  of_step = {
    'observation': (header['observation_size'],), 'action': (header['action_size'],), 'reward': (),
    'next_observation': (header['observation_size'],), 'outcome': (header['outcome_size'],), 'terminated': (),
    'valid': (),
  }
  experience = [(field, (*steps, *shape)) for field, shape in of_step.items()] + [('finite', steps[:1])]
  return Layout(params=tuple(sorted(params)), experience=tuple(experience))


def pack_params(params: Params) -> np.ndarray:
  """θ of histories, leaves [H, N + 1, ...], as rows [H, N + 1, P]; in the order of their names."""
  return _rows(dict(zip(files.leaf_names(params), jax.tree.leaves(params))), sorted(files.leaf_names(params)))


def pack_experience(trajectory: Trajectory) -> np.ndarray:
  """Experience of histories, leaves [H, N + 1, E, T, ...], as rows [H, N + 1, X]."""
  fields = list(Trajectory.__dataclass_fields__)
  return _rows({field: getattr(trajectory, field) for field in fields}, fields)


def _rows(parts: Mapping[str, Any], order: list[str]) -> np.ndarray:
  first = np.asarray(parts[order[0]])
  return np.concatenate([np.asarray(parts[name], np.float32).reshape(*first.shape[:2], -1) for name in order], axis=-1)


def unpack_params(layout: Layout, rows: np.ndarray) -> Params:
  """θ, leaves [..., *shape], of rows [..., P]."""
  params = {}
  for name, part in _parts(layout.params, rows):
    *modules, last = name.split(_SEPARATOR)
    inner = params
    for module in modules:
      inner = inner.setdefault(module, {})
    inner[last] = part
  return params


def unpack_experience(layout: Layout, rows: np.ndarray) -> Trajectory:
  """Experience, leaves [..., E, T, ...], of rows [..., X]."""
  return Trajectory(**{
    field: part != 0 if field in _FLAGS else part for field, part in _parts(layout.experience, rows)
  })


def _parts(parts, rows):
  start = 0
  for name, shape in parts:
    stop = start + math.prod(shape)
    yield name, np.ascontiguousarray(rows[..., start:stop]).reshape(*rows.shape[:-1], *shape)
    start = stop
