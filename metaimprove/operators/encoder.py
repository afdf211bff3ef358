"""Experience to a code: attention of a few latents over the set of transitions.

The transitions have no order but their time stamp. Latents that attend to a set: Jaegle et al., "Perceiver",
arXiv:2103.03206; Lee et al., "Set Transformer", arXiv:1810.00825.
"""

import haiku as hk
import jax
import jax.numpy as jnp


def encode(
  transitions: jax.Array, valid: jax.Array, ask: jax.Array, *, width: int, num_latents: int, num_blocks: int,
  code_size: int,
) -> jax.Array:
  """To be called inside a Haiku transform.

  Args:
    transitions: [M, F] features of M transitions.
    valid: [M] bool, those that count.
    ask: [K] features of the ask.
    width: of the tokens and latents; a multiple of 32.
    num_latents: how many summaries of the set there are.
    num_blocks: how often they look at it.
    code_size: C.

  Returns:
    [C] the code from which the next policy is made.
  """
  norm = lambda name: hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)
  tokens = hk.nets.MLP((width, width), activation=jax.nn.swish, name='embed')(transitions)
  tokens = norm('norm_tokens')(tokens)
  latents = hk.get_parameter('latents', (num_latents, width), init=hk.initializers.TruncatedNormal(1.0))
  latents = latents + hk.Linear(width, name='embed_ask')(ask)
  for block in range(num_blocks):
    attention = hk.MultiHeadAttention(
      num_heads=width // 32, key_size=32, model_size=width,
      w_init=hk.initializers.VarianceScaling(1.0, 'fan_in', 'truncated_normal'), name=f'look_{block}',
    )
    query = norm(f'norm_look_{block}')(latents)
    latents = latents + attention(query, tokens, tokens, mask=valid[None, None, :])
    hidden = norm(f'norm_think_{block}')(latents)
    latents = latents + hk.nets.MLP((2 * width, width), activation=jax.nn.swish, name=f'think_{block}')(hidden)
  summary = norm('norm_summary')(latents).reshape(-1)
  return hk.nets.MLP((2 * width, code_size), activation=jax.nn.swish, name='code')(jnp.concatenate([summary, ask]))
