"""What an operator reads: transitions, each with what the policy that took it would do there."""

import chex

from metaimprove.policies import Policy
from metaimprove.types import Params, Trajectory, hide_outcome


@chex.dataclass(frozen=True)
class Memory:
  """Experience that is remembered, in E episodes.

  Attributes:
    trajectory: [E, T, ...], without outcomes.
    behaviour: [E, T, 2A] float32, the logits (location and raw scale of the normal before tanh) of the policy that took
      each step, at its observation.
  """

  trajectory: Trajectory
  behaviour: chex.Array


def remember_latest(policy: Policy, memory: Memory | None, params: Params, trajectory: Trajectory) -> Memory:
  """The memory of the latest experience alone, [E, T, ...]; what was remembered before is forgotten."""
  del memory
  return Memory(trajectory=hide_outcome(trajectory), behaviour=policy.apply(params, trajectory.observation))
