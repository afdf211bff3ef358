"""Episodes: the scans over an environment, `unroll` of a policy and `across_episodes` of an agent that remembers; and
`make_play`, which batches the first over policies and tasks."""

import dataclasses
import functools
import time
from typing import Any, Protocol
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from metaimprove import parallel
from metaimprove.policies import Policy
from metaimprove.tasks.family import State, TaskFamily
from metaimprove.trees import batch_size, take
from metaimprove.types import Act, Params, Play, Task, Trajectory, hide_outcome

_CPU_ENVIRONMENTS = 256
"""Environments simulated at once on a device that is a CPU core: more are no faster, and may fall out of its cache."""
_ACCELERATOR_ENVIRONMENTS = 8192

def unroll(
  family: TaskFamily, act: Act, task: Task, rng_key: chex.PRNGKey, *, num_episodes: int, auto_reset: bool = False,
  record: Callable[[State], Any] = lambda state: None,
) -> tuple[Trajectory, Any, Any]:
  """Acts for `num_episodes` episodes of one task.

  Args:
    family: the task family.
    act: the policy.
    task: one task; batch with `jax.vmap`.
    rng_key: for starts and actions.
    num_episodes: E; each takes T = family.episode_length steps and begins with a true reset.
    auto_reset: where an episode terminates early, begin another from a new start in the steps that are left (a learner
      wants every step) instead of padding them.
    record: what to keep of the state before each step, for drawing.

  Returns:
    The trajectory [E, T, ...]; what `act` returned beside the action, [E, T, ...]; what `record` kept, [E, T, ...].
  """

  def one_step(carry, step_key):
    state, alive = carry
    key_action, key_reset = jax.random.split(step_key)
    action, extras = act(state.observation, key_action)
    after, transition = _take_step(family, task, state, alive, action)
    if auto_reset and family.can_terminate:
      over = after.terminated | ~transition.finite
      following, alive = _select(over, family.reset(task, key_reset), after), jnp.ones((), bool)
    else:
      following, alive = after, transition.valid & ~after.terminated
    return (following, alive), (transition, extras, record(state))

  def one_episode(episode_key):
    start, step_keys = _begin_episode(family, task, episode_key)
    return jax.lax.scan(one_step, start, step_keys)[1]

  trajectory, extras, recorded = jax.vmap(one_episode)(jax.random.split(rng_key, num_episodes))
  return trajectory.replace(finite=trajectory.finite.all(axis=-1)), extras, recorded


class Begin(Protocol):
  """The state of an agent that has seen nothing, from its parameters."""

  def __call__(self, params: Params, /) -> Any: ...


class ActStatefully(Protocol):
  """An action [A] for an observation [O], and the next state."""

  def __call__(
    self, params: Params, state: Any, observation: chex.Array, rng_key: chex.PRNGKey, /
  ) -> tuple[chex.Array, Any]: ...


class See(Protocol):
  """The next state, when the step that the agent took is known: a trajectory without the axes [E, T]."""

  def __call__(self, params: Params, state: Any, transition: Trajectory, /) -> Any: ...


