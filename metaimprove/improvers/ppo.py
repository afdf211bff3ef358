"""Proximal policy optimisation on a family's tasks: one learner, as pure functions.

The losses, advantage estimates, distributions and observation statistics are Brax's own (`brax.training`); what is new
is that each environment has its own task and dynamics and that learners can be batched with `jax.vmap`, optimiser and
all. Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import optax

from metaimprove import parallel, policies, quiet_brax# noqa: F401  (before brax)
from brax.training import networks as brax_networks
from brax.training import types
from brax.training.acme import running_statistics, specs
from brax.training.agents.ppo import losses
from brax.training.agents.ppo import networks as ppo_networks
from metaimprove.errors import IncompatibleError
from metaimprove.rollouts import unroll
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.robots import wiring
from metaimprove.types import Params, Task


@dataclasses.dataclass(frozen=True)
class PPOSettings:
  """What a learner is tuned by; the defaults are for the small families here.

  Attributes:
    num_envs: environments a learner runs at once; each plays one whole episode an update.
    unroll_length: steps of the pieces in which episodes are learned from; divides the episode length.
    num_epochs: passes over an update's experience.
    num_minibatches: parts of a pass; divides num_envs * episode_length / unroll_length.
    learning_rate: of Adam, at first.
    learning_rate_half_life: updates in which the learning rate halves, again and again; None: it stays. Long runs end
      on a steadier policy with it, and unlike a decay to the last update it does not depend on how many there are.
    max_gradient_norm: gradients are clipped to it.
    discounting: discount factor a step.
    gae_lambda: of the generalised advantage estimate (arXiv:1506.02438).
    clipping_epsilon: of the policy ratio.
    entropy_cost: weight of the entropy bonus.
    reward_scaling: multiplier of rewards before learning, to bring values to order 1.
    value_hidden_sizes: widths of the value network.
  """

  num_envs: int = 256
  unroll_length: int = 25
  num_epochs: int = 4
  num_minibatches: int = 8
  learning_rate: float = 1e-3
  learning_rate_half_life: int | None = None
  max_gradient_norm: float = 1.0
  discounting: float = 0.95
  gae_lambda: float = 0.95
  clipping_epsilon: float = 0.2
  entropy_cost: float = 1e-3
  reward_scaling: float = 0.1
  value_hidden_sizes: tuple[int, ...] = (128, 128)


@chex.dataclass(frozen=True)
class LearnerState:
  """A learner between two updates: network parameters, Adam's state, observation statistics."""

  params: Any
  optimizer_state: Any
  statistics: Any


@dataclasses.dataclass(frozen=True)
class Learner:
  """One PPO learner as pure functions.

  Attributes:
    init: (rng_key) -> LearnerState.
    update: (state, tasks with a leading axis [num_envs], rng_key) -> (state, return): an episode in every environment,
      then the epochs. The return is the mean of the environments' first episodes, by the policy before the update; of
      those that did not blow up, NaN if all did.
    snapshot: (state) -> the policy network's parameters and the observation statistics.
    params: (snapshot, task) -> policy parameters θ over observations alone, normaliser and task folded in.
    env_steps_per_update: num_envs * episode length.
  """

  init: Callable[[chex.PRNGKey], LearnerState]
  update: Callable[[LearnerState, Task, chex.PRNGKey], tuple[LearnerState, chex.Array]]
  snapshot: Callable[[LearnerState], Any]
  params: Callable[[Any, Task], Params]
  env_steps_per_update: int


@dataclasses.dataclass(frozen=True)
class Networks:
  """A learner's networks and what they are given.

  Attributes:
    policy: over all inputs, normalised.
    value: the value network.
    ppo: both with the normaliser before them, as Brax's losses want them.
    observe: (task, observation [..., O]) -> inputs [..., I] before the normaliser: the observation, and for a
      task-conditioned learner the privileged description of the task without its wiring.
    observation_size: O. Only the observation is normalised.
    num_inputs: I.
  """

  policy: policies.Policy
  value: hk.Transformed
  ppo: ppo_networks.PPONetworks
  observe: Callable[[Task, chex.Array], chex.Array]
  observation_size: int
  num_inputs: int


