"""What it is worth to say in hindsight which goal a level of the histories achieved, as its episodes get fewer.

  python -m experiments.benchmark_hindsight --families=point_goal_sparse_h20

Operators that can be asked for a goal learn from the histories of the first so many tasks: one is told which goals
levels achieved in hindsight, and one is told the goal that was meant, where the level met a reward for it, and of no
other level anything. All else is the same. Both are then asked for the goals of held-out tasks, and for the best,
before anything was tried; that is all they learn. The control is asked for the goal of another task.

The source of the histories is told its goals and practises with dense rewards, so nearly all of its levels meet a
reward. So there are two more, of which most levels fail: the same source that is stopped early, and one that is
told the goals of other tasks. The histories of the last one are those of the first one, but other goals were meant.

A family after the other; its rows are written when it is done, with a plot, FOLDER/FAMILY/hindsight.png. Can be stopped
at any moment; run again, it goes on where it was.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from experiments import ask_rows, console, jobs, judging, stages
from experiments.ask_rows import Judged, at
from experiments.jobs import Job
from metaimprove import asks
from metaimprove.asks import goal, steps
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation import metrics, rows
from metaimprove.evaluation.evaluate import Evaluation
from metaimprove.evaluation.rows import AskRow
from metaimprove.files import claim
from metaimprove.histories.collect import collect
from metaimprove.histories.dataset import Dataset, goals_of, load_dataset, met_rewards, with_hindsight, with_meant_goals
from metaimprove.histories.reference import load_conditioned
from metaimprove.improvers import task_conditioned_ppo, tuned
from metaimprove.methods import controls
from metaimprove.methods.asked import asked_method
from metaimprove.operators.checkpoints import load_operator
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.practice import practice_family
from metaimprove.tasks.registry import make_family

FLAGS = flags.FLAGS
LABELS = {
  'with': with_hindsight,
  'without': lambda dataset, family: with_meant_goals(dataset, family, goals_of(dataset)),
  'mistaken': lambda dataset, family: with_meant_goals(dataset, family, mistaken(dataset)),
}
"""What an operator is told that levels achieved."""
SOURCES = {
  'whole': 'source that learns to its end', 'early': 'source that is stopped early',
  'mistaken': 'source that is told the goals of other tasks',
}
"""Whose histories they are."""
FOLDERS = {'whole': ('with', 'without', 'mistaken'), 'early': ('with', 'without')}
"""Histories -> the labels of operators that learn from them. Those of the mistaken source are those of the whole one,
but that other goals were meant; in hindsight they are the same."""
_MEASURED = 4
"""Episodes that measure an answer."""
_WITHOUT, _OTHER = 'without hindsight', "another task's goal"

if __name__ == '__main__':
  jobs.define_row_flags('runs/hindsight', 'docs/results/asks.json')
  flags.DEFINE_list('training_tasks', ['16', '64', '256', '1024'], 'Numbers of tasks to learn from.')
  flags.DEFINE_integer(
    'early_updates', 5, 'PPO updates after which the source is stopped early: the most after which at most a tenth of '
    'the levels have met a reward. The rows tell what share has.', 1,
  )
  flags.adopt_module_key_flags(jobs)


def job_of(family: str, most: int) -> Job:
  """See `jobs.job_with`; also raises `IncompatibleError` if the rewards of the family are not sparse."""
  if make_family(family).practice_reward is None:
    raise IncompatibleError(f'The rewards of {family} are not sparse: there each level of a history meets some.')
  return jobs.job_with(family, most)


def mistaken(dataset: Dataset) -> np.ndarray:
  """[H, G], goals that were meant where the source was told the goal of the next task."""
  return np.roll(goals_of(dataset), 1, axis=0)


def of_source(source: str) -> tuple[str, str]:
  """Where the histories of a source are, and the label of its operator without hindsight."""
  return ('whole', 'mistaken') if source == 'mistaken' else (source, 'without')


def collect_early(job: Job, family: TaskFamily, num_updates: int, seed: int, folder: pathlib.Path) -> None:
  """The histories of the source that is stopped early. Its levels are chosen by the dense rewards that it practises
  with: by the family's own nearly all of its policies are alike. They are stored too, and no operator here reads them.
  """
  source = tuned.make_source(task_conditioned_ppo.NAME, family, num_updates=num_updates)
  with console.stage(folder, 'collect early') as progress:
    collect(
      folder / 'early' / 'histories', practice_family(family), [(source, job.num_tasks)], seed=seed,
      num_checkpoints=job.num_checkpoints, num_episodes=job.history_episodes, shard_size=min(128, job.num_tasks),
      progress=progress,
    )


def prepare(job: Job, early_updates: int, seed: int, folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Collects the histories; of each source, [1, H] the shares of the levels of tasks that met a reward."""
  claim(folder, {**dataclasses.asdict(job), 'early_updates': early_updates})
  family = make_family(job.family, job.backend)
  jobs.collect(job, seed, folder / 'whole' / 'histories', folder)
  collect_early(job, family, early_updates, seed, folder)
  whole, early = (load_dataset(folder / name / 'histories', family, verify=False) for name in FOLDERS)
  meant = {'whole': (whole, goals_of(whole)), 'early': (early, goals_of(early)), 'mistaken': (whole, mistaken(whole))}
  return {
    source: met_rewards(dataset, family, goals).mean(axis=1)[None] for source, (dataset, goals) in meant.items()
  }


