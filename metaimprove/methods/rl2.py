"""RL²: a recurrent policy that learns across the episodes of a task, trained by reinforcement (arXiv:1611.02779).

A GRU reads at each step the observation, and action, reward and end of the step before; its state is kept over all
episodes of a task, a trial. It is trained to collect reward over whole trials on the training tasks, so that it
explores where that pays later on. Nothing changes at test time but its state.

Where it departs from the paper:
- PPO instead of TRPO, without truncating the gradient: it goes through the whole trial;
- policy and value are two linear heads of one GRU, instead of one GRU each;
- an advantage looks further ahead, with a λ of 0.95 instead of 0.3;
- where a family's reward is sparse, it is trained by the dense one that the sources of the histories practise with, and
  reads the sparse one, as PEARL does (arXiv:1903.08254), for random actions hardly ever meet a sparse reward;
- it is judged over more episodes than a trial of its training has. From the last one of a trial on, every episode
  begins with the state that the last one began with. A state that goes on drifts to where training never was: on 64
  validation tasks of `point_goal_sparse_h20` the return of episode 16 was 3.3 then, and 6.2 with the state held.
Its environment steps come on top of the histories, of which it uses tasks, and moments by which inputs are scaled.
"""

import dataclasses
import functools
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import optax

from metaimprove import parallel
from metaimprove.improvers import run as runs
from metaimprove.improvers.source import Source
from metaimprove.methods.baseline import Baseline, Lessons, count_params, matched_size
from metaimprove.methods.in_context.acting import acting_of, agent_method
from metaimprove.methods.in_context.sequences import (
  Previous, Statistics, num_step_features, previous_of, step_features
)
from metaimprove.methods.taught import LARGEST, made_with
from metaimprove.operators.reading import experience_statistics
from metaimprove.policies import Policy
from metaimprove.rng import stream
from metaimprove.rollouts import Agent, across_episodes
from metaimprove.tasks.family import TaskFamily
from metaimprove.training.loop import some_experience
from metaimprove.trees import batch_size, take
from metaimprove.types import Params, Progress, Task, Trajectory, mean_return

NAME, TITLE = 'rl2', 'RL², a GRU across episodes'


@dataclasses.dataclass(frozen=True)
class RL2Settings:
  """How it is trained.

  Chosen on 64 validation tasks of `point_goal_sparse_h20`, one seed, with a GRU of 20,000 parameters, of three short
  runs: 6 episodes a trial with 192 trials an update were ahead of 4 with 256, both at a learning rate of 3e-3; 8 with
  64 at 1e-3 in 4 epochs of 4 minibatches were given up after 60 updates. After 320 updates of the first the returns of
  the six episodes were 1.8, 7.5, 10.0, 10.0, 10.1 and 9.9 on those tasks. A GRU of an operator's size, 480,000
  parameters, was seen for 30 updates only, at 1e-3, the default: it was ahead of the small one after as many.

  Attributes:
    num_episodes: of a trial.
    num_trials: of an update, each on a random training task.
    num_updates: of PPO.
    num_epochs: passes over the trials of an update.
    num_minibatches: parts of a pass; divides num_trials.
    learning_rate: of Adam, at first; it falls to 0 in a straight line.
    max_gradient_norm: gradients are clipped to it.
    discounting: discount factor a step, over the whole trial.
    gae_lambda: of the generalised advantage estimate (arXiv:1506.02438).
    clipping_epsilon: of the policy ratio.
    entropy_cost: weight of the entropy bonus.
    value_cost: weight of the squared error of values.
    reward_scaling: multiplier of rewards before learning, to bring values to order 1.
    snapshot_updates: updates between two snapshots; divides num_updates.
  """

  num_episodes: int = 6
  num_trials: int = 192
  num_updates: int = 400
  num_epochs: int = 5
  num_minibatches: int = 2
  learning_rate: float = 1e-3
  max_gradient_norm: float = 0.5
  discounting: float = 0.99
  gae_lambda: float = 0.95
  clipping_epsilon: float = 0.2
  entropy_cost: float = 1e-2
  value_cost: float = 0.5
  reward_scaling: float = 0.1
  snapshot_updates: int = 10


