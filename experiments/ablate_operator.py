"""What parts of an operator are worth: variants trained on the same histories, judged on validation tasks.

  python -m experiments.ablate_operator --family=point_goal_sparse_h20 \
    --variants="whole;capacity_1:capacity=1;one_answer:num_answers=1;no_runs:rounds=();no_explorers:explorers=False"

A variant is a name, and fields of `OperatorConfig` and `TrainingSettings` other than those that suit the family;
`explorers=False` leaves explorers out. Each is judged as it is applied by default, and without exploring where it can
be asked to explore. Can be stopped at any moment; run again, it goes on where it was.
"""

import ast
import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import console, jobs, judging, stages
from experiments.jobs import Job
from experiments.tabulate_results import ablation_table
from metaimprove import asks
from metaimprove.errors import UnknownNameError
from metaimprove.evaluation import metrics, rows
from metaimprove.evaluation.rows import AblationRow
from metaimprove.files import claim
from metaimprove.histories.dataset import Dataset, load_dataset, with_hindsight
from metaimprove.iteration import iterate
from metaimprove.methods.method import initial_policies
from metaimprove.methods.standard import Playground, operator_methods
from metaimprove.operators import checkpoints
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.operator import Operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training import validation
from metaimprove.training.examples import Examples, endless, split_histories
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Params, Play

FLAGS = flags.FLAGS
_REPETITIONS = 100
_JUDGED = ('operator', 'operator_sampled', 'operator_no_explore')

if __name__ == '__main__':
  flags.DEFINE_enum('family', 'point_goal_sparse_h20', family_names(), 'Task family.')
  flags.DEFINE_string('variants', 'whole', 'NAME:FIELD=VALUE,...;NAME:... (values as in Python).')
  flags.DEFINE_integer('seed', 0, 'Of everything.')
  flags.DEFINE_string('folder', 'runs/ablation', 'Where everything goes, in FOLDER/FAMILY.')
  flags.DEFINE_string('json', 'docs/results/ablations.json', 'The rows.')
  jobs.define_flags()
  flags.adopt_module_key_flags(jobs)


def variants_of(text: str) -> dict[str, dict[str, Any]]:
  """Name -> changes; raises `UnknownNameError` for a field that does not exist."""
  known = {field.name for kind in (OperatorConfig, TrainingSettings) for field in dataclasses.fields(kind)}
  variants = {}
  for part in text.split(';'):
    name, _, changes = part.strip().partition(':')
    try:
      call = ast.parse(f'f({changes})', mode='eval').body
      variants[name] = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
      raise UnknownNameError(f'{part!r} is no variant; write NAME:FIELD=VALUE,FIELD=VALUE.') from None
    for field in variants[name]:
      if field not in known | {'explorers'}:
        raise UnknownNameError(
          f'Variant {name!r} changes {field!r}; choose among: explorers, {", ".join(sorted(known))}.'
        )
  return variants


