"""Turns any Brax environment into a family."""

import copy
from typing import Any
from collections.abc import Callable, Mapping, Sequence

import chex
import jax.numpy as jnp

from metaimprove import quiet_brax
from metaimprove.errors import IncompatibleError
from metaimprove.tasks.environments import EnvState, family_of
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.parameters import Parameter
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots import dynamics as dynamics_
from metaimprove.tasks.robots.physics import NoSystem, Physics


def from_brax_env(
  env: Any, *, name: str, goal: Goal | None = None, reward: Callable[..., chex.Array] | None = None,
  outcome: Callable[[Any, Any], chex.Array] | None = None, dynamics: Sequence[str] | Mapping[str, Parameter] = (),
  episode_length: int = 200, definition: str = '', camera: str = 'side',
  view: tuple[float, float, float, float] = (-1.2, 1.2, -0.2, 1.6),
) -> TaskFamily:
  """A family whose observations, starts and ends are those of a Brax environment.

  Args:
    env: any `brax.envs.Env`, not wrapped for training. It must have no time limit of its own.
    name: of the family; histories and operators are marked with it.
    goal: what differs between tasks; nothing by default. The environment's observation must not depend on it. Its
      `achieved` needs an `outcome`.
    reward: with `outcome`: (goal, outcome, action) -> []. Without: (goal, `brax.envs.State` before, action,
      `brax.envs.State` after) -> [], and then rewards cannot be computed for another goal in hindsight. The
      environment's own by default.
    outcome: (`brax.envs.State` before, `brax.envs.State` after) -> [D] float32, what `reward` refers to besides goal
      and action. It is stored with the experience.
    dynamics: the names of what is randomised, or their ranges: imperfections, outside forces, and multipliers that the
      backend has fields for. Forces and multipliers need a `PipelineEnv`; check that each really changes how this robot
      moves, as tests/test_physics.py does.
    episode_length: T.
    definition: in words.
    camera, view: for drawings; see `make_family`.

  Raises:
    UnknownNameError: for a parameter that does not exist.
    IncompatibleError: for multipliers of an environment that has no system, observations that are not one vector, an
      `outcome` without a `reward`, or a goal's `achieved` without an `outcome`.
  """
  has_system = hasattr(env.unwrapped, 'sys')
  return family_of(
    _physics(env), name=name, goal=goal, reward=reward, outcome=outcome, observe=lambda state: state.obs,
    ranges=_ranges(env, dynamics), definition=definition or (type(env).__doc__ or ''), episode_length=episode_length,
    camera=camera, view=view, lines=None if has_system else lambda q: jnp.zeros((0, 2, 2)),
  )


def _ranges(env: Any, dynamics: Sequence[str] | Mapping[str, Parameter]) -> dict[str, Any]:
  """The ranges of what is randomised; raises where something does not fit the environment."""
  base, kind, names = env.unwrapped, type(env).__name__, tuple(dynamics)
  has_system = hasattr(base, 'sys')
  if has_system and env is not base:
    raise IncompatibleError(
      f'{kind} wraps {type(base).__name__}, which would be stepped without it; pass the environment itself, and say '
      'what the wrapper does with `reward` or in a class of your own.'
    )
  if not has_system and set(names) & {*dynamics_.MULTIPLIERS, *dynamics_.FORCES}:
    raise IncompatibleError(f'{kind} has no Brax system whose constants could be changed: {names}.')
  dynamics_.check_known(names, dynamics_.multipliers_of(env.backend) if has_system else (), f'{kind} ({env.backend})')
  if not isinstance(env.observation_size, int):
    raise IncompatibleError(f'{kind} observes {env.observation_size}; an operator needs one vector.')
  given = dynamics if isinstance(dynamics, Mapping) else {}
  return {n: given.get(n, dynamics_.default_parameter(n)) for n in names}


def _physics(env: Any) -> Physics:
  """The environment as a simulator whose dynamics are an argument."""
  base = env.unwrapped
  has_system = hasattr(base, 'sys')
  system = dynamics_.simulated_constants(base.sys, env.backend) if has_system else NoSystem(env.action_size)

  def with_system(parameters):
    if not has_system:
      return env
    changed = copy.copy(base)
    changed.sys = dynamics_.apply(system, env.backend, parameters)
    return changed

  def wrap(state):
    pipeline = state.pipeline_state
    q, qd = (pipeline.q, pipeline.qd) if hasattr(pipeline, 'q') else (jnp.zeros(0), jnp.zeros(0))
    return EnvState(env=state, q=q, qd=qd)

  def init(parameters, rng_key, _):
    with quiet_brax.known_warnings_ignored():
      return wrap(with_system(parameters).reset(rng_key))

  def step(parameters, state, control):
    return wrap(with_system(parameters).step(state.env, control))

  return Physics(
    backend=env.backend, system=system, time_step=float(getattr(base, 'dt', 1.0)), init=init, step=step
  )
