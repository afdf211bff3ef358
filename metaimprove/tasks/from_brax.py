"""Turns any Brax environment into a family."""

import copy
from collections.abc import Callable, Mapping, Sequence

import chex
import jax.numpy as jnp

from metaimprove import quiet_brax
from metaimprove.errors import IncompatibleError
from metaimprove.tasks.robots import dynamics as dynamics_
from metaimprove.tasks.family import Range
from metaimprove.tasks.goal import Goal, no_goal
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.robots.build import make_family
from metaimprove.tasks.robots.physics import Physics


@chex.dataclass(frozen=True)
class BraxEnvState:
  """A Brax environment's own state, as what a family's simulator carries.

  Attributes:
    env: the `brax.envs.State`.
    q, qd: of its pipeline; empty for an environment without one.
  """

  env: object
  q: chex.Array
  qd: chex.Array


def from_brax_env(
  env, *, name: str, goal: Goal | None = None, reward: Callable | None = None,
  dynamics: Sequence[str] | Mapping[str, Range] = (), episode_length: int = 200, definition: str = '',
  camera: str = 'side', view=(-1.2, 1.2, -0.2, 1.6),
) -> TaskFamily:
  """A family whose observations, starts and ends are those of a Brax environment.

  Args:
    env: any `brax.envs.Env`, not wrapped for training. It must not keep a time limit of its own.
    name: of the family; histories and operators are marked with it.
    goal: what differs between tasks; nothing by default. The environment's observation must not show it.
    reward: (goal, `brax.envs.State` before, action, `brax.envs.State` after) -> []; the environment's own by default.
    dynamics: what is randomised besides, with the default ranges or your own: multipliers that its backend has fields
      for (whether each really moves this robot is yours to check, as tests/test_physics.py does), and imperfections.
      Multipliers need a `PipelineEnv`.
    episode_length: T.
    definition: in words.
    camera, view: for drawings; see `make_family`.

  Raises:
    UnknownNameError: for a parameter that does not exist.
    IncompatibleError: for multipliers of an environment that has no system, or observations that are not one vector.
  """
  base = env.unwrapped
  has_system = hasattr(base, 'sys')
  real = dynamics_.multipliers_of(env.backend) if has_system else ()
  if has_system and env is not base:
    raise IncompatibleError(
      f'{type(env).__name__} wraps {type(base).__name__}, which would be stepped without it; pass the environment '
      'itself, and say what the wrapper does with `reward` or in a class of your own.'
    )
  names = tuple(dynamics)
  if not has_system and set(names) & set(dynamics_.MULTIPLIERS):
    raise IncompatibleError(f'{type(env).__name__} has no Brax system whose constants could be multiplied: {names}.')
  dynamics_.check_known(names, real, f'{type(env).__name__} ({env.backend})')
  given = dynamics if isinstance(dynamics, Mapping) else {}
  ranges = {n: given.get(n, dynamics_.IMPERFECTIONS.get(n, Range())) for n in names}
  if not isinstance(env.observation_size, int):
    raise IncompatibleError(f'{type(env).__name__} observes {env.observation_size}; an operator needs one vector.')
  system = dynamics_.simulated_constants(base.sys, env.backend) if has_system else None

  def with_system(parameters):
    if not has_system:
      return env
    changed = copy.copy(base)
    changed.sys = dynamics_.apply(system, env.backend, parameters)
    return changed

  def wrap(state):
    pipeline = state.pipeline_state
    q, qd = (pipeline.q, pipeline.qd) if hasattr(pipeline, 'q') else (jnp.zeros(0), jnp.zeros(0))
    return BraxEnvState(env=state, q=q, qd=qd)

  def init(parameters, rng_key, _):
    with quiet_brax.known_warnings_ignored():
      return wrap(with_system(parameters).reset(rng_key))

  def step(parameters, state, control):
    return wrap(with_system(parameters).step(state.env, control))

  robot = Physics(
    backend=env.backend, system=system if has_system else _NoSystem(env.action_size),
    time_step=float(getattr(base, 'dt', 1.0)), init=init, step=step,
  )
  return make_family(
    name, robot, definition=definition or (type(env).__doc__ or ''), goal=goal or no_goal(f'do what {name} asks for'),
    start=lambda goal, rng_key: (rng_key, None), observe=lambda state: state.env.obs,
    reward=lambda g, before, action, after: (
      after.env.reward if reward is None else reward(g, before.env, action, after.env)
    ),
    terminated=lambda state: state.env.done > 0.5, ranges=ranges, episode_length=episode_length, camera=camera,
    view=view, lines=None if has_system else lambda q: jnp.zeros((0, 2, 2)),
  )


class _NoSystem:
  """Stands for the system of an environment that has none."""

  def __init__(self, action_size: int):
    self.act_size = lambda: action_size
