"""Builds a family from a robot, a goal and a reward."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from metaimprove.errors import UnknownNameError
from metaimprove.tasks.family import Range, State, TaskFamily
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots import dynamics, pictures
from metaimprove.tasks.robots.physics import Physics
from metaimprove.types import Task

PRESETS = ('none', 'default', 'far')


def choose_ranges(
  preset: str | Sequence[str], default: Mapping[str, Range], real: Sequence[str], what: str
) -> dict[str, Range]:
  """The ranges of what is to be randomised.

  Args:
    preset: 'none', 'default', 'far' (as default; tasks are drawn out of range) or the names of parameters.
    default: of the family.
    real: the multipliers that do something.
    what: for the error, such as "family 'x' on spring".

  Raises:
    UnknownNameError: for a preset that does not exist or a parameter that does nothing.
  """
  if isinstance(preset, str):
    if preset not in PRESETS:
      raise UnknownNameError(
        f'Dynamics preset {preset!r} is unknown; choose one of: {", ".join(PRESETS)}, or give a list of parameters.'
      )
    return {} if preset == 'none' else dict(default)
  dynamics.check_known(preset, real, what)
  return {name: default.get(name, dynamics.IMPERFECTIONS.get(name, Range())) for name in preset}


def make_family(
  name: str, robot: Physics, *, definition: str, goal: Goal, start: Callable, observe: Callable, reward: Callable,
  terminated: Callable | None = None, control: Callable = lambda action: action, ranges: Mapping[str, Range],
  far_only: bool = False, episode_length: int = 200, camera: str = 'side', lines: Callable | None = None,
  view=(-1.2, 1.2, -0.2, 1.6),
) -> TaskFamily:
  """A family from its parts.

  Args:
    name: of the family.
    robot: its physics.
    definition: in words, with units and sources.
    goal: what differs between tasks.
    start: (goal, rng_key) -> (q, qd) of a new episode.
    observe: (physics state) -> [O]; must not depend on the goal.
    reward: (goal, physics state before, action, physics state after) -> [].
    terminated: (physics state) -> [] bool; None: never.
    control: action in [-1, 1] -> the motors' control.
    ranges: of the dynamics to randomise.
    far_only: whether `sample` too draws far tasks.
    episode_length: T.
    camera: 'side', 'top' or 'oblique'; see `pictures.project`.
    lines: (q) -> [L, 2, 2], another drawing than the robot's own.
    view: see `TaskFamily`.
  """
  noisy = 'action_noise' in ranges or 'observation_noise' in ranges
  delayed = 'action_delay' in ranges

  def sample(rng_key, far):
    key_goal, key_dynamics = jax.random.split(rng_key)
    return Task(goal=goal.sample(key_goal), dynamics=dynamics.sample(key_dynamics, ranges, far))

  def multipliers(task):
    return {name: value for name, value in task.dynamics.items() if name in dynamics.MULTIPLIERS}

  def seen(task, physics, rng_key):
    observation = observe(physics)
    if 'observation_noise' in ranges:
      noise = jax.random.normal(rng_key, observation.shape)
      observation = observation + task.dynamics['observation_noise'] * noise
    return observation

  def reset(task, rng_key):
    key_start, key_seen, key_memory = jax.random.split(rng_key, 3)
    physics = robot.init(multipliers(task), *start(task.goal, key_start))
    memory = {}
    if delayed:
      memory['last_action'] = jnp.zeros(action_size)
    if noisy:
      memory['rng'] = jax.random.key_data(key_memory)
    return State(
      physics=physics, observation=seen(task, physics, key_seen), reward=jnp.zeros(()),
      terminated=jnp.zeros((), bool), memory=memory,
    )

  def step(task, state, action):
    memory, done, key_seen = dict(state.memory), action, None
    if noisy:
      key_act, key_seen, key_memory = jax.random.split(jax.random.wrap_key_data(memory['rng']), 3)
      memory['rng'] = jax.random.key_data(key_memory)
    if 'action_noise' in ranges:
      done = done + task.dynamics['action_noise'] * jax.random.normal(key_act, action.shape)
    if delayed:
      late = task.dynamics['action_delay']
      done, memory['last_action'] = late * memory['last_action'] + (1 - late) * done, done
    if noisy or delayed:
      done = jnp.clip(done, -1, 1)
    after = robot.step(multipliers(task), state.physics, control(done))
    return State(
      physics=after, observation=seen(task, after, key_seen), reward=reward(task.goal, state.physics, action, after),
      terminated=jnp.zeros((), bool) if terminated is None else terminated(after), memory=memory,
    )

  def privileged(task):
    return jnp.concatenate([task.goal / goal.scale, dynamics.privileged(task.dynamics, ranges)])

  def picture(task, q):
    drawn = pictures.lines(robot.system, q, camera) if lines is None else lines(q)
    return {'lines': drawn, 'goal': goal.place(task.goal, q)}

  shapes = jax.eval_shape(functools.partial(sample, far=False), jax.random.key(0))
  action_size = robot.system.act_size()
  return TaskFamily(
    name=name, backend=robot.backend, sample=functools.partial(sample, far=far_only),
    sample_far=functools.partial(sample, far=True), reset=reset, step=step, privileged=privileged,
    describe=lambda task: f'{goal.describe(task.goal)}, {dynamics.describe(task.dynamics)}', picture=picture, view=view,
    observation_size=jax.eval_shape(reset, shapes, jax.random.key(0)).observation.shape[0], action_size=action_size,
    privileged_size=jax.eval_shape(privileged, shapes).shape[0], episode_length=episode_length,
    can_terminate=terminated is not None, ranges=dict(ranges), far_only=far_only, definition=definition,
    time_step=robot.time_step,
  )
