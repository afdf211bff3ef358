"""The loss: how far the emitted policy is from the answer, at states that either policy visited."""

import chex
import jax
import jax.numpy as jnp

from metaimprove import policies
from metaimprove.operators.operator import Operator
from metaimprove.training.examples import Example
from metaimprove.types import Params, Trajectory


def divergence_loss(operator: Operator, operator_params: Params, example: Example, *, num_states: int) -> chex.Array:
  """[] mean KL(target ‖ emitted) of one example at `num_states` states, half of them visited by each of the policy
  shown and the target. k = 0 is learned as imitation, of the behaviour alone."""
  states, weight = visited_states(example, num_states)
  memory = operator.remember(None, example.params, example.trajectory)
  emitted = operator.improve_behaviour(operator_params, memory, example.ask)
  policy = operator.policy
  value = policies.divergence(
    policy.distribution, policy.apply(example.target_params, states), policy.apply(emitted, states)
  )
  return jnp.sum(value * weight) / jnp.maximum(jnp.sum(weight), 1)


def visited_states(example: Example, num: int) -> tuple[chex.Array, chex.Array]:
  """`num` random observations [num, O], the first half visited by the policy shown, the other by the target; and
  weights [num], 1 for a visited one and 0 where a policy has visited none."""
  keys = jax.random.split(jax.random.wrap_key_data(example.key_data))
  halves = [
    _of_trajectory(trajectory, num // 2, key)
    for trajectory, key in zip((example.trajectory, example.target_trajectory), keys)
  ]
  states, weight = (jnp.concatenate(parts) for parts in zip(*halves))
  return states, weight


def _of_trajectory(trajectory: Trajectory, num: int, rng_key) -> tuple[chex.Array, chex.Array]:
  observation = trajectory.observation.reshape(-1, trajectory.observation.shape[-1])
  valid = trajectory.valid.reshape(-1)
  index = jax.random.categorical(rng_key, jnp.where(valid, 0.0, -1e9), shape=(num,))
  return observation[index], valid[index].astype(jnp.float32)
