"""The operator: a weaker policy's experience and an ask to the parameters of a better policy."""

import dataclasses
from typing import Any
from collections.abc import Callable

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import policies
from metaimprove.errors import IncompatibleError
from metaimprove.operators import ask as asks
from metaimprove.operators.decoder import decode
from metaimprove.operators.encoder import encode
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Trajectory


@dataclasses.dataclass(frozen=True)
class OperatorConfig:
  """What an operator is for and how large it is; stored with its parameters.

  Attributes:
    family: name of the task family it was trained on.
    backend: its physics backend.
    observation_size: O.
    action_size: A.
    episode_length: T, the time limit, which time stamps are relative to.
    num_episodes: E, episodes of experience it was trained to read.
    hidden_sizes: of the policies it emits.
    width: of tokens and latents.
    num_latents: summaries of the experience.
    num_blocks: of attention.
    code_size: numbers from which a policy is generated.
    max_transitions: of longer experience, evenly spaced transitions are read.
  """

  family: str
  backend: str
  observation_size: int
  action_size: int
  episode_length: int
  num_episodes: int = 2
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES
  width: int = 64
  num_latents: int = 8
  num_blocks: int = 2
  code_size: int = 64
  max_transitions: int = 128

  @classmethod
  def of(cls, family: TaskFamily, **sizes) -> 'OperatorConfig':
    """The configuration for a family; `sizes` other than the defaults."""
    return cls(
      family=family.name, backend=family.backend, observation_size=family.observation_size,
      action_size=family.action_size, episode_length=family.episode_length, **sizes,
    )


@dataclasses.dataclass(frozen=True)
class Operator:
  """An operator without its parameters, as pure functions of one example.

  Attributes:
    config: what it is for.
    policy: the policies it reads and emits.
    init: (rng_key, statistics) -> operator_params, {'network': ..., 'statistics': ...}; only the former is trained.
    improve: (operator_params, params, trajectory [E, T, ...], ask []) -> params of the next policy. `params` is the
      policy that collected the trajectory. Neither task, goal, dynamics nor target is among the arguments. Asked for
      k = 0 it returns `params` themselves.
    improve_behaviour: the same for a policy that is not of our shape: in place of `params` it takes the logits
      [E, T, 2A] (location and raw scale of the pre-tanh normal) of its actions at the trajectory's observations. Asked
      for k = 0 it imitates.
  """

  config: OperatorConfig
  policy: policies.Policy
  init: Callable[[chex.PRNGKey, Any], Any]
  improve: Callable[[Any, Params, Trajectory, chex.Array], Params]
  improve_behaviour: Callable[[Any, chex.Array, Trajectory, chex.Array], Params]


def experience_statistics(trajectory: Trajectory) -> dict[str, np.ndarray]:
  """Means and standard deviations by which an operator scales what it reads; leading axes are averaged over."""
  def moments(x, valid):
    rows = np.asarray(x)[np.asarray(valid)]
    return np.float32(rows.mean(axis=0)), np.float32(rows.std(axis=0) + 1e-6)

  change = trajectory.next_observation - trajectory.observation
  result = {}
  for name, value in (('observation', trajectory.observation), ('change', change), ('reward', trajectory.reward)):
    result[f'{name}_mean'], result[f'{name}_std'] = moments(value, trajectory.valid)
  return result


def statistics_structure(observation_size: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of `experience_statistics`."""
  sizes = {'observation': (observation_size,), 'change': (observation_size,), 'reward': ()}
  return {
    f'{name}_{moment}': jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in sizes.items() for moment in ('mean', 'std')
  }


def make_operator(config: OperatorConfig) -> Operator:
  """The operator of a configuration."""
  policy = policies.make_policy(config.observation_size, config.action_size, config.hidden_sizes)
  layer_sizes = (config.observation_size, *config.hidden_sizes, 2 * config.action_size)
  num_features = 2 * config.observation_size + 3 * config.action_size + 3

  def network(transitions, valid, ask):
    code = encode(
      transitions, valid, ask, width=config.width, num_latents=config.num_latents, num_blocks=config.num_blocks,
      code_size=config.code_size,
    )
    return decode(code, layer_sizes)

  transformed = hk.without_apply_rng(hk.transform(network))

  def init(rng_key, statistics):
    params = transformed.init(
      rng_key, jnp.zeros((2, num_features)), jnp.ones(2, bool), jnp.zeros(asks.NUM_FEATURES)
    )
    return {'network': params, 'statistics': jax.tree.map(jnp.asarray, statistics)}

  def transition_features(statistics, behaviour, trajectory):
    """[E, T, F]: each transition and what the policy would do there, scaled to order 1."""
    def scale(name, value):
      return jnp.clip((value - statistics[f'{name}_mean']) / statistics[f'{name}_std'], -5, 5)

    location, raw_scale = jnp.split(behaviour, 2, axis=-1)
    shape = trajectory.reward.shape
    time = jnp.broadcast_to(jnp.arange(shape[-1]) / config.episode_length, shape)
    return jnp.concatenate([
      scale('observation', trajectory.observation),
      scale('change', trajectory.next_observation - trajectory.observation),
      trajectory.action, jnp.tanh(location), jnp.clip(raw_scale, -5, 5) / 2,
      scale('reward', trajectory.reward)[..., None], time[..., None],
      trajectory.terminated[..., None].astype(jnp.float32),
    ], axis=-1)

  def improve_behaviour(operator_params, behaviour, trajectory, ask):
    check_trajectory(trajectory)
    features = transition_features(operator_params['statistics'], behaviour, trajectory)
    features, valid = features.reshape(-1, num_features), trajectory.valid.reshape(-1)
    if features.shape[0] > config.max_transitions:
      # Evenly spaced ones of those that were really taken; padding only where there are too few.
      taken_first = jnp.argsort(~valid, stable=True)
      span = jnp.maximum(valid.sum(), config.max_transitions)
      kept = taken_first[jnp.arange(config.max_transitions) * span // config.max_transitions]
      features, valid = features[kept], valid[kept]
    return transformed.apply(operator_params['network'], features, valid, asks.features(ask))

  def improve(operator_params, params, trajectory, ask):
    check_sizes(params, trajectory)
    emitted = improve_behaviour(operator_params, policy.apply(params, trajectory.observation), trajectory, ask)
    # k = 0 asks for the policy that acted. Its parameters are at hand, and are the likeliest answer there is: reading
    # it off a few episodes instead would let it creep towards the mean of policies that look alike.
    return jax.tree.map(lambda same, other: jnp.where(ask == 0, same, other), params, emitted)

  def check_sizes(params, trajectory):
    layer_shapes = [params[name]['w'].shape for name in policies.layer_names(params)]
    wanted = list(zip(layer_sizes[:-1], layer_sizes[1:]))
    if layer_shapes != wanted:
      raise IncompatibleError(
        f'This operator improves policies with layers {wanted}, not {layer_shapes}; start from operator.policy.init, '
        'or call improve_behaviour for a policy of another shape.'
      )
    check_trajectory(trajectory)

  def check_trajectory(trajectory):
    sizes = trajectory.observation.shape[-1], trajectory.action.shape[-1]
    if sizes != (config.observation_size, config.action_size):
      raise IncompatibleError(
        f'This operator was trained on {config.family} with {config.observation_size} observations and '
        f'{config.action_size} actions; the experience has {sizes[0]} and {sizes[1]}.'
      )

  return Operator(
    config=config, policy=policy, init=init, improve=improve, improve_behaviour=improve_behaviour
  )
