"""The interface of a method: whatever can be judged on tasks it has not seen."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp

from metaimprove.policies import Policy
from metaimprove.rng import stream
from metaimprove.types import Params, Progress, Task


@chex.dataclass(frozen=True)
class Curve:
  """How good a method is on B tasks, after P amounts of experience.

  Attributes:
    episodes: [P] int, episodes of one task that were used before each point.
    env_steps: [P] int, environment steps of one task that were used before each point.
    returns: [P, B] `mean_return` at each point; NaN where every episode blew up.
  """

  episodes: chex.Array
  env_steps: chex.Array
  returns: chex.Array


class Run(Protocol):
  """The curve of a method on [B] tasks. It may know of the tasks what `play` lets it experience; controls know more."""

  def __call__(self, tasks: Task, rng_key: chex.PRNGKey, progress: Progress, /) -> Curve: ...


@dataclasses.dataclass(frozen=True)
class Method:
  """A method that can be judged.

  Attributes:
    name: in figures and file names: lower case letters, digits and underscores.
    title: in reports.
    run: see `Run`. The same key gives the same curve. Methods that begin with random policies take them from
      `initial_policies`, so that all of them begin with the same ones.
    settings: plain data that determines the curve, besides tasks and key: with other settings it is another method.
    num_tasks: it is judged on the first so many tasks; None: on all.
    splits: of the splits of an evaluation it is judged on these; None: on all.
  """

  name: str
  title: str
  run: Run
  settings: Mapping[str, Any]
  num_tasks: int | None = None
  splits: tuple[str, ...] | None = None


def initial_policies(policy: Policy, num: int, rng_key: chex.PRNGKey) -> Params:
  """[num, ...] random policies from the stream 'initial' of a key; the first ones are the same whatever `num` is."""
  key = stream(rng_key, 'initial')
  return jax.vmap(lambda index: policy.init(jax.random.fold_in(key, index)))(jnp.arange(num))
