"""Operators in another simulator, Gymnasium's C MuJoCo, beside controls: how much is lost on the way."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from experiments import stages
from metaimprove.adapters.gymnasium import ImprovingAgent
from metaimprove.adapters.mujoco import BRIDGES
from metaimprove.adapters.numpy_policy import NumpyPolicy
from metaimprove.errors import IncompatibleError, NoScoreError
from metaimprove.evaluation import metrics
from metaimprove.histories.dataset import load_dataset
from metaimprove.histories.reference import load_conditioned
from metaimprove.improvers import domain_randomised_ppo, tuned
from metaimprove.improvers import run as runs
from metaimprove.methods.method import initial_policies
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.operator import Operator
from metaimprove.rng import stream
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.robots import dynamics
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.types import Params, Task, silent

IMPERFECT = {'action_delay': 0.5, 'action_noise': 0.1}
SPLITS = (('stock', 'heldout'), ('inside', 'heldout'), ('outside', 'far'), ('late_and_noisy', 'heldout'))
"""(what is written, which tasks)."""
_MEASURED_EPISODES = 4
_REACHED, _SMOOTHED = 0.95, 20

PolicyOf = Callable[[Task], Params]
"""Tasks [N] -> parameters [N, ...]."""


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run of `benchmark_operators` or of the quickstart has left.

  Attributes:
    family: the task family.
    seed: of the run; its held-out tasks are those of this seed.
    operator: as `load_operator` gives it.
    improvers: name -> what improves: the operator, and the control that identifies the task in its place.
    fixed: name -> policies that do not improve; `reference` is told everything.
  """

  family: TaskFamily
  seed: int
  operator: tuple[Operator, Params]
  improvers: Mapping[str, tuple[Operator, Params]]
  fixed: Mapping[str, PolicyOf]


def env_name(folder: pathlib.Path) -> str:
  """The Gymnasium environment that stands for the robot of a run; raises `IncompatibleError` where there is none."""
  config = load_operator(folder / 'operator')[0].config
  family = config.family
  if family not in BRIDGES:
    raise IncompatibleError(f'{folder} is of {family}, which has no robot in MuJoCo; there are: {", ".join(BRIDGES)}.')
  simulator = BRIDGES[family].simulator
  if config.backend not in simulator.backends:
    raise IncompatibleError(
      f'{folder} is of {family} on {config.backend}, where the robot is not that of {simulator.env_name}; run it with '
      f'--backend={simulator.backends[0]}.'
    )
  return simulator.env_name


def load_run(folder: pathlib.Path) -> Run:
  """Reads a run, with those controls that have learned in it."""
  operator = load_operator(folder / 'operator')
  family = make_family(operator[0].config.family, operator[0].config.backend)
  dataset = load_dataset(folder / 'histories', family, verify=False)
  seed, hidden_sizes = dataset.header['sources'][0]['seed'], tuple(dataset.header['hidden_sizes'])
  source, learning, _ = load_conditioned(folder / 'histories', family)
  snapshot, learners = learning.snapshots[-1], folder / 'evaluation' / 'learning'
  improvers, fixed = {'operator': operator}, {
    'reference': lambda tasks: source.params_of(snapshot, tasks),
    'told_goal': lambda tasks: source.params_of(snapshot, tasks.replace(dynamics=dynamics.stock(tasks.dynamics))),
  }
  if (learners / 'identify').exists():
    identifier = stages.make_identifier(
      family, *operator, snapshot, dataset, folder / 'training', seed=seed, folder=learners / 'identify'
    )
    identify = dataclasses.replace(
      operator[0],
      improve_behaviour=lambda params, memory, ask, rng_key=None: identifier.policy_for(params, snapshot, memory),
    )
    improvers['identify'] = identify, identifier.train(silent)
  # Both sources that serve all tasks learn equally long.
  randomised = tuned.make_source(domain_randomised_ppo.NAME, family, hidden_sizes, num_updates=source.num_updates)
  if runs.is_learned(randomised, learners / 'no_experience'):
    robust = runs.learn(
      randomised, sample_tasks(family, seed, 1, 'heldout'), stream(seed, 'no_experience'),
      folder=learners / 'no_experience',
    )
    fixed['no_experience'] = lambda tasks: randomised.params_of(robust.snapshots[-1], tasks)
  for name in {'identify', 'no_experience'} - {*improvers, *fixed}:
    print(f'{folder} has not kept what its control {name} has learned; it is left out.')
  return Run(family=family, seed=seed, operator=operator, improvers=improvers, fixed=fixed)


