"""Random streams by name."""

import jax
import numpy as np

from metaimprove.rng import stream


def test_streams_differ_and_are_the_same_again():
  """Whatever the name and the seed; and neither is the key itself."""
  keys = {(seed, name): stream(seed, name) for seed in (0, 1) for name in ('initial', 'play', 'initia', 'l')}
  data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in [*keys.values(), jax.random.key(0)]}
  assert len(data) == 9
  for (seed, name), key in keys.items():
    assert (jax.random.key_data(stream(jax.random.key(seed), name)) == jax.random.key_data(key)).all()
