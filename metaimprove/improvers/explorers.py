"""Explorers: policies that find sparse rewards where the task is not known, one after the other.

The first explorer is told nothing, and practises to meet a reward at all, as early as it can, on the whole distribution
of tasks. The second one practises on those tasks where the first one met none, and so on, as in boosting (Freund and
Schapire, 1997). Together they are what somebody would try in turn who knows the distribution and nothing of the task.
An operator that has seen what they lead to can be asked to explore as they do.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from brax.training import types
from metaimprove import files, policies
from metaimprove.improvers.ppo import LearnerState, PPOSettings, make_learner
from metaimprove.improvers.run import learn
from metaimprove.improvers.source import Source
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import State, TaskFamily
from metaimprove.trees import stack, take
from metaimprove.types import Params, Progress, Task, silent

NUM_TASKS = 2048
"""Tasks on which is seen what an explorer finds."""
FEW = 0.02
"""Explorers are added until so small a share of the tasks is left."""
WIDER = 2.0
"""What is added to the raw scales of a policy that an explorer begins from."""
SEEN = 1_000_000
"""Observations that its statistics count as: they hardly move."""


@dataclasses.dataclass(frozen=True)
class Explorers:
  """What was learned.

  Attributes:
    params: θ of X explorers, leaves [X, ...].
    found: [X] share of the tasks on which a reward was met by then.
    env_steps: of learning and of seeing what was found.
  """

  params: Params
  found: np.ndarray
  env_steps: int


@chex.dataclass(frozen=True)
class ExplorerState:
  """An explorer between two updates.

  Attributes:
    learner: the PPO learner.
    pool: [N, ...] tasks. They are data, so that one compiled program serves all explorers.
    num_left: [] int32, how many of them, from the first one on, it practises on.
  """

  learner: LearnerState
  pool: Task
  num_left: chex.Array


def finding_family(family: TaskFamily) -> TaskFamily:
  """The family where an episode ends with reward 1 when the first reward above 0 is met."""
  def step(task: Task, state: State, action: chex.Array) -> State:
    after = family.step(task, state, action)
    met = after.reward > 0
    return after.replace(reward=met.astype(jnp.float32), terminated=after.terminated | met)

  return dataclasses.replace(family, step=step, can_terminate=True, practice_reward=None)


def first_policy(family: TaskFamily, snapshot: Mapping[str, Any], task: Task) -> Params:
  """The network of a task-conditioned learner at a snapshot, told a task, with its actions spread wide; over normalised
  observations alone.

  A learner that begins at random never meets a sparse reward. One that begins so goes to one of the goals at first.
  """
  told = family.privileged(task)[:family.told_size]
  first = policies.layer_names(snapshot['policy'])[0]
  layer, size = snapshot['policy'][first], family.observation_size
  policy = {**snapshot['policy'], first: {'w': layer['w'][:size], 'b': layer['b'] + told @ layer['w'][size:]}}
  return take(policies.widened(jax.tree.map(lambda x: np.asarray(x)[None], policy), np.full(1, WIDER)), 0)


def begun(state: LearnerState, policy: Params, mean: chex.Array, deviation: chex.Array) -> LearnerState:
  """A learner with another policy network, and with statistics of observations that hardly move."""
  statistics = state.statistics.replace(
    count=types.UInt64(hi=jnp.zeros((), jnp.uint32), lo=jnp.full((), SEEN, jnp.uint32)), mean=jnp.asarray(mean),
    std=jnp.asarray(deviation), summed_variance=SEEN * jnp.square(jnp.asarray(deviation)),
  )
  params = state.params.replace(policy=jax.tree.map(jnp.asarray, policy))
  return state.replace(params=params, statistics=statistics)


def explorer(
  family: TaskFamily, snapshot: Mapping[str, Any], settings: PPOSettings, num_updates: int, pool: Task, num_left: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES,
) -> Source:
  """One explorer as a source, which practises on the first `num_left` tasks of a pool [N]; see `learn_explorers`."""
  learner = make_learner(
    finding_family(family), settings, task_conditioned=False, shared=True, hidden_sizes=hidden_sizes
  )
  policy = first_policy(family, snapshot, take(pool, 0))

  def init(rng_key: chex.PRNGKey, _: None, data: Mapping[str, Any]) -> ExplorerState:
    state = begun(learner.init(rng_key), policy, snapshot['mean'], snapshot['std'])
    return ExplorerState(learner=state, **take(data, 0))

  def update(state: ExplorerState, _: None, rng_key: chex.PRNGKey) -> tuple[ExplorerState, chex.Array]:
    key_tasks, key_update = jax.random.split(rng_key)
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, state.num_left))
    tasks = take(state.pool, draw(jax.random.split(key_tasks, settings.num_envs)))
    after, returns = learner.update(state.learner, tasks, key_update)
    return state.replace(learner=after), returns

  data = {'pool': pool, 'num_left': np.int32(num_left)}
  return Source(
    name='explorer', init=init, update=update, snapshot=lambda state: learner.snapshot(state.learner),
    params=learner.params, num_updates=num_updates, env_steps_per_update=learner.env_steps_per_update, shared=True,
    data=jax.tree.map(lambda x: np.asarray(x)[None], data),
    settings={
      'ppo': dataclasses.asdict(settings), 'hidden_sizes': list(hidden_sizes),
      'begun_from': files.checksum(files.tree_to_bytes(jax.device_get(dict(snapshot)))),
      'practised_on': files.checksum(files.tree_to_bytes(jax.device_get(data))),
    },
  )


def learn_explorers(
  family: TaskFamily, snapshot: Mapping[str, Any], settings: PPOSettings, num_updates: int, *, num_explorers: int,
  seed: int, folder: files.Path,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, progress: Progress = silent,
) -> Explorers:
  """Learns explorers one after the other; a call that was stopped goes on where it was.

  Args:
    family: whose rewards are sparse: 0, or above where something is found.
    snapshot: of the task-conditioned source, which explorers begin from.
    settings: of PPO.
    num_updates: of each explorer.
    num_explorers: X at most.
    seed: of tasks, learning and episodes.
    folder: where learning is kept.
    hidden_sizes: of the policies.
    progress: told of every update.
  """
  folder = pathlib.Path(folder)
  policy = policies.make_policy(family.observation_size, family.action_size, hidden_sizes)
  play = make_play(family, policy, num_episodes=1)
  tasks = jax.jit(jax.vmap(family.sample))(jax.random.split(stream(seed, 'tasks of explorers'), NUM_TASKS))
  left, explorers, found, env_steps = np.arange(NUM_TASKS), [], [], 0
  for index in range(num_explorers):
    pool = take(tasks, np.resize(left, NUM_TASKS))
    source = explorer(family, snapshot, settings, num_updates, pool, len(left), hidden_sizes)
    learning = learn(
      source, take(tasks, slice(1)), stream(seed, f'explorer {index}'), folder=folder / f'explorer_{index}',
      progress=lambda _, *done, index=index: progress(f'learn explorer {index + 1}', *done),
    )
    last = learning.snapshots[-1]
    explorers.append(jax.device_get(source.params_of(last, take(tasks, slice(1)))))
    params = source.params_of(last, tasks)
    met = np.asarray(play(params, tasks, stream(seed, f'episodes {index}')).reward.max(axis=(1, 2)) > 0)
    left = left[~met[left]]
    found.append(1 - len(left) / NUM_TASKS)
    env_steps += num_updates * source.env_steps_per_update + NUM_TASKS * family.episode_length
    if len(left) <= FEW * NUM_TASKS:
      break
  return Explorers(params=take(stack(explorers), (slice(None), 0)), found=np.array(found), env_steps=env_steps)
