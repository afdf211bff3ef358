"""A policy in plain numpy. `NumpyPolicy.to_numpy` copies this file beside the weights, so it imports nothing else."""

import numpy as np


def load(path):
  """The policy in a `policy.npz`: layers [(weights [I, O], bias [O]), ...], and the actions -1 and 1 stand for."""
  with np.load(path, allow_pickle=False) as arrays:
    layers = [(arrays[f'weights_{i}'], arrays[f'bias_{i}']) for i in range(len(arrays.files) // 2 - 1)]
    return layers, arrays['low'], arrays['high']


def act(policy, observation, rng=None):
  """Actions [..., A] for observations [..., O]: drawn with a numpy generator, or the most likely ones without."""
  layers, low, high = policy
  hidden = observation
  for weights, bias in layers[:-1]:
    hidden = hidden @ weights + bias
    hidden = hidden / (1 + np.exp(-np.maximum(hidden, -80)))
  location, raw_scale = np.split(hidden @ layers[-1][0] + layers[-1][1], 2, axis=-1)
  if rng is not None:
    location = location + (np.logaddexp(0, raw_scale) + 0.001) * rng.standard_normal(location.shape, np.float32)
  return low + (np.tanh(location) + 1) / 2 * (high - low)