def judge(job: Job, name: str, changes: Mapping[str, Any], folder: pathlib.Path) -> AblationRow:
  """Trains a variant and judges it on validation tasks."""
  family, changes = make_family(job.family, job.backend), dict(changes)
  config_fields = {field.name for field in dataclasses.fields(OperatorConfig)}
  config = {'num_episodes': job.num_episodes, **{k: v for k, v in changes.items() if k in config_fields}}
  settings = {k: v for k, v in changes.items() if k not in config_fields | {'explorers'}}
  claim(folder / name / 'variant', {'changes': changes, **job.training()})
  operator_folder = stages.train_once(
    folder / name, folder / 'histories', family=job.family, backend=job.backend, seed=FLAGS.seed, config=config,
    settings={**job.training(), **settings}, explores=changes.get('explorers', True), num_updates=job.num_updates,
    verify=False, explorers_folder=folder / 'explorers',
  )
  operator, operator_params = checkpoints.load_operator(operator_folder, family)
  playground = Playground(
    play=make_play(family, operator.policy, num_episodes=operator.config.num_episodes),
    num_episodes=operator.config.num_episodes, settings=job.evaluation(),
  )
  methods = [
    dataclasses.replace(method, splits=None)
    for method in operator_methods(operator, operator_params, playground) if method.name in _JUDGED
  ]
  found = judging.judge(
    methods, job, family, operator.policy, playground, folder / 'histories', folder / name / 'evaluation',
    seed=FLAGS.seed, split='validation', stage=f'judge {name}', wall=folder,
  )
  figures = {}
  for method in methods:
    strata = [found.scores('validation', method.name)]
    figures[method.name] = rows.kept({**metrics.iqm_with_interval(strata), **metrics.mean_and_found(strata)}, True)
  dataset = load_dataset(folder / 'histories', family, verify=False)
  if {*operator.config.asks} & {*asks.say_all()}:
    dataset = with_hindsight(dataset, family)
  training = TrainingSettings.of(
    family, len(np.unique(dataset.task_index)), asks=operator.config.asks, **{**job.training(), **settings}
  )
  return AblationRow(
    family=job.family, backend=family.backend, variant=name, changes=changes, seeds=[FLAGS.seed],
    answers=answers_of(operator, operator_params, dataset, training, FLAGS.seed),
    milliseconds=milliseconds_of(operator, operator_params, playground.play, family, job.num_applications),
    tasks=int(np.sum(found.has_score('validation', 'operator'))), methods=figures,
    episodes=found.curves['validation']['operator'].episodes.tolist(), commands=[console.command_line()],
  )


def answers_of(
  operator: Operator, operator_params: Params, dataset: Dataset, settings: TrainingSettings, seed: int
) -> dict[str, float]:
  """`AblationRow.answers`: the same examples for every variant, but for what each remembers of them."""
  training, kept_out = split_histories(dataset, settings.num_validation)
  examples = Examples(
    dataset=dataset, histories=endless(dataset, training, seed), config=operator.config, settings=settings, seed=seed,
  )
  found = validation.losses(operator, operator_params, examples, kept_out)
  names = zip(rows.ANSWERS, ('loss', 'divergence', 'answers'))
  return {kept: round(found[f'validation_{name}/best'], 4) for kept, name in names}


def milliseconds_of(
  operator: Operator, operator_params: Params, play: Play, family: TaskFamily, num_applications: int
) -> list[float]:
  """The medians of many repetitions of the first and of the last application to one policy."""
  tasks = sample_tasks(family, FLAGS.seed, 1, 'validation')
  timed = {}

  def improve(params, memory, rng_key):
    once = lambda: jax.block_until_ready(apply(params, memory, rng_key))
    after = once()  # the first time of all compiles
    seconds = []
    for _ in range(_REPETITIONS if len(timed) in (0, num_applications - 1) else 0):
      began = time.perf_counter()
      once()
      seconds.append(time.perf_counter() - began)
    timed[len(timed)] = seconds
    return after

  apply = make_improve(operator, operator_params, asks.ask(steps='best'))
  start, rng_key = initial_policies(operator.policy, 1, stream(FLAGS.seed, 'timing')), stream(FLAGS.seed, 'timed')
  for _ in iterate(
    improve, make_remember(operator), play, start, tasks, rng_key, num_applications=num_applications
  ):
    pass
  return [round(1e3 * float(np.median(timed[n])), 3) for n in (0, num_applications - 1)]


def main() -> None:
  """Trains and judges the variants one after the other."""
  variants, path = variants_of(FLAGS.variants), pathlib.Path(FLAGS.json)
  job, folder = Job.of(FLAGS.family, **jobs.given()), pathlib.Path(FLAGS.folder) / FLAGS.family
  jobs.collect(job, FLAGS.seed, folder / 'histories', folder)
  for name, changes in variants.items():
    rows.add(path, judge(job, name, changes, folder))
  print('\n'.join(ablation_table([row for row in rows.read(path, AblationRow) if row.family == FLAGS.family])))


if __name__ == '__main__':
  console.launch(main)
