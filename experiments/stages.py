"""The stages of the main job as functions of plain arguments; the binaries give them their flags."""

import dataclasses
import functools
import importlib.metadata
import pathlib
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments import console
from metaimprove import asks, files
from metaimprove.asks import explore
from metaimprove.errors import IncompatibleError, MetaImproveError
from metaimprove.evaluation import results as results_
from metaimprove.evaluation.bill import histories_env_steps
from metaimprove.evaluation.evaluate import Evaluation, evaluate
from metaimprove.evaluation.exploration import record_exploration, shows_places
from metaimprove.evaluation.report import Panel, Shown, record_improvement
from metaimprove.evaluation.results import Results
from metaimprove.histories.collect import collect
from metaimprove.histories.dataset import Dataset, first_tasks, load_dataset, with_hindsight
from metaimprove.histories.ranked import ranked_histories, ranked_play
from metaimprove.histories.rates import collecting_rates
from metaimprove.histories.reference import final_policies, load_conditioned
from metaimprove.improvers import domain_randomised_ppo, independent_ppo, tuned
from metaimprove.improvers.explorers import learn_explorers
from metaimprove.improvers.noise_ladder import check_ladder
from metaimprove.improvers.run import learn
from metaimprove.methods import controls as controls_
from metaimprove.methods.identify import Identifier
from metaimprove.methods.method import initial_policies
from metaimprove.methods.standard import (
  EvaluationSettings, Playground, control_methods, from_scratch, operator_methods
)
from metaimprove.operators import checkpoints
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import Operator, OperatorConfig, make_operator
from metaimprove.operators.reading import experience_statistics
from metaimprove.policies import Policy
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training import loop, rounds
from metaimprove.training.fit import FitSettings
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import batch_size, take
from metaimprove.types import Params

_ENV_STEPS = 'env_steps.json'
_FILMS = 'films.json'
_FILM_APPLICATIONS = 4
_EXPLORATION_APPLICATIONS, _EXPLORATION_TASKS = 8, 4
_UNKNOWN_RATES = {'env_steps_per_second': None, 'raw_env_steps_per_second': None}


@dataclasses.dataclass(frozen=True)
class Judged:
  """What is known of the operator of one seed.

  Attributes:
    evaluation: of the operator.
    env_steps: environment steps of all that was needed to make it, by stage; None where it is not known.
    identify_reads: what the control `identify` learned from, in words; None if it was not run.
  """

  evaluation: Evaluation
  env_steps: Mapping[str, int | None]
  identify_reads: str | None = None


def collect_histories(
  folder: pathlib.Path, *, family: str, backend: str | None, seed: int, num_tasks: Mapping[str, int],
  num_checkpoints: int, num_episodes: int, shard_size: int, num_updates: int | None, patience: int | None = None,
  worker: int | None = None, num_workers: int | None = None, wall: pathlib.Path | None = None,
) -> dict[str, float | None]:
  """Histories by the sources named in `num_tasks`, each of the first so many tasks; returns `collecting_rates`."""
  made_family = make_family(family, backend)
  sources = [
    (tuned.make_source(name, made_family, num_updates=num_updates, patience=patience), count)
    for name, count in num_tasks.items() if count and name not in tuned.LADDERS
  ]
  with console.stage(wall or folder, 'collect') as progress:
    collect_some = functools.partial(
      collect, folder, made_family, seed=seed, num_checkpoints=num_checkpoints, num_episodes=num_episodes,
      shard_size=shard_size, progress=progress, worker=worker, num_workers=num_workers,
    )
    # Ladders lead up to the final policies of the task-conditioned source, which are known by then.
    ladders = [(name, count) for name, count in num_tasks.items() if count and name in tuned.LADDERS]
    if sources or not ladders:
      collect_some(sources)
    if ladders:
      base = final_policies(folder, made_family, seed)
      sources = [(tuned.make_source(name, made_family, base=base), count) for name, count in ladders]
      for source, count in sources:
        some = sample_tasks(made_family, seed, min(max(2, count), tuned.LADDER_CHECK_TASKS), 'train')
        check_ladder(learn(source, some, stream(seed, 'check_ladder')))
      collect_some(sources)
  return _read(_UNKNOWN_RATES, collecting_rates, folder)


