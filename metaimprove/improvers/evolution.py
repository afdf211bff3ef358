"""Evolution strategies, one a task: policies that improve by trying others around them.

Salimans et al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning", arXiv:1703.03864, as
implemented in evosax.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from metaimprove import policies
from metaimprove.errors import IncompatibleError
from metaimprove.improvers.source import Source
from metaimprove.rollouts import rollout
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Trajectory, episode_return, mean_return

NAME = 'evolution'


@dataclasses.dataclass(frozen=True)
class EvolutionSettings:
  """What a strategy is tuned by; the defaults are for the small families here.

  Attributes:
    population_size: policies tried around the mean θ in an update, in mirrored pairs; even.
    num_episodes: episodes each of them, and the mean itself, plays.
    learning_rate: of Adam, which moves the mean.
    std: standard deviation of the population around the mean, in each weight.
  """

  population_size: int = 64
  num_episodes: int = 2
  learning_rate: float = 2e-2
  std: float = 0.1


def evolution(
  family: TaskFamily, settings: EvolutionSettings, num_updates: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, patience: int | None = None,
) -> Source:
  """The source: every task has a strategy of its own; the mean of its population is θ.

  Raises:
    IncompatibleError: for an odd population.
  """
  from evosax.algorithms import Open_ES  # here, because it takes seconds

  if settings.population_size % 2 or settings.population_size < 2:
    raise IncompatibleError(f'population_size={settings.population_size} must be even: policies are tried in pairs.')
  policy = policies.make_policy(family.observation_size, family.action_size, hidden_sizes)
  example = policy.init(jax.random.key(0))
  strategy = Open_ES(
    settings.population_size, example, optimizer=optax.adam(settings.learning_rate),
    std_schedule=optax.constant_schedule(settings.std),
  )
  unravel = ravel_pytree(example)[1]

  def init(rng_key, task):
    key_policy, key_strategy = jax.random.split(rng_key)
    return _strong(strategy.init(key_strategy, policy.init(key_policy), strategy.default_params))

  def update(state, task, rng_key):
    key_ask, key_play, key_tell = jax.random.split(rng_key, 3)
    population, state = strategy.ask(key_ask, state, strategy.default_params)
    everyone = jax.tree.map(lambda one, many: jnp.concatenate([one[None], many]), unravel(state.mean), population)
    # All play with the same luck, so that what differs between their returns is their doing.
    trajectories = jax.vmap(
      lambda params: rollout(family, policy, params, task, key_play, num_episodes=settings.num_episodes)
    )(everyone)
    state, _ = strategy.tell(key_tell, population, costs(trajectories)[1:], state, strategy.default_params)
    return _strong(state), mean_return(jax.tree.map(lambda x: x[0], trajectories))

  return Source(
    name=NAME, init=init, update=update, snapshot=lambda state: state.mean,
    params=lambda snapshot, task: unravel(snapshot), num_updates=num_updates,
    env_steps_per_update=(settings.population_size + 1) * settings.num_episodes * family.episode_length,
    patience=patience,
    settings={
      'evolution': dataclasses.asdict(settings), 'num_updates': num_updates, 'patience': patience,
      'hidden_sizes': list(hidden_sizes),
    },
  )


def costs(trajectories: Trajectory) -> chex.Array:
  """What a population is ranked by, low is good: [M, E, ...] to [M], minus the mean return.

  A simulation that blew up has rewards missing, which could make it look good; it costs infinity. Only ranks count, so
  that this is as bad as the worst of the others and no worse; where all blow up, all rank the same and nothing moves.
  """
  return jnp.where(trajectories.finite.all(axis=-1), -episode_return(trajectories).mean(axis=-1), jnp.inf)


def _strong(tree):
  """The tree as if it came from a file: evosax mixes in Python's numbers, whose weak types would compile again."""
  return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree)
