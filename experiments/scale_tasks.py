"""How well operators generalise that learn from more and more tasks, and how fast their loss and regret fall.

  python -m experiments.scale_tasks --families=point_goal_sparse_h20,reacher_goal --seeds=0,1,2

Histories are collected once. Operators learn from those of the first 16, 32, ..., 2,048 tasks, in as many gradient
steps and with as many runs of their own, which are played on these tasks. So they see as much, but of fewer tasks. No
explorers are learned where rewards are sparse, for these would practise on other tasks. The source of the histories is
the same for all, and has practised on the whole distribution. All are judged on the same held-out tasks. Their loss is
taken on histories of tasks from which none learns. Power laws are fitted to loss and regret, 1 - the mean score where
rewards are sparse, else 1 - its IQM (see `evaluation.power_law`).

A family after the other; its row is written when it is done, with a plot, FOLDER/FAMILY/scaling.png. Can be stopped at
any moment; run again, it goes on where it was.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from experiments import console, jobs, judging, stages
from experiments.ablate_operator import answers_of
from experiments.jobs import Job
from experiments.tabulate_results import draw_scaling, scaling_tables
from metaimprove import asks
from metaimprove.asks import explore
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation import metrics, rows
from metaimprove.evaluation.evaluate import Evaluation
from metaimprove.evaluation.power_law import FEWEST, PowerLaw, fit_power_law
from metaimprove.evaluation.results import is_sparse
from metaimprove.evaluation.rows import ScalingRow
from metaimprove.files import claim
from metaimprove.histories.dataset import Dataset, load_dataset
from metaimprove.methods.operator import operator_method
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.operator import Operator
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Params

FLAGS = flags.FLAGS
KEPT_OUT = 64
"""Tasks whose histories no operator learns from."""
_AFTER = (1, 2, 4, 30)
_EXAMPLES = 512
"""By which the loss is taken."""
_LOWEST_REGRET = -0.05
"""That a law may end at: the reference is not the best policy there is."""

if __name__ == '__main__':
  jobs.define_row_flags('runs/scaling', 'docs/results/scaling.json')
  flags.DEFINE_list('training_tasks', [str(2 ** power) for power in range(4, 12)], 'Numbers of tasks to learn from.')
  flags.adopt_module_key_flags(jobs)


def numbers(said: Sequence[str]) -> list[int]:
  """Numbers of tasks that `--training_tasks` says, in order; raises `IncompatibleError` for too few of them."""
  found = sorted(set(jobs.training_tasks(said)))
  if len(found) < FEWEST:
    raise IncompatibleError(f'--training_tasks={",".join(said)} must be at least {FEWEST} different numbers.')
  return found


def settings_of(job: Job) -> TrainingSettings:
  """The settings that suit the whole of the histories."""
  return TrainingSettings.of(
    make_family(job.family, job.backend), job.num_tasks, **job.training(), num_validation=KEPT_OUT
  )


def load_histories(job: Job, family: TaskFamily, most: int, folder: pathlib.Path) -> Dataset:
  """Histories of so many tasks and of those that are kept out.

  Raises:
    IncompatibleError: if there are fewer, since simulations were not finite.
  """
  dataset = load_dataset(folder, family, verify=False)
  there = len(np.unique(dataset.task_index))
  if there < most + KEPT_OUT:
    raise IncompatibleError(
      f'{folder} holds {there} tasks whose simulation is finite, but {most} are to be learned from and {KEPT_OUT} kept '
      f'out. Pass --num_tasks={2 * job.num_tasks - there}, and another --folder.'
    )
  return dataset


def train(job: Job, num_tasks: int, seed: int, folder: pathlib.Path) -> tuple[Operator, Params]:
  """The operator that learns from so many tasks, trained if it was not."""
  operator_folder = stages.train_once(
    folder / f'{num_tasks}_tasks', folder / 'histories', family=job.family, backend=job.backend, seed=seed,
    num_tasks=num_tasks, config={'num_episodes': job.num_episodes}, explores=False, verify=False,
    # As many runs, however few the tasks: what is told apart is how many kinds of tasks were seen, not how much.
    settings={**job.training(), 'round_tasks': settings_of(job).round_tasks, 'num_validation': 0},
  )
  return load_operator(operator_folder, make_family(job.family, job.backend))


def name_of(num_tasks: int) -> str:
  """The name of the operator that learned from so many tasks."""
  return f'tasks_{num_tasks}'


def judge(
  job: Job, training_tasks: Sequence[int], seed: int, folder: pathlib.Path
) -> tuple[Evaluation, list[Mapping[str, float]]]:
  """Collects, trains, and judges on held-out tasks; and `AblationRow.answers` of each operator, of tasks from which
  none learned."""
  claim(folder, dataclasses.asdict(job))
  family = make_family(job.family, job.backend)
  jobs.collect(job, seed, folder / 'histories', folder)
  dataset = load_histories(job, family, max(training_tasks), folder / 'histories')
  examples = dataclasses.replace(settings_of(job), batch_size=_EXAMPLES)
  playground, methods, answers = judging.playground_of(job, family, dataset.policy), [], []
  for num in training_tasks:
    operator, operator_params = train(job, num, seed, folder)
    answers.append(answers_of(operator, operator_params, dataset, examples, seed))
    methods.append(operator_method(
      operator, operator_params, playground.play, ask=asks.ask(steps='best'), num_applications=job.num_applications,
      num_episodes=job.num_episodes, explores=explore.NAME in operator.config.asks, name=name_of(num),
      title=f'operator of {num} tasks',
    ))
  found = judging.judge(
    methods, job, family, dataset.policy, playground, folder / 'histories', folder / 'evaluation', seed=seed,
    stage='judge', wall=folder,
  )
  found.check_scored('heldout')
  return found, answers


@dataclasses.dataclass(frozen=True)
class Scaling:
  """What is known of a family.

  Attributes:
    family: its name.
    training_tasks: [T] numbers of tasks.
    loss: [S, T] of each seed.
    scores: applications -> of each seed [T, B].
  """

  family: str
  training_tasks: Sequence[int]
  loss: np.ndarray
  scores: Mapping[int, Sequence[np.ndarray]]

  def score(self, strata: Sequence[np.ndarray]) -> np.ndarray:
    """[T] the mean score where rewards are sparse, else the IQM, over seeds."""
    together = np.concatenate(strata, axis=-1)
    return together.mean(axis=-1) if is_sparse(self.family) else metrics.iqm(together)

  def law(self, strata: Sequence[np.ndarray]) -> PowerLaw:
    """Of the regret."""
    return fit_power_law(self.training_tasks, 1 - self.score(strata), _LOWEST_REGRET)

  def laws(self) -> dict[str, dict[str, float | None]]:
    """`ScalingRow.laws`."""
    alone = [fit_power_law(self.training_tasks, loss) for loss in self.loss]
    found = {'loss': _kept(fit_power_law(self.training_tasks, self.loss.mean(axis=0)), (None, None), alone)}
    for n, strata in self.scores.items():
      ends = metrics.interval_of(lambda drawn: self.law(drawn).exponent, strata)
      found[f'regret after {n}'] = _kept(self.law(strata), ends, [self.law([one]) for one in strata])
    return found

  def intervals(self) -> np.ndarray:
    """[2, A, T] of the scores, over held-out tasks."""
    return np.transpose([
      [
        metrics.interval_of(lambda drawn: float(self.score([one[num] for one in drawn])), strata)
        for num in range(len(self.training_tasks))
      ] for strata in self.scores.values()
    ], (2, 0, 1))


def _kept(law: PowerLaw, ends: Sequence[float | None], alone: Sequence[PowerLaw]) -> dict[str, float | None]:
  """What a row keeps of a law, of the interval of its exponent, and of the laws of each seed."""
  low, high = (None if end is None else round(end, 4) for end in ends)
  return {
    **{name: round(value, 4) for name, value in dataclasses.asdict(law).items()}, 'low': low, 'high': high,
    'per_seed': [round(one.exponent, 4) for one in alone],
  }


def row_of(
  job: Job, backend: str, training_tasks: Sequence[int], seeds: Sequence[int], found: Sequence[Evaluation],
  answers: Sequence[Sequence[Mapping[str, float]]], command: str,
) -> ScalingRow:
  """The row of a family, from the evaluation and the answers of each seed."""
  after = [n for n in _AFTER if n <= job.num_applications]
  curves = [np.stack([one.scores('heldout', name_of(num)) for num in training_tasks]) for one in found]  # [T, P, B]
  loss, divergence = (
    np.array([[answer[name] for answer in of_seed] for of_seed in answers]) for name in ('loss', 'divergence')
  )
  scaling = Scaling(
    family=job.family, training_tasks=training_tasks, loss=loss,
    scores={n: [curve[:, n] for curve in curves] for n in after},
  )
  low, high = np.round(scaling.intervals(), 4).tolist()
  return ScalingRow(
    family=job.family, backend=backend, seeds=list(seeds), tasks=sum(curve.shape[-1] for curve in curves),
    training_tasks=list(training_tasks), loss=np.round(loss.mean(axis=0), 4).tolist(),
    divergence=np.round(divergence.mean(axis=0), 4).tolist(), after=after,
    score=[np.round(scaling.score(strata), 4).tolist() for strata in scaling.scores.values()], low=low, high=high,
    laws=scaling.laws(), commands=[command],
  )


def main() -> None:
  """Judges the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  training_tasks = numbers(FLAGS.training_tasks)
  if path.exists():
    rows.read(path, ScalingRow)  # a damaged file is refused before any work
  for name in families:
    job, folder = jobs.job_with(name, max(training_tasks) + KEPT_OUT), pathlib.Path(FLAGS.folder) / name
    judged = [judge(job, training_tasks, seed, folder / f'seed_{seed}') for seed in seeds]
    command = console.command_for(
      families=name, seeds=','.join(map(str, seeds)), training_tasks=','.join(map(str, training_tasks)), **jobs.given(),
    )
    row = row_of(job, make_family(name, job.backend).backend, training_tasks, seeds, *zip(*judged), command)
    rows.add(path, row)
    draw_scaling([row], folder / 'scaling.png')
    print('\n'.join(scaling_tables([row])))
    print(f'Plot: {folder}/scaling.png')
  print(f'Rows: {path}')


if __name__ == '__main__':
  console.launch(main)
