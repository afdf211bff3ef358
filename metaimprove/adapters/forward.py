"""A policy in plain numpy. `NumpyPolicy.to_numpy` copies this file beside the weights, so it imports nothing else."""

import numpy as np


def load(path):
  """The policy in a `policy.npz`: layers [(weights [I, O], bias [O]), ...], middle and half of the range of actions."""
  with np.load(path, allow_pickle=False) as arrays:
    layers = [(arrays[f'weights_{i}'], arrays[f'bias_{i}']) for i in range(len(arrays.files) // 2 - 1)]
    return layers, arrays['middle'], arrays['half_range']


def act(policy, observation, rng=None):
  """Actions [..., A] for observations [..., O]: drawn with a numpy generator, or the most likely ones without."""
  layers, middle, half_range = policy
  hidden = observation
  for weights, bias in layers[:-1]:
    hidden = hidden @ weights + bias
    hidden = hidden / (1 + np.exp(-np.maximum(hidden, -80)))
  hidden, size = hidden @ layers[-1][0] + layers[-1][1], len(middle)
  location = hidden[..., :size]
  if rng is not None:
    scale = np.logaddexp(0, hidden[..., size:]) + 0.001
    location = location + scale * rng.standard_normal(location.shape, np.float32)
  return middle + half_range * np.tanh(location)