def make_learner(
  family: TaskFamily, settings: PPOSettings, *, task_conditioned: bool, shared: bool,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES,
) -> Learner:
  """A learner for a family.

  Args:
    family: the task family.
    settings: see there.
    task_conditioned: give the networks the privileged description of the task as further inputs, all but its wiring;
      see `policy_for`.
    shared: it is the only learner, so its environments are spread over the local devices; where learners run side by
      side, they are spread as a whole.
    hidden_sizes: of the policy.

  Raises:
    IncompatibleError: for settings whose sizes do not divide as they must.
  """
  _check_sizes(family, settings)
  networks = make_networks(family, settings, task_conditioned, hidden_sizes)
  optimizer = make_optimizer(settings)
  batch = parallel.vmap if shared else jax.vmap
  play = batch(functools.partial(_play_episode, family, networks), in_axes=(None, 0, 0))

  def update(state: LearnerState, tasks: Task, rng_key: chex.PRNGKey) -> tuple[LearnerState, chex.Array]:
    key_play, key_sgd = jax.random.split(rng_key)
    if task_conditioned:
      tasks = tasks.replace(dynamics=wiring.with_stock_wiring(tasks.dynamics))
    data, returns, finite = play(state, tasks, jax.random.split(key_play, settings.num_envs))
    state = _learn(networks, optimizer, settings, state, data, key_sgd)
    return state, jnp.mean(returns, where=finite)

  def params(snapshot: Any, task: Task) -> Params:
    return policy_for(family, snapshot, family.privileged(task) if task_conditioned else None)

  return Learner(
    init=functools.partial(_init, networks, optimizer), update=update, snapshot=_snapshot, params=params,
    env_steps_per_update=settings.num_envs * family.episode_length,
  )


def policy_for(family: TaskFamily, snapshot: Mapping[str, Any], privileged: chex.Array | None) -> Params:
  """θ over observations alone, from what a learner has learned and what it is told of a task.

  A wiring is no input of the network, for networks learn products of a matrix and an action badly: a task-conditioned
  learner practises with the stock wiring, and its policy is rewired.

  Args:
    family: the learner's.
    snapshot: 'policy', 'mean' and 'std'; see `Learner.snapshot`.
    privileged: [P] the task, as the family's `privileged` or an estimate of it; of an estimated wiring, the nearest
      possible one is taken. None for a learner that is told nothing.
  """
  told = None if privileged is None else privileged[:family.told_size]
  params = policies.fold(snapshot['policy'], snapshot['mean'], snapshot['std'], told)
  if privileged is None or not family.is_wired:
    return params
  matrix = privileged[family.told_size:].reshape(family.action_size, family.action_size)
  return policies.rewire(params, wiring.nearest(matrix))


def _check_sizes(family: TaskFamily, settings: PPOSettings) -> None:
  pieces = settings.num_envs * family.episode_length / settings.unroll_length
  if family.episode_length % settings.unroll_length or pieces % settings.num_minibatches:
    raise IncompatibleError(
      f'unroll_length={settings.unroll_length} must divide the episode length {family.episode_length}, and '
      f'num_minibatches={settings.num_minibatches} the {pieces:g} pieces that num_envs={settings.num_envs} give.'
    )


def make_networks(
  family: TaskFamily, settings: PPOSettings, task_conditioned: bool, hidden_sizes: tuple[int, ...]
) -> Networks:
  """The policy and value networks of a learner; see `make_learner` for the arguments."""
  size = family.observation_size
  num_inputs = size + (family.told_size if task_conditioned else 0)
  policy = policies.make_policy(num_inputs, family.action_size, hidden_sizes)
  value = hk.without_apply_rng(hk.transform(
    lambda x: hk.nets.MLP((*settings.value_hidden_sizes, 1), activation=jax.nn.swish)(x)[..., 0]
  ))

  def normalise(statistics, x):
    return jnp.concatenate([running_statistics.normalize(x[..., :size], statistics), x[..., size:]], axis=-1)

  def observe(task, observation):
    if not task_conditioned:
      return observation
    privileged = family.privileged(task)[:family.told_size]
    privileged = jnp.broadcast_to(privileged, (*observation.shape[:-1], *privileged.shape))
    return jnp.concatenate([observation, privileged], axis=-1)

  ppo = ppo_networks.PPONetworks(
    policy_network=brax_networks.FeedForwardNetwork(policy.init, lambda s, p, x: policy.apply(p, normalise(s, x))),
    value_network=brax_networks.FeedForwardNetwork(value.init, lambda s, p, x: value.apply(p, normalise(s, x))),
    parametric_action_distribution=policy.distribution,
  )
  return Networks(
    policy=policy, value=value, ppo=ppo, observe=observe, observation_size=size, num_inputs=num_inputs
  )


def make_optimizer(settings: PPOSettings) -> optax.GradientTransformation:
  """Adam with the clipping and the learning-rate schedule of the settings."""
  learning_rate = settings.learning_rate
  if settings.learning_rate_half_life is not None:
    steps = settings.learning_rate_half_life * settings.num_epochs * settings.num_minibatches
    learning_rate = optax.exponential_decay(learning_rate, steps, decay_rate=0.5)
  return optax.chain(
    optax.clip_by_global_norm(settings.max_gradient_norm), optax.adam(learning_rate, eps=1e-5)
  )