def train_operator(
  folder: pathlib.Path, histories: pathlib.Path, *, family: str, backend: str | None, seed: int,
  config: Mapping[str, Any], settings: Mapping[str, Any], explores: bool = True, num_updates: int | None = None,
  num_tasks: int | None = None, verify: bool = True, operator_folder: pathlib.Path | None = None,
  explorers_folder: pathlib.Path | None = None, rewards: Params | None = None, wall: pathlib.Path | None = None,
  label: Callable[[Dataset, TaskFamily], Dataset] = with_hindsight,
) -> pathlib.Path:
  """Trains an operator on a folder of histories, and returns the operator's folder.

  Args:
    folder: of the training.
    histories: what it learns from.
    family, backend: of the histories.
    seed: of initialisation, examples and play.
    config: fields of `OperatorConfig` other than those that suit the family, `num_episodes` among them.
    settings: the same of `TrainingSettings`.
    explores: whether explorers are learned first, where rewards are sparse.
    num_updates: of each explorer, other than usual.
    num_tasks: it learns from the histories of the first so many tasks alone, and plays its rounds there; all unless
      given.
    verify: whether to compare the histories with their checksums first.
    operator_folder: `folder`/operator unless given.
    explorers_folder: `folder`/explorers unless given; several trainings on the same histories may share it.
    rewards: [H, ...] learned rewards of each history, see `histories.ranking`, instead of the family's. They are dense,
      so nothing is learned of exploring.
    wall: where seconds are kept; `folder` unless given.
    label: says what the levels achieved, where the operator can be asked for it.
  """
  operator_folder = operator_folder or folder / 'operator'
  made_family = make_family(family, backend)
  if rewards is not None:
    made_family = dataclasses.replace(made_family, practice_reward=None)
  dataset = load_dataset(histories, made_family, verify=verify)
  if dataset.num_left_out:
    print(f'{dataset.num_left_out} histories are left out: simulations in them were not finite.')
  dataset = dataset if num_tasks is None else first_tasks(dataset, num_tasks)
  operator = make_operator(OperatorConfig.of(
    made_family, **{'hidden_sizes': tuple(dataset.header['hidden_sizes']), **config}
  ))
  if {*operator.config.asks} & {*asks.say_all()}:
    dataset = label(dataset, made_family)
  training = TrainingSettings.of(
    made_family, len(np.unique(dataset.task_index)), asks=operator.config.asks, **settings
  )
  play = make_play(made_family, operator.policy, num_episodes=operator.config.num_episodes)
  if rewards is not None:
    dataset, play = ranked_histories(dataset, rewards), ranked_play(play)
  explorers, explorers_env_steps = None, 0
  if explores and made_family.practice_reward is not None:
    explorers, explorers_env_steps = _explorers(
      explorers_folder or folder / 'explorers', histories, made_family, operator.policy, seed,
      num_updates or tuned.EXPLORER_UPDATES, wall or folder,
    )
  train = functools.partial(
    loop.train, operator, play, dataset, training, seed=seed, folder=folder, explorers=explorers
  )
  if jax.process_index() > 0:  # the first process reports and writes
    train()
    return operator_folder
  board = console.TensorBoard(folder / 'tensorboard')
  with console.stage(wall or folder, 'train') as progress:
    operator_params = train(log=board, progress=progress)
    board.close()
    files.write_json(folder / _ENV_STEPS, {**loop.env_steps(operator, training), 'explorers': explorers_env_steps})
    checkpoints.save_operator(operator_folder, operator, operator_params)
  return operator_folder


def train_once(
  folder: pathlib.Path, histories: pathlib.Path, *, operator_folder: pathlib.Path | None = None, **how: Any
) -> pathlib.Path:
  """`train_operator`, unless the operator was saved before: the states of a finished training may be deleted, so it
  would begin anew. Returns the operator's folder."""
  operator_folder = operator_folder or folder / 'operator'
  if checkpoints.is_saved(operator_folder):
    return operator_folder
  return train_operator(folder, histories, operator_folder=operator_folder, **how)


