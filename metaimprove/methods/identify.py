"""The control that identifies the task: a network estimates what the conditioned source is told, from experience.

It reads the same experience as the operator, through the same encoder, and has about the operator's size. It regresses
the privileged description of the task, and the task-conditioned policy, told the estimate, acts next (rapid motor
adaptation, Kumar et al., arXiv:2107.04034, in spirit). A family on which this is as good as an operator asks for naming
the task, not for improving.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import chex
import grain
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files, parallel, policies
from metaimprove.histories.dataset import Dataset
from metaimprove.methods.method import Curve, Method
from metaimprove.methods.operator import iterated_curve
from metaimprove.operators.apply import make_remember
from metaimprove.operators.encoder import encode
from metaimprove.operators.memory import Memory
from metaimprove.operators.operator import Operator, OperatorConfig
from metaimprove.operators.reading import num_transition_features, read
from metaimprove.rng import generator
from metaimprove.tasks.family import TaskFamily
from metaimprove.training.fit import FitSettings, fit
from metaimprove.training.rounds import Iterates
from metaimprove.trees import batch_size, concatenate, take
from metaimprove.types import Params, Play, Progress, Task, Trajectory, hide_outcome

_PREFETCHED = 4


class LoadRounds(Protocol):
  """The operator's own iterates of its training, which are examples too."""

  def __call__(self) -> Sequence[Iterates]: ...


@dataclasses.dataclass(frozen=True)
class Identifier:
  """A network that estimates the privileged description of a task, and what it is trained on.

  Attributes:
    family: the task family.
    operator: it reads what this operator reads.
    statistics: of `reading.experience_statistics`: the operator's own.
    snapshot: of the task-conditioned source: 'policy', 'mean' and 'std'.
    dataset: the histories.
    load_rounds: see there; called only where there is something to train.
    settings: of the training.
    made_with: plain data that stands for histories and rounds.
    seed: of the training.
    folder: where training is kept.
  """

  family: TaskFamily
  operator: Operator
  statistics: Mapping[str, chex.Array]
  snapshot: Mapping[str, Any]
  dataset: Dataset
  load_rounds: LoadRounds
  settings: FitSettings
  made_with: Mapping[str, Any]
  seed: int
  folder: pathlib.Path

  @functools.cached_property
  def network(self) -> hk.Transformed:
    """(transitions [M, F], valid [M]) -> [P] estimate."""
    forward = functools.partial(_network, self.operator.config, self.family.privileged_size)
    return hk.without_apply_rng(hk.transform(forward))

  def estimate(self, network_params: Params, memory: Memory) -> chex.Array:
    """[P] the estimated description of the task that a memory is of."""
    config = self.operator.config
    features, valid = read(
      memory, self.statistics, episode_length=config.episode_length, max_transitions=config.max_transitions
    )
    return self.network.apply(network_params, features, valid)

  def policy_for(self, network_params: Params, snapshot: Mapping[str, Any], memory: Memory) -> Params:
    """θ of the task-conditioned policy at a snapshot, told the estimate."""
    return policies.fold(
      snapshot['policy'], snapshot['mean'], snapshot['std'], self.estimate(network_params, memory)
    )

  def train(self, progress: Progress) -> Params:
    """The network's parameters; a training that was stopped goes on, one that is done is only read."""
    config = self.operator.config
    size = num_transition_features(config.observation_size, config.action_size)
    return fit(
      lambda rng_key: self.network.init(rng_key, jnp.zeros((2, size)), jnp.ones(2, bool)),
      functools.partial(_loss, self), functools.partial(_batches, self), self.settings, seed=self.seed,
      folder=self.folder, made_with=self.made_with, stage='train: identify the task', progress=progress,
    )


