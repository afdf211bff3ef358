"""Rewards that nobody gave: learned from the ranks of noise alone, and an operator that reads these; on held-out tasks.

  python -m experiments.benchmark_ranked --families=reacher_goal

On each task a demonstrator is shown, which is told the task but is not the best: the source of the histories early in
its learning. It is played with more and less noise, and rewards are learned that rank the episodes by noise. By these
the levels of the histories are ranked, and by these the operator improves; beside it stand an operator that learns from
the family's rewards, and the same operator with rewards of another task, and with none. Returns by the family's rewards
are used to judge only.

A family after the other; its rows are written when it is done, with a plot of predicted against true returns of
policies worse and better than the demonstrator, FOLDER/FAMILY/ranked.png. Can be stopped at any moment; run again, it
goes on where it was.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import ask_methods, ask_rows, console, jobs, judging, stages
from experiments.jobs import Job
from metaimprove import files
from metaimprove.evaluation.evaluate import Evaluation
from metaimprove.evaluation.metrics import rank_correlations
from metaimprove.evaluation.rows import AskRow, read
from metaimprove.files import claim
from metaimprove.histories.dataset import load_dataset
from metaimprove.histories.ranking import RankingSettings
from metaimprove.histories.reference import load_conditioned
from metaimprove.improvers.source import Learning
from metaimprove.methods.method import Method
from metaimprove.methods.ranked import Demonstrator, levels_method, ranked_method
from metaimprove.methods.standard import Playground
from metaimprove.operators.checkpoints import load_operator
from metaimprove.rng import stream
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family

FLAGS = flags.FLAGS
LEVELS, EPISODES = 12, 4
"""Policies of which the returns are predicted, evenly spaced over the source's learning; and their episodes."""
_OTHER, _TRUE = 'rewards of another task', "an operator that reads the family's rewards"
RANKED = {
  'ranked': {}, 'ranked_another': {'another_task': True}, 'ranked_on': {'from_demonstrator': True},
  'ranked_on_another': {'from_demonstrator': True, 'another_task': True},
  'ranked_on_nothing': {'from_demonstrator': True, 'no_rewards': True},
}
"""How the operator of learned rewards is judged; see `ranked_method`."""

if __name__ == '__main__':
  flags.DEFINE_float('demonstrator', 0.2, 'How much of its learning the source has done that is shown.', 0.0, 1.0)
  jobs.define_row_flags('runs/ranked', 'docs/results/asks.json')
  flags.adopt_module_key_flags(jobs)


def places(learning: Learning, share: float) -> tuple[int, list[int]]:
  """Which of the source's snapshots is the demonstrator, and which ones are its levels."""
  last = len(learning.snapshots) - 1
  return round(share * last), np.unique(np.linspace(0, last, LEVELS).round().astype(int)).tolist()


def train(
  job: Job, family: TaskFamily, ranked: bool, seed: int, folder: pathlib.Path, demonstrator: Demonstrator
) -> pathlib.Path:
  """The folder of an operator that learns from learned rewards or the family's, trained if it was not."""
  name = 'ranked' if ranked else 'true'
  return stages.train_once(
    folder / name, folder / 'histories', family=job.family, backend=job.backend, seed=seed,
    rewards=learned_rewards(folder, family, seed, demonstrator) if ranked else None,
    config={'num_episodes': job.num_episodes}, settings=job.training(), num_updates=job.num_updates, verify=False,
  )


def learned_rewards(folder: pathlib.Path, family: TaskFamily, seed: int, demonstrator: Demonstrator) -> Any:
  """The rewards [H, ...] of the histories, learned once and kept."""
  path = folder / 'rewards' / 'rewards.safetensors'
  claim(path.parent, demonstrator.made_with)
  if not path.exists():
    dataset = load_dataset(folder / 'histories', family, verify=False)
    tasks = dataset.read_tasks(np.arange(dataset.num_histories))
    with console.stage(folder, 'learn rewards') as progress:
      files.save_tree(path, demonstrator.rewards(tasks, stream(seed, 'rewards of histories'), progress))
  network = demonstrator.settings.network(family.observation_size)
  return files.load_tree(path, jax.tree.map(lambda _: None, jax.eval_shape(network.init, jax.random.key(0))))


def judge(job: Job, seed: int, folder: pathlib.Path, share: float) -> Evaluation:
  """Collects, trains both operators and judges them."""
  claim(folder, {**dataclasses.asdict(job), 'demonstrator': share})
  family = make_family(job.family, job.backend)
  jobs.collect(job, seed, folder / 'histories', folder)
  source, learning, _ = load_conditioned(folder / 'histories', family)
  shown, levels = places(learning, share)
  policy = load_dataset(folder / 'histories', family, verify=False).policy
  demonstrator = Demonstrator(family, policy, source, learning.snapshots[shown], RankingSettings())
  playground = judging.playground_of(job, family, policy)
  true, ranked = (
    load_operator(train(job, family, ranked, seed, folder, demonstrator), family) for ranked in (False, True)
  )
  methods = [ask_methods.best_method(*true, playground, job)] + [
    ranked_method(
      *ranked, demonstrator, playground.play, num_applications=job.num_applications, num_episodes=job.num_episodes,
      **kind, name=name, title=name.replace('_', ' '),
    ) for name, kind in RANKED.items()
  ]
  methods += level_methods(demonstrator, [learning.snapshots[index] for index in [*levels, shown]], playground)
  return judging.judge(
    methods, job, family, policy, playground, folder / 'histories', folder / 'evaluation', seed=seed, stage='judge',
    wall=folder,
  )


