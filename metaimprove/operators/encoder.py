"""Experience and an ask to a code, a short vector from which the next policy is made.

A few learned vectors, the latents, attend to the set of transitions; a transition's place in time is one of its
features. Attention of latents to a set: Jaegle et al., "Perceiver", arXiv:2103.03206; Lee et al., "Set Transformer",
arXiv:1810.00825.
"""

import haiku as hk
import jax
import jax.numpy as jnp


def encode(
  transitions: jax.Array, valid: jax.Array, ask: jax.Array, *, width: int, num_latents: int, num_blocks: int,
  code_size: int,
) -> jax.Array:
  """The code of a set of transitions and an ask; to be called inside a Haiku transform.

  Args:
    transitions: [M, F] features of M transitions, in any order.
    valid: [M] bool, transitions that are there; the others are padding and are not attended to.
    ask: [K] features of the ask.
    width: size of the vectors of transitions and of the latents; a multiple of 32, the size of an attention head.
    num_latents: number of latents.
    num_blocks: number of blocks; in each the latents attend to the transitions once.
    code_size: C.

  Returns:
    [C] the code.
  """
  norm = lambda name: hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)
  tokens = hk.nets.MLP((width, width), activation=jax.nn.swish, name='embed')(transitions)
  tokens = norm('norm_tokens')(tokens)
  latents = hk.get_parameter('latents', (num_latents, width), init=hk.initializers.TruncatedNormal(1.0))
  latents = latents + hk.Linear(width, name='embed_ask')(ask)
  for block in range(num_blocks):
    attention = hk.MultiHeadAttention(
      num_heads=width // 32, key_size=32, model_size=width,
      w_init=hk.initializers.VarianceScaling(1.0, 'fan_in', 'truncated_normal'), name=f'attend_{block}',
    )
    query = norm(f'norm_attend_{block}')(latents)
    latents = latents + attention(query, tokens, tokens, mask=valid[None, None, :])
    hidden = norm(f'norm_mlp_{block}')(latents)
    latents = latents + hk.nets.MLP((2 * width, width), activation=jax.nn.swish, name=f'mlp_{block}')(hidden)
  summary = norm('norm_summary')(latents).reshape(-1)
  return hk.nets.MLP((2 * width, code_size), activation=jax.nn.swish, name='code')(jnp.concatenate([summary, ask]))