def identify_method(
  identifier: Identifier, play: Play, *, num_applications: int, num_episodes: int, name: str = 'identify',
  title: str = 'identify the task', **options: Any,
) -> Method:
  """The control as a method, applied again and again like an operator, from the same random policies on.

  Args:
    identifier: is trained when it is first needed.
    play: makes the experience of `num_episodes` episodes.
    num_applications: in a row.
    num_episodes: of experience before each.
    name: of the method.
    title: of the method.
    **options: further fields of `Method`.
  """
  remember = make_remember(identifier.operator)

  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    network_params = identifier.train(progress)
    policy_for = jax.jit(parallel.vmap(identifier.policy_for, in_axes=(None, None, 0)))
    return iterated_curve(
      lambda params, memory: policy_for(network_params, identifier.snapshot, memory), remember, play,
      identifier.operator.policy, tasks, rng_key, num_applications=num_applications, num_episodes=num_episodes,
      title=title, progress=progress,
    )

  return Method(name=name, title=title, run=run, settings={
    **identifier.made_with, **dataclasses.asdict(identifier.settings), 'seed': identifier.seed,
    'operator': dataclasses.asdict(identifier.operator.config),
    'statistics': files.checksum(files.tree_to_bytes(dict(identifier.statistics))),
    'conditioned': files.checksum(files.tree_to_bytes(dict(identifier.snapshot))),
    'num_applications': num_applications, 'num_episodes': num_episodes,
  }, **options)


def head_width(config: OperatorConfig) -> int:
  """The width of two hidden layers that have about as many weights as the operator's decoder."""
  sizes = config.observation_size, *config.hidden_sizes, 2 * config.action_size
  weights = sum((inputs + 1) * outputs for inputs, outputs in zip(sizes[:-1], sizes[1:]))
  return int(np.sqrt(weights * config.code_size))


def _network(config: OperatorConfig, num_outputs: int, transitions: chex.Array, valid: chex.Array) -> chex.Array:
  """To be called inside a Haiku transform."""
  code = encode(
    transitions, valid, jnp.zeros(1), width=config.width, num_latents=config.num_latents, num_blocks=config.num_blocks,
    code_size=config.code_size,
  )
  width = head_width(config)
  return hk.nets.MLP((width, width, num_outputs), activation=jax.nn.swish, name='head')(code)


def _loss(identifier: Identifier, network_params: Params, batch: Mapping[str, Any]) -> chex.Array:
  """[] mean squared error of the estimates."""
  def one(params, trajectory, num_episodes, description):
    memory = identifier.operator.remember(None, params, first_episodes(trajectory, num_episodes))
    return jnp.mean(jnp.square(identifier.estimate(network_params, memory) - description))

  errors = jax.vmap(one)(batch['params'], batch['trajectory'], batch['num_episodes'], batch['description'])
  return errors.mean()


def first_episodes(trajectory: Trajectory, num_episodes: chex.Array) -> Trajectory:
  """A trajectory [E, T, ...] of which only the first `num_episodes` [] episodes count."""
  counts = jnp.arange(trajectory.valid.shape[0]) < num_episodes
  return trajectory.replace(valid=trajectory.valid & counts[:, None])


def _batches(identifier: Identifier, first: int, last: int) -> Iterator[Mapping[str, Any]]:
  """The batches of steps: stored levels, and iterates of random rounds where there are any, half each."""
  dataset, rounds = identifier.dataset, identifier.load_rounds()
  descriptions = np.asarray(jax.vmap(identifier.family.privileged)(
    jax.tree.map(jnp.asarray, dataset.read_tasks(np.arange(dataset.num_histories)))
  ))

  def draw(step: int) -> Mapping[str, Any]:
    rng = generator(identifier.seed, 'identify', step)
    num_iterates = identifier.settings.batch_size // 2 if rounds else 0
    history = rng.integers(dataset.num_histories, size=identifier.settings.batch_size - num_iterates)
    level = rng.integers(dataset.num_checkpoints, size=len(history))
    shown = [dataset.read(history, level)]
    if rounds:
      pool = rounds[rng.integers(len(rounds))]
      rows = rng.integers(batch_size(pool.params), size=num_iterates)
      shown.append(take((pool.params, pool.trajectory), rows))
      history = np.concatenate([history, pool.history[rows]])
    params, trajectory = concatenate([(params, hide_outcome(trajectory)) for params, trajectory in shown])
    # Any number of episodes, for it is also judged after fewer than the operator reads.
    num_episodes = 1 + rng.integers(trajectory.valid.shape[1], size=len(history))
    return {
      'params': params, 'trajectory': trajectory, 'num_episodes': num_episodes,
      'description': descriptions[history],
    }

  drawn = grain.MapDataset.range(first, last).map(lambda step: draw(int(step)))
  return iter(drawn.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED)))
