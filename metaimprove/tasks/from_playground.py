"""Turns any MuJoCo Playground environment into a family.

Playground wants a newer JAX than Brax's own PPO, so it is not among our dependencies. What is used of an `MjxEnv` is
its interface: `reset`, `step`, `action_size`, `dt`, `mjx_model` and the `_mjx_model` behind it, and the fields of its
`State` (`data`, `obs`, `reward`, `done`).
"""

import copy
from typing import Any
from collections.abc import Callable, Mapping, Sequence

import chex
import jax
import jax.numpy as jnp

from metaimprove.errors import IncompatibleError
from metaimprove.tasks.environments import EnvState, family_of
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.parameters import Parameter
from metaimprove.tasks.robots import dynamics as dynamics_
from metaimprove.tasks.robots.physics import NoSystem, Physics

_BACKEND = 'mjx'


def from_playground_env(
  env: Any, *, name: str, goal: Goal | None = None, reward: Callable[..., chex.Array] | None = None,
  outcome: Callable[[Any, Any], chex.Array] | None = None, dynamics: Sequence[str] | Mapping[str, Parameter] = (),
  observation: str | None = None, episode_length: int = 200, definition: str = '',
) -> TaskFamily:
  """A family whose observations, starts and ends are those of a MuJoCo Playground environment.

  Dynamics are changed by giving the environment another model for each task, under `vmap`; its methods must read
  `self.mjx_model`, as all of Playground's do.

  Args:
    env: a `mujoco_playground.MjxEnv`, not wrapped for training; on a CPU with `config_overrides={'impl': 'jax'}`.
    name, goal, reward, outcome, episode_length, definition: as for `from_brax_env`; states are the environment's own.
    dynamics: the names of what is randomised, or their ranges: imperfections, outside forces, and the multipliers of
      MJX. Check that each really changes how this robot moves.
    observation: which part to observe, where observations are dicts.

  Raises:
    UnknownNameError: for a parameter that does not exist.
    IncompatibleError: for an environment without a model, observations that are no vector, and what `from_brax_env`
      raises it for.
  """
  if not hasattr(env, '_mjx_model'):
    raise IncompatibleError(
      f'{type(env).__name__} has no `_mjx_model` that could be replaced; pass a MuJoCo Playground environment itself, '
      'not a wrapper of one.'
    )
  dynamics_.check_known(tuple(dynamics), dynamics_.multipliers_of(_BACKEND), f'{type(env).__name__} ({_BACKEND})')
  given = dynamics if isinstance(dynamics, Mapping) else {}
  return family_of(
    _physics(env), name=name, goal=goal, reward=reward, outcome=outcome, observe=_observer(env, observation),
    ranges={n: given.get(n, dynamics_.default_parameter(n)) for n in dynamics},
    definition=definition or (type(env).__doc__ or ''), episode_length=episode_length,
    lines=lambda q: jnp.zeros((0, 2, 2)),
  )


def _observer(env: Any, part: str | None) -> Callable[[Any], chex.Array]:
  """(state) -> [O]."""
  shape = jax.eval_shape(env.reset, jax.random.key(0)).obs
  if isinstance(shape, Mapping):
    if part not in shape:
      raise IncompatibleError(
        f'{type(env).__name__} observes a dict of {", ".join(map(repr, shape))}; say by observation= which part an '
        'operator is to see.'
      )
    observe, shape = lambda state: state.obs[part], shape[part]
  else:
    observe = lambda state: state.obs
  if len(shape.shape) != 1:
    raise IncompatibleError(f'{type(env).__name__} observes {shape.shape}; an operator needs one vector.')
  return observe


def _physics(env: Any) -> Physics:
  """The environment as a simulator whose dynamics are an argument."""
  def with_model(parameters):
    changed = copy.copy(env)
    changed._mjx_model = dynamics_.apply(env.mjx_model, _BACKEND, parameters)
    return changed

  def wrap(state):
    return EnvState(env=state, q=state.data.qpos, qd=state.data.qvel)

  def step(parameters, state, control):
    # Playground's environments write into the dict of metrics that they are given.
    given = state.env.replace(metrics=dict(state.env.metrics), info=dict(state.env.info))
    return wrap(with_model(parameters).step(given, control))

  return Physics(
    backend=_BACKEND, system=NoSystem(env.action_size), time_step=float(env.dt),
    init=lambda parameters, rng_key, _: wrap(with_model(parameters).reset(rng_key)), step=step,
  )
