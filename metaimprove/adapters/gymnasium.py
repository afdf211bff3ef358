"""Families as Gymnasium environments, and an agent that improves in any Gymnasium environment.

`import metaimprove.adapters.gymnasium` registers every family, for example as 'metaimprove/HalfCheetahVel-v0'.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from metaimprove.adapters.agent import Agent
from metaimprove.adapters.extras import required
from metaimprove.adapters.spaces import Spaces
from metaimprove.asks import Ask
from metaimprove.errors import ExperienceError, IncompatibleError, UnknownNameError
from metaimprove.evaluation.films import make_painter
from metaimprove.operators.operator import Operator
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.types import Params, Task

gymnasium = required('gymnasium')


class FamilyEnv(gymnasium.Env):
  """A family as an environment. The observation does not tell the task: what is hidden stays hidden.

  `info['task']` has the task in words after each reset. `env.unwrapped.task` is the task itself; `reset(options=
  {'task': ...})` sets another one.
  """

  metadata: dict[str, Any] = {'render_modes': ['rgb_array']}  # noqa: RUF012

  def __init__(
    self, family: str | TaskFamily, task: Task | None = None, dynamics: Mapping[str, Any] | None = None, *,
    backend: str | None = None, episodes_per_task: int | None = None, far: bool = False, render_mode: str | None = None,
  ):
    """Makes the environment.

    Args:
      family: or its name.
      task: to be in; by default a hidden one is drawn at the first reset.
      dynamics: parameter -> multiplier, instead of what the task has.
      backend: of the physics; the family's first by default.
      episodes_per_task: after so many episodes another hidden task is drawn; never by default.
      far: whether drawn tasks are far tasks, outside of the training ranges.
      render_mode: 'rgb_array' or None.

    Raises:
      UnknownNameError: for names that do not exist.
      IncompatibleError: for a task and `episodes_per_task`, which contradict each other.
    """
    family = make_family(family, backend) if isinstance(family, str) else family
    if task is not None and episodes_per_task is not None:
      raise IncompatibleError('An environment has one task, or draws another one every so many episodes, not both.')
    if render_mode not in (None, 'rgb_array'):
      raise UnknownNameError(f"There is no render mode {render_mode!r}; choose 'rgb_array' or None.")
    self.family, self.render_mode = family, render_mode
    self.metadata = {**self.metadata, 'render_fps': max(1, round(1 / family.time_step))}
    self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (family.observation_size,), np.float32)
    self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (family.action_size,), np.float32)
    self._dynamics, self._episodes_per_task, self._num_episodes = dict(dynamics or {}), episodes_per_task, 0
    self._draws, self.task = task is None, None if task is None else self._with_dynamics(task)
    self._sample = jax.jit(family.sample_far if far else family.sample)
    self._reset, self._step = jax.jit(family.reset), jax.jit(family.step)
    self._painter, self._state, self._time = None, None, 0

  def _with_dynamics(self, task: Task) -> Task:
    for name in self._dynamics:
      if name not in task.dynamics:
        raise UnknownNameError(
          f'{self.family.name} ({self.family.backend}) has no dynamics parameter {name!r}; choose among: '
          f'{", ".join(task.dynamics)}.'
        )
    return task.replace(dynamics={**task.dynamics, **jax.tree.map(np.float32, self._dynamics)})

  def _key(self) -> jax.Array:
    return jax.random.key(int(self.np_random.integers(2**31)))

  def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):
    super().reset(seed=seed)
    every, given = self._episodes_per_task, (options or {}).get('task')
    if given is not None:
      self.task, self._draws, self._num_episodes = self._with_dynamics(given), False, 0
    elif self._draws and (self.task is None or seed is not None or (every and self._num_episodes == every)):
      self.task, self._num_episodes = self._with_dynamics(self._sample(self._key())), 0
    self._num_episodes += 1
    self._state, self._time = self._reset(self.task, self._key()), 0
    return np.asarray(self._state.observation), {'task': self.family.describe(self.task)}

  def step(self, action):
    """As in Gymnasium. A simulation that blows up ends the episode: truncated, with `info['finite']` False, the last
    finite observation and no reward."""
    action = np.asarray(action, np.float32)
    if action.shape != self.action_space.shape or not np.isfinite(action).all():
      raise ExperienceError(f'An action must be {self.action_space.shape[0]} finite numbers, not {action}.')
    if self._state is None:
      raise ExperienceError('Reset the environment before the first step.')
    after, self._time = self._step(self.task, self._state, np.clip(action, -1, 1)), self._time + 1
    observation, reward = np.asarray(after.observation), float(after.reward)
    if not (np.isfinite(observation).all() and np.isfinite(reward)):
      return np.asarray(self._state.observation), 0.0, False, True, {'finite': False}
    self._state = after
    return observation, reward, bool(after.terminated), self._time >= self.family.episode_length, {'finite': True}

  def render(self):
    if self.render_mode is None or self._state is None:
      return None
    if self._painter is None:
      self._painter = make_painter(self.family)
    return self._painter(self.task, self._state.physics.q)


def gymnasium_name(family_name: str) -> str:
  """'half_cheetah_vel' to 'metaimprove/HalfCheetahVel-v0'."""
  return f'metaimprove/{"".join(word.capitalize() for word in family_name.split("_"))}-v0'


for _name in family_names():
  gymnasium.register(gymnasium_name(_name), entry_point=FamilyEnv, kwargs={'family': _name}, order_enforce=False)


def spaces_of(env: Any, operator: Operator, **mapping: Any) -> Spaces:
  """The spaces of a Gymnasium environment, single or vector, in terms of an operator's.

  Args:
    env: whose observations and actions are each one array of numbers.
    operator: that is to act in it.
    mapping: what `Spaces.of` takes, where they differ from the operator's; the range of actions is the environment's
      own by default.

  Raises:
    IncompatibleError: if spaces do not fit; says how to make them fit.
  """
  single = 'single_' if isinstance(env, gymnasium.vector.VectorEnv) else ''
  spaces = [getattr(env, f'{single}{kind}_space') for kind in ('observation', 'action')]
  for kind, space in zip(('observations', 'actions'), spaces):
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
      raise IncompatibleError(
        f'The {kind} of this environment are {space}, and an operator knows one array of numbers; for dicts and tuples '
        'put the environment into gymnasium.wrappers.FlattenObservation, or pick the part that is wanted.'
      )
  (observation, action), config = spaces, operator.config
  if action.shape != (config.action_size,):
    raise IncompatibleError(
      f'This environment has {action.shape[0]} actions, and the operator, trained on {config.family}, '
      f'{config.action_size}.'
    )
  if 'observation_indices' not in mapping and observation.shape != (config.observation_size,):
    raise IncompatibleError(
      f'This environment has {observation.shape[0]} observations, and the operator, trained on {config.family}, '
      f'{config.observation_size}; say by observation_indices=[...] which of them it is to read, in its order.'
    )
  mapping = {'action_low': action.low, 'action_high': action.high, **mapping}
  found = Spaces.of(observation.shape[0], config.action_size, **mapping)
  if len(found.observation_indices) != config.observation_size:
    raise IncompatibleError(
      f'observation_indices names {len(found.observation_indices)} numbers, and the operator reads '
      f'{config.observation_size}.'
    )
  return found


class ImprovingAgent:
  """Improves in a Gymnasium environment, or in each environment of a vector one, every one a task of its own.

    agent = ImprovingAgent(metaimprove.load_operator('runs/quickstart/operator'), env)
    returns = agent.run(num_applications=4)
    policy = agent.agents[0].policy

  Attributes:
    agents: an `Agent` for each environment.
  """

  def __init__(
    self, operator: tuple[Operator, Params], env: Any, *, seed: int = 0, greedy: bool = False, sample: bool = False,
    **mapping: Any,
  ):
    """Makes the agents; nothing acts yet.

    Args:
      operator: as `load_operator` gives it.
      env: a `gymnasium.Env` or a `gymnasium.vector.VectorEnv` of any autoreset mode.
      seed: of the first environment and its agent; the others have the numbers that follow.
      greedy, sample: see `Agent`.
      mapping: see `spaces_of`.

    Raises:
      IncompatibleError: if spaces do not fit.
    """
    spaces, vector = spaces_of(env, operator[0], **mapping), isinstance(env, gymnasium.vector.VectorEnv)
    self._stepper, num = functools.partial(_Vector if vector else _Single, env, seed), env.num_envs if vector else 1
    self.agents = [Agent(operator, spaces=spaces, seed=seed + n, greedy=greedy, sample=sample) for n in range(num)]

  def run(self, num_applications: int, ask: Ask | str | int = 'best', num_episodes: int | None = None) -> np.ndarray:
    """Acts and improves, from the policies that act now.

    Args:
      num_applications: A.
      ask: see `metaimprove.improve`.
      num_episodes: E before each application, and of the last policy; as in training by default.

    Returns:
      [N, A + 1, E] returns of the episodes of each policy in each of N environments.

    Raises:
      IncompatibleError: if a vector environment does not say how it resets.
      ExperienceError: for experience that cannot be read.
    """
    every = num_episodes or self.agents[0].num_episodes
    wanted = (num_applications + 1) * every
    rewards, returns = [0.0 for _ in self.agents], [[] for _ in self.agents]
    stepper = self._stepper()
    while any(len(row) < wanted for row in returns):
      # Where all episodes are done, the last policy goes on acting until all others are done too, and nothing is noted.
      busy = [len(row) < wanted for row in returns]
      results = stepper.step([
        self._act(agent, acts, observation)
        for agent, acts, observation in zip(self.agents, busy, stepper.observations)
      ])
      for n, result in enumerate(results):
        if not busy[n] or result is None:
          continue
        reward, _, terminated, truncated = result
        self.agents[n].observe(*result)
        rewards[n] += float(reward)
        if terminated or truncated:
          returns[n].append(rewards[n])
          rewards[n] = 0.0
          if len(returns[n]) % every == 0 and len(returns[n]) < wanted:
            self.agents[n].improve(ask)
    return np.array(returns).reshape(len(self.agents), num_applications + 1, every)

  @staticmethod
  def _act(agent: Agent, noting: bool, observation: np.ndarray | None) -> np.ndarray:
    if observation is None:
      return agent.spaces.environment_action(np.zeros(len(agent.spaces.action_low), np.float32))
    return agent.act(observation) if noting else agent.policy(observation)


_Result = tuple[float, np.ndarray, bool, bool]
"""Reward, next observation, terminated, truncated."""


class _Single:
  """One environment as a list of one."""

  def __init__(self, env: Any, seed: int):
    self._env, self.observations = env, [env.reset(seed=seed)[0]]

  def step(self, actions: Sequence[np.ndarray]) -> list[_Result | None]:
    observation, reward, terminated, truncated, _ = self._env.step(actions[0])
    self.observations = [self._env.reset()[0] if terminated or truncated else observation]
    return [(reward, observation, terminated, truncated)]


class _Vector:
  """A vector environment of any autoreset mode: `observations` to act on, None where the next step is a reset; results
  with the last observation of an episode, None for a step that was a reset."""

  def __init__(self, env: Any, seed: int):
    try:
      self._mode = gymnasium.vector.AutoresetMode(env.metadata['autoreset_mode'])
    except (KeyError, ValueError):
      raise IncompatibleError(
        "This vector environment does not say how it resets; it must declare metadata['autoreset_mode'], as in "
        'Gymnasium 1.1.'
      ) from None
    self._env, self.observations = env, list(env.reset(seed=seed)[0])

  def step(self, actions: Sequence[np.ndarray]) -> list[_Result | None]:
    resting = [observation is None for observation in self.observations]
    observations, rewards, terminated, truncated, info = self._env.step(np.stack(actions))
    ended, last = terminated | truncated, list(observations)
    self.observations = list(observations)
    if self._mode == gymnasium.vector.AutoresetMode.NEXT_STEP:
      self.observations = [None if over else row for over, row in zip(ended, observations)]
    elif self._mode == gymnasium.vector.AutoresetMode.SAME_STEP:
      last = [info['final_obs'][n] if over else row for n, (over, row) in enumerate(zip(ended, observations))]
    elif ended.any():
      last = [row.copy() for row in observations]
      self.observations = list(self._env.reset(options={'reset_mask': ended})[0])
    results = zip(rewards, last, terminated, truncated)
    return [None if rests else result for rests, result in zip(resting, results)]
