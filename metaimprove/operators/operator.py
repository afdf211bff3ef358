"""The operator: what is remembered of experience, and an ask, to the parameters of a better policy."""

import dataclasses
import functools
from typing import Any, Protocol

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from metaimprove import asks, policies
from metaimprove.asks import goal, steps
from metaimprove.asks.ask import Ask
from metaimprove.asks.ask import features as ask_features
from metaimprove.asks.ask import num_features as num_ask_features
from metaimprove.errors import IncompatibleError
from metaimprove.operators import memory as memories
from metaimprove.operators.answers import answer
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.decoder import decode
from metaimprove.operators.encoder import encode
from metaimprove.operators.memory import Memory
from metaimprove.operators.reading import Reading, empty_reading, read
from metaimprove.types import Params, Trajectory


class Improve(Protocol):
  """The next policy's parameters, from operator parameters, the parameters of the policy that acted last, what is
  remembered of experience, and an ask. Neither task, goal, dynamics nor target is among the arguments.

  Of several possible answers it gives the most likely one, or with a key a random one, each as often as it is likely.
  Asked for k = 0 it returns `params` themselves. They are at hand, and are the likeliest answer there is: reading them
  off a few episodes instead would let them creep towards the mean of policies that look alike.
  """

  def __call__(
    self, operator_params: Params, params: Params, memory: Memory, ask: Ask, rng_key: chex.PRNGKey | None = None, /
  ) -> Params: ...


class ImproveBehaviour(Protocol):
  """The same without parameters of the policy that acted, which may be of any make: only what it did is read. Asked for
  k = 0 it imitates."""

  def __call__(
    self, operator_params: Params, memory: Memory, ask: Ask, rng_key: chex.PRNGKey | None = None, /
  ) -> Params: ...


class Answers(Protocol):
  """All M possible answers: the code of each, [M, code size], and the logarithm of how likely it is, [M]."""

  def __call__(self, operator_params: Params, memory: Memory, ask: Ask, /) -> tuple[chex.Array, chex.Array]: ...


class Decode(Protocol):
  """The policy of a code [code size]."""

  def __call__(self, operator_params: Params, code: chex.Array, /) -> Params: ...


class Init(Protocol):
  """{'network': ..., 'statistics': ...} from a key and `reading.experience_statistics`; only the network is trained."""

  def __call__(self, rng_key: chex.PRNGKey, statistics: Any, /) -> Params: ...


class Remember(Protocol):
  """The memory to read next, from the one so far (None at first), the policy that acted, and its experience
  [E, T, ...]."""

  def __call__(self, memory: Memory | None, params: Params, trajectory: Trajectory, /) -> Memory: ...


@dataclasses.dataclass(frozen=True)
class Operator:
  """An operator without its parameters, as pure functions of one example.

  Attributes:
    config: what it is for.
    policy: the policies it reads and emits.
    init: gives operator parameters.
    remember: what it wants to read.
    answers: gives all possible answers as codes.
    decode: gives the policy of a code.
    improve: gives the next policy.
    improve_behaviour: gives the next policy from behaviour alone.
  """

  config: OperatorConfig
  policy: policies.Policy
  init: Init
  remember: Remember
  answers: Answers
  decode: Decode
  improve: Improve
  improve_behaviour: ImproveBehaviour


def make_operator(config: OperatorConfig) -> Operator:
  """The operator of a configuration."""
  policy = policies.make_policy(config.observation_size, config.action_size, config.hidden_sizes)
  transformed = hk.without_apply_rng(hk.multi_transform(functools.partial(_network, config)))
  apply_answers, apply_decode = transformed.apply

  def init(rng_key, statistics):
    asked = jnp.zeros(num_ask_features(asks.KINDS, config.asks))
    network = transformed.init(rng_key, empty_reading(config.observation_size, config.action_size), asked)
    return {'network': network, 'statistics': jax.tree.map(jnp.asarray, statistics)}

  def answers(operator_params, memory, ask):
    _check_memory(config, memory)
    _check_goal(config, ask)
    reading = read(memory, operator_params['statistics'], episode_length=config.episode_length)
    return apply_answers(operator_params['network'], reading, ask_features(asks.KINDS, config.asks, ask))

  def decode(operator_params, code):
    return apply_decode(operator_params['network'], code)

  def improve_behaviour(operator_params, memory, ask, rng_key=None):
    codes, log_likelihood = answers(operator_params, memory, ask)
    chosen = jnp.argmax(log_likelihood) if rng_key is None else jax.random.categorical(rng_key, log_likelihood)
    return decode(operator_params, codes[chosen])

  def improve(operator_params, params, memory, ask, rng_key=None):
    _check_params(config, params)
    emitted = improve_behaviour(operator_params, memory, ask, rng_key)
    same = steps.is_same(ask)
    return jax.tree.map(lambda given, other: jnp.where(same, given, other), params, emitted)

  return Operator(
    config=config, policy=policy, init=init, answers=answers, decode=decode, improve=improve,
    improve_behaviour=improve_behaviour,
    remember=functools.partial(memories.remember, policy, config.capacity, config.steps_kept),
  )


def _network(config: OperatorConfig) -> Any:
  """For `hk.multi_transform`: the answers to what was read, and the policy of a code."""
  def answers(reading: Reading, asked: chex.Array) -> tuple[chex.Array, chex.Array]:
    summary = encode(
      reading, asked, width=config.width, num_latents=config.num_latents, num_blocks=config.num_blocks
    )
    return answer(summary, num_answers=config.num_answers, width=config.width, code_size=config.code_size)

  def policy_of(code: chex.Array) -> Params:
    return decode(code, config.layer_sizes)

  def init(reading: Reading, asked: chex.Array) -> Params:
    return policy_of(answers(reading, asked)[0][0])

  return init, (answers, policy_of)


def _check_params(config: OperatorConfig, params: Params) -> None:
  sizes = config.layer_sizes
  layer_shapes = [params[name]['w'].shape for name in policies.layer_names(params)]
  wanted = list(zip(sizes[:-1], sizes[1:]))
  if layer_shapes != wanted:
    raise IncompatibleError(
      f'This operator improves policies with layers {wanted}, not {layer_shapes}; start from operator.policy.init, '
      'or call improve_behaviour for a policy of another shape.'
    )


def _check_memory(config: OperatorConfig, memory: Memory) -> None:
  sizes = memory.trajectory.observation.shape[-1], memory.trajectory.action.shape[-1]
  if sizes != (config.observation_size, config.action_size):
    raise IncompatibleError(
      f'This operator was trained on {config.family} with {config.observation_size} observations and '
      f'{config.action_size} actions; the experience has {sizes[0]} and {sizes[1]}.'
    )


def _check_goal(config: OperatorConfig, ask: Ask) -> None:
  if goal.NAME in ask.values and goal.NAME in config.asks:
    size = jnp.shape(ask.values[goal.NAME])[-1]
    if size != config.goal_size:
      raise IncompatibleError(f'A goal of {config.family} is {config.goal_size} numbers, not {size}.')