def train(job: Job, num_tasks: int, label: str, seed: int, folder: pathlib.Path) -> pathlib.Path:
  """The folder of an operator that learns from histories in a folder, of so many tasks; trained if it was not."""
  part = folder / f'{num_tasks}_tasks' / label
  return stages.train_once(
    part, folder / 'histories', family=job.family, backend=job.backend, seed=seed, num_tasks=num_tasks,
    # It is asked before there is any experience: it is shown none, and needs little room to remember any.
    config={'num_episodes': job.num_episodes, 'capacity': job.num_episodes, 'asks': (steps.NAME, goal.NAME)},
    settings={**job.training(), 'blank_share': 1.0, 'watched_share': 0.0, 'rounds': (), 'num_validation': 0},
    explores=False, verify=False, label=LABELS[label],
  )


def judge(job: Job, histories: str, num_tasks: int, seed: int, folder: pathlib.Path) -> Evaluation:
  """Trains the operators of all labels and asks them for goals of held-out tasks; beside them the source itself."""
  family, methods, best = make_family(job.family, job.backend), [], asks.ask(steps='best')
  for label in FOLDERS[histories]:
    operator, operator_params = load_operator(train(job, num_tasks, label, seed, folder / histories), family)
    playground = judging.playground_of(job, family, operator.policy)
    methods += [asked_method(
      operator, operator_params, playground.play, (playground.of(_MEASURED), _MEASURED), [best], num_applications=0,
      num_episodes=job.num_episodes, goal_of=whose, name=f'{label}_{whose}',
      title=f'{num_tasks} tasks, {label} hindsight, asked for a goal ({whose})',
    ) for whose in ('own', 'another')]
  stopped, its, _ = load_conditioned(folder / histories / 'histories', family)
  methods.append(dataclasses.replace(
    controls.told_everything(stopped, its.snapshots[-1], playground.of(_MEASURED), _MEASURED), name='source',
    title=f'{SOURCES[histories]}, itself',
  ))
  return judging.judge(
    methods, job, family, operator.policy, playground, folder / 'whole' / 'histories',
    folder / histories / f'{num_tasks}_tasks' / 'evaluation', seed=seed, stage=f'judge {histories}, {num_tasks} tasks',
    wall=folder,
  )


def episodes_of(job: Job, num_tasks: int) -> int:
  """Episodes of the source in the histories of so many tasks."""
  return num_tasks * job.num_checkpoints * job.history_episodes


def met_of(judged: Judged, name: str) -> list[np.ndarray]:
  """Of each seed [1, B], whether a method met a reward on the tasks that have a score, in any of its episodes."""
  return [
    (one.curves['heldout'][name].returns[:, one.has_score('heldout', name)] > 0).astype(float) for one in judged.asked
  ]


SCORE, MET = 'mean score', 'share of goals at which a reward is met'
FIGURES = {SCORE: Judged.scores, MET: met_of}
"""What is told of answers: their title -> (what is judged, name of a method) -> [1, B] of each seed."""