def _explorers(
  folder: pathlib.Path, histories: pathlib.Path, family: TaskFamily, policy: Policy, seed: int, num_updates: int,
  wall: pathlib.Path,
) -> tuple[Any, int]:
  """θ of the explorers [X, ...] of a sparse family, which the first process learns, and their environment steps."""
  path = folder / 'explorers.safetensors'
  if not path.exists() and jax.process_index() == 0:
    with console.stage(wall, 'explorers') as progress:
      _, learning, _ = load_conditioned(histories, family)
      found = learn_explorers(
        family, learning.snapshots[-1], tuned.explorer_settings(family), num_updates,
        num_explorers=tuned.EXPLORERS, seed=seed, folder=folder, hidden_sizes=policy.hidden_sizes, progress=progress,
      )
      files.save_tree(path, {'params': found.params, 'found': found.found, 'env_steps': np.array(found.env_steps)})
  rounds.wait_for(path)
  like = jax.tree.map(lambda _: None, jax.eval_shape(policy.init, jax.random.key(0)))
  stored = files.load_tree(path, {'params': like, 'found': None, 'env_steps': None})
  print(f'explorers find, one after the other: {", ".join(f"{share:.0%}" for share in stored["found"])} of the tasks')
  return stored['params'], int(stored['env_steps'])


def judge_operator(
  folder: pathlib.Path, operator_folder: files.Path, histories: pathlib.Path, *, family: TaskFamily,
  settings: EvaluationSettings, controls: bool = True, num_updates: int | None = None,
  training: pathlib.Path | None = None, wall: pathlib.Path | None = None,
) -> Judged:
  """Judges an operator on tasks its histories do not hold, beside PPO from scratch and controls.

  Args:
    folder: of the evaluation.
    operator_folder: of the operator, or the name of one that comes with the package.
    histories: they hold the reference policies.
    family: the task family.
    settings: see there.
    controls: whether to train and judge the controls as well.
    num_updates: of PPO from scratch and of the control that learns one policy, other than tuned.
    training: of the operator; its rounds are examples for a control, and its environment steps are counted.
    wall: where seconds are kept; `folder` unless given.
  """
  operator, operator_params = checkpoints.load_operator(operator_folder, family)
  conditioned, learning, _ = load_conditioned(histories, family)
  snapshot = learning.snapshots[-1]
  dataset = load_dataset(histories, family, verify=False)
  seed, hidden_sizes = dataset.header['sources'][0]['seed'], tuple(dataset.header['hidden_sizes'])
  num_episodes = operator.config.num_episodes
  playground = Playground(
    play=make_play(family, operator.policy, num_episodes=num_episodes), num_episodes=num_episodes, settings=settings
  )
  learners = folder / 'learning'
  reference = controls_.told_everything(conditioned, snapshot, *playground.measure())
  ppo = from_scratch(
    tuned.make_source(independent_ppo.NAME, family, hidden_sizes, num_updates=num_updates), playground, learners
  )
  methods = [*operator_methods(operator, operator_params, playground), ppo]
  judge = functools.partial(
    evaluate, family=family, seed=seed, num_tasks=settings.num_tasks, folder=folder,
    initial=controls_.random_policies(operator.policy, *playground.measure()),
    references=[reference, ppo] if settings.thorough else [reference],
  )
  bill = {**histories_env_steps(histories, family), **_training_env_steps(training)}
  identifier = None
  with console.stage(wall or folder, 'evaluate') as progress:
    evaluation = judge(methods, progress=progress)
  if controls:
    randomised = tuned.make_source(domain_randomised_ppo.NAME, family, hidden_sizes, num_updates=num_updates)
    bill['controls'] = randomised.num_updates * randomised.env_steps_per_update
    identifier = make_identifier(
      family, operator, operator_params, snapshot, dataset, training, seed=seed, folder=learners / 'identify'
    )
    methods += control_methods(
      conditioned, snapshot, randomised, identifier, playground, folder=learners, seed=seed
    )
    with console.stage(wall or folder, 'controls') as progress:
      evaluation = judge(methods, progress=progress)
  reads = None if identifier is None else 'histories' if training is None else 'histories and rounds'
  return Judged(evaluation=evaluation, env_steps=bill, identify_reads=reads)


