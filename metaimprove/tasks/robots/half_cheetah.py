"""Families of the half cheetah: run at a hidden velocity, or in a hidden direction.

Definitions are those of the reference code of PEARL (Rakelly et al., arXiv:1903.08254) and VariBAD (Zintgraf et al.,
arXiv:1910.08348). Public copies have two traps: the control weight is 0.05, not 0.1, and a docstring gives goal
velocities in [0, 2] where the code draws from [0, 3].
"""

import types
from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp

from metaimprove.language.properties import SPEED
from metaimprove.tasks import hindsight
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.parameters import Parameter, Range
from metaimprove.tasks.robots import dynamics, physics, starts
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family
from metaimprove.tasks.robots.wiring import Wiring

EPISODE_LENGTH = 200
SPARSE_LENGTH = 64
CONTROL_WEIGHT = 0.05
MAX_SPEED, FAR_SPEED = 3.0, 4.0
"""m/s: goal velocities are U(0, 3); far ones U(3, 4)."""
BAND = 0.5
"""m/s: how near to the goal velocity the sparse reward begins."""
_ALL = ('gear', 'damping', 'mass', 'inertia', 'friction', 'gravity')
BACKENDS = {'spring': _ALL, 'mjx': _ALL, 'mjx_fast': _ALL, 'generalized': _ALL}
ONLY_ON = {'half_cheetah_vel_wind': ('spring',)}
"""Backends of families that are not made for all: it is there that the wind was found to matter."""
_DEFAULT = ('gear', 'friction', 'gravity')

SpeedReward = Callable[[chex.Array, chex.Array], chex.Array]
"""(goal [1], velocity []) -> []."""

_SHARED = """
Observation [17]: height, pitch and six joint angles in m and rad; their velocities and the forward one (PEARL also
observes the torso's position, three numbers; they are left out here). Start: the model's pose + U(±0.1),
velocities N(0, 0.1²), as stock. Steps of 0.05 s, never ended early (stock Brax: 1,000 steps, control weight 0.1).
Brax's robot has other gears (120, 90, 60, 120, 100, 100) and a shorter physics step on spring than
MuJoCo's (120, 90, 60, 120, 60, 30) on mjx and generalized, so policies do not carry over between these."""


_VELOCITY = Goal(
  sample=lambda key: jax.random.uniform(key, (1,), maxval=MAX_SPEED), scale=MAX_SPEED,
  sample_far=lambda key: jax.random.uniform(key, (1,), minval=MAX_SPEED, maxval=FAR_SPEED),
  is_far=lambda goal: (goal[0] < 0) | (goal[0] > MAX_SPEED), achieved=hindsight.mean_outcome,
  describe=lambda goal: f'run forward at {float(goal[0]):.1f} m/s',
)


def _speed_reward(goal: chex.Array, velocity: chex.Array) -> chex.Array:
  return -jnp.abs(velocity - goal[0])


def _family(
  name: str, backend: str, preset: Preset, definition: str, goal: Goal,
  reward: SpeedReward, more: Mapping[str, Parameter] = types.MappingProxyType({}),
  practice: SpeedReward | None = None, episode_length: int = EPISODE_LENGTH,
) -> TaskFamily:
  """A family whose rewards are those of (goal, velocity []) less the cost of control, with `more` randomised."""
  robot = physics.load('halfcheetah', backend)

  def whole(function):
    return lambda goal, velocity, action: (
      function(goal, velocity[0]) - CONTROL_WEIGHT * jnp.sum(jnp.square(action))
    )

  default = {**{n: Range() for n in _DEFAULT}, **more}
  ranges = choose_ranges(preset, default, BACKENDS[backend], f'{name} ({backend})')
  return make_family(
    name, robot, definition=f'{definition} {episode_length} steps.{_SHARED}', goal=goal,
    start=starts.near_initial(robot.system, q_noise=0.1, qd_normal=0.1),
    observe=lambda s: jnp.concatenate([s.q[1:], s.qd]), reward=whole(reward),
    practice_reward=None if practice is None else whole(practice),
    outcome=physics.root_velocity(robot, 1), ranges=ranges, far_only=preset == 'far',
    episode_length=episode_length, view=(-1.2, 1.2, -0.25, 1.25), properties=(SPEED,),
  )


def half_cheetah_vel(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Run at a hidden velocity v* ~ U(0, 3) m/s (far: U(3, 4)). Reward per step: -|v - v*| - 0.05 Σa², v the root's over
  the step."""
  return _family('half_cheetah_vel', backend, preset, half_cheetah_vel.__doc__, _VELOCITY, _speed_reward)


def half_cheetah_vel_sparse(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Run at a hidden velocity, with a reward that is felt near it only, as in the code of MetaCURE (Zhang et al.,
  arXiv:2006.08170). Goals as in half_cheetah_vel. Reward per step: 2 - |v - v*| within 0.5 m/s of v*, else 0; less
  0.05 Σa²."""
  def reward(goal, velocity):
    error = jnp.abs(velocity - goal[0])
    return jnp.where(error <= BAND, 2.0 - error, 0.0)

  return _family(
    'half_cheetah_vel_sparse', backend, preset, half_cheetah_vel_sparse.__doc__, _VELOCITY, reward,
    practice=_speed_reward, episode_length=SPARSE_LENGTH,
  )


def half_cheetah_dir(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Run in a hidden direction d, +1 (forward) or -1 with equal chances. Reward per step: d v - 0.05 Σa²."""
  goal = Goal(
    sample=lambda key: jax.random.rademacher(key, (1,), jnp.float32),
    describe=lambda goal: 'run forward' if float(goal[0]) > 0 else 'run backward',
    position=lambda goal, q: jnp.stack([goal[0], jnp.zeros(())]),
    achieved=hindsight.mean_direction,
  )
  return _family(
    'half_cheetah_dir', backend, preset, half_cheetah_dir.__doc__, goal, lambda goal, velocity: goal[0] * velocity
  )


def half_cheetah_vel_wiring(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Run at a hidden velocity on a robot that is wired in an unknown way: which command drives which of the six motors,
  and with which sign. All 46,080 wirings are alike probable, but for the 720 in which every motor is reversed: those
  are of far tasks. Goals and Reward per step: as in half_cheetah_vel."""
  return _family(
    'half_cheetah_vel_wiring', backend, preset, half_cheetah_vel_wiring.__doc__, _VELOCITY, _speed_reward,
    {'wiring': Wiring(6)},
  )


def half_cheetah_vel_broken(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Run at a hidden velocity with at most one broken motor: none, or that of the back thigh, back shin, back foot,
  front thigh or front foot, all alike probable; that of the front shin in far tasks. After the crippled robots of
  Nagabandi et al., arXiv:1803.11347. Goals and Reward per step: as in half_cheetah_vel."""
  broken = dynamics.broken_groups(6, groups=[[0], [1], [2], [3], [5]], far_groups=[[4]])
  return _family(
    'half_cheetah_vel_broken', backend, preset, half_cheetah_vel_broken.__doc__, _VELOCITY, _speed_reward,
    {'broken': broken},
  )


def half_cheetah_vel_wind(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Run at a hidden velocity in a constant wind along x: an acceleration U(-2.5, 2.5) m/s² of all parts (far: up to
  3.5 m/s²), negative against the robot: against 4 m/s² its motors do not hold it. Goals and Reward per step: as in
  half_cheetah_vel."""
  wind = dynamics.FORCES['wind']
  return _family(
    'half_cheetah_vel_wind', backend, preset, half_cheetah_vel_wind.__doc__, _VELOCITY, _speed_reward, {'wind': wind}
  )
