"""An agent that acts across the episodes of tasks, as a method and as a baseline."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files, parallel
from metaimprove.methods.baseline import Acting, Baseline, Lessons, Train, examples_a_step
from metaimprove.methods.in_context.sequences import Statistics, prefetched
from metaimprove.methods.method import Curve, Method
from metaimprove.operators.reading import experience_statistics
from metaimprove.rng import stream
from metaimprove.rollouts import Agent, is_counter, more_episodes
from metaimprove.tasks.family import TaskFamily
from metaimprove.training.fit import fit
from metaimprove.training.loop import some_experience
from metaimprove.trees import batch_size
from metaimprove.types import Params, Progress, Task, Trajectory, mean_return

CONTEXT_LENGTH = 400
"""Steps that agents see at most; longer contexts take long on a CPU."""


class PlayAgent(Protocol):
  """The experience [B, P E, T, ...] of one agent on each of B tasks, in P times E episodes in a row; tells how many of
  the P are done."""

  def __call__(
    self, params: Params, tasks: Task, rng_key: chex.PRNGKey, /, tell: Callable[[int], None] = ...
  ) -> Trajectory: ...


def make_play_agent(family: TaskFamily, agent: Agent, *, num_episodes: int, num_points: int = 1) -> PlayAgent:
  """`across_episodes` for any number of tasks, spread over the local devices, in `num_points` calls of one program
  with `num_episodes` episodes each."""
  def more(params, remembered, tasks, episode_keys):
    # Counters are one number for all rows, see `across_episodes`.
    axes = jax.tree.map(lambda x: None if is_counter(x) else 0, remembered)
    shared = jax.tree.map(lambda x: x[0] if is_counter(x) else x, remembered)
    one_task = functools.partial(more_episodes, family, agent)
    return jax.vmap(one_task, in_axes=(None, axes, 0, 0))(params, shared, tasks, episode_keys)

  go_on = jax.jit(parallel.split(more, in_axes=(None, 0, 0, 0)), donate_argnums=1)
  begin = jax.jit(parallel.vmap(lambda params, task: agent.begin(params), in_axes=(None, 0)))

  def play(params, tasks, rng_key, tell=lambda done: None):
    keys = jax.vmap(lambda key: jax.random.split(key, (num_points, num_episodes)))(
      jax.random.split(rng_key, batch_size(tasks))
    )
    tasks, parts = parallel.spread(tasks), []
    remembered = begin(params, tasks)
    for point in range(num_points):
      remembered, trajectory = go_on(params, parallel.spread(remembered), tasks, parallel.spread(keys[:, point]))
      parts.append(jax.block_until_ready(trajectory))
      tell(point + 1)
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)

  return play


def curve_of_episodes(trajectory: Trajectory, num_episodes: int) -> Curve:
  """The curve of experience [B, P E, T, ...] whose points are means over `num_episodes` E episodes each."""
  size = trajectory.reward.shape
  points = jax.tree.map(lambda x: x.reshape(size[0], -1, num_episodes, *x.shape[2:]), trajectory)
  returns = np.asarray(mean_return(points)).T
  before = num_episodes * np.arange(len(returns))
  return Curve(episodes=before, env_steps=before * size[-1], returns=returns)


def agent_method(
  family: TaskFamily, agent: Agent, train: Train, *, num_applications: int, num_episodes: int, name: str, title: str,
  settings: Mapping[str, Any],
) -> Method:
  """An agent as a method, whose points lie where those of an operator do, after as many episodes.

  Args:
    family: of the tasks.
    agent: acts; begins anew on each task.
    train: gives its parameters when they are first needed.
    num_applications: of the operator that it stands beside; the curve has one more points.
    num_episodes: before each application, over which each point is a mean.
    name: of the method.
    title: of the method.
    settings: of agent and training.
  """
  num_points = num_applications + 1
  play = make_play_agent(family, agent, num_episodes=num_episodes, num_points=num_points)

  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    params = train(progress)
    progress(title, 0, num_points, {})
    tell = lambda done: progress(title, done, num_points, {})
    return curve_of_episodes(play(params, tasks, stream(rng_key, 'episodes'), tell), num_episodes)

  return Method(name=name, title=title, run=run, settings={
    **settings, 'num_applications': num_applications, 'num_episodes': num_episodes,
  })


def acting_of(agent: Agent) -> Acting:
  """How many of an agent act, for timing."""
  def begin(params, num):
    return jax.vmap(lambda _: agent.begin(params))(jnp.arange(num))

  def step(params, remembered, observation):
    return jax.vmap(agent.act, in_axes=(None, 0, 0, None))(params, remembered, observation, jax.random.key(0))[0]

  return Acting(begin=begin, step=step, between=jax.vmap(agent.end_episode, in_axes=(None, 0)))


class Model(Protocol):
  """What is learned: `causal.Causal` and `decision_pretrained.DecisionPretrained`."""

  num_params: int

  def init(self, rng_key: chex.PRNGKey, /) -> Params: ...

  def loss(self, statistics: Statistics, params: Params, batch: Any, /) -> chex.Array: ...


def agent_baseline(
  lessons: Lessons, model: Model, make_agent: Callable[[Statistics], Agent], draw: Callable[[np.random.Generator], Any],
  *, name: str, title: str, made_with: Mapping[str, Any],
) -> Baseline:
  """An agent as a baseline.

  Args:
    lessons: what it learns from.
    model: what is learned.
    make_agent: the agent, for what scales its readings.
    draw: a batch of `lessons.settings.batch_size` examples.
    name: of the method, and of its folder.
    title: of the method.
    made_with: plain data that determines model, agent and batches, besides the lessons.
  """
  statistics = experience_statistics(some_experience(lessons.dataset, lessons.seed))
  agent, seed = make_agent(statistics), lessons.seed
  made_with = {
    **made_with, 'num_params': model.num_params, 'histories': lessons.dataset.checksum,
    'trained_on': files.checksum(np.asarray(lessons.histories, np.int64).tobytes()),
  }

  def train(progress: Progress) -> Params:
    return fit(
      model.init, functools.partial(model.loss, statistics), functools.partial(prefetched, draw, seed),
      lessons.settings, seed=seed, folder=lessons.folder / name, made_with=made_with, stage=f'train: {title}',
      progress=progress,
    )

  settings = {**made_with, **dataclasses.asdict(lessons.settings), 'seed': seed}
  method = agent_method(
    lessons.family, agent, train, num_applications=lessons.num_applications, num_episodes=lessons.config.num_episodes,
    name=name, title=title, settings=settings,
  )
  return Baseline(
    method=method, train=train, acting=acting_of(agent), examples_a_step=examples_a_step(lessons)
  )