class EndEpisode(Protocol):
  """The next state, when an episode is over."""

  def __call__(self, params: Params, state: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Agent:
  """One that remembers, from step to step and from episode to episode, as pure functions for one task.

  Integers in its state are counters: they follow from how many steps and episodes there were, and so are the same for
  all tasks on which it acts side by side.

  Attributes:
    begin: see there.
    act: see there.
    see: see there.
    end_episode: see there.
  """

  begin: Begin
  act: ActStatefully
  see: See
  end_episode: EndEpisode


def across_episodes(
  family: TaskFamily, agent: Agent, params: Params, task: Task, rng_key: chex.PRNGKey, *, num_episodes: int
) -> Trajectory:
  """The experience [E, T, ...] of an agent that begins, in `num_episodes` episodes of one task, one after the other;
  batch with `parallel.vmap`."""
  # Counters that all tasks share stay one number each: a place that is the same for all is written in one piece.
  begun = jax.tree.map(lambda x: x if is_counter(x) else _tied(x, rng_key), agent.begin(params))
  return more_episodes(family, agent, params, begun, task, jax.random.split(rng_key, num_episodes))[1]


def more_episodes(
  family: TaskFamily, agent: Agent, params: Params, remembered: Any, task: Task, episode_keys: chex.PRNGKey
) -> tuple[Any, Trajectory]:
  """The experience [E, T, ...] of an agent that goes on, in an episode of one task for each key [E], and its state
  afterwards. After an early end it acts on, on the last observation, and sees steps that are not valid."""
  def one_step(carry, step_key):
    state, alive, remembered = carry
    action, remembered = agent.act(params, remembered, state.observation, step_key)
    after, transition = _take_step(family, task, state, alive, action)
    remembered = agent.see(params, remembered, hide_outcome(transition))
    return (after, transition.valid & ~after.terminated, remembered), transition

  def one_episode(remembered, episode_key):
    start, step_keys = _begin_episode(family, task, episode_key)
    (_, _, remembered), steps = jax.lax.scan(one_step, (*start, remembered), step_keys)
    return agent.end_episode(params, remembered), steps

  remembered, trajectory = jax.lax.scan(one_episode, remembered, episode_keys)
  return remembered, trajectory.replace(finite=trajectory.finite.all(axis=-1))


def is_counter(x: Any) -> bool:
  """Whether a part of an agent's state is one; see `Agent`."""
  return jnp.issubdtype(jnp.result_type(x), jnp.integer)


def _begin_episode(
  family: TaskFamily, task: Task, episode_key: chex.PRNGKey
) -> tuple[tuple[State, chex.Array], chex.PRNGKey]:
  """The first state of an episode, that it goes on, and a key for each step."""
  key_reset, key_steps = jax.random.split(episode_key)
  start = _tied((family.reset(task, key_reset), jnp.ones((), bool)), episode_key)
  return start, jax.random.split(key_steps, family.episode_length)


def _tied(tree: Any, rng_key: chex.PRNGKey) -> Any:
  """A tree that is carried, made to depend on the key, so that it is batched from the first step on. `jax.vmap` would
  otherwise go through the simulator once more for what becomes batched later, and that takes seconds."""
  drawn = jax.random.key_data(rng_key)[0] >= 0
  return _select(drawn, tree, tree)


def _take_step(
  family: TaskFamily, task: Task, state: State, alive: chex.Array, action: chex.Array
) -> tuple[State, Trajectory]:
  """The state after a step, and the step: a trajectory without the axes [E, T]."""
  after = family.step(task, state, action)
  finite = jnp.isfinite(after.observation).all() & jnp.isfinite(after.reward)
  valid = alive & finite
  # A state that is over or not finite is held where it was: nothing undefined reaches an average.
  after = _select(valid, after, state)
  return after, Trajectory(
    observation=state.observation, action=action, reward=jnp.where(valid, after.reward, 0.0),
    next_observation=after.observation, outcome=jnp.where(valid, after.outcome, 0.0),
    terminated=valid & after.terminated, valid=valid, finite=finite | ~alive,
  )


def _select(use_first: chex.Array, first: Any, second: Any) -> Any:
  return jax.tree.map(lambda x, y: jnp.where(use_first, x, y), first, second)


def rollout(
  family: TaskFamily, policy: Policy, params: Params, task: Task, rng_key: chex.PRNGKey, *, num_episodes: int
) -> Trajectory:
  """The experience [E, T, ...] of a policy on a task in `num_episodes` episodes; see `unroll`."""
  return unroll(family, functools.partial(policy.sample, params), task, rng_key, num_episodes=num_episodes)[0]


def make_play(
  family: TaskFamily, policy: Policy, *, num_episodes: int, environments: int | None = None
) -> Play:
  """`rollout` for any number of policies, each on its own task, spread over the local devices.

  Batches are cut into chunks of one size, so that all are one compiled program, whatever their number.

  Args:
    family: the task family.
    policy: the policies.
    num_episodes: E of each policy.
    environments: simulated at once on a device; by default what suits a CPU core or an accelerator.
  """
  one_task = functools.partial(rollout, family, policy, num_episodes=num_episodes)
  compiled = jax.jit(parallel.vmap(one_task))
  if environments is None:
    environments = _CPU_ENVIRONMENTS if jax.default_backend() == 'cpu' else _ACCELERATOR_ENVIRONMENTS
  largest = max(1, environments // num_episodes) * jax.local_device_count()

  def play(params, tasks, rng_key):
    num = batch_size(tasks)
    size = min(largest, 1 << (num - 1).bit_length())  # few programs also where there are few tasks
    arguments = parallel.spread((params, tasks, jax.random.split(rng_key, num)))
    if num == size:
      return compiled(*arguments)
    parts = [compiled(*_rows(arguments, start, size)) for start in range(0, num, size)]
    return _join(parts, num)

  return play


@functools.partial(jax.jit, static_argnames='size')
def _rows(tree, start, size):
  """`size` rows of a tree from `start` on, the first ones again after the last."""
  return take(tree, (start + jnp.arange(size)) % batch_size(tree))


@functools.partial(jax.jit, static_argnames='num')
def _join(parts, num):
  """The first `num` rows of trees one after the other."""
  return jax.tree.map(lambda *x: jnp.concatenate(x)[:num], *parts)


def raw_stepping_rate(
  family: TaskFamily, tasks: Task, actions: chex.Array, rng_key: chex.PRNGKey
) -> float:
  """Environment steps a second of bare stepping, nothing computed or recorded besides: what rollouts are measured by.

  Args:
    family: the task family.
    tasks: [B] tasks, the batch.
    actions: [N, T, B, A] to take in N episodes. They matter: where joints meet their limits a simulator works harder,
      so only the actions of the rollouts themselves make a fair comparison.
    rng_key: for the starts.
  """
  def one_task(task, task_actions, keys):
    def one_episode(_, inputs):
      episode_actions, key = inputs
      step = lambda state, action: (family.step(task, state, action), None)
      return None, jax.lax.scan(step, family.reset(task, key), episode_actions)[0].reward

    return jax.lax.scan(one_episode, None, (task_actions, keys))[1]

  num_episodes, _, num_tasks = actions.shape[:3]
  keys = jax.random.split(rng_key, (num_tasks, num_episodes))
  by_task = jnp.moveaxis(jnp.asarray(actions), 2, 0)
  run = jax.jit(lambda keys: parallel.vmap(one_task)(tasks, by_task, keys))
  jax.block_until_ready(run(keys))
  began = time.perf_counter()
  jax.block_until_ready(run(keys))
  return actions[..., 0].size / (time.perf_counter() - began)
