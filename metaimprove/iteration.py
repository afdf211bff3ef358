"""Applies an improvement operator again and again: act, remember, become better, act."""

from collections.abc import Iterator
from typing import Any, Protocol

import chex

from metaimprove.rng import stream
from metaimprove.types import Params, Play, Task, Trajectory


class ImproveBatch(Protocol):
  """B better policies, from B policies, what is remembered of the experience of each, and a key for those that are
  drawn; see `operators.apply.make_improve`."""

  def __call__(self, params: Params, memory: Any, rng_key: chex.PRNGKey, /) -> Params: ...


class RememberBatch(Protocol):
  """What is to be remembered [B, ...], from what was remembered so far (None at first), the policies that acted
  [B, ...], and their experience [B, E, T, ...]."""

  def __call__(self, memory: Any, params: Params, trajectory: Trajectory, /) -> Any: ...


@chex.dataclass(frozen=True)
class Iterate:
  """B policies after some applications, and what they experienced.

  Attributes:
    params: θ of each, leaves [B, ...].
    trajectory: its experience, leaves [B, E, T, ...].
  """

  params: Params
  trajectory: Trajectory


def iterate(
  improve: ImproveBatch, remember: RememberBatch, play: Play, params: Params, tasks: Task, rng_key: chex.PRNGKey, *,
  num_applications: int,
) -> Iterator[Iterate]:
  """Improves B policies, each on its own task, by inference alone.

  Args:
    improve: the operator, applied to a batch.
    remember: what it reads, of the latest experience and what was before.
    play: makes the experience.
    params: the initial policies, leaves [B, ...].
    tasks: [B].
    rng_key: for the episodes, and for answers that are drawn.
    num_applications: A.

  Yields:
    A + 1 iterates, the initial policies first, as soon as each has acted. Keep what you need of them. Before iterate n
    acts, n times the episodes of one `play` have been used.
  """
  memory = None
  for application in range(num_applications + 1):
    trajectory = play(params, tasks, stream(rng_key, f'application {application}'))
    yield Iterate(params=params, trajectory=trajectory)
    if application < num_applications:
      memory = remember(memory, params, trajectory)
      params = improve(params, memory, stream(rng_key, f'improve {application}'))