def rows_of(judged: Judged, source: str, num_tasks: int) -> list[AskRow]:
  """How good operators are that learned from histories of so many tasks, and what hindsight gains."""
  on = f'{SOURCES[source]}, {num_tasks} training tasks, {episodes_of(judged.job, num_tasks)} episodes'
  names, mean = ('with_own', f'{of_source(source)[1]}_own', 'with_another'), at(np.mean, 0)
  given, without, another = (judged.scores(name) for name in names)
  both = [np.stack(pair) for pair in zip(given, without)]  # of the same tasks, which are resampled together
  gain = lambda values: mean([one[0] - one[1] for one in values])
  met, met_without, _ = (met_of(judged, name) for name in names)
  return [
    judged.row(goal.NAME, f'{SCORE}, {on}', mean, given, _WITHOUT, without),
    judged.row(goal.NAME, f'{SCORE}, {on}', mean, given, _OTHER, another),
    judged.row(goal.NAME, f'gain in {SCORE}, {on}', gain, both, 'none', 0.0),
    judged.row(goal.NAME, f'{MET}, {on}', mean, met, _WITHOUT, met_without),
  ]


def source_rows(early: Judged, whole: Judged, met: Sequence[Mapping[str, np.ndarray]]) -> list[AskRow]:
  """What share of the training levels of sources met a reward, and how good the first two are, told the goals."""
  mean, title = at(np.mean, 0), 'share of training levels that met a reward'
  return [
    *(early.row(
      goal.NAME, f'{title}, {SOURCES[source]}', mean, [one[source] for one in met], SOURCES['whole'],
      [one['whole'] for one in met],
    ) for source in ('early', 'mistaken')),
    *(early.row(
      goal.NAME, f'{what}, {SOURCES["early"]}, itself', mean, of(early, 'source'), SOURCES['whole'],
      of(whole, 'source'),
    ) for what, of in FIGURES.items()),
  ]


def draw(judged: Mapping[tuple[str, int], Judged], path: pathlib.Path) -> None:
  """The figures of answers against the source's episodes, with and without hindsight; a column for each source."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(11.4, 6.2), layout='constrained')
  panels = figure.subplots(len(FIGURES), len(SOURCES), sharex=True)
  for row, (what, of) in zip(panels, FIGURES.items()):
    for axes, (source, title) in zip(row, SOURCES.items()):
      histories, label = of_source(source)
      some = {episodes_of(one.job, num): one for (name, num), one in sorted(judged.items()) if name == histories}
      for name, told, colour, style in (
        ('with_own', 'with hindsight', '#1b6ca8', 'o-'), (f'{label}_own', _WITHOUT, '#c0392b', 'o-'),
        ('with_another', f'with hindsight, {_OTHER}', '#888888', 'o-'),
        *([('source', 'the source itself', 'black', ':')] if source == histories else []),
      ):
        values = [of(one, name) for one in some.values()]
        axes.plot([*some], [at(np.mean, 0)(one) for one in values], style, c=colour, label=told, ms=4)
        axes.fill_between(
          [*some], *zip(*(metrics.interval_of(at(np.mean, 0), one) for one in values)), color=colour, alpha=0.15, lw=0
        )
      axes.set(xscale='log', ylabel=what)
      axes.set_title(title, fontsize=10)
  for axes in panels[-1]:
    axes.set(xlabel='episodes in the histories')
  panels[0][0].legend(frameon=False, fontsize=8)
  figure.savefig(path, dpi=110)


def main() -> None:
  """Judges the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  numbers = jobs.training_tasks(FLAGS.training_tasks)
  if path.exists():
    rows.read(path, AskRow)  # a damaged file is refused before any work
  for name in families:
    job, folder, judged = job_of(name, max(numbers)), pathlib.Path(FLAGS.folder) / name, {}
    told = Judged(
      job=job, family=make_family(name, job.backend), seeds=seeds, plain=[], asked=[], datasets=[],
      command=console.command_for(
        families=name, seeds=','.join(map(str, seeds)), training_tasks=','.join(map(str, numbers)),
        early_updates=FLAGS.early_updates, **jobs.given(),
      ),
    )
    met = [prepare(job, FLAGS.early_updates, seed, folder / f'seed_{seed}') for seed in seeds]
    for num in numbers:
      for histories in FOLDERS:
        judged[histories, num] = dataclasses.replace(
          told, asked=[judge(job, histories, num, seed, folder / f'seed_{seed}') for seed in seeds]
        )
      found = [
        row for source in SOURCES for one in numbers if (of_source(source)[0], one) in judged
        for row in rows_of(judged[of_source(source)[0], one], source, one)
      ]
      ask_rows.write(path, found)
    found += source_rows(judged['early', num], judged['whole', num], met)
    ask_rows.write(path, found)
    draw(judged, folder / 'hindsight.png')
    ask_rows.show(found)
    print(f'Plot: {folder}/hindsight.png')
  print(f'Rows: {path}')


if __name__ == '__main__':
  console.launch(main)
