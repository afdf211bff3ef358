"""What was read of a memory, and an ask, to a short vector, the summary.

Each episode is summed up by itself, as a set of steps; a step's time is one of its features (Zaheer et al., "Deep
Sets", arXiv:1703.06114). Then a few learned vectors, the latents, attend to the set of episodes (Jaegle et al.,
"Perceiver", arXiv:2103.03206; Lee et al., "Set Transformer", arXiv:1810.00825).
"""

import haiku as hk
import jax
import jax.numpy as jnp

from metaimprove.operators.reading import Reading

HEAD_SIZE = 32


def encode(reading: Reading, ask: jax.Array, *, width: int, num_latents: int, num_blocks: int) -> jax.Array:
  """The summary of what was read and an ask; to be called inside a Haiku transform.

  Args:
    reading: of a memory of C episodes, in any order.
    ask: [Q] features of the ask.
    width: size of the vectors of steps, episodes and latents; a multiple of 32, the size of an attention head.
    num_latents: number of latents.
    num_blocks: number of blocks; in each the latents attend to the episodes once.

  Returns:
    [2 width] the summary.
  """
  return summarise(
    _episodes(reading, width), reading.there, ask, width=width, num_latents=num_latents, num_blocks=num_blocks
  )


def summarise(
  tokens: jax.Array, there: jax.Array, ask: jax.Array, *, width: int, num_latents: int, num_blocks: int
) -> jax.Array:
  """The summary [2 width] of vectors [N, width], those that are `there` [N], and an ask; see `encode`."""
  norm = lambda name: hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)
  tokens = norm('norm_episodes')(tokens)
  latents = hk.get_parameter('latents', (num_latents, width), init=hk.initializers.TruncatedNormal(1.0))
  latents = latents + hk.Linear(width, name='embed_ask')(ask)
  for block in range(num_blocks):
    attention = hk.MultiHeadAttention(
      num_heads=width // HEAD_SIZE, key_size=HEAD_SIZE, model_size=width,
      w_init=hk.initializers.VarianceScaling(1.0, 'fan_in', 'truncated_normal'), name=f'attend_{block}',
    )
    query = norm(f'norm_attend_{block}')(latents)
    latents = latents + attention(query, tokens, tokens, mask=there[None, None, :])
    hidden = norm(f'norm_mlp_{block}')(latents)
    latents = latents + hk.nets.MLP((2 * width, width), activation=jax.nn.swish, name=f'mlp_{block}')(hidden)
  summary = jnp.concatenate([norm('norm_summary')(latents).reshape(-1), ask])
  return jax.nn.swish(hk.Linear(2 * width, name='summary')(summary))


def _episodes(reading: Reading, width: int) -> jax.Array:
  """[C, width] a vector of each episode."""
  steps = hk.nets.MLP((width, width), activation=jax.nn.swish, name='embed_steps')(reading.steps)
  valid = reading.valid[..., None]
  mean = jnp.sum(steps * valid, axis=1) / jnp.maximum(jnp.sum(valid, axis=1), 1)
  largest = jnp.max(jnp.where(valid, steps, -1e9), axis=1)
  pooled = jnp.concatenate([mean, jnp.where(valid.any(axis=1), largest, 0.0), reading.episodes], axis=-1)
  return hk.nets.MLP((width, width), activation=jax.nn.swish, name='embed_episodes')(pooled)