def judge_family(
  folder: pathlib.Path, histories: pathlib.Path, *, family: TaskFamily, settings: EvaluationSettings,
  num_updates: int | None = None, training: Mapping[str, Any],
) -> Evaluation:
  """Judges the controls that tell what a family asks for, on held-out tasks, without an operator.

  Args:
    folder: of the evaluation.
    histories: they hold the reference policies, and what the control `identify_once` learns from.
    family: the task family.
    settings: see there.
    num_updates: of the control that learns one policy, other than tuned.
    training: fields of `FitSettings`, of the control that identifies the task.
  """
  conditioned, learning, _ = load_conditioned(histories, family)
  snapshot, dataset = learning.snapshots[-1], load_dataset(histories, family, verify=False)
  seed, hidden_sizes = dataset.header['sources'][0]['seed'], tuple(dataset.header['hidden_sizes'])
  # Not trained: the control only reads as an operator does.
  operator = make_operator(OperatorConfig.of(family, num_episodes=1, hidden_sizes=hidden_sizes))
  statistics = experience_statistics(loop.some_experience(dataset, seed))
  num_episodes = settings.reference_episodes
  playground = Playground(
    play=make_play(family, operator.policy, num_episodes=num_episodes), num_episodes=num_episodes, settings=settings
  )
  identifier = make_identifier(
    family, operator, {'statistics': statistics}, snapshot, dataset, None, seed=seed, given=training,
    folder=folder / 'learning' / 'identify',
  )
  randomised = tuned.make_source(domain_randomised_ppo.NAME, family, hidden_sizes, num_updates=num_updates)
  methods = control_methods(
    conditioned, snapshot, randomised, identifier, playground, folder=folder / 'learning', seed=seed
  )
  with console.stage(folder, 'controls') as progress:
    return evaluate(
      [method for method in methods if method.name in results_.NEED_CONTROLS.values()], family, seed=seed,
      num_tasks=settings.num_tasks, folder=folder, splits=('heldout',), progress=progress,
      initial=controls_.random_policies(operator.policy, *playground.measure()),
      references=[controls_.told_everything(conditioned, snapshot, *playground.measure())],
    )


def make_identifier(
  family: TaskFamily, operator: Operator, operator_params: Any, snapshot: Any, dataset: Dataset,
  training: pathlib.Path | None, *, seed: int, folder: pathlib.Path, given: Mapping[str, Any] | None = None,
) -> Identifier | None:
  """The control that identifies the task, trained as long as the operator was, or as `given` where there is none; None
  where there is nothing to tell."""
  if not family.privileged_size:
    return None
  made_with = {'histories': dataset.checksum, 'rounds': None}
  settings, rewired_share = FitSettings(**(given or {})), TrainingSettings.of(family, 2).rewired_share
  if training is not None:
    stored = files.read_json(training / 'settings.json')
    made_with['rounds'] = files.checksum((training / 'settings.json').read_bytes())
    names = [field.name for field in dataclasses.fields(FitSettings)]
    settings, rewired_share = FitSettings(**{name: stored[name] for name in names}), stored.get('rewired_share', 0.0)

  def load_rounds():
    found = [] if training is None else rounds.load(training, dataset)
    if training is not None and not found:
      raise IncompatibleError(
        f'{training} no longer holds the runs of its rounds, which a control learns from; train again, or '
        'evaluate with --nocontrols.'
      )
    return found

  return Identifier(
    family=family, operator=operator, statistics=operator_params['statistics'], snapshot=snapshot, dataset=dataset,
    load_rounds=load_rounds, settings=settings, rewired_share=rewired_share, made_with=made_with, seed=seed,
    folder=folder,
  )


def _training_env_steps(training: pathlib.Path | None) -> dict[str, int | None]:
  """By stage; None where it is not known."""
  path = None if training is None else training / _ENV_STEPS
  known = _read({}, files.read_json, path) if path is not None and path.exists() else {}
  return {name: known.get(name) for name in ('explorers', 'rounds', 'validation_figures')}


