"""Builds a family from a robot, a goal and a reward."""

import functools
from typing import Any
from collections.abc import Callable, Mapping, Sequence

import chex
import jax
import jax.numpy as jnp

from metaimprove import rng
from metaimprove.errors import UnknownNameError
from metaimprove.language.clauses import Property
from metaimprove.language.properties import EFFORT, SMOOTHNESS
from metaimprove.tasks.family import Reset, Reward, State, Step, TaskFamily
from metaimprove.tasks.parameters import Parameter
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots import dynamics, pictures
from metaimprove.tasks.robots.imperfections import Imperfections
from metaimprove.tasks.robots.physics import Parameters, Physics
from metaimprove.types import Task

PRESETS = ('none', 'default', 'far')
Preset = str | Sequence[str]
"""One of `PRESETS`, or the names of the parameters to randomise."""

Start = Callable[[chex.Array, chex.PRNGKey], tuple[Any, Any]]
Observe = Callable[[Any], chex.Array]
Outcome = Callable[[Any, Any], chex.Array]
Terminated = Callable[[Any], chex.Array]
Control = Callable[[chex.Array], chex.Array]


def choose_ranges(
  preset: Preset, default: Mapping[str, Parameter], real: Sequence[str], what: str
) -> dict[str, Parameter]:
  """The ranges of the dynamics parameters to randomise.

  Args:
    preset: 'none', 'default', 'far' (as default; see `far_only` of `make_family`) or the names of parameters.
    default: the family's own ranges, of the parameters that it randomises by default.
    real: the multipliers that have an effect on the robot.
    what: the family and backend, for the error.

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
  return {name: default.get(name, dynamics.default_parameter(name)) for name in preset}


def no_outcome(before: Any, after: Any) -> chex.Array:
  """The outcome of a family whose reward refers to goal and action only."""
  del before, after
  return jnp.zeros(0)


def never(physics: Any) -> chex.Array:
  """The end of a family whose episodes only end with the time limit."""
  del physics
  return jnp.zeros((), bool)


def make_family(
  name: str, robot: Physics, *, definition: str, goal: Goal, start: Start, observe: Observe, reward: Reward,
  outcome: Outcome = no_outcome, terminated: Terminated = never, control: Control = lambda action: action,
  ranges: Mapping[str, Parameter], far_only: bool = False, episode_length: int = 200, camera: str = 'side',
  lines: Callable[[chex.Array], chex.Array] | None = None,
  view: tuple[float, float, float, float] = (-1.2, 1.2, -0.2, 1.6), practice_reward: Reward | None = None,
  properties: tuple[Property, ...] = (),
) -> TaskFamily:
  """A family from its parts.

  Args:
    name: of the family.
    robot: its physics.
    definition: in words, with units and sources.
    goal: what differs between tasks.
    start: (goal, rng_key) -> (q, qd) of a new episode.
    observe: (physics state) -> [O]; must not depend on the goal.
    reward: (goal, outcome, action) -> [].
    outcome: (physics state before, physics state after) -> [D], what the reward refers to besides goal and action;
      must not depend on the goal.
    terminated: (physics state) -> [] bool.
    control: action in [-1, 1] -> the motors' control.
    ranges: of the dynamics to randomise.
    far_only: whether `sample` draws far tasks too.
    episode_length: T.
    camera: 'side', 'top' or 'oblique'; see `pictures.project`.
    lines: (q) -> [L, 2, 2], another drawing than the robot's own.
    view, practice_reward: see `TaskFamily`.
    properties: the same, besides those of its actions.
  """
  action_size = robot.system.act_size()
  ranges = dynamics.of_robot(ranges, action_size)
  imperfections = _imperfections(ranges, action_size)
  sample, sample_far = (functools.partial(draw, goal, ranges) for draw in (_sample, _sample_far))
  task = jax.eval_shape(sample, jax.random.key(0))
  begin = lambda task, rng_key: robot.init(simulated(task), *start(task.goal, rng_key))
  state = jax.eval_shape(begin, task, jax.random.key(0))
  outcome_size = jax.eval_shape(outcome, state, state).shape[0]
  privileged = functools.partial(_privileged, goal, ranges)
  draw = functools.partial(pictures.lines, robot.system, camera=camera) if lines is None else lines
  return TaskFamily(
    name=name, backend=robot.backend, sample=sample_far if far_only else sample, sample_far=sample_far,
    reset=_make_reset(robot, imperfections, start, observe, outcome_size),
    step=_make_step(robot, imperfections, observe, outcome, reward, terminated, control),
    reward=reward, achieved=goal.achieved, is_far_goal=goal.is_far, privileged=privileged,
    describe=lambda task: f'{goal.describe(task.goal)}, {dynamics.describe(task.dynamics)}',
    picture=lambda task, q: {'lines': draw(q), 'goal': goal.position(task.goal, q)}, view=view,
    observation_size=jax.eval_shape(observe, state).shape[0], action_size=action_size, goal_size=task.goal.shape[0],
    outcome_size=outcome_size, privileged_size=jax.eval_shape(privileged, task).shape[0],
    episode_length=episode_length, can_terminate=terminated is not never, ranges=dict(ranges), far_only=far_only,
    definition=definition, time_step=robot.time_step, practice_reward=practice_reward,
    properties=(*properties, EFFORT, SMOOTHNESS),
  )


def simulated(task: Task) -> Parameters:
  """The dynamics that the simulator applies; imperfections are applied around it."""
  return {name: value for name, value in task.dynamics.items() if name not in dynamics.IMPERFECTIONS}


def _imperfections(ranges: Mapping[str, Parameter], action_size: int) -> Imperfections:
  names = frozenset(ranges) & frozenset(dynamics.IMPERFECTIONS)
  lags = (*ranges['action_lag'].values, *ranges['action_lag'].far_values) if 'action_lag' in names else (0,)
  return Imperfections(names, action_size, longest_lag=round(max(lags)))


def _sample(goal: Goal, ranges: Mapping[str, Parameter], rng_key: chex.PRNGKey, far_dynamics: bool = False) -> Task:
  key_goal, key_dynamics = jax.random.split(rng_key)
  return Task(goal=goal.sample(key_goal), dynamics=dynamics.sample(key_dynamics, ranges, far_dynamics))


def _sample_far(goal: Goal, ranges: Mapping[str, Parameter], rng_key: chex.PRNGKey) -> Task:
  """A task with a far goal or with one far dynamics parameter, all with the same probability."""
  far_dynamics = _sample(goal, ranges, rng_key, far_dynamics=True)
  if goal.sample_far is None:
    return far_dynamics
  far_goal = _sample(goal, ranges, rng_key).replace(goal=goal.sample_far(rng.stream(rng_key, 'far goal')))
  is_goal = jax.random.bernoulli(rng.stream(rng_key, 'goal or dynamics'), 1 / (1 + len(ranges)))
  return jax.tree.map(functools.partial(jnp.where, is_goal), far_goal, far_dynamics)


def _privileged(goal: Goal, ranges: Mapping[str, Parameter], task: Task) -> chex.Array:
  return jnp.concatenate([task.goal / goal.scale, dynamics.privileged(task.dynamics, ranges)])


def _make_reset(
  robot: Physics, imperfections: Imperfections, start: Start, observe: Observe, outcome_size: int
) -> Reset:
  def reset(task, rng_key):
    key_start, key_see, key_memory = jax.random.split(rng_key, 3)
    physics = robot.init(simulated(task), *start(task.goal, key_start))
    return State(
      physics=physics, observation=imperfections.see(task.dynamics, observe(physics), key_see),
      outcome=jnp.zeros(outcome_size), reward=jnp.zeros(()), terminated=jnp.zeros((), bool),
      memory=imperfections.begin(key_memory),
    )

  return reset


def _make_step(
  robot: Physics, imperfections: Imperfections, observe: Observe, outcome: Outcome, reward: Reward,
  terminated: Terminated, control: Control,
) -> Step:
  def step(task, state, action):
    command, memory, key_see = imperfections.act(task.dynamics, state.memory, action)
    physics = robot.step(simulated(task), state.physics, control(command))
    result = outcome(state.physics, physics)
    return State(
      physics=physics, observation=imperfections.see(task.dynamics, observe(physics), key_see), outcome=result,
      reward=reward(task.goal, result, action), terminated=terminated(physics), memory=memory,
    )

  return step
