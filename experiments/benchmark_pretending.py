"""As if it were somebody: an operator says how another one would imitate a third, on held-out tasks.

  python -m experiments.benchmark_pretending --families=point_goal_sparse_h20,reacher_goal

Agents are the source of the histories at random moments of its learning, told everything of their tasks. Imitators are
the operator of `benchmark_asks`, asked to behave as the agents, with a distortion of their own. C learns, on training
tasks, to say what comes next: an imitator's imitation of an agent that it has seen (`metaimprove.methods.pretending`).
Then it is judged with other imitators on other tasks: it says how B imitates D, how another one imitates that, and how
a third one imitates that.

It uses the histories and the operator of `benchmark_asks` in the same folder, or makes them. Can be stopped at any
moment; run again, it goes on where it was.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import ask_operators, ask_rows, console, jobs
from experiments.ask_rows import Done, at
from experiments.jobs import Job
from metaimprove.evaluation import rows
from metaimprove.evaluation.rows import AskRow
from metaimprove.files import checksum, claim, load_arrays, save_tree, tree_to_bytes
from metaimprove.histories.reference import load_conditioned
from metaimprove.improvers.source import Learning, Source
from metaimprove.methods import pretending
from metaimprove.methods.pretending import Cast, Distortion, Scenes
from metaimprove.operators.checkpoints import is_saved, load_operator, save_operator
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.operator import Operator, make_operator
from metaimprove.operators.reading import experience_statistics
from metaimprove.rng import generator, stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training.fit import FitSettings
from metaimprove.trees import concatenate, take
from metaimprove.types import Params, Play, Progress, Task

FLAGS = flags.FLAGS
ASK = 'as somebody'
WATCHED, DEPTHS = 4, 3
"""Agents that C has seen imitated by each imitator; imitators that imitate one after the other."""
CONTROLS = {
  'original': 'D itself', 'own': 'an imitation of D without distortion', 'less': 'the prediction of a depth less',
  'another': 'having watched another imitator', 'nothing': 'having watched no imitator',
  'again': 'the real one, of other episodes of D',
}
"""What the prediction is compared with; see `pretending.distances`."""
_NEARER = ('original', 'own')
_AT_ONCE = 512

if __name__ == '__main__':
  jobs.define_row_flags('runs/asks', 'docs/results/asks.json')
  flags.DEFINE_integer('num_scenes', 4096, 'Imitators that C learns from.', 1)
  flags.DEFINE_integer('pretending_steps', 6000, 'Gradient steps of C.', 1)
  flags.DEFINE_enum(
    'split', 'heldout', ['heldout', 'validation'], 'Tasks of the figures; rows are written of held-out ones only.'
  )
  flags.adopt_module_key_flags(jobs)


@dataclasses.dataclass(frozen=True)
class Stage:
  """Where agents and imitators act.

  Attributes:
    family: the task family.
    source, learning: of the histories, whose policies are the agents.
    operator, operator_params: that imitators imitate with.
    play: makes experience.
    seed: of tasks, agents and imitators.
  """

  family: TaskFamily
  source: Source
  learning: Learning
  operator: Operator
  operator_params: Params
  play: Play
  seed: int

  @functools.cached_property
  def policies_of(self) -> Callable[[Any, Task], Params]:
    """θ [N, ...] of snapshots [N, ...] for tasks [N]."""
    return jax.jit(jax.vmap(self.source.params))

  def agents(self, tasks: Task, rng: np.random.Generator) -> Params:
    """The source's policies for tasks [N], each at a random moment of its learning."""
    moment = rng.integers(len(self.learning.snapshots), size=len(tasks.goal))
    return self.policies_of(self.learning.snapshots[moment], tasks)

  def scenes(self, tasks: Task, num: int, places: int, name: str) -> tuple[Scenes, Distortion]:
    """Scenes [num, places] of imitators drawn by `name`, with agents on random ones of the tasks; and how each
    imitator distorts."""
    rng = generator(self.seed, name)
    own = take(tasks, rng.integers(len(tasks.goal), size=num * places))
    distortion = pretending.draw_distortions(self.family.action_size, num, rng)
    agents, own = jax.tree.map(lambda x: x.reshape(num, places, *x.shape[1:]), (self.agents(own, rng), own))
    return pretending.make_scenes(
      self.operator, self.operator_params, self.play, agents, own, distortion, stream(self.seed, name)
    ), distortion


