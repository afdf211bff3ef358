"""Methods of the field beside the operator: the same histories, tasks, size and budget, on held-out and far tasks.

  python -m experiments.compare --families=point_goal_sparse_h20 --seeds=0,1,2

does the main job on each family, which trains and judges the operator, PPO and the controls, then trains each baseline
on the operator's histories and judges it on the same tasks. `--methods` chooses among baselines; those judged before
stay. Under the budget 'examples' a baseline is told as often as the operator what is right in a state; under 'time' it
learns for as many seconds. Its learning rate is chosen by short trials on validation tasks, which also tell how long a
step takes. RL² and the evolution strategy do not learn from histories. They have settings of their own, of which
`--num_updates` is one. The evolution strategy and cloning of the experience learn nothing before they see a task.

Writes a row a family and budget to `--json`, to which a baseline is added as soon as it is judged, a page beside it,
and TensorBoard events to the folder. Can be stopped at any moment; run again, it goes on where it was.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from absl import flags

from experiments import console, jobs
from experiments.acting_cost import acting_costs
from experiments.compared import BASELINES, Setting, chosen_rate, steps_in_our_time
from experiments.jobs import Job
from experiments.tabulate_results import comparison_tables
from metaimprove import asks, files, parallel
from metaimprove.asks.ask import batched
from metaimprove.errors import UnknownNameError
from metaimprove.evaluation import rows
from metaimprove.evaluation.comparison import OURS, Cost, comparison_row
from metaimprove.evaluation.comparison_page import write_comparison
from metaimprove.evaluation.evaluate import Evaluation, evaluate
from metaimprove.evaluation.rows import ComparisonRow
from metaimprove.methods.baseline import Baseline, count_params
from metaimprove.methods.method import initial_policies
from metaimprove.operators.apply import make_remember
from metaimprove.rng import stream
from metaimprove.tasks.splits import sample_tasks
from metaimprove.types import Params

FLAGS = flags.FLAGS
BUDGETS = ('examples', 'time')
_OF_JOB = {
  OURS: 'operator', 'ppo': 'PPO from scratch', 'identify': 'identify the task',
  'told_goal': 'told the goal, not the dynamics', 'no_experience': 'one policy for all tasks',
  'shuffled_experience': "operator, another task's experience", 'operator_sampled': 'operator, answers drawn at random',
  'operator_no_explore': 'operator, not asked to explore',
}
"""What the main job judges -> its title."""
_LEARNING = ('explorers', 'rounds', 'gradient_steps')
"""Parts of the operator's training, in seconds, after its histories are there."""

if __name__ == '__main__':
  jobs.define_row_flags('runs/compare', 'docs/results/comparison.json')
  flags.adopt_module_key_flags(jobs)
  flags.DEFINE_list('methods', list(BASELINES), 'Baselines.')
  flags.DEFINE_multi_enum('budgets', list(BUDGETS), BUDGETS, 'What baselines have in common with the operator.')


@dataclasses.dataclass(frozen=True)
class Ready:
  """A main job of one seed that is done.

  Attributes:
    setting: of its baselines.
    judged: what it has judged.
    seconds: that the operator has learned for, by part of its training.
  """

  setting: Setting
  judged: Evaluation
  seconds: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Compared:
  """What is known of one seed: an evaluation of all methods, their titles, and what each costs."""

  evaluation: Evaluation
  titles: Mapping[str, str]
  costs: Mapping[str, Cost]


def main_job(job: Job, seeds: Sequence[int], folder: pathlib.Path) -> list[Ready]:
  """Does the main job; one that is done is only read."""
  jobs.run(job, seeds, folder)
  seconds = console.read_training_seconds(folder)
  ours = {part: seconds[part] / len(seeds) for part in _LEARNING if part in seconds}
  return [
    Ready(
      setting=Setting.of(job, seed, parts, parts.evaluation.parent / 'compared'), seconds=ours,
      judged=jobs.run_seed(job, seed, parts, folder).evaluation,
    ) for seed, parts in zip(seeds, jobs.seed_folders(folder, seeds))
  ]


def compare_seed(ready: Ready, name: str, budget: str) -> Compared:
  """Trains a baseline under one of `BUDGETS` and judges it beside the operator."""
  setting, judged, seconds = ready.setting, ready.judged, sum(ready.seconds.values())
  folder = setting.folder / budget
  rate, num_steps = chosen_rate(setting, name), setting.training.num_steps
  # What has settings of its own learns once for all budgets.
  place = setting.folder / 'own' if rate is None else folder
  if rate is not None and budget == 'time':
    num_steps = steps_in_our_time(setting, name, ready.seconds['gradient_steps'] / seconds)
  baseline = BASELINES[name](setting.lessons(place, num_steps=num_steps, rate=rate), setting)
  with console.stage(place, f'train {name}') as progress:
    params = baseline.train(progress)
  with console.stage(folder, f'judge {name}') as progress:
    found = evaluate(
      [baseline.method], setting.family, initial=setting.initial, references=setting.references, seed=setting.seed,
      num_tasks=setting.job.heldout_tasks, folder=folder / 'evaluation', progress=progress,
    )
  costs = {OURS: _cost_of_ours(setting, seconds)}
  if num_params := count_params(params):
    costs[name] = Cost(
      params=num_params, training_seconds=console.read_seconds(place)[f'train {name}'],
      training_env_steps=baseline.env_steps, examples=None if rate is None else num_steps * baseline.examples_a_step,
    )
  curves = {split: {**of, **found.curves[split]} for split, of in judged.curves.items()}
  titles = {known: title for known, title in _OF_JOB.items() if known in judged.curves['heldout']}
  return Compared(
    evaluation=dataclasses.replace(judged, curves=curves), titles={**titles, name: baseline.method.title},
    costs=_with_acting(setting, name, baseline, params, costs),
  )


