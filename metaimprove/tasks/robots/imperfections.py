"""Imperfect actuators and sensors: commands that arrive late or noisy, and noisy observations."""

import dataclasses
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp

Memory = dict[str, chex.Array]


@dataclasses.dataclass(frozen=True)
class Imperfections:
  """The imperfections of a family's robot; see `dynamics.IMPERFECTIONS`.

  Attributes:
    names: of the imperfections it has. Their amounts are parameters of each task.
    action_size: A.
  """

  names: frozenset[str]
  action_size: int

  @property
  def _noisy(self) -> bool:
    return bool(self.names & {'action_noise', 'observation_noise'})

  def begin(self, rng_key: chex.PRNGKey) -> Memory:
    """What is carried from the start of an episode on."""
    memory = {}
    if 'action_delay' in self.names:
      memory['last_action'] = jnp.zeros(self.action_size)
    if self._noisy:
      memory['rng'] = jax.random.key_data(rng_key)
    return memory

  def act(
    self, parameters: Mapping[str, chex.Array], memory: Mapping[str, chex.Array], action: chex.Array
  ) -> tuple[chex.Array, Memory, chex.PRNGKey | None]:
    """The command [A] that the motors get for an action [A], what is carried on, and the key for the sensors' noise."""
    memory, command, key_see = dict(memory), action, None
    if self._noisy:
      key_act, key_see, key_memory = jax.random.split(jax.random.wrap_key_data(memory['rng']), 3)
      memory['rng'] = jax.random.key_data(key_memory)
    if 'action_noise' in self.names:
      command = command + parameters['action_noise'] * jax.random.normal(key_act, action.shape)
    if 'action_delay' in self.names:
      late = parameters['action_delay']
      command, memory['last_action'] = late * memory['last_action'] + (1 - late) * command, command
    return jnp.clip(command, -1, 1) if memory else command, memory, key_see

  def see(
    self, parameters: Mapping[str, chex.Array], observation: chex.Array, rng_key: chex.PRNGKey | None
  ) -> chex.Array:
    """The observation [O] that the sensors give for the true one [O]."""
    if 'observation_noise' not in self.names:
      return observation
    return observation + parameters['observation_noise'] * jax.random.normal(rng_key, observation.shape)
