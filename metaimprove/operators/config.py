"""What an operator is for and how large it is."""

import dataclasses
from typing import Any

from metaimprove import asks, policies
from metaimprove.asks import explore, goal, steps
from metaimprove.asks.ask import num_features as num_ask_features
from metaimprove.errors import IncompatibleError
from metaimprove.operators.reading import NUM_EPISODE_FEATURES, num_step_features
from metaimprove.tasks.family import TaskFamily

_LARGEST_POLICY = 10**7
_LARGEST_OPERATOR = 10**9
_LONGEST_NAME = 200
_RANGES = {
  'observation_size': (1, 10**5), 'action_size': (1, 10**4), 'episode_length': (1, 10**7), 'num_episodes': (1, 10**4),
  'capacity': (1, 10**5), 'steps_kept': (1, 10**6), 'width': (32, 4096), 'num_latents': (1, 1024),
  'num_blocks': (1, 64), 'code_size': (1, 4096), 'num_answers': (1, 4096), 'goal_size': (0, goal.LARGEST),
}

_SEARCHING = {'num_episodes': 1, 'capacity': 16, 'num_answers': 8, 'asks': (steps.NAME, explore.NAME)}
"""Where rewards are sparse: places must be tried one by one, and those tried in vain remembered."""


@dataclasses.dataclass(frozen=True)
class OperatorConfig:
  """What an operator is for and how large it is; stored with its parameters.

  Attributes:
    family: name of the task family it was trained on.
    backend: its physics backend.
    observation_size: O.
    action_size: A.
    episode_length: T, the time limit, which time stamps are relative to.
    num_episodes: E, episodes of experience before each application.
    capacity: C, episodes that it remembers.
    steps_kept: K, of longer episodes evenly spaced steps are remembered.
    hidden_sizes: of the policies it emits.
    width: of the vectors of steps, episodes and latents; a multiple of 32.
    num_latents: vectors that attend to what is remembered.
    num_blocks: of attention.
    code_size: numbers from which a policy is generated.
    num_answers: M, among which it chooses where several may be right; at least as many as there are explorers.
    asks: the kinds of ask it understands; see `metaimprove.asks.KINDS`.
    goal_size: G, of the goals that it can be asked for; 0 if it does not understand such asks.

  Raises:
    IncompatibleError: for values that are no configuration of an operator, or of one that is too large to be meant.
  """

  family: str
  backend: str
  observation_size: int
  action_size: int
  episode_length: int
  num_episodes: int = 2
  capacity: int = 8
  steps_kept: int = 64
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES
  width: int = 64
  num_latents: int = 8
  num_blocks: int = 2
  code_size: int = 64
  num_answers: int = 1
  asks: tuple[str, ...] = (steps.NAME,)
  goal_size: int = 0

  @classmethod
  def of(cls, family: TaskFamily, **sizes: Any) -> 'OperatorConfig':
    """The configuration that suits a family; `sizes` other than that."""
    suited = {**(_SEARCHING if family.practice_reward is not None else {}), **sizes}
    if goal.NAME in suited.get('asks', ()):
      suited = {'goal_size': family.goal_size, **suited}
    return cls(
      family=family.name, backend=family.backend, observation_size=family.observation_size,
      action_size=family.action_size, episode_length=family.episode_length, **suited,
    )

  def __post_init__(self):
    for name in ('family', 'backend'):
      value = getattr(self, name)
      _check(isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME, name, value, 'a name')
    for name, (low, high) in _RANGES.items():
      value = getattr(self, name)
      _check(_is_int(value) and low <= value <= high, name, value, f'a whole number from {low} to {high:,d}')
    _check(self.capacity >= self.num_episodes, 'capacity', self.capacity, 'at least num_episodes')
    _check(self.width % 32 == 0, 'width', self.width, 'a multiple of 32')
    for name in ('hidden_sizes', 'asks'):
      value = getattr(self, name)
      _check(isinstance(value, (tuple, list)) and len(value) <= 16, name, value, 'a tuple of at most 16')
      object.__setattr__(self, name, tuple(value))
    for size in self.hidden_sizes:
      _check(_is_int(size) and 1 <= size <= 4096, 'hidden_sizes', self.hidden_sizes, 'whole numbers from 1 to 4,096')
    known = all(isinstance(name, str) and name in asks.KINDS for name in self.asks)
    _check(
      bool(self.asks) and known and len(set(self.asks)) == len(self.asks), 'asks', self.asks,
      f'one or more of {", ".join(asks.KINDS)}',
    )
    understood = goal.NAME in self.asks
    _check(
      (self.goal_size > 0) == understood, 'goal_size', self.goal_size,
      'at least 1' if understood else "0 for an operator that does not understand an ask for a 'goal'",
    )
    policy = sum((inputs + 1) * outputs for inputs, outputs in zip(self.layer_sizes[:-1], self.layer_sizes[1:]))
    _check(
      policy <= _LARGEST_POLICY, 'hidden_sizes', self.hidden_sizes, f'policies of at most {_LARGEST_POLICY:,d} weights'
    )
    sizes = {name: getattr(self, name) for name in ('width', 'num_latents', 'num_blocks', 'code_size', 'num_answers')}
    if self.num_weights > _LARGEST_OPERATOR:
      raise IncompatibleError(
        f'An operator can not have {self.num_weights:,d} weights, and with ' +
        ', '.join(f'{name}={size}' for name, size in sizes.items()) +
        f' it would; it takes sizes that make at most {_LARGEST_OPERATOR:,d}.'
      )

  @property
  def layer_sizes(self) -> tuple[int, ...]:
    """(O, hidden sizes..., 2A) of the policies that are read and emitted."""
    return self.observation_size, *self.hidden_sizes, 2 * self.action_size

  @property
  def num_weights(self) -> int:
    """Of the operator's network; see `encoder.encode`, `answers.answer` and `decoder.decode`."""
    layers = lambda *sizes: sum((inputs + 1) * outputs for inputs, outputs in zip(sizes[:-1], sizes[1:]))
    width, ask, answers = self.width, num_ask_features(asks.KINDS, self.asks), self.num_answers
    norm = 2 * width
    steps = layers(num_step_features(self.observation_size, self.action_size), width, width)
    episodes = layers(2 * width + NUM_EPISODE_FEATURES, width, width) + norm
    latents = self.num_latents * width + layers(ask, width)
    block = 4 * layers(width, width) + layers(width, 2 * width, width) + 2 * norm
    summary = norm + layers(self.num_latents * width + ask, 2 * width)
    codes = layers(2 * width, 2 * width, self.code_size)
    codes += 0 if answers == 1 else answers * 2 * width + layers(2 * width, answers)
    policy = layers(*self.layer_sizes)
    decoder = policy + layers(self.code_size, policy)
    return steps + episodes + latents + self.num_blocks * block + summary + codes + decoder


def _is_int(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _check(holds: bool, name: str, value: Any, wanted: str) -> None:
  if not holds:
    raise IncompatibleError(f'An operator can not have {name}={str(value)[:100]}; it takes {wanted}.')
