"""What a robot of another wiring would have experienced, without simulating it.

Where a wiring is part of the dynamics, commands in another order and with other signs, for a robot that is wired
accordingly, lead to the same states, and to the same rewards if these do not tell actions apart by order and sign, as
in all families here. So an example of one wiring is turned into an example of any other one: data augmentation by an
exact symmetry (compare Jun et al., "Distribution Augmentation for Generative Modeling", ICML 2020). An operator learns
from it what wirings have in common, and also wirings that no training task has.
"""

from collections.abc import Sequence

import numpy as np

from metaimprove.operators.memory import Memory


def draw_wirings(num_motors: int, share: float, rngs: Sequence[np.random.Generator]) -> np.ndarray:
  """[B, A, A] float32, changes of wiring: for a share of the examples any signed permutation, for the others none."""
  return np.stack([_draw(num_motors, share, rng) for rng in rngs]).astype(np.float32)


def _draw(num_motors: int, share: float, rng: np.random.Generator) -> np.ndarray:
  if rng.random() >= share:
    return np.eye(num_motors)
  return np.eye(num_motors)[rng.permutation(num_motors)] * rng.choice([-1.0, 1.0], size=(num_motors, 1))


def rewired_memory(memory: Memory, change: np.ndarray) -> Memory:
  """Memories [B, C, K, ...] of numpy arrays as robots would have them whose wirings are `wiring @ change`, for changes
  [B, A, A]."""
  trajectory = memory.trajectory
  return memory.replace(
    trajectory=trajectory.replace(action=trajectory.action @ change[:, None]),
    behaviour=rewired_logits(memory.behaviour, change[:, None]),
  )


def rewired_logits(logits: np.ndarray, change: np.ndarray) -> np.ndarray:
  """Logits [..., K, 2A] of policies as they would be for robots with changed wirings, [..., A, A]; see
  `policies.rewire`."""
  location, raw_scale = np.split(logits, 2, axis=-1)
  return np.concatenate([location @ change, raw_scale @ np.abs(change)], axis=-1)