def train(stage: Stage, job: Job, num_scenes: int, num_steps: int, folder: pathlib.Path, progress: Progress) -> None:
  """C, trained if it was not; its operator is kept in the folder."""
  if is_saved(folder / 'operator'):
    return
  tasks, found, places = sample_tasks(stage.family, stage.seed, job.num_tasks, 'train'), [], WATCHED + 1
  for start in range(0, num_scenes, _AT_ONCE):
    size = min(_AT_ONCE, num_scenes - start)
    found.append(stage.scenes(tasks, size, places, f'training scenes {start}')[0])
    progress('play scenes', start + size, num_scenes, {})
  scenes = concatenate(found)
  operator = make_operator(OperatorConfig.of(
    stage.family, hidden_sizes=stage.operator.config.hidden_sizes, num_episodes=job.num_episodes,
    capacity=(2 * WATCHED + 1) * job.num_episodes, num_answers=1, asks=('steps',),
  ))
  statistics = experience_statistics(jax.tree.map(np.concatenate, scenes.shown))
  params = pretending.learn_to_pretend(
    operator, statistics, scenes, FitSettings(num_steps=num_steps), seed=stage.seed, folder=folder,
    made_with={'num_scenes': num_scenes, 'imitators': checksum(tree_to_bytes(stage.operator_params))},
    progress=progress,
  )
  save_operator(folder / 'operator', operator, params)


def judge(stage: Stage, job: Job, split: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
  """{name: [DEPTHS, B]}, see `pretending.distances`; kept in the folder."""
  path = folder / f'{split}.safetensors'
  if not path.exists():
    tasks = sample_tasks(stage.family, stage.seed, job.heldout_tasks, split)
    cast = Cast(stage.operator, stage.operator_params, *load_operator(folder / 'operator', stage.family), stage.play)
    imitators = [
      stage.scenes(tasks, job.heldout_tasks, WATCHED, f'{split} scenes of depth {depth}') for depth in range(DEPTHS)
    ]
    agents = stage.agents(tasks, generator(stage.seed, f'{split} agents'))
    save_tree(path, pretending.distances(cast, agents, tasks, imitators, stream(stage.seed, f'{split} distances')))
  return load_arrays(path)


def pretend(
  job: Job, seed: int, folder: pathlib.Path, *, num_scenes: int, num_steps: int, split: str
) -> dict[str, np.ndarray]:
  """Collects, trains what is missing, and judges; see `judge`."""
  claim(folder, dataclasses.asdict(job))
  family = make_family(job.family, job.backend)
  jobs.collect(job, seed, folder / 'histories', folder)
  operator, operator_params = load_operator(ask_operators.train(job, family, 'asks', seed, folder), family)
  claim(folder / 'pretending' / 'made_with', {
    'num_scenes': num_scenes, 'num_steps': num_steps, 'imitators': checksum(tree_to_bytes(operator_params)),
  })
  source, learning, _ = load_conditioned(folder / 'histories', family)
  stage = Stage(
    family=family, source=source, learning=learning, operator=operator, operator_params=operator_params, seed=seed,
    play=make_play(family, operator.policy, num_episodes=job.num_episodes),
  )
  with console.stage(folder, 'pretending') as progress:
    train(stage, job, num_scenes, num_steps, folder / 'pretending', progress)
    return judge(stage, job, split, folder / 'pretending')


def rows_of(done: Done, found: Sequence[Mapping[str, np.ndarray]]) -> list[AskRow]:
  """The rows of a family, from the distances of each seed."""
  values, written = [one['prediction'] for one in found], []
  for depth in range(DEPTHS):
    figure = at(np.mean, depth)
    for name, control in CONTROLS.items():
      if depth or name != 'less':  # of a depth less than the first one it is D itself
        written.append(done.row(
          ASK, f'mean absolute difference of actions from the real imitation, depth {depth + 1}', figure, values,
          control, [one[name] for one in found],
        ))
    for name in _NEARER:
      nearer = [(one['prediction'] < one[name]).astype(float) for one in found]
      written.append(done.row(
        ASK, f'share of tasks on which it is nearer than {CONTROLS[name]}, depth {depth + 1}', figure, nearer,
        'as often as not', 0.5,
      ))
  return written


def main() -> None:
  """The families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  if path.exists():
    rows.read(path, AskRow)  # a damaged file is refused before any work
  sizes = {'num_scenes': FLAGS.num_scenes, 'num_steps': FLAGS.pretending_steps, 'split': FLAGS.split}
  for name in families:
    job, folder = Job.of(name, **jobs.given()), pathlib.Path(FLAGS.folder) / name
    distances = [pretend(job, seed, folder / f'seed_{seed}', **sizes) for seed in seeds]
    changed = {flag: FLAGS[flag].value for flag in ('num_scenes', 'pretending_steps') if FLAGS[flag].present}
    found = rows_of(Done(
      job=job, family=make_family(name, job.backend), seeds=seeds,
      command=console.command_for(families=name, seeds=','.join(map(str, seeds)), **jobs.given(), **changed),
    ), distances)
    if FLAGS.split == 'heldout':
      ask_rows.write(path, found)
    ask_rows.show(found)


if __name__ == '__main__':
  console.launch(main)
