"""A small transformer: tokens attend to tokens of a call before, whose keys and values were kept, and to each other.

Norms stand before attention and perceptron (Xiong et al., arXiv:2002.04745), as in GPT-2. Whether it is causal is the
mask's affair.
"""

import functools

import chex
import haiku as hk
import jax
import jax.numpy as jnp

_LARGE_NEGATIVE = -1e9


@chex.dataclass(frozen=True)
class Kept:
  """What is kept of L tokens, so that later ones can attend to them; N blocks, H heads of size D.

  Attributes:
    keys: [N, L, H, D].
    values: [N, L, H, D].
  """

  keys: chex.Array
  values: chex.Array


def write(kept: Kept, new: Kept, place: chex.Array) -> Kept:
  """What is kept with that of new tokens written from `place` on."""
  return jax.tree.map(functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=place, axis=1), kept, new)


def attend(
  tokens: chex.Array, before: Kept | None, mask: chex.Array, *, width: int, num_blocks: int, num_heads: int
) -> tuple[chex.Array, Kept]:
  """The transformer; to be called inside a Haiku transform.

  Args:
    tokens: [K, width].
    before: what is kept of L tokens that these may attend to; None: L is 0.
    mask: [K, L + K] bool, what each token attends to: first those before, then these themselves.
    width: of a token.
    num_blocks: N.
    num_heads: H.

  Returns:
    [K, width] the outputs, and what to keep of these tokens.
  """
  num_before = 0 if before is None else before.keys.shape[1]
  chex.assert_shape(mask, (len(tokens), num_before + len(tokens)))
  norm = lambda name: hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)
  inner, new = num_heads * _head_size(width, num_heads), []
  for block in range(num_blocks):
    hidden = norm(f'norm_attend_{block}')(tokens)
    queries, keys, values = (
      hk.Linear(inner, name=f'{name}_{block}')(hidden).reshape(len(tokens), num_heads, -1)
      for name in ('query', 'key', 'value')
    )
    new.append(Kept(keys=keys, values=values))
    earlier = None if before is None else jax.tree.map(lambda x: x[block], before)
    mixed = _mix(queries, new[-1], earlier, mask)
    tokens = tokens + hk.Linear(width, name=f'attended_{block}')(mixed.reshape(len(tokens), inner))
    hidden = norm(f'norm_mlp_{block}')(tokens)
    tokens = tokens + hk.nets.MLP((4 * width, width), activation=jax.nn.gelu, name=f'mlp_{block}')(hidden)
  return norm('norm_last')(tokens), jax.tree.map(lambda *x: jnp.stack(x), *new)


def _mix(queries: chex.Array, own: Kept, earlier: Kept | None, mask: chex.Array) -> chex.Array:
  """[K, H, D] values, mixed by attention. Scores are joined, never keys and values: that would copy all that is kept at
  every step of an agent."""
  parts = [own] if earlier is None else [earlier, own]
  scores = jnp.concatenate([jnp.einsum('khd,lhd->hkl', queries, part.keys) for part in parts], axis=-1)
  scores = jnp.where(mask, scores / jnp.sqrt(queries.shape[-1]), _LARGE_NEGATIVE)
  weights = jnp.split(jax.nn.softmax(scores, axis=-1), [scores.shape[-1] - len(queries)], axis=-1)[-len(parts):]
  return sum(jnp.einsum('hkl,lhd->khd', weight, part.values) for weight, part in zip(weights, parts, strict=True))


def _head_size(width: int, num_heads: int) -> int:
  return -(-width // num_heads)
