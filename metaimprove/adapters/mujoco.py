"""Families in another simulator: Gymnasium's MuJoCo robots with a hidden task, for operators that were trained on MJX.

Only what the family defines is taken from us: the task, the observation, the reward, the time limit. Model, integrator
and starts are those of Gymnasium's environment. Dynamics are changed in its MuJoCo model, by the same multipliers.
"""

import abc
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from metaimprove import quiet_brax
from metaimprove.adapters.extras import required
from metaimprove.adapters.gymnasium import FamilyEnv
from metaimprove.adapters.stepping import Stepper
from metaimprove.errors import IncompatibleError
from metaimprove.tasks.registry import backends_of
from metaimprove.tasks.robots import dynamics, half_cheetah, reacher

gymnasium = required('gymnasium')
mujoco = required('mujoco')

_IMPERFECTIONS = ('action_delay', 'action_noise')
_BLOWN_UP = (
  mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC
)
# A length changes inertia too, in another way than a multiplier.
_MULTIPLIERS = {name: fields for name, fields in dynamics.FIELDS['mjx'].items() if name != 'length'}


class MuJoCoStepper(Stepper, abc.ABC):
  """A Gymnasium environment as a family. Subclasses say which, how it begins, what is observed and rewarded.

  Attributes:
    env_name: of the Gymnasium environment.
    family_name: of the only family that it stands for.
    backends: of that family, on which the robot is the same.
  """

  env_name: ClassVar[str]
  family_name: ClassVar[str]
  backends: ClassVar[tuple[str, ...]] = ('mjx_fast', 'mjx')

  def _start(self) -> None:
    """Places what belongs to the task, after a reset of Gymnasium's environment."""

  @abc.abstractmethod
  def _observe(self) -> np.ndarray:
    """[O] as the family observes."""

  @abc.abstractmethod
  def _reward(self, qpos: np.ndarray, action: np.ndarray) -> float:
    """Of the step that began at qpos [nq], with the action [A] of the policy."""

  def _prepare(self) -> None:
    if self.family.name != self.family_name:
      raise IncompatibleError(f'{self.env_name} stands for {self.family_name}, not for {self.family.name}.')
    if self.family.backend not in self.backends:
      raise IncompatibleError(
        f'{self.env_name} has the robot of {self.family_name} on {" and ".join(self.backends)}; on '
        f'{self.family.backend} it is another one.'
      )
    with quiet_brax.known_warnings_ignored():  # Gymnasium's cheetah has the same old attribute as Brax's
      self._env = gymnasium.make(self.env_name).unwrapped
    fields = {field for fields in _MULTIPLIERS.values() for field in fields}
    self._stock = {field: _array(self._env.model, field).copy() for field in fields}
    self._check(self.family.ranges)

  def _check(self, names: Iterable[str]) -> None:
    for name in names:
      if name not in (*_MULTIPLIERS, *_IMPERFECTIONS):
        raise IncompatibleError(f'This bridge does not simulate {name!r}; leave it out of the dynamics.')

  def _begin(self, rng: np.random.Generator) -> np.ndarray:
    self._check(self.task.dynamics)
    if any(np.ndim(value) for value in self.task.dynamics.values()):
      raise IncompatibleError('This bridge takes one multiplier for the whole robot, not one for each element.')
    model = self._env.model
    for field, stock in self._stock.items():
      _array(model, field)[...] = stock
    for name, fields in _MULTIPLIERS.items():
      for field in fields if name in self.task.dynamics else ():
        _array(model, field)[...] *= np.asarray(self.task.dynamics[name])
    mujoco.mj_setConst(model, self._env.data)
    self._env.reset(seed=int(rng.integers(2**31)))
    self._start()
    self._rng, self._sent = rng, np.zeros(self.family.action_size)
    return self._observe()

  def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
    command = action + float(self.task.dynamics.get('action_noise', 0.0)) * self._rng.standard_normal(action.shape)
    late = float(self.task.dynamics.get('action_delay', 0.0))
    command, self._sent = late * self._sent + (1 - late) * command, command
    before = self._env.data.qpos.copy()
    self._env.do_simulation(np.clip(command, -1, 1), self._env.frame_skip)
    observation = self._observe()
    if any(self._env.data.warning[kind].number for kind in _BLOWN_UP):  # MuJoCo has begun anew by itself
      observation = np.full_like(observation, np.nan)
    return observation, self._reward(before, action), False

  @property
  def q(self) -> np.ndarray | None:
    return None if self._last is None else self._env.data.qpos.copy()


class ReacherStepper(MuJoCoStepper):
  """`Reacher-v5` as `reacher_goal`."""

  env_name, family_name = 'Reacher-v5', 'reacher_goal'

  def _start(self) -> None:
    self._env.set_state(np.concatenate([self._env.data.qpos[:2], np.asarray(self.task.goal)]), self._env.data.qvel)

  def _observe(self) -> np.ndarray:
    """With MuJoCo's own position of the fingertip."""
    angles, velocities = self._env.data.qpos[:2], self._env.data.qvel[:2]
    fingertip = self._env.get_body_com('fingertip')[:2]
    return np.concatenate([
      np.cos(angles), np.sin(angles), velocities / 10, fingertip / reacher.LENGTH_UNIT
    ]).astype(np.float32)

  def _reward(self, qpos: np.ndarray, action: np.ndarray) -> float:
    away = self._env.get_body_com('fingertip')[:2] - np.asarray(self.task.goal)
    return -float(np.linalg.norm(away)) / reacher.LENGTH_UNIT


class HalfCheetahStepper(MuJoCoStepper):
  """`HalfCheetah-v5` as `half_cheetah_vel`. Its motors are those of our backends `mjx` and `mjx_fast`; on `spring` the
  robot has others. All of its parts can touch the ground; of Brax's robot only head, thighs and feet can."""

  env_name, family_name = 'HalfCheetah-v5', 'half_cheetah_vel'

  def _observe(self) -> np.ndarray:
    return np.concatenate([self._env.data.qpos[1:], self._env.data.qvel]).astype(np.float32)

  def _reward(self, qpos: np.ndarray, action: np.ndarray) -> float:
    velocity = (self._env.data.qpos[0] - qpos[0]) / self._env.dt
    effort = half_cheetah.CONTROL_WEIGHT * float(np.sum(np.square(action)))
    return -abs(float(velocity) - float(self.task.goal[0])) - effort


class ReacherEnv(FamilyEnv):
  """`Reacher-v5` with a hidden target, as an environment like those of our families; see `FamilyEnv`."""

  simulator, registered = ReacherStepper, 'metaimprove/MuJoCoReacherGoal-v0'


class HalfCheetahEnv(FamilyEnv):
  """`HalfCheetah-v5` with a hidden goal velocity, as an environment like those of our families; see `FamilyEnv`."""

  simulator, registered = HalfCheetahStepper, 'metaimprove/MuJoCoHalfCheetahVel-v0'


BRIDGES: Mapping[str, type[FamilyEnv]] = {env.simulator.family_name: env for env in (ReacherEnv, HalfCheetahEnv)}
"""Family -> the same robot in MuJoCo."""


def _array(model, field: str) -> np.ndarray:
  """A field of a MuJoCo model, as the array itself."""
  for part in field.split('.'):
    model = getattr(model, part)
  return model


for _env in BRIDGES.values():
  _family = _env.simulator.family_name
  _backend = next(backend for backend in _env.simulator.backends if backend in backends_of(_family))
  gymnasium.register(
    _env.registered, entry_point=_env, kwargs={'family': _family, 'backend': _backend}, order_enforce=False
  )
