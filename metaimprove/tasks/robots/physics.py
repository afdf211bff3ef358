"""The simulator as two pure functions of dynamics, state and control.

Brax's environment wrappers fix the dynamics when they are built, and always reset to the first state (brax issues 167,
275, 446, 609, 422). Brax's pipelines take the system as an argument. Here they are called directly, so that dynamics
are an input and every reset draws a new start.
"""

import dataclasses
import functools
from typing import Any
from collections.abc import Callable, Mapping

import chex
import jax

from metaimprove import quiet_brax
from metaimprove.errors import UnknownNameError
from metaimprove.tasks.robots import dynamics

BACKENDS = ('mjx', 'mjx_fast', 'spring', 'generalized', 'positional', 'kinematic')
"""Simulators of Brax, and 'kinematic': a robot that goes where it is told to, without forces (see `point`)."""
MJX_FAST = {'opt.ls_iterations': 4}
"""Options in which `mjx_fast` differs from `mjx`. Brax's planar runners let the solver's line search take up to 50
steps, and a batch waits for the slowest; four, as Brax itself gives its ant and humanoid, are nearly always enough."""

Parameters = Mapping[str, chex.Array]
"""Dynamics, name -> [] or [n]; see `dynamics.apply`."""


@chex.dataclass(frozen=True)
class PhysicsState:
  """What MJX carries from one step to the next. It computes everything else from these at the next step.

  Attributes:
    q: [nq] float32, generalised positions.
    qd: [nv] float32, generalised velocities.
    qacc_warmstart: [nv] float32, where the constraint solver starts.
  """

  q: chex.Array
  qd: chex.Array
  qacc_warmstart: chex.Array


@dataclasses.dataclass(frozen=True)
class NoSystem:
  """Stands for the `brax.System` of a robot that has none: without constants that could be multiplied.

  Attributes:
    action_size: A.
  """

  action_size: int

  def act_size(self) -> int:
    return self.action_size


@dataclasses.dataclass(frozen=True)
class Physics:
  """A robot without its task.

  Attributes:
    backend: one of `BACKENDS`.
    system: the `brax.System` that multipliers apply to; `NoSystem` where there is none.
    time_step: seconds of an environment step.
    init: (parameters, q [nq], qd [nv]) -> state: `PhysicsState` on mjx, else Brax's own; all have `q` and `qd`.
    step: (parameters, state, control [nu]) -> state, one environment step later.
  """

  backend: str
  system: Any
  time_step: float
  init: Callable[[Parameters, chex.Array, chex.Array], Any]
  step: Callable[[Parameters, Any, chex.Array], Any]


def check_backend(backend: str) -> None:
  """Raises `UnknownNameError` for a backend that does not exist."""
  if backend not in BACKENDS:
    raise UnknownNameError(f'Physics backend {backend!r} is unknown; choose one of: {", ".join(BACKENDS)}.')


@functools.cache
def load(robot: str, backend: str) -> Physics:
  """The physics of Brax's environment `robot` (such as 'reacher').

  Raises:
    UnknownNameError: for a backend that does not exist.
  """
  check_backend(backend)
  from brax import envs  # slow to import, so only where a robot is needed

  with quiet_brax.making():
    env = envs.get_environment(robot, backend=simulator_of(backend))
  if backend == 'mjx_fast':
    env.sys = env.sys.tree_replace(MJX_FAST)
  return dataclasses.replace(of_env(env), backend=backend)


def simulator_of(backend: str) -> str:
  """Brax's name of the simulator behind a backend."""
  return backend.removesuffix('_fast')


def of_env(env: Any) -> Physics:
  """The physics of a `brax.envs.PipelineEnv`."""
  system = dynamics.simulated_constants(env.sys, env.backend)
  make = _mjx if env.backend == 'mjx' else _brax
  init, substep = make(env)
  num_substeps = env._n_frames

  # Tests take single steps outside of any other program: with a jit here, a step is compiled once for all families on a
  # robot. Inside another program it is inlined and changes nothing.
  @functools.partial(jax.jit, inline=True)
  def step(parameters, state, control):
    changed = dynamics.apply(system, env.backend, parameters)
    return jax.lax.scan(lambda s, _: (substep(changed, s, control), None), state, None, length=num_substeps)[0]

  @functools.partial(jax.jit, inline=True)
  def start(parameters, q, qd):
    return init(dynamics.apply(system, env.backend, parameters), q, qd)

  return Physics(backend=env.backend, system=system, time_step=float(env.dt), init=start, step=step)


def root_velocity(robot: Physics, axes: int) -> Callable[[Any, Any], chex.Array]:
  """(state before, state after) -> [axes] m/s, the root's velocity over a step along the first axes."""
  return lambda before, after: (after.q[:axes] - before.q[:axes]) / robot.time_step


def _mjx(env: Any) -> tuple[Callable, Callable]:
  from mujoco import mjx

  with quiet_brax.making():
    blank = mjx.make_data(env.sys)

  def init(system, q, qd):
    del system
    return PhysicsState(q=q, qd=qd, qacc_warmstart=blank.qacc_warmstart)

  def substep(system, state, control):
    data = blank.replace(qpos=state.q, qvel=state.qd, qacc_warmstart=state.qacc_warmstart, ctrl=control)
    data = mjx.step(system, data)
    return PhysicsState(q=data.qpos, qd=data.qvel, qacc_warmstart=data.qacc_warmstart)

  return init, substep


def _brax(env: Any) -> tuple[Callable, Callable]:
  pipeline = env._pipeline

  def init(system, q, qd):
    with quiet_brax.known_warnings_ignored():
      return pipeline.init(system, q, qd)

  return init, pipeline.step
