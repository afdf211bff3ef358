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

from metaimprove import files, parallel
from metaimprove.histories.dataset import Dataset
from metaimprove.improvers.ppo import policy_for
from metaimprove.methods.method import Curve, Method
from metaimprove.methods.operator import iterated_curve
from metaimprove.operators.apply import make_remember
from metaimprove.operators.encoder import encode
from metaimprove.operators.memory import Memory
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.operator import Operator
from metaimprove.operators.reading import Reading, empty_reading, read
from metaimprove.rng import generator
from metaimprove.tasks.family import TaskFamily
from metaimprove.training.fit import FitSettings, fit
from metaimprove.training.rewiring import draw_wirings, rewired_memory
from metaimprove.training.rounds import Runs
from metaimprove.training.shown import memory_of_levels
from metaimprove.trees import concatenate
from metaimprove.types import Params, Play, Progress, Task

_PREFETCHED = 4


class LoadRounds(Protocol):
  """The operator's own runs of its training, which are examples too."""

  def __call__(self) -> Sequence[Runs]: ...


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
    rewired_share: of its examples; see `TrainingSettings`.
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
  rewired_share: float
  made_with: Mapping[str, Any]
  seed: int
  folder: pathlib.Path

  @functools.cached_property
  def network(self) -> hk.Transformed:
    """(what was read of a memory) -> [P] estimate."""
    forward = functools.partial(_network, self.operator.config, self.family.privileged_size)
    return hk.without_apply_rng(hk.transform(forward))

  @property
  def all_made_with(self) -> dict[str, Any]:
    """`made_with`, and the share of examples that are rewired where some are."""
    return {**self.made_with, **({'rewired_share': self.rewired_share} if self.rewired_share else {})}

  def estimate(self, network_params: Params, memory: Memory) -> chex.Array:
    """[P] the estimated description of the task that a memory is of."""
    reading = read(memory, self.statistics, episode_length=self.operator.config.episode_length)
    return self.network.apply(network_params, reading)

  def policy_for(self, network_params: Params, snapshot: Mapping[str, Any], memory: Memory) -> Params:
    """θ of the task-conditioned policy at a snapshot, told the estimate."""
    return policy_for(self.family, snapshot, self.estimate(network_params, memory))

  def train(self, progress: Progress) -> Params:
    """The network's parameters; a training that was stopped goes on, one that is done is only read."""
    config = self.operator.config
    return fit(
      lambda rng_key: self.network.init(rng_key, empty_reading(config.observation_size, config.action_size)),
      functools.partial(_loss, self), functools.partial(_batches, self), self.settings, seed=self.seed,
      folder=self.folder, made_with=self.all_made_with, stage='train: identify the task', progress=progress,
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
      lambda params, memory, _: policy_for(network_params, identifier.snapshot, memory), remember, play,
      identifier.operator.policy, tasks, rng_key, num_applications=num_applications, num_episodes=num_episodes,
      title=title, progress=progress,
    )

  return Method(name=name, title=title, run=run, settings={
    **identifier.all_made_with, **dataclasses.asdict(identifier.settings), 'seed': identifier.seed,
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


def _network(config: OperatorConfig, num_outputs: int, reading: Reading) -> chex.Array:
  """To be called inside a Haiku transform."""
  summary = encode(
    reading, jnp.zeros(1), width=config.width, num_latents=config.num_latents, num_blocks=config.num_blocks
  )
  width = head_width(config)
  return hk.nets.MLP((width, width, num_outputs), activation=jax.nn.swish, name='head')(summary)


def _loss(identifier: Identifier, network_params: Params, batch: Mapping[str, Any]) -> chex.Array:
  """[] mean squared error of the estimates."""
  def one(memory, description):
    return jnp.mean(jnp.square(identifier.estimate(network_params, memory) - description))

  return jax.vmap(one)(batch['memory'], batch['description']).mean()


def _batches(identifier: Identifier, first: int, last: int) -> Iterator[Mapping[str, Any]]:
  """The batches of steps: stored levels, and moments of random rounds of runs where there are any, half each."""
  dataset, rounds, config = identifier.dataset, identifier.load_rounds(), identifier.operator.config
  descriptions = np.asarray(jax.vmap(identifier.family.privileged)(
    jax.tree.map(jnp.asarray, dataset.read_tasks(np.arange(dataset.num_histories)))
  ))
  most = min(config.num_episodes, dataset.header['num_episodes'])

  def draw(step: int) -> Mapping[str, Any]:
    rng = generator(identifier.seed, 'identify', step)
    num_moments = identifier.settings.batch_size // 2 if rounds else 0
    num = identifier.settings.batch_size - num_moments
    history, level = rng.integers(dataset.num_histories, size=num), rng.integers(dataset.num_checkpoints, size=num)
    # Any number of episodes, for it is also judged after fewer than the operator reads.
    num_episodes = 1 + rng.integers(most, size=num)
    memories = [memory_of_levels(dataset, config, history, level, rng.spawn(num), num_episodes)]
    if rounds:
      runs = rounds[rng.integers(len(rounds))]
      moments = runs.draw(num_moments, rng)
      memories.append(runs.memory(moments))
      history = np.concatenate([history, runs.history[moments[0]]])
    return with_rewired(identifier, concatenate(memories), descriptions[history], rng)

  drawn = grain.MapDataset.range(first, last).map(lambda step: draw(int(step)))
  return iter(drawn.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED)))


def with_rewired(
  identifier: Identifier, memory: Memory, description: np.ndarray, rng: np.random.Generator
) -> Mapping[str, Any]:
  """A batch [B], a share of it changed to another wiring, as the operator's examples are."""
  if identifier.rewired_share:
    num = identifier.operator.config.action_size
    change = draw_wirings(num, identifier.rewired_share, rng.spawn(len(description)))
    told, wiring = np.split(description, [identifier.family.told_size], axis=1)
    wiring = (wiring.reshape(-1, num, num) @ change).reshape(wiring.shape)
    memory, description = rewired_memory(memory, change), np.concatenate([told, wiring], axis=1)
  return {'memory': memory, 'description': description}