def _init(networks: Networks, optimizer: optax.GradientTransformation, rng_key: chex.PRNGKey) -> LearnerState:
  key_policy, key_value = jax.random.split(rng_key)
  policy_params = networks.policy.init(key_policy)
  first = policies.layer_names(policy_params)[0]
  # The task starts without influence, so that θ⁰ says nothing about it.
  policy_params[first]['w'] = policy_params[first]['w'].at[networks.observation_size:].set(0.0)
  value_params = networks.value.init(key_value, jnp.zeros(networks.num_inputs))
  params = losses.PPONetworkParams(policy=policy_params, value=value_params)
  # A weakly typed deviation, which is the default, would not come back from a file as one: `update` would compile anew.
  statistics = running_statistics.init_state(
    specs.Array((networks.observation_size,), jnp.float32), std_eps=jnp.zeros(())
  )
  return LearnerState(params=params, optimizer_state=optimizer.init(params), statistics=statistics)


def _snapshot(state: LearnerState) -> dict[str, Any]:
  return {'policy': state.params.policy, 'mean': state.statistics.mean, 'std': state.statistics.std}


def _play_episode(
  family: TaskFamily, networks: Networks, state: LearnerState, task: Task, rng_key: chex.PRNGKey
) -> tuple[types.Transition, chex.Array, chex.Array]:
  """As many steps of one environment as an episode has at most, for Brax's losses.

  Returns:
    Transitions [T, ...]; the return [] of the first episode in them; [] bool, whether nothing blew up.
  """
  policy = networks.policy

  def act(observation, key):
    logits = networks.ppo.policy_network.apply(
      state.statistics, state.params.policy, networks.observe(task, observation)
    )
    raw_action = policy.distribution.sample_no_postprocessing(logits, key)
    return policy.distribution.postprocess(raw_action), (raw_action, logits)

  trajectory, (raw_action, logits), _ = unroll(family, act, task, rng_key, num_episodes=1, auto_reset=True)
  trajectory, raw_action, logits = jax.tree.map(lambda x: x[0], (trajectory, raw_action, logits))
  is_last = jnp.arange(family.episode_length) == family.episode_length - 1
  truncation = (is_last & ~trajectory.terminated) | ~trajectory.valid
  transition = types.Transition(
    observation=networks.observe(task, trajectory.observation), action=trajectory.action, reward=trajectory.reward,
    discount=1.0 - trajectory.terminated, next_observation=networks.observe(task, trajectory.next_observation),
    extras={
      'state_extras': {'truncation': truncation.astype(jnp.float32)},
      'policy_extras': {
        'raw_action': raw_action, 'log_prob': policy.distribution.log_prob(logits, raw_action),
        'distribution_params': logits,
      },
    },
  )
  ended_before = jnp.cumsum(trajectory.terminated) - trajectory.terminated > 0
  first_episode_return = jnp.sum(trajectory.reward * ~ended_before)
  return transition, first_episode_return, trajectory.finite


def _learn(
  networks: Networks, optimizer: optax.GradientTransformation, settings: PPOSettings, state: LearnerState,
  data: types.Transition, rng_key: chex.PRNGKey,
) -> LearnerState:
  """The epochs over one update's experience, transitions [num_envs, T, ...]."""
  statistics = running_statistics.update(state.statistics, data.observation[..., :networks.observation_size])
  statistics = statistics.replace(std=policies.foldable_deviation(statistics.mean, statistics.std))
  # [num_envs, T, ...] -> [pieces, unroll_length, ...]
  data = jax.tree.map(lambda x: x.reshape(-1, settings.unroll_length, *x.shape[2:]), data)

  def sgd_step(carry, inputs):
    params, optimizer_state = carry
    minibatch, key_loss = inputs
    gradient, _ = jax.grad(losses.compute_ppo_loss, has_aux=True)(
      params, statistics, minibatch, key_loss, ppo_network=networks.ppo, entropy_cost=settings.entropy_cost,
      discounting=settings.discounting, reward_scaling=settings.reward_scaling, gae_lambda=settings.gae_lambda,
      clipping_epsilon=settings.clipping_epsilon,
    )
    updates, optimizer_state = optimizer.update(gradient, optimizer_state)
    return (optax.apply_updates(params, updates), optimizer_state), None

  def epoch(carry, epoch_key):
    key_order, key_loss = jax.random.split(epoch_key)
    order = jax.random.permutation(key_order, data.reward.shape[0])
    minibatches = jax.tree.map(lambda x: x[order].reshape(settings.num_minibatches, -1, *x.shape[1:]), data)
    return jax.lax.scan(sgd_step, carry, (minibatches, jax.random.split(key_loss, settings.num_minibatches)))

  (params, optimizer_state), _ = jax.lax.scan(
    epoch, (state.params, state.optimizer_state), jax.random.split(rng_key, settings.num_epochs)
  )
  return LearnerState(params=params, optimizer_state=optimizer_state, statistics=statistics)
