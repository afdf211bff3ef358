"""Judges an operator on held-out tasks, beside PPO from scratch and the control with shuffled experience.

Each part is kept in the folder as soon as it is done, so an evaluation that was stopped goes on where it was.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from metaimprove import files, parallel
from metaimprove.errors import NonFiniteSimulationError
from metaimprove.evaluation import metrics
from metaimprove.tasks.splits import SPLITS, sample_tasks
from metaimprove.histories.collect import Report
from metaimprove.trees import take
from metaimprove.improvers import run as runs
from metaimprove.improvers.source import Learning, Source
from metaimprove.iteration import make_iterate
from metaimprove.asks import steps as asks
from metaimprove.operators.operator import Operator
from metaimprove.rollouts import rollout
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import episode_return

TARGET = 0.95
"""The normalised return that environment steps are counted to, or the operator's own best where that is lower."""

_REFERENCE = {
  False: "the task-conditioned source's final policy",
  True: "the better of the task-conditioned source's and PPO's final policies",
}


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
  """How an operator is judged.

  Attributes:
    num_tasks: held-out tasks, and as many far ones.
    num_applications: of the operator, in a row.
    num_episodes: of experience before each.
    ask: for each.
    ppo_tasks: held-out tasks that PPO learns from scratch.
    reference_episodes: by which initial and reference policies are measured.
    thorough: PPO from scratch on every held-out and far task; the best final policy of PPO and of the task-conditioned
      source is then the reference of each.
  """

  num_tasks: int = 128
  num_applications: int = 30
  num_episodes: int = 2
  ask: int = asks.BEST
  ppo_tasks: int = 16
  reference_episodes: int = 8
  thorough: bool = False


def evaluate(
  operator: Operator, operator_params: Any, family: TaskFamily, *, seed: int, folder: files.Path,
  settings: EvaluationSettings, conditioned: Source, conditioned_learning: Learning,
  ppo: Source, report: Report = lambda stage, done, total, figures: None,
) -> dict[str, Any]:
  """Judges an operator.

  Args:
    operator: see `Operator`.
    operator_params: its parameters.
    family: the task family.
    seed: of held-out tasks, initial policies and episodes; that of the histories, whose tasks are drawn apart.
    folder: where the parts are kept.
    settings: see there.
    conditioned: the task-conditioned source, and
    conditioned_learning: its run; its final policy on a held-out task is the reference there.
    ppo: PPO from scratch, a learner a task.
    report: called as the work goes on.

  Returns:
    The figures, as README describes `results.json`, without what other stages know.

  Raises:
    NonFiniteSimulationError: if simulations of more than 1% of the tasks blow up.
  """
  folder = pathlib.Path(folder)
  header = {
    'seed': seed, 'family': family.name, 'backend': family.backend,
    'operator': files.checksum(files.tree_to_bytes(operator_params)),
    'reference': files.checksum(files.tree_to_bytes(take(conditioned_learning.snapshots, -1))),
    'ppo_updates': ppo.num_updates, **dataclasses.asdict(settings),
  }
  files.claim(folder, header)
  base_key = jax.random.fold_in(jax.random.key(seed), 2000)
  keys = dict(zip(('initial', 'measure', 'curve', 'ppo'), jax.random.split(base_key, 4)))
  tasks = {split: sample_tasks(family, seed, settings.num_tasks, split) for split in ('heldout', 'far')}
  initial = jax.vmap(operator.policy.init)(jax.random.split(keys['initial'], settings.num_tasks))
  measure = _make_measure(family, operator.policy, settings.reference_episodes)
  num_ppo = settings.num_tasks if settings.thorough else settings.ppo_tasks

  def kept(name, compute):
    path = folder / f'{name}.safetensors'
    if not path.exists():
      files.save_tree(path, compute())
    return files.load_arrays(path)

  def ppo_curve(split):
    some = take(tasks[split], slice(num_ppo))
    learning = runs.learn(
      ppo, some, jax.random.fold_in(keys['ppo'], SPLITS.index(split)), folder=folder / f'ppo_{split}_learning',
      progress=lambda done, figures: report(f'PPO from scratch ({split})', done, ppo.num_updates, figures),
    )
    final_return, finite = measure(ppo.params_of(take(learning.snapshots, -1), some), some, keys['measure'])
    _check_finite(family, split, finite)
    return {
      'returns': without_gaps(learning.returns), 'final': np.where(finite, final_return, -np.inf),
      'env_steps_per_update': np.asarray(ppo.env_steps_per_update),
    }

  def bounds(split):
    final = conditioned.params_of(take(conditioned_learning.snapshots, -1), tasks[split])
    (initial_return, initial_finite), (reference, reference_finite) = (
      measure(params, tasks[split], keys['measure']) for params in (initial, final)
    )
    finite = initial_finite & reference_finite
    _check_finite(family, split, finite)
    return {'initial': initial_return, 'reference': reference, 'finite': finite}

  def curve(split, shuffle):
    name = f'operator ({split}{", shuffled" if shuffle else ""})'
    result = run(
      operator_params, tasks[split], initial, keys['curve'], settings.ask, shuffle_experience=shuffle,
      progress=lambda done: report(name, done, settings.num_tasks, {}),
    )
    _check_finite(family, split, result.finite)
    return {'returns': result.returns, 'finite': result.finite.all(axis=0)}

  run = make_iterate(
    operator, family, num_applications=settings.num_applications, num_episodes=settings.num_episodes,
    chunk=min(64, settings.num_tasks),
  )
  curves = {
    'heldout': kept('operator_heldout', lambda: curve('heldout', False)),
    'far': kept('operator_far', lambda: curve('far', False)),
    'shuffled': kept('operator_shuffled', lambda: curve('heldout', True)),
  }
  limits = {split: kept(f'bounds_{split}', lambda: bounds(split)) for split in tasks}
  baseline = {'heldout': kept('ppo_heldout', lambda: ppo_curve('heldout'))}
  if settings.thorough:
    baseline['far'] = kept('ppo_far', lambda: ppo_curve('far'))
    for split in tasks:
      limits[split]['reference'] = np.maximum(limits[split]['reference'], baseline[split]['final'])
  return _summarise(family, settings, curves, limits, baseline['heldout'], num_ppo)


