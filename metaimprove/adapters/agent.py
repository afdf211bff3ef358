"""An agent for any loop: it acts, notes what it experiences, and becomes better when it is told to."""

import warnings

import jax
import numpy as np

from metaimprove import files
from metaimprove.adapters import forward
from metaimprove.adapters.improve import answer, checked_ask, remember
from metaimprove.adapters.numpy_policy import NumpyPolicy
from metaimprove.adapters.spaces import Spaces
from metaimprove.asks import Ask, says_all
from metaimprove.episodes import LARGEST, Episode
from metaimprove.errors import ExperienceError, NonFinitePolicyError
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.operator import Operator
from metaimprove.rng import stream
from metaimprove.types import Params

_BLOCK = 256


class Agent:
  """Acts on one task and is improved by an operator, in a loop of yours:

    agent = metaimprove.load_agent('runs/quickstart/operator')
    for _ in range(4):
      for _ in range(agent.num_episodes):
        ...  # reset, and for each step:
        action = agent.act(observation)
        agent.observe(reward, next_observation, terminated, truncated)
      agent.improve()

  Attributes:
    operator: as `load_operator` gives it.
    spaces: what its observations and actions are in the environment.
    policy: that acts now.
    num_episodes: that the operator was trained to read between applications.
    num_applications: since the task began.
  """

  def __init__(
    self, operator: tuple[Operator, Params], *, spaces: Spaces | None = None,
    policy: NumpyPolicy | Params | None = None, seed: int = 0, greedy: bool = False, sample: bool = False,
  ):
    """An agent that has experienced nothing yet.

    Args:
      operator: as `load_operator` gives it.
      spaces: of the environment; those of the operator by default.
      policy: to begin with, or its parameters; a random one by default.
      seed: of the random policy, of actions that are drawn, and of answers that are drawn.
      greedy: whether it takes the most likely actions instead of drawn ones. Operators are trained on drawn ones.
      sample: whether the operator draws one of several possible answers instead of giving the most likely one.
    """
    self.operator, config = operator, operator[0].config
    self.spaces = spaces or Spaces.of(config.observation_size, config.action_size)
    self.num_episodes = config.num_episodes
    self._seed, self._sample = seed, sample
    self._rng = None if greedy else _Noise(np.random.default_rng(seed), config.action_size)
    self._num_tasks, self._shape = 0, (self.spaces.observation_size,)
    self.begin_task(policy)

  def begin_task(self, policy: NumpyPolicy | Params | None = None) -> None:
    """Forgets everything; begins with `policy`, or with a random one."""
    if policy is None:
      policy = jax.device_get(self.operator[0].policy.init(stream(self._seed, f'policy {self._num_tasks}')))
    self.policy = NumpyPolicy.of(policy.params if isinstance(policy, NumpyPolicy) else policy, self.spaces)
    self._num_tasks, self.num_applications = self._num_tasks + 1, 0
    self._memory, self._episodes, self._steps, self._acting, self._last = None, [], [], None, None

  def act(self, observation: np.ndarray) -> np.ndarray:
    """The environment's action [A] for its observation [N].

    Raises:
      ExperienceError: for an observation that cannot be read, and for one that does not follow on the last.
    """
    if self._acting is not None:
      raise ExperienceError('The last action has no result yet; call `observe` after each `act`.')
    read = _array(observation)
    # Nearly always it is the one that was checked already.
    if read.tobytes() != self._last or read.shape != self._shape:
      self._check(read)
      if self._steps and not np.allclose(read, self._steps[-1][2], rtol=1e-5, atol=1e-6):
        raise ExperienceError(
          'This is not the observation that came last. Say to `observe` when an episode ends, by terminated or '
          'truncated; now call `drop_episode`.'
        )
    action = forward.act(self.policy.forward_policy, read, self._rng)
    self._acting = read, action.copy()
    return action

  def observe(
    self, reward: float, next_observation: np.ndarray, terminated: bool, truncated: bool = False, *, finite: bool = True
  ) -> None:
    """Notes what the last action led to.

    Args:
      reward: of the step.
      next_observation: [N] of the environment; at the end of an episode its last one, not that of the next episode.
      terminated: whether the task ended.
      truncated: whether the episode ended by itself, as at a time limit.
      finite: False if the simulation blew up in this step, which is then left out; it ends the episode.

    Raises:
      ExperienceError: if there was no action, and for numbers that cannot be read; what was noted before stays.
    """
    if self._acting is None:
      raise ExperienceError('No action was taken since; call `act` before `observe`.')
    try:
      reward = float(reward)
    except (TypeError, ValueError):
      reward = float('nan')
    if not abs(reward) < LARGEST:
      raise ExperienceError(f'The reward must be one finite number, below {LARGEST:g}.')
    longest = self.operator[0].config.episode_length
    if len(self._steps) + 1 == longest and finite and not (terminated or truncated):
      raise ExperienceError(
        f'The episode goes on after {longest} steps, the time limit that the operator was trained with; put the '
        'environment into a time limit of so many steps. Call `observe` again with truncated=True, or `drop_episode`.'
      )
    following = _array(next_observation)
    self._check(following)
    if finite:
      self._steps.append((*self._acting, following, reward))
    self._acting, self._last = None, following.tobytes()
    if terminated or truncated or not finite:
      self._end(bool(terminated) and finite, finite)

  def drop_episode(self) -> None:
    """Forgets the episode that has not ended yet; the next `act` begins another one."""
    self._steps, self._acting, self._last = [], None, None

  def _end(self, terminated: bool, finite: bool) -> None:
    """Makes an episode of the steps, if there are any."""
    if not self._steps:
      return self.drop_episode()
    observations, actions, following, rewards = zip(*self._steps)
    self._episodes.append(self.spaces.episode(Episode(
      observations=np.stack([*observations, following[-1]]), actions=np.stack(actions), rewards=np.array(rewards),
      terminations=np.arange(len(rewards)) + terminated == len(rewards), finite=finite,
    )))
    self.drop_episode()

  def _check(self, observation: np.ndarray) -> None:
    if observation.shape != self._shape:
      raise ExperienceError(
        f'The observation has the shape {list(observation.shape)}; [{self.spaces.observation_size}] is needed.'
      )
    if not (np.abs(self.spaces.observation(observation)) < LARGEST).all():
      raise ExperienceError('The observation is not finite; call `drop_episode`, and reset the environment.')

  @property
  def num_finished(self) -> int:
    """Episodes that have ended since the last application."""
    return len(self._episodes)

  def improve(self, ask: Ask | str | int = 'best', *, explores: bool | None = None) -> NumpyPolicy:
    """Replaces the policy by a better one, from the episodes of the task so far, and returns it. Of more episodes since
    the last application than the operator has room for, the newest are read.

    An answer that is no policy is not taken: a warning says so, and the policy stays. The episodes are remembered.

    Args:
      ask, explores: see `metaimprove.improve`.

    Raises:
      ExperienceError: if an episode has not ended yet, or none has ended since the last application; but before the
        first one a goal can be asked for.
    """
    if self._steps or self._acting is not None:
      raise ExperienceError('An episode has not ended yet; improve between episodes, or call `drop_episode`.')
    ask, memory = checked_ask(self.operator[0], ask), self._memory
    if self._episodes or memory is not None or not says_all(ask):
      capacity = self.operator[0].config.capacity
      memory = remember(self.operator[0], memory, self.policy, self._episodes[-capacity:])
    name = f'task {self._num_tasks} application {self.num_applications}'
    rng_key = stream(self._seed, name) if self._sample else None
    try:
      params = answer(self.operator, memory, self.policy, ask, explores=explores, rng_key=rng_key).params
    except NonFinitePolicyError as error:
      warnings.warn(f'{error} The last policy stays.', RuntimeWarning, stacklevel=2)
    else:
      self.policy = NumpyPolicy.of(params, self.spaces)
    self._memory, self._episodes, self.num_applications = memory, [], self.num_applications + 1
    return self.policy


class _Noise:
  """What one generator draws, drawn in blocks: a draw for every action takes longer than all that an agent notes."""

  def __init__(self, rng: np.random.Generator, size: int):
    self._rng, self._size, self._rows = rng, size, iter(())

  def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The next [size] numbers; as `numpy.random.Generator`'s, for that shape alone."""
    row = next(self._rows, None)
    if row is None:
      self._rows = iter(self._rng.standard_normal((_BLOCK, self._size), dtype))
      row = next(self._rows)
    return row


def _array(observation: np.ndarray) -> np.ndarray:
  """A copy as float32: environments may write the next observation into the same memory."""
  try:
    return np.array(observation, np.float32)
  except (TypeError, ValueError):
    raise ExperienceError(
      'An observation must be an array of numbers; of one that is a dict, give the part that the operator knows.'
    ) from None


def load_agent(operator: files.Path, **settings) -> Agent:
  """An `Agent` with an operator that is loaded.

  Args:
    operator: its folder, or its name if it comes with the package; see `load_operator`, also for errors.
    settings: those of `Agent`.
  """
  return Agent(load_operator(operator), **settings)
