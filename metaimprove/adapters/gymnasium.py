"""Families as Gymnasium environments, and an agent that improves in any Gymnasium environment.

`import metaimprove.adapters.gymnasium` registers every family, for example as 'metaimprove/HalfCheetahVel-v0'.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaimprove.adapters.agent import Agent
from metaimprove.adapters.extras import required
from metaimprove.adapters.improve import checked_ask
from metaimprove.adapters.spaces import Spaces
from metaimprove.adapters.stepping import Stepper
from metaimprove.asks import Ask
from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.evaluation.films import make_painter
from metaimprove.operators.operator import Operator
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names
from metaimprove.types import Params, Task

gymnasium = required('gymnasium')


class FamilyEnv(gymnasium.Env):
  """A family as an environment. The observation does not tell the task: what is hidden stays hidden.

  `info['task']` has the task in words after each reset. `env.unwrapped.task` is the task itself; `reset(options=
  {'task': ...})` sets another one.
  """

  metadata: dict[str, Any] = {'render_modes': ['rgb_array']}  # noqa: RUF012
  simulator: type[Stepper] = Stepper

  def __init__(self, family: str | TaskFamily, *args: Any, render_mode: str | None = None, **kwargs: Any):
    """Makes the environment.

    Args:
      family: or its name.
      render_mode: 'rgb_array' or None.
      *args, **kwargs: `task`, `dynamics`, `backend`, `episodes_per_task`, `far`, as `stepping.Stepper` takes them.

    Raises:
      UnknownNameError: for names that do not exist.
      IncompatibleError: see `Stepper`.
    """
    if render_mode not in (None, 'rgb_array'):
      raise UnknownNameError(f"There is no render mode {render_mode!r}; choose 'rgb_array' or None.")
    self._stepper, self._painter, self.render_mode = self.simulator(family, *args, **kwargs), None, render_mode
    family = self._stepper.family
    self.metadata = {**self.metadata, 'render_fps': max(1, round(1 / family.time_step))}
    self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (family.observation_size,), np.float32)
    self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (family.action_size,), np.float32)

  @property
  def family(self) -> TaskFamily:
    return self._stepper.family

  @property
  def task(self) -> Task | None:
    """The task it is in; None before the first reset, if it is to be drawn."""
    return self._stepper.task

  def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):
    super().reset(seed=seed)
    observation = self._stepper.reset(self.np_random, task=(options or {}).get('task'), afresh=seed is not None)
    return observation, {'task': self.family.describe(self.task)}

  def step(self, action):
    """As in Gymnasium. A simulation that blows up ends the episode: truncated, with `info['finite']` False, the last
    finite observation and no reward."""
    *result, finite = self._stepper.step(action)
    return *result, {'finite': finite}

  def render(self):
    if self.render_mode is None or self._stepper.q is None:
      return None
    if self._painter is None:
      self._painter = make_painter(self.family)
    return self._painter(self.task, self._stepper.q)


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
  observation, action = spaces
  mapping = {'action_low': action.low, 'action_high': action.high, **mapping}
  return Spaces.fitting(operator.config, observation.shape[0], action.shape[0], **mapping)


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
      IncompatibleError: if spaces do not fit, or the environment's time limit is longer than the operator's.
    """
    spaces, vector = spaces_of(env, operator[0], **mapping), isinstance(env, gymnasium.vector.VectorEnv)
    limit, longest = getattr(env.spec, 'max_episode_steps', None), operator[0].config.episode_length
    if limit is not None and limit > longest:
      raise IncompatibleError(
        f'Episodes of this environment have up to {limit} steps, and the operator was trained on {longest}; make it '
        f'with max_episode_steps={longest}.'
      )
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
    every, ask = num_episodes or self.agents[0].num_episodes, checked_ask(self.agents[0].operator[0], ask)
    capacity = self.agents[0].operator[0].config.capacity
    if num_applications < 0 or not 1 <= every <= capacity:
      raise IncompatibleError(f'num_applications must be at least 0, and num_episodes from 1 to {capacity}.')
    for agent in self.agents:
      agent.drop_episode()  # of a run that was stopped
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
        reward, observation, terminated, truncated, finite = result
        self.agents[n].observe(reward, observation, terminated, truncated, finite=finite)
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


_Result = tuple[float, np.ndarray, bool, bool, bool]
"""Reward, next observation, terminated, truncated, finite: False if an environment of ours says that it blew up."""


class _Single:
  """One environment as a list of one."""

  def __init__(self, env: Any, seed: int):
    self._env, self.observations = env, [env.reset(seed=seed)[0]]

  def step(self, actions: Sequence[np.ndarray]) -> list[_Result | None]:
    observation, reward, terminated, truncated, info = self._env.step(actions[0])
    observation = np.array(observation)  # before a reset, which may write into the same memory
    self.observations = [self._env.reset()[0] if terminated or truncated else observation]
    return [(reward, observation, terminated, truncated, bool(info.get('finite', True)))]


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
      info = {**info, **info.get('final_info', {})}
    elif ended.any():
      last = [row.copy() for row in observations]
      self.observations = list(self._env.reset(options={'reset_mask': ended})[0])
    # Entries count only where '_finite' says that an environment has set them.
    finite = np.asarray(info.get('finite', np.ones(len(last)))).astype(bool) | ~np.asarray(
      info.get('_finite', np.zeros(len(last), bool))
    )
    results = zip(rewards, last, terminated, truncated, finite)
    return [None if rests else result for rests, result in zip(resting, results)]