def _make_measure(family, policy, num_episodes):
  """(params [B, ...], tasks [B], rng_key) -> [B] mean return of each policy on its task, [B] whether it was finite."""
  @jax.jit
  def measure(params, tasks, rng_key):
    play = functools.partial(rollout, family, policy, num_episodes=num_episodes)
    trajectory = parallel.vmap(play)(params, tasks, jax.random.split(rng_key, tasks.goal.shape[0]))
    return episode_return(trajectory).mean(axis=-1), trajectory.finite.all(axis=-1)

  return measure


def _check_finite(family, split, finite):
  """Raises `NonFiniteSimulationError` if more than one and more than 1% of the tasks, or of the tasks after each
  application, blew up; single ones are left out and counted."""
  finite = np.asarray(finite)
  num_blown_up = int(np.sum(~finite))
  if num_blown_up > max(1, 0.01 * finite.size):
    raise NonFiniteSimulationError(
      f'{num_blown_up} of {finite.size} simulations of {split} tasks of {family.name} ({family.backend}) blew up; '
      'narrow the ranges of its dynamics or take another backend.'
    )


def _summarise(family, settings, curves, limits, ppo, num_ppo):
  """The figures from the parts."""
  scores, scored, left_out = {}, {}, {}
  for name, split in (('heldout', 'heldout'), ('far', 'far'), ('shuffled', 'heldout')):
    # A task on which the reference is no better than where one starts, or that blew up, cannot be scored.
    solved = limits[split]['reference'] > limits[split]['initial']
    scored[name] = usable = solved & limits[split]['finite'] & curves[name]['finite']
    left_out[name] = int((~usable).sum())
    scores[name] = metrics.normalise(
      curves[name]['returns'][:, usable], limits[split]['initial'][usable], limits[split]['reference'][usable]
    )
  usable = scored['heldout'][:num_ppo]
  ppo_scores = metrics.normalise(
    ppo['returns'], limits['heldout']['initial'][:num_ppo], limits['heldout']['reference'][:num_ppo]
  )[:, usable]
  intervals = {name: metrics.iqm_with_interval(value[:, None]) for name, value in scores.items()}
  episodes = [settings.num_episodes * n for n in range(settings.num_applications + 1)]
  env_steps = [family.episode_length * e for e in episodes]
  ppo_env_steps = (ppo['env_steps_per_update'] * np.arange(len(ppo_scores))).tolist()
  operator_iqm = intervals['heldout']['iqm']
  target = min(TARGET, max(operator_iqm))
  ppo_reaches = metrics.first_at_least(metrics.iqm(ppo_scores), target)
  return {
    'ask': asks.name(settings.ask), 'reference': _REFERENCE[settings.thorough],
    'heldout_tasks': scores['heldout'].shape[1],
    'far_tasks': scores['far'].shape[1], 'left_out_tasks': left_out, 'episodes': episodes, 'env_steps': env_steps,
    'normalised_return': intervals['heldout'], 'far': intervals['far'], 'shuffled_experience': intervals['shuffled'],
    'per_task': {'normalised_return': scores['heldout'].round(4).tolist()},
    'mean_return': {
      'initial': float(limits['heldout']['initial'][scored['heldout']].mean()),
      'reference': float(limits['heldout']['reference'][scored['heldout']].mean()),
      'operator': curves['heldout']['returns'][:, scored['heldout']].mean(axis=1).tolist(),
    },
    'ppo': {'tasks': int(usable.sum()), 'env_steps': ppo_env_steps, **metrics.iqm_with_interval(ppo_scores[:, None])},
    'target': target,
    'ppo_env_steps_to_match': None if ppo_reaches is None else ppo_env_steps[ppo_reaches],
    'operator_env_steps_to_match': env_steps[metrics.first_at_least(operator_iqm, target)],
  }
