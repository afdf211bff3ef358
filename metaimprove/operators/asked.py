"""What an operator reads of an ask: its features, and of kinds that need it a learned encoding of them."""

from collections.abc import Mapping, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.asks import Kind

_HIDDEN = 128


def read_asked(kinds: Mapping[str, Kind], names: Sequence[str], asked: jax.Array) -> jax.Array:
  """What the encoder is given; to be called inside a Haiku transform.

  Args:
    kinds: all.
    names: those that the operator understands.
    asked: [Q] features of an ask by these; see `asks.ask.features`.
  """
  if not any(kinds[name].encoding for name in names):
    return asked
  ends = np.cumsum([1 + kinds[name].num_features for name in names])
  parts = []
  for name, part in zip(names, jnp.split(asked, ends[:-1])):
    if kinds[name].encoding:
      given, features = part[:1], part[1:]
      network = hk.nets.MLP((_HIDDEN, kinds[name].encoding), activation=jax.nn.swish, name=f'embed_{name}')
      part = jnp.concatenate([given, given * network(features)])
    parts.append(part)
  return jnp.concatenate(parts)