def write_results(
  output: pathlib.Path, judged: Sequence[Judged], *, family: TaskFamily, histories: pathlib.Path | None,
  settings: EvaluationSettings, wall: pathlib.Path,
) -> Results:
  """Writes results.json to the folder `output`: figures are there whatever becomes of pages, and of what they do not
  depend on.

  Args:
    output: a folder.
    judged: of `judge_operator`, for each seed.
    family: the task family.
    histories: of the first seed; None where the operator did not learn from any that are known.
    settings: of the evaluation.
    wall: where seconds are kept.

  Raises:
    NoScoreError: if there is nothing to show.
  """
  seconds = _read({}, console.read_seconds, wall)
  train_tasks, rates = None, _UNKNOWN_RATES
  if histories is not None:
    _, _, train_tasks = _read((None, None, None), load_conditioned, histories, family)
    rates = _read(_UNKNOWN_RATES, collecting_rates, histories)
  results = results_.summarise(
    [one.evaluation for one in judged], training_env_steps=judged[0].env_steps, ask=settings.steps,
    train_tasks=train_tasks, collect=rates,
    identify_reads=judged[0].identify_reads, training_wall_seconds=_read({}, console.read_training_seconds, wall),
    wall_seconds={**seconds, 'total': round(sum(seconds.values()), 1)}, versions=versions(),
  )
  results_.write(output / 'results.json', results)
  results.check_scored()
  return results


def show_operator(
  output: pathlib.Path, operator_folder: files.Path, results: Results, *, family: TaskFamily,
  settings: EvaluationSettings,
) -> Panel:
  """What a report tells of an operator; its films are recorded once, and kept in the folder `output`."""
  path, task = output / _FILMS, take(sample_tasks(family, results.seed, 1, 'heldout'), 0)
  if not path.exists():
    operator, operator_params = checkpoints.load_operator(operator_folder, family)
    rng_key = stream(results.seed, 'film')
    films = record_improvement(
      family, operator, operator_params, task, take(initial_policies(operator.policy, 1, rng_key), 0), rng_key,
      num_applications=min(_FILM_APPLICATIONS, settings.num_applications),
      num_episodes=settings.num_episodes, ask=asks.ask(steps=settings.steps),
      explores=explore.NAME in operator.config.asks,
    )
    exploration = _explore(family, operator, operator_params, results.seed, settings) if results.sparse else []
    files.write_json(path, {'films': films, 'exploration': exploration})
  return Panel(family=family, results=results, shown=Shown(description=family.describe(task), **files.read_json(path)))


def _explore(
  family: TaskFamily, operator: Operator, operator_params: Any, seed: int, settings: EvaluationSettings
) -> list[dict[str, Any]]:
  """The first held-out tasks from above; nothing where goals are not places."""
  tasks = sample_tasks(family, seed, min(_EXPLORATION_TASKS, settings.num_tasks), 'heldout')
  if not shows_places(family, take(tasks, 0)):
    return []
  rng_key = stream(seed, 'exploration')
  return record_exploration(
    family,
    make_improve(
      operator, operator_params, asks.ask(steps=settings.steps), explores=explore.NAME in operator.config.asks
    ),
    make_remember(operator),
    make_play(family, operator.policy, num_episodes=settings.num_episodes),
    initial_policies(operator.policy, batch_size(tasks), rng_key), tasks, rng_key,
    num_applications=min(_EXPLORATION_APPLICATIONS, settings.num_applications),
  )


def _read(unknown: Any, read: Callable[..., Any], *arguments: Any) -> Any:
  """What `read` gives, or `unknown` and a line that says why not: figures do not wait for what they can do without."""
  try:
    return read(*arguments)
  except MetaImproveError as error:
    print(f'not known: {error}')
    return unknown


def tidy(training: pathlib.Path, evaluation: pathlib.Path) -> None:
  """Deletes what is not read again once results are written: states and rounds of a finished training, and the
  learning of the many PPO learners, whose curves are kept. What controls have learned stays: it may act elsewhere."""
  for pattern in ('training_state_*.safetensors', 'runs_*.safetensors'):
    for path in training.glob(pattern):
      path.unlink()
  for path in (evaluation / 'learning').glob('ppo_*'):
    shutil.rmtree(path, ignore_errors=True)


def versions() -> dict[str, str]:
  """Of Python and the packages that results depend on."""
  packages = ('metaimprove', 'jax', 'jaxlib', 'dm-haiku', 'optax', 'brax', 'mujoco', 'mujoco-mjx', 'numpy')
  return {'python': platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