def level_methods(demonstrator: Demonstrator, snapshots: list[Any], playground: Playground) -> list[Method]:
  """True returns, predicted ones, and those predicted by another task's rewards; the last point is the demonstrator."""
  play = playground.of(EPISODES)
  kinds = {
    'levels': {}, 'predicted': {'predicted': True}, 'predicted_another': {'predicted': True, 'another_task': True}
  }
  return [
    levels_method(demonstrator, snapshots, play, num_episodes=EPISODES, name=name, title=name.replace('_', ' '), **kind)
    for name, kind in kinds.items()
  ]


def rows_of(judged: ask_rows.Judged) -> list[AskRow]:
  """The rows of a family."""
  end, title = judged.end
  of = {name: judged.scores(name) for name in ('operator', *RANKED)}
  shown = float(end(np.concatenate([one[-1:] for one in judged.scores('levels')], axis=1)[0]))
  rows = []
  for begun, name, others in (
    ('', 'ranked', {_TRUE: of['operator'], _OTHER: of['ranked_another']}),
    (' from the demonstrator on', 'ranked_on', {
      'the demonstrator': shown, _OTHER: of['ranked_on_another'], 'no rewards at all': of['ranked_on_nothing'],
    }),
  ):
    rows += [
      judged.row('ranked', f'{title} after {n}{begun}', ask_rows.at(end, n), of[name], beside, other)
      for beside, other in others.items() for n in judged.points
    ]
  for name, better in {'': False, ' of policies better than the demonstrator': True}.items():
    guessed, control = (
      [correlations(one, method, better) for one in judged.asked] for method in ('predicted', 'predicted_another')
    )
    rows.append(judged.row(
      'ranked', f'rank correlation of predicted and true returns{name}, mean over tasks', ask_rows.at(np.mean, 0),
      guessed, _OTHER, control,
    ))
  return rows


def correlations(judged: Evaluation, name: str, better: bool) -> np.ndarray:
  """[1, B] of predicted and true returns of the levels of each task; of those alone that are better than the
  demonstrator, where that is wanted. Tasks of which nothing is known, with less than two such levels, are left out."""
  guessed, wanted = (judged.curves['heldout'][one].returns for one in (name, 'levels'))
  usable = judged.bounds['heldout'].usable
  guessed, wanted = guessed[:, usable], wanted[:, usable]
  above = wanted[:-1] > wanted[-1] if better else np.ones_like(wanted[:-1], bool)
  found = rank_correlations(np.where(above, guessed[:-1], np.nan).T, wanted[:-1].T)
  return found[np.isfinite(found)][None]


def draw(found: Evaluation, path: pathlib.Path) -> None:
  """Predicted against true return of all levels on all tasks; in red those better than the demonstrator."""
  from matplotlib.figure import Figure

  scores, usable = found.scores('heldout', 'levels'), found.bounds['heldout'].usable
  guessed = found.curves['heldout']['predicted'].returns[:, usable]
  better = scores[:-1] > scores[-1]
  figure = Figure(figsize=(5.2, 4.2), layout='constrained')
  axes = figure.add_subplot()
  for where, colour, label in ((~better, '#1b6ca8', 'not better'), (better, '#c0392b', 'better')):
    axes.scatter(scores[:-1][where], guessed[:-1][where], s=5, c=colour, label=f'{label} than the demonstrator')
  axes.set(xlabel='score by the rewards of the family', ylabel='return by learned rewards', title=found.family)
  axes.legend(frameon=False, fontsize=8)
  figure.savefig(path, dpi=110)


def main() -> None:
  """Judges the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  if path.exists():
    read(path, AskRow)  # a damaged file is refused before any work
  for name in families:
    job, folder = Job.of(name, **jobs.given()), pathlib.Path(FLAGS.folder) / name
    judged = [judge(job, seed, folder / f'seed_{seed}', FLAGS.demonstrator) for seed in seeds]
    rows = rows_of(ask_rows.Judged(
      job=job, family=make_family(name, job.backend), seeds=seeds, plain=[], asked=judged, datasets=[],
      command=console.command_for(
        families=name, seeds=','.join(map(str, seeds)), demonstrator=FLAGS.demonstrator, **jobs.given()
      ),
    ))
    draw(judged[0], folder / 'ranked.png')
    ask_rows.write(path, rows)
    ask_rows.show(rows)
    print(f'Plot: {folder}/ranked.png')
  print(f'Rows: {path}')


if __name__ == '__main__':
  console.launch(main)
