"""`humanoid_dir`: walk in a hidden direction."""

import functools

import jax
import jax.numpy as jnp

from metaimprove.language.properties import FALL, HEADING, PACE
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.parameters import Range
from metaimprove.tasks.robots import physics, starts
from metaimprove.tasks.robots.build import Preset, choose_ranges, make_family
from metaimprove.tasks.robots.directions import direction_goal

EPISODE_LENGTH = 200
HEALTHY_Z = (1.0, 2.0)
_ALL = ('gear', 'damping', 'mass', 'inertia', 'friction', 'gravity')
BACKENDS = {'spring': _ALL, 'mjx': _ALL}
_DEFAULT = ('gear', 'friction', 'gravity')


def humanoid_dir(backend: str = 'spring', preset: Preset = 'default') -> TaskFamily:
  """Walk in a hidden direction, angle ~ U(0, 2π), given as its cosine and sine. Reward per step: 1.25 v·dir + 5 -
  0.1 Σu², v the centre of mass's velocity over the step in m/s, u the control: actions in [-1, 1] stretched to the
  motors' range of ±0.4, as stock. Ends when the torso's height leaves [1, 2] m. 200 steps.

  From the reference code of PEARL (Rakelly et al., arXiv:1903.08254): 0.25 times the displacement over a whole step,
  divided by the time of one of its five physics steps, which is 1.25 v; here 1.25 v whatever the backend's number of
  physics steps. No backend gives contact forces between steps, so the cost of impacts is left out.
  Observation [45]: height, orientation (quaternion), 17 joint angles; all velocities (stock adds inertias, velocities
  and forces of each link, which follow from these). Start: the model's pose + U(±0.01), velocities U(±0.01), as stock.
  """
  robot = physics.load('humanoid', backend)
  limits = robot.system.actuator.ctrl_range
  masses = robot.system.link.inertia.mass

  def control(action):
    return limits[:, 0] + (action + 1) / 2 * (limits[:, 1] - limits[:, 0])

  @functools.partial(jax.jit, inline=True)
  def centre_of_mass(q):
    from brax import kinematics

    x, _ = kinematics.forward(robot.system, q, jnp.zeros(robot.system.qd_size()))
    at = x.vmap().do(robot.system.link.inertia.transform).pos
    return masses @ at / masses.sum()

  def outcome(before, after):
    return (centre_of_mass(after.q) - centre_of_mass(before.q))[:2] / robot.time_step

  def reward(goal, velocity, action):
    return 1.25 * velocity @ goal + 5.0 - 0.1 * jnp.sum(jnp.square(control(action)))

  ranges = choose_ranges(preset, {n: Range() for n in _DEFAULT}, BACKENDS[backend], f'humanoid_dir ({backend})')
  return make_family(
    'humanoid_dir', robot, definition=humanoid_dir.__doc__, goal=direction_goal('walk'),
    start=starts.near_initial(robot.system, q_noise=1e-2, qd_uniform=1e-2),
    observe=lambda s: jnp.concatenate([s.q[2:], s.qd]), reward=reward, outcome=outcome, control=control,
    ranges=ranges, far_only=preset == 'far', episode_length=EPISODE_LENGTH, camera='oblique',
    view=(-1.3, 1.3, -0.5, 2.0), terminated=lambda s: (s.q[2] < HEALTHY_Z[0]) | (s.q[2] > HEALTHY_Z[1]),
    properties=(HEADING, PACE, FALL),
  )
