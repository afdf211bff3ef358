"""The operator: what is remembered of a policy's experience, and an ask, to the parameters of a better policy."""

import dataclasses
import functools
from typing import Any, Protocol

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from metaimprove import asks, policies
from metaimprove.asks import steps
from metaimprove.asks.ask import Ask
from metaimprove.asks.ask import features as ask_features
from metaimprove.asks.ask import num_features as num_ask_features
from metaimprove.errors import IncompatibleError
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.decoder import decode
from metaimprove.operators.encoder import encode
from metaimprove.operators.memory import Memory, remember_latest
from metaimprove.operators.reading import num_transition_features, read
from metaimprove.types import Params, Trajectory


class Improve(Protocol):
  """The next policy's parameters, from operator parameters, the parameters of the policy that acted last, what is
  remembered of experience, and an ask. Neither task, goal, dynamics nor target is among the arguments.

  Asked for k = 0 it returns `params` themselves. They are at hand, and are the likeliest answer there is: reading them
  off a few episodes instead would let them creep towards the mean of policies that look alike.
  """

  def __call__(self, operator_params: Params, params: Params, memory: Memory, ask: Ask, /) -> Params: ...


class ImproveBehaviour(Protocol):
  """The same without parameters of the policy that acted, which may be of any make: only what it did is read. Asked for
  k = 0 it imitates."""

  def __call__(self, operator_params: Params, memory: Memory, ask: Ask, /) -> Params: ...


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
    remember: what it wants to read; today the latest experience.
    improve: gives the next policy.
    improve_behaviour: gives the next policy from behaviour alone.
  """

  config: OperatorConfig
  policy: policies.Policy
  init: Init
  remember: Remember
  improve: Improve
  improve_behaviour: ImproveBehaviour


def make_operator(config: OperatorConfig) -> Operator:
  """The operator of a configuration."""
  policy = policies.make_policy(config.observation_size, config.action_size, config.hidden_sizes)
  transformed = hk.without_apply_rng(hk.transform(functools.partial(_network, config)))

  def init(rng_key, statistics):
    size = num_transition_features(config.observation_size, config.action_size)
    asked = jnp.zeros(num_ask_features(asks.KINDS, config.asks))
    network = transformed.init(rng_key, jnp.zeros((2, size)), jnp.ones(2, bool), asked)
    return {'network': network, 'statistics': jax.tree.map(jnp.asarray, statistics)}

  def improve_behaviour(operator_params, memory, ask):
    _check_memory(config, memory)
    features, valid = read(
      memory, operator_params['statistics'], episode_length=config.episode_length,
      max_transitions=config.max_transitions,
    )
    return transformed.apply(
      operator_params['network'], features, valid, ask_features(asks.KINDS, config.asks, ask)
    )

  def improve(operator_params, params, memory, ask):
    _check_params(config, params)
    emitted = improve_behaviour(operator_params, memory, ask)
    same = steps.is_same(ask)
    return jax.tree.map(lambda given, other: jnp.where(same, given, other), params, emitted)

  return Operator(
    config=config, policy=policy, init=init, remember=functools.partial(remember_latest, policy), improve=improve,
    improve_behaviour=improve_behaviour,
  )


def _network(config: OperatorConfig, transitions: chex.Array, valid: chex.Array, asked: chex.Array) -> Params:
  """θ of the next policy; to be called inside a Haiku transform."""
  code = encode(
    transitions, valid, asked, width=config.width, num_latents=config.num_latents, num_blocks=config.num_blocks,
    code_size=config.code_size,
  )
  return decode(code, config.layer_sizes)


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
