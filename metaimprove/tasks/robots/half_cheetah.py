"""Families of the half cheetah: run at a hidden velocity, or in a hidden direction.

Definitions are those of the reference code of PEARL (Rakelly et al., arXiv:1903.08254) and VariBAD (Zintgraf et al.,
arXiv:1910.08348). Public copies have two traps: the control weight is 0.05, not 0.1, and a docstring gives goal
velocities in [0, 2] where the code draws from [0, 3].
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from metaimprove.tasks import hindsight
from metaimprove.tasks.family import Range, TaskFamily
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots import physics, starts
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family

EPISODE_LENGTH = 200
CONTROL_WEIGHT = 0.05
MAX_SPEED, FAR_SPEED = 3.0, 4.0
"""m/s: goal velocities are U(0, 3); far ones U(3, 4)."""
_ALL = ('gear', 'damping', 'mass', 'inertia', 'friction', 'gravity')
BACKENDS = {'spring': _ALL, 'mjx': _ALL, 'mjx_fast': _ALL, 'generalized': _ALL}
_DEFAULT = ('gear', 'friction', 'gravity')

_SHARED = """
Observation [17]: height, pitch and six joint angles in m and rad; their velocities and the forward one (PEARL also
observes the torso's position, three numbers; they are left out here). Start: the model's pose + U(±0.1),
velocities N(0, 0.1²), as stock. 200 steps of 0.05 s, never ended early (stock Brax: 1,000 steps, control weight 0.1).
Brax's robot has other gears (120, 90, 60, 120, 100, 100) and a shorter physics step on spring than
MuJoCo's (120, 90, 60, 120, 60, 30) on mjx and generalized, so policies do not carry over between these."""


def _family(
  name: str, backend: str, preset: Preset, definition: str, goal: Goal,
  reward: Callable[[chex.Array, chex.Array], chex.Array],
) -> TaskFamily:
  """A family whose reward is that of (goal, velocity []) less the cost of control."""
  robot = physics.load('halfcheetah', backend)

  def whole_reward(goal, velocity, action):
    return reward(goal, velocity[0]) - CONTROL_WEIGHT * jnp.sum(jnp.square(action))

  ranges = choose_ranges(preset, {n: Range() for n in _DEFAULT}, BACKENDS[backend], f'{name} ({backend})')
  return make_family(
    name, robot, definition=definition + _SHARED, goal=goal,
    start=starts.near_initial(robot.system, q_noise=0.1, qd_normal=0.1),
    observe=lambda s: jnp.concatenate([s.q[1:], s.qd]), reward=whole_reward,
    outcome=physics.root_velocity(robot, 1), ranges=ranges, far_only=preset == 'far',
    episode_length=EPISODE_LENGTH, view=(-1.2, 1.2, -0.25, 1.25),
  )


def half_cheetah_vel(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Run at a hidden velocity v* ~ U(0, 3) m/s (far: U(3, 4)). Reward per step: -|v - v*| - 0.05 Σa², v the root's over
  the step."""
  goal = Goal(
    sample=lambda key: jax.random.uniform(key, (1,), maxval=MAX_SPEED), scale=MAX_SPEED,
    sample_far=lambda key: jax.random.uniform(key, (1,), minval=MAX_SPEED, maxval=FAR_SPEED),
    is_far=lambda goal: (goal[0] < 0) | (goal[0] > MAX_SPEED), achieved=hindsight.mean_outcome,
    describe=lambda goal: f'run forward at {float(goal[0]):.1f} m/s',
  )
  return _family(
    'half_cheetah_vel', backend, preset, half_cheetah_vel.__doc__, goal,
    lambda goal, velocity: -jnp.abs(velocity - goal[0]),
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