def _cost_of_ours(setting: Setting, seconds: float) -> Cost:
  training = setting.training
  env_steps = files.read_json(setting.folder.parent / 'training' / 'env_steps.json')
  return Cost(
    params=count_params(setting.operator_params['network']), training_seconds=round(seconds, 1),
    examples=training.num_steps * training.batch_size * training.num_states,
    training_env_steps=env_steps['rounds'] + env_steps['explorers'],
  )


def _with_acting(
  setting: Setting, name: str, baseline: Baseline, params: Params, costs: Mapping[str, Cost]
) -> dict[str, Cost]:
  """The costs of what learns, with those of acting."""
  operator, num = setting.operator, setting.job.heldout_tasks
  tasks, policies = sample_tasks(setting.family, setting.seed, num, 'validation'), initial_policies(
    operator.policy, num, stream(setting.seed, 'acting')
  )
  trajectory = setting.playground.play(policies, tasks, stream(setting.seed, 'acted'))
  observation = jax.device_get(trajectory.observation[:, 0, 0])
  memory = make_remember(operator)(None, policies, trajectory)
  ask = batched(jax.tree.map(jnp.asarray, asks.ask(steps='best')), num)

  def act(policies, seen):
    keys = jax.random.split(jax.random.key(0), num)
    return jax.vmap(operator.policy.sample)(policies, seen, keys)

  def improve(policies, memory):
    return parallel.vmap(operator.improve, in_axes=(None, 0, 0, 0))(setting.operator_params, policies, memory, ask)

  steps = {'act': (act, (policies, observation)), (OURS, 'between'): (improve, (policies, memory))}
  acting = baseline.acting
  if acting is not None:
    remembered = jax.jit(acting.begin, static_argnums=1)(params, num)
    steps[name, 'act'] = acting.step, (params, remembered, observation)
    if acting.between is not None:
      steps[name, 'between'] = acting.between, (params, remembered)
  found, ends = acting_costs(steps, 'act'), ('act_ms', 'act_ratio', 'act_kib')
  return {
    known: dataclasses.replace(
      cost, **{end: getattr(found.get((known, 'act'), found['act']), end) for end in ends},
      between_ms=found[known, 'between'].act_ms if (known, 'between') in found else None,
    ) for known, cost in costs.items()
  }


def joined(row: ComparisonRow, path: pathlib.Path) -> ComparisonRow:
  """A row with the methods of the one that it replaces that were not judged again, if that is of the same operator."""
  known = rows.read(path, ComparisonRow) if path.exists() else []
  before = next((one for one in known if one.key == row.key), None)
  curves = ('tasks', 'iqm', 'low', 'high', 'mean', 'far')
  if before is None or before.seeds != row.seeds or before.need != row.need or any(
    before.methods[OURS][name] != row.methods[OURS][name] for name in curves
  ):
    return row
  return dataclasses.replace(
    row, methods={**before.methods, **row.methods}, commands=list(dict.fromkeys((*before.commands, *row.commands))),
  )


def log(row: ComparisonRow, folder: pathlib.Path) -> None:
  """The curves of a row to TensorBoard, a run a method, with episodes as steps."""
  for name, method in row.methods.items():
    board = console.TensorBoard(folder / 'tensorboard' / row.budget / name)
    for point, episodes in enumerate(method['episodes']):
      board(episodes, {f'score/{end}': method[end][point] for end in ('iqm', 'mean') if method[end][point] is not None})
    board.close()


def compare(ready: Sequence[Ready], name: str, budget: str, command: str) -> ComparisonRow:
  """The row of a family under a budget with one baseline."""
  found = [compare_seed(one, name, budget) for one in ready]
  return comparison_row(
    [one.evaluation for one in found], found[0].titles, found[0].costs, budget=budget,
    source=' and '.join(ready[0].setting.dataset.source_names), commands=[command],
  )


def main() -> None:
  """Compares on the families one after the other."""
  (families, seeds), path = jobs.families_and_seeds(), pathlib.Path(FLAGS.json)
  for name in FLAGS.methods:
    if name not in BASELINES:
      raise UnknownNameError(f'Baseline {name!r} is unknown; choose among: {", ".join(BASELINES)}.')
  if path.exists():
    rows.read(path, ComparisonRow)  # a damaged file is refused before any work
  given = {**({'methods': ','.join(FLAGS.methods)} if FLAGS['methods'].present else {}), **jobs.given()}
  for family in families:
    job, folder = Job.of(family, **jobs.given()), pathlib.Path(FLAGS.folder) / family
    ready = main_job(job, seeds, folder)
    for budget in FLAGS.budgets:
      command = console.command_for(families=family, seeds=','.join(map(str, seeds)), budgets=budget, **given)
      for name in FLAGS.methods:
        row = joined(compare(ready, name, budget, command), path)
        rows.add(path, row)
        write_comparison(path.with_suffix('.html'), rows.read(path, ComparisonRow))
      log(row, folder)
      print('\n'.join(['', *comparison_tables([row])]))
  print(f'Rows: {path}\nPage: {path.with_suffix(".html")}')


if __name__ == '__main__':
  console.launch(main)
