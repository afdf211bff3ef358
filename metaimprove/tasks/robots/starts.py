"""How episodes begin on Brax's robots: near the configuration that their model files give."""

from typing import Any
from collections.abc import Callable

import chex
import jax


def near_initial(
  system: Any, *, q_noise: float, qd_normal: float = 0.0, qd_uniform: float = 0.0
) -> Callable[[chex.Array, chex.PRNGKey], tuple[chex.Array, chex.Array]]:
  """(goal, rng_key) -> (q, qd): init_q + U(±q_noise), and velocities N(0, qd_normal²) or U(±qd_uniform), as stock."""
  def start(goal, rng_key):
    del goal
    key_q, key_qd = jax.random.split(rng_key)
    q = system.init_q + jax.random.uniform(key_q, system.init_q.shape, minval=-q_noise, maxval=q_noise)
    shape = (system.qd_size(),)
    if qd_normal:
      return q, qd_normal * jax.random.normal(key_qd, shape)
    return q, jax.random.uniform(key_qd, shape, minval=-qd_uniform, maxval=qd_uniform)

  return start