@dataclasses.dataclass(frozen=True)
class Recurrent:
  """The network, and what it reads.

  Attributes:
    network: (inputs [I], state [H]) -> (logits [2A], value [], the next state [H]).
    policy: whose distribution of actions it has.
    statistics: by which its inputs are scaled.
    hidden_size: H.
  """

  network: hk.Transformed
  policy: Policy
  statistics: Statistics
  hidden_size: int

  def init(self, rng_key: chex.PRNGKey) -> Params:
    num_inputs = _num_inputs(self.policy)
    return self.network.init(rng_key, jnp.zeros(num_inputs), jnp.zeros(self.hidden_size))

  def inputs(self, observation: chex.Array, previous: Previous, is_first: chex.Array) -> chex.Array:
    """[..., I] for observations [..., O], the steps before them, and whether they begin an episode [...] bool."""
    features = step_features(self.statistics, observation, previous, None)
    return jnp.concatenate([features, is_first[..., None].astype(jnp.float32)], axis=-1)

  def over_trial(self, params: Params, inputs: chex.Array, valid: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Logits [S, 2A] and values [S] over a trial, inputs [S, I], of which the steps that are valid [S] are read."""
    def step(hidden, seen):
      logits, value, following = self.network.apply(params, seen[0], hidden)
      return jnp.where(seen[1], following, hidden), (logits, value)

    return jax.lax.scan(step, jnp.zeros(self.hidden_size), (inputs, valid))[1]


@chex.dataclass(frozen=True)
class AgentState:
  """What the agent carries along; shapes of one task.

  Attributes:
    hidden: [H] when all steps that were taken are read.
    following: [H] when the one that it acts on now is read too.
    previous: the step before.
    is_first: [] bool, an episode begins.
    start: `hidden` and `previous` when this episode began.
    number: [] int, of this episode.
  """

  hidden: chex.Array
  following: chex.Array
  previous: Previous
  is_first: chex.Array
  start: tuple[chex.Array, Previous]
  number: chex.Array


@chex.dataclass(frozen=True)
class Trial:
  """What is learned from; S steps of one trial.

  Attributes:
    inputs: [S, I].
    raw_action: [S, A] before tanh.
    log_prob: [S] of it, when it was taken.
    advantage: [S].
    value: [S] what the value is to be.
    valid: [S] bool, the step was taken.
  """

  inputs: chex.Array
  raw_action: chex.Array
  log_prob: chex.Array
  advantage: chex.Array
  value: chex.Array
  valid: chex.Array


def rl2(lessons: Lessons, settings: RL2Settings = RL2Settings()) -> Baseline:
  """The baseline; its own play, for it acts across episodes."""
  family, dataset = lessons.family, lessons.dataset
  statistics = experience_statistics(some_experience(dataset, lessons.seed))
  recurrent = make_recurrent(dataset.policy, statistics, lessons.num_params)
  agent = make_agent(recurrent, settings.num_episodes)
  about = {
    **made_with(lessons), **dataclasses.asdict(settings), 'seed': lessons.seed, 'hidden_size': recurrent.hidden_size,
  }

  def train(progress: Progress) -> Params:
    tasks = jax.tree.map(jnp.asarray, dataset.read_tasks(lessons.histories))
    learning = runs.learn(
      rl2_source(family, recurrent, tasks, settings, about), take(tasks, slice(1)), stream(lessons.seed, NAME),
      folder=lessons.folder / NAME, progress=lambda _, *done: progress(f'train: {NAME}', *done),
    )
    return learning.snapshots[-1]

  acting = acting_of(agent)
  return Baseline(
    method=agent_method(
      raw_family(family, dataset.policy), agent, train, num_applications=lessons.num_applications,
      num_episodes=lessons.config.num_episodes, name=NAME, title=TITLE, settings=about,
    ),
    train=train, acting=dataclasses.replace(
      acting, step=lambda *arguments: dataset.policy.distribution.postprocess(acting.step(*arguments))
    ),
    env_steps=settings.num_updates * _env_steps_per_update(family, settings),
  )


def make_recurrent(policy: Policy, statistics: Statistics, num_params: int) -> Recurrent:
  """The network that has about so many parameters."""
  def of_size(size: int) -> Recurrent:
    network = hk.without_apply_rng(hk.transform(functools.partial(_network, policy.distribution.param_size)))
    return Recurrent(network=network, policy=policy, statistics=statistics, hidden_size=size)

  def num_params_of(size: int) -> int:
    return count_params(jax.eval_shape(of_size(size).init, jax.random.key(0)))

  return of_size(matched_size(num_params_of, num_params, range(1, LARGEST)))


def _num_inputs(policy: Policy) -> int:
  return num_step_features(policy.observation_size, policy.action_size, with_return=False) + 1


def _network(num_logits: int, inputs: chex.Array, hidden: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
  """To be called inside a Haiku transform; see `Recurrent`."""
  output, following = hk.GRU(hidden.shape[-1])(inputs, hidden)
  logits = hk.Linear(num_logits, w_init=hk.initializers.VarianceScaling(0.01), name='policy')(output)
  return logits, hk.Linear(1, name='value')(output)[..., 0], following


def raw_family(family: TaskFamily, policy: Policy) -> TaskFamily:
  """The family with actions before tanh, of which likelihoods are exact."""
  def step(task, state, raw_action):
    return family.step(task, state, policy.distribution.postprocess(raw_action))

  return dataclasses.replace(family, step=step)


def make_agent(recurrent: Recurrent, num_episodes: int) -> Agent:
  """The agent, trained on trials of `num_episodes`; its actions are those of a `raw_family`."""
  distribution = recurrent.policy.distribution

  def begin(params):
    zeros = jnp.zeros(recurrent.hidden_size)
    previous = Previous(
      action=jnp.zeros(recurrent.policy.action_size), reward=jnp.zeros(()), terminated=jnp.zeros((), bool),
      there=jnp.zeros((), bool),
    )
    return AgentState(
      hidden=zeros, following=zeros, previous=previous, is_first=jnp.ones((), bool), start=(zeros, previous),
      number=jnp.zeros((), jnp.int32),
    )

  def act(params, state, observation, rng_key):
    inputs = recurrent.inputs(observation, state.previous, state.is_first)
    logits, _, following = recurrent.network.apply(params, inputs, state.hidden)
    return distribution.sample_no_postprocessing(logits, rng_key), state.replace(following=following)

  def see(params, state, transition):
    previous = Previous(
      action=distribution.postprocess(transition.action), reward=transition.reward, terminated=transition.terminated,
      there=jnp.ones((), bool),
    )
    after = state.replace(hidden=state.following, previous=previous, is_first=jnp.zeros((), bool))
    return jax.tree.map(lambda x, y: jnp.where(transition.valid, x, y), after, state)

  def end_episode(params, state):
    goes_on = state.number + 1 < num_episodes
    start = jax.tree.map(lambda x, y: jnp.where(goes_on, x, y), (state.hidden, state.previous), state.start)
    return state.replace(
      hidden=start[0], previous=start[1], is_first=jnp.ones((), bool), start=start, number=state.number + 1
    )

  return Agent(begin=begin, act=act, see=see, end_episode=end_episode)


def rl2_source(
  family: TaskFamily, recurrent: Recurrent, tasks: Task, settings: RL2Settings, about: dict[str, Any]
) -> Source:
  """One learner for all `tasks`, as `improvers.run` runs it; `about` is plain data that determines it. Its snapshots
  are parameters of the network."""
  agent, raw = make_agent(recurrent, settings.num_episodes), raw_family(family, recurrent.policy)
  play = parallel.vmap(
    functools.partial(across_episodes, raw, agent, num_episodes=settings.num_episodes), in_axes=(None, 0, 0)
  )
  optimizer = _make_optimizer(settings)

  def init(rng_key: chex.PRNGKey, _: Any) -> Any:
    params = recurrent.init(rng_key)
    return {'params': params, 'optimizer': optimizer.init(params)}

  def update_once(state: Any, rng_key: chex.PRNGKey) -> tuple[Any, chex.Array]:
    key_tasks, key_play, key_learn = jax.random.split(rng_key, 3)
    some = take(tasks, jax.random.randint(key_tasks, (settings.num_trials,), 0, batch_size(tasks)))
    trajectory = play(state['params'], some, jax.random.split(key_play, settings.num_trials))
    trials = jax.vmap(functools.partial(_trial, family, recurrent, settings, state['params']))(trajectory, some)
    return _learn(recurrent, optimizer, settings, state, trials, key_learn), jnp.nanmean(mean_return(trajectory))

  def update(state: Any, _: Any, rng_key: chex.PRNGKey) -> tuple[Any, chex.Array]:
    state, returns = jax.lax.scan(update_once, state, jax.random.split(rng_key, settings.snapshot_updates))
    return state, returns.mean()

  return Source(
    name=NAME, init=init, update=update, snapshot=lambda state: state['params'], params=lambda snapshot, _: snapshot,
    num_updates=settings.num_updates // settings.snapshot_updates,
    env_steps_per_update=settings.snapshot_updates * _env_steps_per_update(family, settings), shared=True,
    settings=about,
  )


def _env_steps_per_update(family: TaskFamily, settings: RL2Settings) -> int:
  return settings.num_trials * settings.num_episodes * family.episode_length


def _make_optimizer(settings: RL2Settings) -> optax.GradientTransformation:
  num_steps = settings.num_updates * settings.num_epochs * settings.num_minibatches
  return optax.chain(
    optax.clip_by_global_norm(settings.max_gradient_norm),
    optax.adam(optax.linear_schedule(settings.learning_rate, 0.0, num_steps), eps=1e-5),
  )


def _trial(
  family: TaskFamily, recurrent: Recurrent, settings: RL2Settings, params: Params, trajectory: Trajectory, task: Task
) -> Trial:
  """What is learned from the experience [E, T, ...] of a trial that was acted with these parameters."""
  reward = trajectory.reward
  if family.practice_reward is not None:
    action = recurrent.policy.distribution.postprocess(trajectory.action)
    dense = jax.vmap(jax.vmap(functools.partial(family.practice_reward, task.goal)))(trajectory.outcome, action)
    reward = jnp.where(trajectory.valid, dense, 0.0)
  previous = take(previous_of(
    trajectory.replace(action=recurrent.policy.distribution.postprocess(trajectory.action))
  ), slice(-1))
  observation, raw_action, reward, valid = (
    x.reshape(-1, *x.shape[2:]) for x in (trajectory.observation, trajectory.action, reward, trajectory.valid)
  )
  is_first = jnp.arange(len(valid)) % family.episode_length == 0
  inputs = recurrent.inputs(observation, previous, is_first)
  logits, value = recurrent.over_trial(params, inputs, valid)
  advantage = advantages(
    settings.reward_scaling * reward, value, valid, discounting=settings.discounting, gae_lambda=settings.gae_lambda
  )
  return Trial(
    inputs=inputs, raw_action=raw_action, log_prob=recurrent.policy.distribution.log_prob(logits, raw_action),
    advantage=advantage, value=value + advantage, valid=valid,
  )


def advantages(
  reward: chex.Array, value: chex.Array, valid: chex.Array, *, discounting: float, gae_lambda: float
) -> chex.Array:
  """[S] the generalised advantage estimates over a trial (arXiv:1506.02438). Nothing comes after its end; the end of an
  episode is none, and steps that are not valid are left out as if time stood still."""
  def step(following, now):
    next_value, next_advantage = following
    reward, value, valid = now
    advantage = reward + discounting * next_value - value + discounting * gae_lambda * next_advantage
    found = value, advantage
    kept = jax.tree.map(lambda x, y: jnp.where(valid, x, y), found, following)
    return kept, jnp.where(valid, advantage, 0.0)

  end = jnp.zeros(()), jnp.zeros(())
  return jax.lax.scan(step, end, (reward, value, valid), reverse=True)[1]


def _learn(
  recurrent: Recurrent, optimizer: optax.GradientTransformation, settings: RL2Settings, state: Any, trials: Trial,
  rng_key: chex.PRNGKey,
) -> Any:
  """The state after the epochs over the trials [B] of one update."""
  def sgd_step(carry, inputs):
    params, optimizer_state = carry
    gradient = jax.grad(functools.partial(_loss, recurrent, settings))(params, *inputs)
    changes, optimizer_state = optimizer.update(gradient, optimizer_state)
    return (optax.apply_updates(params, changes), optimizer_state), None

  def epoch(carry, key):
    key_order, key_loss = jax.random.split(key)
    order = jax.random.permutation(key_order, settings.num_trials).reshape(settings.num_minibatches, -1)
    return jax.lax.scan(sgd_step, carry, (take(trials, order), jax.random.split(key_loss, settings.num_minibatches)))

  keys = jax.random.split(rng_key, settings.num_epochs)
  (params, optimizer_state), _ = jax.lax.scan(epoch, (state['params'], state['optimizer']), keys)
  return {'params': params, 'optimizer': optimizer_state}


def _loss(
  recurrent: Recurrent, settings: RL2Settings, params: Params, trials: Trial, rng_key: chex.PRNGKey
) -> chex.Array:
  """[] PPO's loss of a minibatch of trials (Schulman et al., arXiv:1707.06347)."""
  distribution = recurrent.policy.distribution
  logits, value = jax.vmap(functools.partial(recurrent.over_trial, params))(trials.inputs, trials.valid)
  mean = functools.partial(jnp.mean, where=trials.valid)
  advantage = trials.advantage - mean(trials.advantage)
  advantage = advantage / (jnp.sqrt(mean(jnp.square(advantage))) + 1e-8)
  ratio = jnp.exp(distribution.log_prob(logits, trials.raw_action) - trials.log_prob)
  clipped = jnp.clip(ratio, 1 - settings.clipping_epsilon, 1 + settings.clipping_epsilon)
  policy_loss = -mean(jnp.minimum(ratio * advantage, clipped * advantage))
  value_loss = mean(jnp.square(value - trials.value))
  return policy_loss + settings.value_cost * value_loss - settings.entropy_cost * mean(
    distribution.entropy(logits, rng_key)
  )
