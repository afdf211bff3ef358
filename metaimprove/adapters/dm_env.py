"""Families as `dm_env` environments, and an actor that improves in any `dm_env` environment."""

from typing import Any

import numpy as np

from metaimprove.adapters.agent import Agent
from metaimprove.adapters.extras import required
from metaimprove.adapters.improve import checked_ask
from metaimprove.adapters.spaces import Spaces
from metaimprove.adapters.stepping import Stepper
from metaimprove.asks import Ask
from metaimprove.errors import ExperienceError, IncompatibleError
from metaimprove.operators.operator import Operator
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Task

dm_env = required('dm_env')
specs = required('dm_env.specs', 'dm_env')


class FamilyEnvironment(dm_env.Environment):
  """A family as an environment. The observation does not tell the task: what is hidden stays hidden.

  Attributes:
    finite: False if the simulation blew up in the last step, which a time step of `dm_env` can not tell.
  """

  def __init__(self, family: str | TaskFamily, *args: Any, seed: int = 0, **kwargs: Any):
    """Makes the environment.

    Args:
      family: or its name.
      seed: of starts and of tasks that are drawn.
      *args, **kwargs: `task`, `dynamics`, `backend`, `episodes_per_task`, `far`, as `stepping.Stepper` takes them.
    """
    self._stepper, self._rng, self._over = Stepper(family, *args, **kwargs), np.random.default_rng(seed), True
    self.finite = True

  @property
  def task(self) -> Task | None:
    """The task it is in; None before the first reset, if it is to be drawn."""
    return self._stepper.task

  def reset(self) -> Any:
    self._over, self.finite = False, True
    return dm_env.restart(self._stepper.reset(self._rng))

  def step(self, action: np.ndarray) -> Any:
    """As in `dm_env`: after an end, a step is a reset. A simulation that blows up is truncated at its last finite
    observation."""
    if self._over:
      return self.reset()
    observation, reward, terminated, truncated, self.finite = self._stepper.step(action)
    self._over = terminated or truncated
    if terminated:
      return dm_env.termination(reward, observation)
    return (dm_env.truncation if truncated else dm_env.transition)(reward, observation)

  def observation_spec(self) -> Any:
    return specs.Array((self._stepper.family.observation_size,), np.float32, 'observation')

  def action_spec(self) -> Any:
    return specs.BoundedArray((self._stepper.family.action_size,), np.float32, -1.0, 1.0, 'action')


class Actor:
  """An actor in the manner of Acme, which is not needed: it acts, and becomes better as soon as enough episodes have
  ended.

    actor = Actor(metaimprove.load_operator('runs/quickstart/operator'), environment)
    time_step = environment.reset()
    actor.observe_first(time_step)
    while not time_step.last():
      action = actor.select_action(time_step.observation)
      time_step = environment.step(action)
      actor.observe(action, time_step)

  Attributes:
    agent: that it is made of.
  """

  def __init__(
    self, operator: tuple[Operator, Params], environment: Any, *, ask: Ask | str | int = 'best',
    num_episodes: int | None = None, seed: int = 0, greedy: bool = False, sample: bool = False, **mapping: Any,
  ):
    """An actor that has experienced nothing yet.

    Args:
      operator: as `load_operator` gives it.
      environment: that it is to act in.
      ask: see `metaimprove.improve`.
      num_episodes: before each application; as in training by default. 0: only `agent.improve()` makes it better.
      seed, greedy, sample: see `Agent`.
      mapping: what `Spaces.of` takes, where observations and actions are not those of the operator.

    Raises:
      IncompatibleError: if they do not fit.
    """
    spaces, self._environment = spaces_of(environment, operator[0], **mapping), environment
    self.agent = Agent(operator, spaces=spaces, seed=seed, greedy=greedy, sample=sample)
    self._ask = checked_ask(operator[0], ask)
    self._every = self.agent.num_episodes if num_episodes is None else num_episodes

  def observe_first(self, timestep: Any) -> None:
    """Begins an episode; one that has not ended is dropped."""
    if not timestep.first():
      raise ExperienceError('`observe_first` takes the first time step of an episode.')
    self.agent.drop_episode()

  def select_action(self, observation: np.ndarray) -> np.ndarray:
    """The action [A] of the environment for its observation."""
    return self.agent.act(observation)

  def observe(self, action: np.ndarray, next_timestep: Any, finite: bool | None = None) -> None:
    """Notes what the selected action led to.

    Args:
      action: that of `select_action`.
      next_timestep: of the environment.
      finite: False if the simulation blew up in this step; by default as the environment's attribute of that name says,
        which those of ours have, and wrappers around them may hide.
    """
    terminated = next_timestep.last() and next_timestep.discount == 0
    finite = getattr(self._environment, 'finite', True) if finite is None else finite
    self.agent.observe(next_timestep.reward, next_timestep.observation, terminated, next_timestep.last(), finite=finite)
    if next_timestep.last() and self._every and self.agent.num_finished >= self._every:
      self.agent.improve(self._ask)

  def update(self, wait: bool = False) -> None:
    """There is nothing to fetch from elsewhere."""


def spaces_of(environment: Any, operator: Operator, **mapping: Any) -> Spaces:
  """The spaces of a `dm_env` environment in terms of an operator's; see `Actor`."""
  observation, action = environment.observation_spec(), environment.action_spec()
  for kind, spec in (('observations', observation), ('actions', action)):
    if not isinstance(spec, specs.Array) or len(spec.shape) != 1 or isinstance(spec, specs.DiscreteArray):
      raise IncompatibleError(
        f'The {kind} of this environment are {spec}, and an operator knows one array of numbers; wrap the environment '
        'in one that gives the part that is wanted.'
      )
  if isinstance(action, specs.BoundedArray):
    mapping = {'action_low': action.minimum, 'action_high': action.maximum, **mapping}
  return Spaces.fitting(operator.config, observation.shape[0], action.shape[0], **mapping)
