"""How many rollouts a policy gradient needs to be as precise as the gradient of one supervised batch.

  python -m experiments.gradient_variance --family=reacher_goal --folder=runs/compare/reacher_goal

Both are gradients with respect to the same parameters: those of an operator after a few steps of training. The
supervised one is that of its loss on a batch of stored pairs. The other one is that of the return of the policies it
emits (REINFORCE, Williams, 1992), by rollouts of these on their tasks, with what is left of the return in the other
rollouts of the same policy as baseline. Both read the same memories and are asked for the best.

Many batches of each are drawn, of more and more tasks; the policy gradient also where all rollouts begin from one
state. A batch of it is 256 rollouts. Batches are independent, so the variance falls as their number rises; from this
follows how many rollouts it takes to be as precise as one supervised batch. Prints a table and writes it to `--json`,
where it replaces that of the family.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.flatten_util import ravel_pytree

from experiments import console, jobs
from experiments.jobs import Folders, Job
from experiments.tabulate_results import gradients_table
from metaimprove import asks, files
from metaimprove.asks import steps
from metaimprove.asks.ask import batched
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation.gradients import precision
from metaimprove.histories.dataset import Dataset, load_dataset
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.memory import Memory
from metaimprove.operators.operator import Operator, make_operator
from metaimprove.operators.reading import experience_statistics
from metaimprove.policies import Policy
from metaimprove.rng import generator
from metaimprove.rollouts import unroll
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.training.examples import Examples, endless, split_histories
from metaimprove.training.fit import fit
from metaimprove.training.loop import some_experience
from metaimprove.training.loss import mean_loss
from metaimprove.training.settings import TrainingSettings
from metaimprove.training.shown import memory_of_levels
from metaimprove.types import Params, Task, Trajectory

FLAGS = flags.FLAGS
TASKS = (1, 8, 64)
"""Tasks of a batch."""
_ROLLOUTS = 4
"""Of each emitted policy: the others are the baseline of each."""

if __name__ == '__main__':
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('folder', 'runs/gradients', 'A main job; its histories are collected if they are not there.')
  flags.DEFINE_string('json', 'docs/results/gradients.json', 'What is found.')
  flags.DEFINE_list('after', ['100', '1000'], 'Gradient steps of training after which gradients are taken.')
  flags.DEFINE_integer('batches', 48, 'Batches of each kind.', 8)
  flags.DEFINE_integer('seed', 0, 'Of everything.')
  jobs.define_flags()
  flags.adopt_module_key_flags(jobs)


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
  """What both gradients have in common.

  Attributes:
    family: the task family.
    operator: whose parameters they are of.
    statistics: by which it scales what it reads.
    dataset: its histories.
    examples: of them.
    histories: [H] int, those to train on.
  """

  family: TaskFamily
  operator: Operator
  statistics: Any
  dataset: Dataset
  examples: Examples
  histories: np.ndarray

  @classmethod
  def of(cls, family: TaskFamily, dataset: Dataset, num_episodes: int, seed: int) -> 'Study':
    """An operator that is not asked to explore, and has one answer: a policy gradient has no other."""
    operator = make_operator(OperatorConfig.of(
      family, num_episodes=num_episodes, num_answers=1, asks=('steps',),
      hidden_sizes=tuple(dataset.header['hidden_sizes']),
    ))
    settings = TrainingSettings.of(family, len(np.unique(dataset.task_index)), rounds=(), rewired_share=0.0)
    histories, statistics = split_histories(dataset, settings.num_validation)[0], experience_statistics(
      some_experience(dataset, seed)
    )
    examples = Examples(
      dataset=dataset, histories=endless(dataset, histories, seed), config=operator.config, settings=settings,
      seed=seed, statistics=statistics,
    )
    return cls(family, operator, statistics, dataset, examples, histories)

  def params_of(self, network: Params) -> Params:
    """Of the operator."""
    return {'network': network, 'statistics': jax.tree.map(jnp.asarray, self.statistics)}

  def trained(self, num_steps: int, folder: pathlib.Path, seed: int) -> Params:
    """The network after so many steps."""
    settings = dataclasses.replace(self.examples.settings, num_steps=num_steps)
    with console.stage(folder, f'train {num_steps}') as progress:
      return fit(
        lambda rng_key: self.operator.init(rng_key, self.statistics)['network'],
        lambda network, batch: mean_loss(self.operator, self.params_of(network), batch),
        lambda first, last: self.examples.stream(first, last), settings, seed=seed,
        folder=folder / f'training_{num_steps}', made_with={'histories': self.dataset.checksum}, progress=progress,
      )

  def drawn(self, num_tasks: int, rng: np.random.Generator) -> np.ndarray:
    """[B] int, the histories of a batch of so many tasks."""
    size = self.examples.settings.batch_size
    return np.repeat(rng.choice(self.histories, size=num_tasks, replace=False), size // num_tasks)

  def supervised(self, network: Params, num_tasks: int, rng: np.random.Generator) -> np.ndarray:
    """[D] the gradient of the loss on a batch of stored pairs whose answer is the best level."""
    history = self.drawn(num_tasks, rng)
    batch = self.examples.of_histories(history, np.full(len(history), steps.BEST), rng)
    best = batched(asks.ask(steps='best'), len(history))
    return np.asarray(_supervised(self, network, batch.replace(ask=jax.tree.map(np.asarray, best))))

  def of_return(self, network: Params, num_tasks: int, same_start: bool, rng: np.random.Generator) -> np.ndarray:
    """[D] the gradient of minus the return of the policies that are emitted for such a batch."""
    history = self.drawn(num_tasks, rng)
    level = rng.integers(self.dataset.num_checkpoints, size=len(history))
    memory = memory_of_levels(self.dataset, self.operator.config, history, level, rng.spawn(len(history)))
    key = jax.random.key(int(rng.integers(2**31)))
    return np.asarray(_of_return(self, network, memory, self.dataset.read_tasks(history), key, same_start))


@functools.partial(jax.jit, static_argnames='study')
def _supervised(study: Study, network: Params, batch: Any) -> chex.Array:
  gradient = jax.grad(lambda one: mean_loss(study.operator, study.params_of(one), batch))(network)
  return ravel_pytree(gradient)[0]


@functools.partial(jax.jit, static_argnames=('study', 'same_start'))
def _of_return(
  study: Study, network: Params, memory: Memory, tasks: Task, rng_key: chex.PRNGKey, same_start: bool
) -> chex.Array:
  key_start, key_play = jax.random.split(rng_key)
  family = study.family
  if same_start:
    family = dataclasses.replace(family, reset=lambda task, _: study.family.reset(task, key_start))
  ask = jax.tree.map(jnp.asarray, asks.ask(steps='best'))

  def surrogate(network, memory, task, key):
    params = study.operator.improve_behaviour(study.params_of(network), memory, ask)
    acting = functools.partial(study.operator.policy.sample, jax.lax.stop_gradient(params))
    return surrogate_loss(study.operator.policy, params, *unroll(family, acting, task, key, num_episodes=_ROLLOUTS)[:2])

  def mean(network):
    keys = jax.random.split(key_play, len(memory.number))
    return jax.vmap(surrogate, in_axes=(None, 0, 0, 0))(network, memory, tasks, keys).mean()

  return ravel_pytree(jax.grad(mean)(network))[0]


def surrogate_loss(policy: Policy, params: Params, trajectory: Trajectory, raw_action: chex.Array) -> chex.Array:
  """[], its gradient is an estimate of that of minus the mean return, from at least two episodes [E, T, ...]."""
  to_go = jnp.cumsum(trajectory.reward[:, ::-1], axis=1)[:, ::-1]
  others = (to_go.sum(axis=0) - to_go) / (len(to_go) - 1)
  log_prob = policy.distribution.log_prob(policy.apply(params, trajectory.observation), raw_action)
  weight = jnp.where(trajectory.valid, jax.lax.stop_gradient(to_go - others), 0.0)
  return -jnp.mean(jnp.sum(weight * log_prob, axis=1))


def measure(study: Study, network: Params, after: int, num_batches: int, seed: int) -> list[dict[str, Any]]:
  """A row for each number of tasks in a batch: of the supervised gradient, and of the policy gradient from starts of
  their own and from one start."""
  progress, rows, done = console.Progress(), [], 0
  kinds: dict[str, Callable[..., np.ndarray]] = {
    'supervised': study.supervised, 'own_starts': functools.partial(study.of_return, same_start=False),
    'one_start': functools.partial(study.of_return, same_start=True),
  }
  total = len(TASKS) * len(kinds) * num_batches
  for num_tasks in TASKS:
    row: dict[str, Any] = {'family': study.family.name, 'after': after, 'tasks': num_tasks}
    for name, gradient in kinds.items():
      rng, found = generator(seed, f'gradients {name} {num_tasks}', after), []
      for _ in range(num_batches):
        found.append(gradient(network, num_tasks, rng=rng))
        progress(f'gradients after {after} steps', done := done + 1, total, {})
      row[name] = {
        end: None if value is None else round(value, 4)
        for end, value in dataclasses.asdict(precision(np.stack(found))).items()
      }
    for name in ('own_starts', 'one_start'):
      row[name]['rollouts_needed'] = _rollouts_needed(study, row['supervised'], row[name])
    rows.append(row)
  return rows


def _rollouts_needed(study: Study, supervised: Mapping[str, Any], other: Mapping[str, Any]) -> list[int] | None:
  """How many rollouts are as precise as the supervised batch, and the widest interval of that; None if not known."""
  if None in (supervised['relative_variance'], other['relative_variance']):
    return None
  rollouts = study.examples.settings.batch_size * _ROLLOUTS
  pairs = ('relative_variance', 'relative_variance'), ('low', 'high'), ('high', 'low')
  return [round(rollouts * other[theirs] / max(supervised[ours], 1e-4)) for theirs, ours in pairs]


def main() -> None:
  """Takes gradients after each number of steps."""
  job, folder, path = Job.of(FLAGS.family, **jobs.given()), pathlib.Path(FLAGS.folder), pathlib.Path(FLAGS.json)
  family, histories = make_family(job.family, job.backend), Folders.of(folder).histories
  if any(folder.glob('seed_*')):
    raise IncompatibleError(f'{folder} holds a job of several seeds; pass --folder={folder}/seed_0.')
  jobs.collect(job, FLAGS.seed, histories, folder)
  study = Study.of(family, load_dataset(histories, family, verify=False), job.num_episodes, FLAGS.seed)
  known = files.read_json(path) if path.exists() else []
  rows = []
  for after in map(int, FLAGS.after):
    network = study.trained(after, folder / 'gradients', FLAGS.seed)
    rows += measure(study, network, after, FLAGS.batches, FLAGS.seed)
  files.write_json(path, [row for row in known if row['family'] != family.name] + rows)
  print('\n'.join(gradients_table(rows)))


if __name__ == '__main__':
  console.launch(main)
