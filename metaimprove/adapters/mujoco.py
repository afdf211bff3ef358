"""Families in another simulator: Gymnasium's MuJoCo robots with a hidden task, for operators that were trained on MJX.

Only what the family defines is taken from us: the task, the observation, the reward, the time limit. Model, integrator
and starts are those of Gymnasium's environment. Dynamics are changed in its MuJoCo model, by the same multipliers.
"""

from collections.abc import Iterable

import numpy as np

from metaimprove.adapters.extras import required
from metaimprove.adapters.gymnasium import FamilyEnv
from metaimprove.adapters.stepping import Stepper
from metaimprove.errors import IncompatibleError
from metaimprove.tasks.robots import dynamics, reacher

gymnasium = required('gymnasium')
mujoco = required('mujoco')

_IMPERFECTIONS = ('action_delay', 'action_noise')


class ReacherStepper(Stepper):
  """`Reacher-v5` as `reacher_goal`."""

  def _prepare(self) -> None:
    if self.family.name != 'reacher_goal':
      raise IncompatibleError(f'Reacher-v5 stands for reacher_goal, not for {self.family.name}.')
    self._env = gymnasium.make('Reacher-v5').unwrapped
    fields = {field for name in dynamics.multipliers_of('mjx') for field in dynamics.FIELDS['mjx'][name]}
    self._stock = {field: _array(self._env.model, field).copy() for field in fields}
    self._check(self.family.ranges)

  def _check(self, names: Iterable[str]) -> None:
    for name in names:
      if name not in (*dynamics.multipliers_of('mjx'), *_IMPERFECTIONS):
        raise IncompatibleError(f'This bridge does not simulate {name!r}; leave it out of the dynamics.')

  def _begin(self, rng: np.random.Generator) -> np.ndarray:
    self._check(self.task.dynamics)
    model, goal = self._env.model, np.asarray(self.task.goal)
    for field, stock in self._stock.items():
      _array(model, field)[...] = stock
    for name in dynamics.multipliers_of('mjx'):
      for field in dynamics.FIELDS['mjx'][name] if name in self.task.dynamics else ():
        _array(model, field)[...] *= np.asarray(self.task.dynamics[name])
    mujoco.mj_setConst(model, self._env.data)
    self._env.reset(seed=int(rng.integers(2**31)))
    self._env.set_state(np.concatenate([self._env.data.qpos[:2], goal]), self._env.data.qvel)
    self._rng, self._sent = rng, np.zeros(self.family.action_size)
    return self._observe()

  def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
    command = action + float(self.task.dynamics.get('action_noise', 0.0)) * self._rng.standard_normal(action.shape)
    late = float(self.task.dynamics.get('action_delay', 0.0))
    command, self._sent = late * self._sent + (1 - late) * command, command
    self._env.do_simulation(np.clip(command, -1, 1), self._env.frame_skip)
    observation = self._observe()
    distance = np.linalg.norm(observation[6:] * reacher.LENGTH_UNIT - np.asarray(self.task.goal))
    return observation, -float(distance) / reacher.LENGTH_UNIT, False

  def _observe(self) -> np.ndarray:
    """As `reacher_goal` does, from MuJoCo's own position of the fingertip."""
    angles, velocities = self._env.data.qpos[:2], self._env.data.qvel[:2]
    fingertip = self._env.get_body_com('fingertip')[:2]
    return np.concatenate([
      np.cos(angles), np.sin(angles), velocities / 10, fingertip / reacher.LENGTH_UNIT
    ]).astype(np.float32)

  @property
  def q(self) -> np.ndarray | None:
    return None if self._last is None else self._env.data.qpos.copy()


class ReacherEnv(FamilyEnv):
  """`Reacher-v5` with a hidden target, as an environment like those of our families; see `FamilyEnv`."""

  simulator = ReacherStepper


def _array(model, field: str) -> np.ndarray:
  """A field of a MuJoCo model, as the array itself."""
  for part in field.split('.'):
    model = getattr(model, part)
  return model


gymnasium.register(
  'metaimprove/MuJoCoReacherGoal-v0', entry_point=ReacherEnv, kwargs={'family': 'reacher_goal'}, order_enforce=False
)
