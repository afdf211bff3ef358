"""Families as Brax environments for `brax.training`, and policies as where Brax's PPO begins."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metaimprove import quiet_brax  # noqa: F401  (before brax)
from brax.envs.base import Env, State, Wrapper
from brax.envs.wrappers.training import EpisodeWrapper, VmapWrapper
from brax.training.acme import running_statistics, specs
from brax.training.agents.ppo import networks as ppo_networks
from metaimprove.adapters.numpy_policy import NumpyPolicy
from metaimprove.errors import IncompatibleError
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Task


class FamilyBraxEnv(Env):
  """A family as a Brax environment; every reset draws a task of its own, which is in `state.info['task']`.

  Brax's own wrapper goes back to the first state of an environment for ever, and so to its first task. Train with
  `wrap_env_fn=wrap_for_training`, which draws another task and another start for every episode.
  """

  def __init__(self, family: TaskFamily, task: Task | None = None, *, tells_task: bool = False):
    """Makes the environment.

    Args:
      family: the task family.
      task: to be in; by default each reset draws one.
      tells_task: whether the observation ends with what a task-conditioned source is told.
    """
    self.family, self._task, self._tells = family, task, tells_task

  def reset(self, rng: jax.Array) -> State:
    key_task, key_start = jax.random.split(rng)
    task = self.family.sample(key_task) if self._task is None else jax.tree.map(jnp.asarray, self._task)
    state, zero = self.family.reset(task, key_start), jnp.zeros(())
    return State(
      pipeline_state=state, obs=self._observation(task, state), reward=zero, done=zero, info={'task': task}
    )

  def step(self, state: State, action: jax.Array) -> State:
    """A simulation that blows up is done, in its last finite state and without a reward."""
    before = state.pipeline_state
    after = self.family.step(state.info['task'], before, jnp.clip(action, -1, 1))
    finite = jnp.isfinite(after.observation).all() & jnp.isfinite(after.reward)
    reward, done = jnp.where(finite, after.reward, 0.0), after.terminated | ~finite
    after = jax.tree.map(lambda x, y: jnp.where(finite, x, y), after, before)
    return state.replace(
      pipeline_state=after, obs=self._observation(state.info['task'], after), reward=reward,
      done=done.astype(jnp.float32),
    )

  def _observation(self, task, state):
    told = [self.family.privileged(task)[:self.family.told_size]] if self._tells else []
    return jnp.concatenate([state.observation, *told])

  @property
  def observation_size(self) -> int:
    return self.family.observation_size + self._tells * self.family.told_size

  @property
  def action_size(self) -> int:
    return self.family.action_size

  @property
  def backend(self) -> str:
    return self.family.backend


class TrueResetWrapper(Wrapper):
  """Begins every episode by a reset of its own, with another key: another start, and another task if it is drawn."""

  def reset(self, rng: jax.Array) -> State:
    keys = jax.vmap(jax.random.split)(rng)
    state = self.env.reset(keys[:, 0])
    state.info['reset_key'] = keys[:, 1]
    return state

  def step(self, state: State, action: jax.Array) -> State:
    """As in Brax, a state that is done has the first observation of the next episode."""
    info = {**state.info, 'steps': jnp.where(state.done, 0, state.info['steps'])}
    after = self.env.step(state.replace(done=jnp.zeros_like(state.done), info=info), action)
    keys = jax.vmap(jax.random.split)(after.info['reset_key'])
    first = self.env.reset(keys[:, 0])

    def begun(new, old):
      return jax.tree.map(lambda x, y: jnp.where(after.done.reshape(-1, *[1] * (x.ndim - 1)), x, y), new, old)

    return after.replace(
      pipeline_state=begun(first.pipeline_state, after.pipeline_state), obs=begun(first.obs, after.obs),
      info={**after.info, 'task': begun(first.info['task'], after.info['task']), 'reset_key': keys[:, 1]},
    )


def wrap_for_training(
  env: FamilyBraxEnv, episode_length: int = 1000, action_repeat: int = 1, randomization_fn: Callable | None = None
) -> Wrapper:
  """What `wrap_env_fn` of Brax's learners takes. `ppo.train(env, episode_length=env.family.episode_length,
  wrap_env_fn=wrap_for_training, ...)`; dynamics are randomised by the family, so a `randomization_fn` is refused."""
  if randomization_fn is not None:
    raise IncompatibleError('A family randomises its dynamics itself; leave randomization_fn out.')
  return TrueResetWrapper(EpisodeWrapper(VmapWrapper(env), episode_length, action_repeat))


def warm_start(policy: NumpyPolicy) -> dict[str, Any]:
  """Arguments with which Brax's PPO begins with a policy, bit for bit: `ppo.train(env, **warm_start(policy), ...)`.

  The value network is new. Observations are not normalised, for the policy takes them as they are.
  """
  size, *hidden, _ = policy.layer_sizes
  normaliser = running_statistics.init_state(specs.Array((size,), jnp.dtype('float32')))
  return {
    'restore_params': (normaliser, policy.to_brax(), None),
    'restore_value_fn': False, 'normalize_observations': False,
    'network_factory': functools.partial(ppo_networks.make_ppo_networks, policy_hidden_layer_sizes=tuple(hidden)),
  }