def transfer(run: Run, num_tasks: int, num_applications: int) -> list[dict[str, Any]]:
  """A row for each kind of dynamics. 0 is the random policy that is improved, 1 the source's final policy in that same
  simulator, told goal and dynamics but for delay and noise."""
  rows, env_of = [], BRIDGES[run.family.name].simulator
  for split, kind in SPLITS:
    tasks = sample_tasks(run.family, run.seed, num_tasks, kind)
    if split == 'stock':
      tasks = tasks.replace(dynamics=dynamics.stock(tasks.dynamics))
    env = _make(run.family, tasks, IMPERFECT if split == 'late_and_noisy' else {})
    improved = {
      name: ImprovingAgent(improver, env, seed=run.seed).run(num_applications).mean(axis=2).T
      for name, improver in run.improvers.items()
    }
    stays = {name: _returns_of(env, jax.device_get(policies(tasks)), run.seed) for name, policies in run.fixed.items()}
    initial, reference = improved['operator'][0], stays.pop('reference')
    kept = reference > initial  # the tasks that have a score
    if not kept.any():
      raise NoScoreError(f'In {env_of.env_name} the reference is on no task better than a random policy.')
    scores = {
      name: metrics.normalise(returns[:, kept], initial[kept], reference[kept])
      for name, returns in {**improved, **{name: returns[None] for name, returns in stays.items()}}.items()
    }
    figures = {name: _figures(found) for name, found in scores.items()}
    episodes = np.arange(num_applications + 1) * run.operator[0].config.num_episodes
    rows.append({
      'env': env_of.env_name, 'backend': run.family.backend, 'split': split, 'tasks': int(kept.sum()),
      'episodes': episodes.tolist(), **figures.pop('operator'), 'reference': round(float(reference.mean()), 2),
      'initial': round(float(initial.mean()), 2), 'controls': figures,
    })
    curve = ', '.join(f'{value:.3f}' for value in rows[-1]['iqm'])
    others = ', '.join(f'{name} {found["iqm"][-1]:.3f}' for name, found in figures.items())
    print(f'{rows[-1]["env"]}, {split}: IQM {curve}; {others}')
  return rows


def _make(family: TaskFamily, tasks: Task, imperfections: Mapping[str, float]) -> SyncVectorEnv:
  """The environments of tasks [N], with imperfections that the family's own dynamics do not have."""
  late = make_family(family.name, family.backend, dynamics=[*family.ranges, *imperfections])
  env = BRIDGES[family.name]
  return SyncVectorEnv(
    [functools.partial(env, late, take(tasks, n), imperfections) for n in range(len(tasks.goal))],
    autoreset_mode=AutoresetMode.SAME_STEP,
  )


def _returns_of(env: SyncVectorEnv, params: Params, seed: int) -> np.ndarray:
  """[N] mean returns of policies [N, ...], each in its environment."""
  policies = [NumpyPolicy.of(take(params, n)) for n in range(env.num_envs)]
  rng, total, ended = np.random.default_rng(seed), np.zeros(env.num_envs), np.zeros(env.num_envs, int)
  observations, _ = env.reset(seed=seed + 10_000)
  while (ended < _MEASURED_EPISODES).any():
    actions = np.stack([policy(observation, rng) for policy, observation in zip(policies, observations)])
    observations, rewards, terminated, truncated, _ = env.step(actions)
    total += rewards * (ended < _MEASURED_EPISODES)
    ended += terminated | truncated
  return total / _MEASURED_EPISODES


def _figures(scores: np.ndarray) -> dict[str, Sequence[float]]:
  """Of scores [P, N]."""
  found = {**metrics.iqm_with_interval([scores]), 'mean': scores.mean(axis=1)}
  return {name: [round(float(value), 4) for value in values] for name, values in found.items()}


def learn_from_scratch(run: Run, num_tasks: int, num_steps: int) -> dict[str, Any]:
  """Stable-Baselines3's PPO, with its own default settings, on the first held-out tasks in MuJoCo, each by itself.

  Raises:
    IncompatibleError: if Stable-Baselines3 is not there. It is in none of our extras, because it brings PyTorch along.
  """
  try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.monitor import Monitor
  except ImportError:
    raise IncompatibleError('This needs Stable-Baselines3: pip install stable-baselines3') from None
  tasks = sample_tasks(run.family, run.seed, num_tasks, 'heldout')
  env = _make(run.family, tasks, {})
  policies = initial_policies(run.operator[0].policy, num_tasks, stream(run.seed, 'scratch'))
  initial = _returns_of(env, jax.device_get(policies), run.seed)
  reference = _returns_of(env, jax.device_get(run.fixed['reference'](tasks)), run.seed)
  curves = []
  for n in range(num_tasks):
    alone = Monitor(BRIDGES[run.family.name](run.family, take(tasks, n)))
    learned = PPO('MlpPolicy', alone, seed=run.seed + n, device='cpu').learn(num_steps)
    curves.append(metrics.normalise(_smooth(alone.get_episode_rewards()), initial[n], reference[n]))
    print(f'{run.family.name} in MuJoCo, task {n}: PPO from scratch {curves[-1][-1]:.3f}')
  reached = [_SMOOTHED + np.flatnonzero(curve >= _REACHED) for curve in curves]
  return {
    'env': BRIDGES[run.family.name].simulator.env_name, 'tasks': num_tasks, 'env_steps': learned.num_timesteps,
    'score': [round(float(curve[-1]), 4) for curve in curves],
    'steps_to_95': [int(rows[0]) * run.family.episode_length if len(rows) else None for rows in reached],
  }


def _smooth(returns: Sequence[float]) -> np.ndarray:
  """The mean return of the last 20 episodes, after the 20th and each later one."""
  return np.convolve(returns, np.full(_SMOOTHED, 1 / _SMOOTHED), 'valid')
