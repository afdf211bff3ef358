"""The simulator as two pure functions of an explicit system.

Brax's environment wrappers fix the dynamics when they are built and reset to the first state for ever (brax issues 167,
275, 446, 609, 422). Its pipelines take the system as an argument; called directly, dynamics are an input and a reset is
a reset.
"""

import dataclasses
import functools
from typing import Any
from collections.abc import Callable

import chex
import jax

from metaimprove import quiet_brax
from metaimprove.errors import UnknownNameError

BACKENDS = ('mjx',)


@chex.dataclass(frozen=True)
class PhysicsState:
  """All that MJX carries from one step to the next; everything else it derives again from these at the next step.

  Attributes:
    q: [nq] float32, generalised positions.
    qd: [nv] float32, generalised velocities.
    qacc_warmstart: [nv] float32, where the constraint solver starts.
  """

  q: chex.Array
  qd: chex.Array
  qacc_warmstart: chex.Array


@dataclasses.dataclass(frozen=True)
class Physics:
  """A stock Brax robot.

  Attributes:
    system: the stock `brax.System`; scale its constants with `dynamics.apply`.
    init: (q [nq], qd [nv]) -> PhysicsState at rest in its solver.
    step: (system, state, control [nu]) -> PhysicsState one environment step later.
  """

  system: Any
  init: Callable[[chex.Array, chex.Array], PhysicsState]
  step: Callable[[Any, PhysicsState, chex.Array], PhysicsState]


@functools.cache
def load(robot: str, backend: str) -> Physics:
  """Loads Brax's environment `robot` (such as 'reacher') and gives its physics without its task.

  Raises:
    UnknownNameError: for a backend that is not supported.
  """
  if backend not in BACKENDS:
    raise UnknownNameError(f'Physics backend {backend!r} is not supported; choose one of: {", ".join(BACKENDS)}.')
  from brax import envs  # slow to import, so only where a robot is needed
  from mujoco import mjx

  with quiet_brax.known_warnings_ignored():
    env = envs.get_environment(robot, backend=backend)
  blank = mjx.make_data(env.sys)
  num_substeps = env._n_frames

  def init(q, qd):
    return PhysicsState(q=q, qd=qd, qacc_warmstart=blank.qacc_warmstart)

  def step(system, state, control):
    def substep(state, _):
      data = blank.replace(qpos=state.q, qvel=state.qd, qacc_warmstart=state.qacc_warmstart, ctrl=control)
      data = mjx.step(system, data)
      return PhysicsState(q=data.qpos, qd=data.qvel, qacc_warmstart=data.qacc_warmstart), None

    return jax.lax.scan(substep, state, None, length=num_substeps)[0]

  return Physics(system=env.sys, init=init, step=step)
