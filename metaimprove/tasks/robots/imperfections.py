"""Imperfect actuators and sensors: commands that arrive elsewhere, late, noisy or never, and noisy observations."""

import dataclasses
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp

from metaimprove.tasks.robots import wiring

Memory = dict[str, chex.Array]


@dataclasses.dataclass(frozen=True)
class Imperfections:
  """The imperfections of a family's robot; see `dynamics.IMPERFECTIONS`.

  Attributes:
    names: of the imperfections it has. Their amounts are parameters of each task.
    action_size: A.
    longest_lag: L, of 'action_lag' in steps.
  """

  names: frozenset[str]
  action_size: int
  longest_lag: int = 0

  @property
  def _noisy(self) -> bool:
    return bool(self.names & {'action_noise', 'observation_noise'})

  def begin(self, rng_key: chex.PRNGKey) -> Memory:
    """What is carried from the start of an episode on."""
    memory = {}
    if 'action_delay' in self.names:
      memory['last_action'] = jnp.zeros(self.action_size)
    if 'action_lag' in self.names:
      memory['sent'] = jnp.zeros((self.longest_lag, self.action_size))  # the newest first
    if self._noisy:
      memory['rng'] = jax.random.key_data(rng_key)
    return memory

  def act(
    self, parameters: Mapping[str, chex.Array], memory: Mapping[str, chex.Array], action: chex.Array
  ) -> tuple[chex.Array, Memory, chex.PRNGKey | None]:
    """The command [A] that the motors get for an action [A], what is carried on, and the key for the sensors' noise."""
    memory, command, key_see = dict(memory), action, None
    if 'wiring' in self.names:
      command = wiring.rewired(command, parameters['wiring'])
    if self._noisy:
      key_act, key_see, key_memory = jax.random.split(jax.random.wrap_key_data(memory['rng']), 3)
      memory['rng'] = jax.random.key_data(key_memory)
    if 'action_noise' in self.names:
      command = command + parameters['action_noise'] * jax.random.normal(key_act, action.shape)
    if 'action_delay' in self.names:
      late = parameters['action_delay']
      command, memory['last_action'] = late * memory['last_action'] + (1 - late) * command, command
    if 'action_lag' in self.names:
      sent = jnp.concatenate([command[None], memory['sent']])
      command, memory['sent'] = sent[jnp.round(parameters['action_lag']).astype(jnp.int32)], sent[:-1]
    if memory:
      command = jnp.clip(command, -1, 1)
    if 'broken' in self.names:
      command = command * (1 - parameters['broken'])
    return command, memory, key_see

  def see(
    self, parameters: Mapping[str, chex.Array], observation: chex.Array, rng_key: chex.PRNGKey | None
  ) -> chex.Array:
    """The observation [O] that the sensors give for the true one [O]."""
    if 'observation_noise' not in self.names:
      return observation
    return observation + parameters['observation_noise'] * jax.random.normal(rng_key, observation.shape)
