"""How well operators work in other libraries: interfaces, another simulator, Brax's PPO, and what it costs.

  python -m experiments.benchmark_import --runs=runs/benchmark/reacher_goal --json=docs/results/import.json

RUNS are folders of `benchmark_operators`, on reacher_goal, and on half_cheetah_vel with the backend mjx_fast. Parts:

  checks      Gymnasium's and dm_env's own tests, on every family
  gymnasium   operators and controls in Gymnasium's C MuJoCo: Reacher-v5 and HalfCheetah-v5, hidden goals and dynamics
  scratch     Stable-Baselines3's PPO from scratch in the same simulator; not done by default, because it brings PyTorch
  brax        Brax's PPO begun with an operator's output, with a random policy, and in its usual way
  black_box   what it costs on held-out tasks if of each policy only the actions are read; operators of the zoo
  cost        of acting and of improving

Each part, of `brax` each curve, is written to the file when it is done, and is not done again; delete it there to do it
again.
"""

import itertools
import pathlib
import time
import unittest
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from absl import flags
from absl.testing import absltest
from dm_env import test_utils
from gymnasium.utils.env_checker import check_env

from experiments import console, transfer
from metaimprove import files
from metaimprove import quiet_brax  # noqa: F401  (before brax)
from brax.training.agents.ppo import networks as ppo_networks
from brax.training.agents.ppo import train as brax_ppo
from metaimprove.adapters.agent import Agent
from metaimprove.adapters.brax import FamilyBraxEnv, warm_start, wrap_for_training
from metaimprove.adapters.dm_env import FamilyEnvironment
from metaimprove.adapters.gymnasium import FamilyEnv, ImprovingAgent, gymnasium_name
from metaimprove.adapters.improve import answer, remember
from metaimprove.adapters.numpy_policy import NumpyPolicy
from metaimprove.episodes import episodes_of
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation import metrics
from metaimprove.improvers import tuned
from metaimprove.methods.method import initial_policies
from metaimprove.operators import zoo
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.operator import Operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import stack, take
from metaimprove.types import Params, Play, Task, mean_return

FLAGS = flags.FLAGS
_WARM_APPLICATIONS, _BRAX_EVALUATIONS, _BRAX_EPISODES = 3, 41, 16
Curve = list[tuple[int, float]]
"""(environment steps, mean return) of a policy that learns."""
STARTS = {'scratch': ('scratch', 'scratch_slow'), 'usual': ('usual',), 'operator': ('operator', 'operator_slow')}
"""What Brax's PPO begins with -> curves of it, of which the better one counts."""
PARTS = ('cost', 'black_box', 'gymnasium', 'scratch', 'brax', 'checks')

if __name__ == '__main__':
  flags.DEFINE_list(
    'runs', ['runs/benchmark/reacher_goal', 'runs/benchmark/half_cheetah_vel'],
    'Folders of `benchmark_operators` with histories and an operator, to be judged in MuJoCo.',
  )
  flags.DEFINE_list('parts', [part for part in PARTS if part != 'scratch'], f'Which: {", ".join(PARTS)}.')
  flags.DEFINE_list('families', None, 'Of the checks; all by default.')
  flags.DEFINE_integer('num_tasks', 64, 'Tasks in MuJoCo.', 2)
  flags.DEFINE_integer('num_applications', 4, 'Of the operator there.', 1)
  flags.DEFINE_integer('scratch_tasks', 4, 'Held-out tasks on which PPO learns in MuJoCo.', 1)
  flags.DEFINE_integer('scratch_steps', 200_000, 'Environment steps that it learns.', 1)
  flags.DEFINE_list(
    'brax_operators', ['runs/benchmark/half_cheetah_vel/operator', 'reacher_goal'], 'Operators that Brax begins with.'
  )
  flags.DEFINE_integer('brax_tasks', 4, 'Held-out tasks on which Brax learns.', 1)
  flags.DEFINE_float('slow_rate', 0.1, "Share of the family's learning rate with which it learns as well.")
  flags.DEFINE_integer('seed', 0, 'Of tasks, policies and episodes; in MuJoCo it is that of the run.')
  flags.DEFINE_string('json', 'docs/results/import.json', 'The figures.')


def check_interfaces(name: str) -> dict[str, bool]:
  """Whether a family passes the tests of each library."""
  family = make_family(name)
  found = {}
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message='.*A Box observation space .* is probably too')
    found['gymnasium'] = _passes(lambda: check_env(gymnasium.make(gymnasium_name(name)).unwrapped))

  class Test(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
      return FamilyEnvironment(family)

  result = unittest.TestResult()
  absltest.TestLoader().loadTestsFromTestCase(Test).run(result)
  found['dm_env'] = result.wasSuccessful()
  try:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3
  except ImportError:
    return found  # an extra that is not installed
  return {**found, 'stable_baselines3': _passes(lambda: check_for_sb3(FamilyEnv(family), warn=False))}


def _passes(check: Callable[[], Any]) -> bool:
  try:
    check()
  except Exception as error:
    print(f'{type(error).__name__}: {error}')
    return False
  return True


def black_box(name: str) -> dict[str, Any]:
  """Scores of an operator of the zoo where policies are known, and where only their actions are read."""
  operator, card = load_operator(name), zoo.zoo_card(name)
  family = make_family(name, card['backend'])
  tasks = sample_tasks(family, card['seed'], FLAGS.num_tasks, 'heldout')
  play = make_play(family, operator[0].policy, num_episodes=operator[0].config.num_episodes)
  initial, reference = (np.array(card['first_tasks'][end][:FLAGS.num_tasks]) for end in ('initial', 'reference'))
  row = {'operator': name, 'tasks': FLAGS.num_tasks, 'episodes': card['episodes'][:FLAGS.num_applications + 1]}
  for kind in ('known', 'actions_only'):
    scores = metrics.normalise(_improved(operator, play, tasks, kind == 'known'), initial, reference)
    row[kind] = [round(float(value), 4) for value in scores.mean(axis=1)]
    print(f'{name}, {kind}: mean score ' + ', '.join(f'{value:.3f}' for value in row[kind]))
  return row


def _improved(operator: tuple[Operator, Params], play: Play, tasks: Task, known: bool) -> np.ndarray:
  """[A + 1, N] mean returns on tasks [N], by the functions for plain arrays."""
  rows = range(FLAGS.num_tasks)
  params = initial_policies(operator[0].policy, len(rows), stream(FLAGS.seed, 'black box'))
  memories, returns = [None for _ in rows], []
  for application in range(FLAGS.num_applications + 1):
    trajectory = jax.device_get(play(params, tasks, stream(FLAGS.seed, f'application {application}')))
    returns.append(mean_return(trajectory))
    if application == FLAGS.num_applications:
      break
    policies = [take(jax.device_get(params), n) if known else None for n in rows]
    memories = [remember(operator[0], memories[n], policies[n], episodes_of(take(trajectory, n))) for n in rows]
    params = stack([answer(operator, memories[n], policies[n]).params for n in rows])
  return np.array(returns)


def learn_with_brax(
  operator: tuple[Operator, Params], curves: Mapping[str, list[Curve]], keep: Callable[[dict[str, list[Curve]]], None]
) -> None:
  """From each start one curve a held-out task; hands all of them to `keep` after each that `curves` does not have."""
  family = make_family(operator[0].config.family, operator[0].config.backend)
  tasks = sample_tasks(family, FLAGS.seed, FLAGS.brax_tasks, 'heldout')
  for n in range(FLAGS.brax_tasks):
    if min(len(curves.get(name, [])) for name in itertools.chain(*STARTS.values())) > n:
      continue
    task = take(tasks, n)
    improving = ImprovingAgent(operator, FamilyEnv(family, task), seed=FLAGS.seed + n)
    improving.run(_WARM_APPLICATIONS)
    random = warm_start(NumpyPolicy.of(operator[0].policy.init(stream(FLAGS.seed, f'policy {n}'))))
    improved = warm_start(improving.agents[0].policy)
    usual = {'normalize_observations': True, 'network_factory': ppo_networks.make_ppo_networks}
    begun = (random, 1.0), (random, FLAGS.slow_rate), (usual, 1.0), (improved, 1.0), (improved, FLAGS.slow_rate)
    for name, (start, rate) in zip(itertools.chain(*STARTS.values()), begun):
      known = curves.get(name, [])
      if len(known) <= n:
        curves = {**curves, name: [*known, _learn(family, task, start, n, rate)]}
        keep(curves)
        print(f'task {n}, {name}: ' + ', '.join(f'{steps}: {value:.1f}' for steps, value in curves[name][-1]))


def brax_settings(operator: tuple[Operator, Params]) -> dict[str, Any]:
  """What determines the curves."""
  return {
    'seed': FLAGS.seed, 'slow_rate': FLAGS.slow_rate, 'evaluations': _BRAX_EVALUATIONS, 'episodes': _BRAX_EPISODES,
    'operator': files.checksum(files.tree_to_bytes(operator[1])),
  }


def compare_starts(
  operator: Operator, made_with: Mapping[str, Any], curves: Mapping[str, Sequence[Curve]]
) -> dict[str, Any]:
  """How many environment steps Brax's PPO needs from each start to the return that it ends with from a random policy of
  ours, 'scratch', and from its own usual one, 'usual': 'needed' by task, and means over tasks."""
  config, num_tasks = operator.config, min(map(len, curves.values()))

  def needed(start: str, end_of: str) -> list[int | None]:
    return [_fewest(
      [curves[name][n] for name in STARTS[start]], max(curves[name][n][-1][1] for name in STARTS[end_of])
    ) for n in range(num_tasks)]

  found = {end_of: {start: needed(start, end_of) for start in STARTS} for end_of in ('scratch', 'usual')}
  return {
    'family': config.family, 'slow_rate': made_with['slow_rate'],
    'scratch_env_steps': _mean(found['scratch']['scratch']), 'operator_env_steps': _mean(found['scratch']['operator']),
    'usual_env_steps': _mean(found['usual']['usual']), 'operator_env_steps_to_usual': _mean(found['usual']['operator']),
    'operator_experience_env_steps': _WARM_APPLICATIONS * config.num_episodes * config.episode_length, 'needed': found,
  }


def compare_with_brax(found: Mapping[str, Any], keep: Callable[..., None]) -> None:
  """The part `brax`: goes on where the curves `found` end."""
  operators, compared = [load_operator(name) for name in FLAGS.brax_operators], []
  for loaded in operators:
    family, made_with, others = loaded[0].config.family, brax_settings(loaded), found.get('brax_curves', {})
    known = others.get(family, {'made_with': made_with, 'curves': {}})
    files.check_same(known['made_with'], made_with, f'brax_curves of {family} in {FLAGS.json}')

    def keep_curves(curves, others=others, family=family, made_with=made_with):
      keep(brax_curves={**others, family: {'made_with': made_with, 'curves': curves}})

    learn_with_brax(loaded, known['curves'], keep_curves)
    compared.append(compare_starts(loaded[0], **found['brax_curves'][family]))
  row = {**compared[0], 'others': compared[1:]}
  if found.get('brax_warm_start') != row:
    keep(brax_warm_start=row)


def _fewest(curves: Sequence[Curve], end: float) -> int | None:
  """The first steps at which one of some curves is at a return; None if none ever is."""
  return min((steps for curve in curves for steps, value in curve if value >= end), default=None)


def _mean(needed: Sequence[int | None]) -> float | None:
  """Over tasks; None if one of them never gets there."""
  return None if None in needed else float(np.mean(needed))


def _learn(
  family: TaskFamily, task: Task, start: dict[str, Any], seed: int, rate: float
) -> Curve:
  """Of Brax's PPO on one task, with the settings that suit the family, from the start on; `rate` multiplies its
  learning rate."""
  curve, tuned_to = [], tuned.settings_for(family)
  settings = tuned_to.independent
  pieces = settings.num_envs * family.episode_length // settings.unroll_length
  brax_ppo.train(
    FamilyBraxEnv(family, task), episode_length=family.episode_length, wrap_env_fn=wrap_for_training,
    num_timesteps=tuned_to.independent_updates * settings.num_envs * family.episode_length,
    num_envs=settings.num_envs, batch_size=pieces // settings.num_minibatches,
    num_minibatches=settings.num_minibatches, num_updates_per_batch=settings.num_epochs,
    unroll_length=settings.unroll_length, learning_rate=rate * settings.learning_rate,
    discounting=settings.discounting, gae_lambda=settings.gae_lambda, entropy_cost=settings.entropy_cost,
    clipping_epsilon=settings.clipping_epsilon, reward_scaling=settings.reward_scaling,
    max_grad_norm=settings.max_gradient_norm, num_evals=_BRAX_EVALUATIONS, num_eval_envs=_BRAX_EPISODES, seed=seed,
    max_devices_per_host=1,
    progress_fn=lambda steps, found: curve.append((int(steps), float(found['eval/episode_reward']))), **start,
  )
  return curve


def costs(operator: tuple[Operator, Params]) -> dict[str, float]:
  """Medians: of an action by an agent, by the numpy policy and by the same network in JAX, in turns; of `improve`."""
  agent, policy = Agent(operator), operator[0].policy
  params = policy.init(jax.random.key(0))
  alone, on_device, rng = NumpyPolicy.of(params), jax.device_put(params), np.random.default_rng(0)
  sample, rng_key = jax.jit(lambda theta, x, key: policy.sample(theta, x, key)[0]), jax.random.key(0)
  count = itertools.count(1)
  observation, longest = np.zeros(operator[0].config.observation_size, np.float32), operator[0].config.episode_length

  def act():
    agent.act(observation)

  def observe():
    agent.observe(0.0, observation, False, next(count) % longest == 0)

  ways = {
    'agent': act, 'numpy': lambda: alone(observation, rng),
    'jax': lambda: np.asarray(sample(on_device, observation, rng_key)),
  }
  seconds: dict[str, list[float]] = {'agent': [], 'numpy': [], 'jax': [], 'improve': []}
  for _ in range(operator[0].config.capacity + 20):
    while agent.num_finished < operator[0].config.num_episodes:
      for name in rng.permutation(list(ways)):  # what comes after JAX finds caches cold
        _timed(seconds[name], ways[name])
      observe()
    _timed(seconds['improve'], agent.improve)
  median = {name: float(np.median(values)) for name, values in seconds.items()}
  return {
    'act_cost_ratio': round(median['agent'] / median['numpy'], 3), 'act_us': round(1e6 * median['agent'], 1),
    'numpy_us': round(1e6 * median['numpy'], 1), 'jax_us': round(1e6 * median['jax'], 1),
    'improve_ms': round(1e3 * median['improve'], 2),
  }


def _timed(seconds: list[float], function: Callable[[], Any]) -> None:
  began = time.perf_counter()
  function()
  seconds.append(time.perf_counter() - began)


def main() -> None:
  """Measures the parts that the file does not have yet."""
  unknown = set(FLAGS.parts) - set(PARTS)
  if unknown:
    raise IncompatibleError(f'There is no part {sorted(unknown)[0]!r}; choose among: {", ".join(PARTS)}.')
  path = pathlib.Path(FLAGS.json)
  found = files.read_json(path) if path.exists() else {}

  def keep(**parts: Any) -> None:
    if path.exists():
      found.update(files.read_json(path))  # another run may have added other parts
    commands = {**found.get('commands', {}), **dict.fromkeys(parts, console.command_line())}
    found.update(parts, commands=commands)
    files.write_json(path, found)

  if 'cost' in FLAGS.parts and 'improve_ms' not in found:
    keep(**costs(load_operator('reacher_goal')))
  if 'black_box' in FLAGS.parts:
    for name in zoo.zoo_names():
      rows = found.get('black_box', [])
      if name not in {row['operator'] for row in rows}:
        keep(black_box=[*rows, black_box(name)])
  for folder in map(pathlib.Path, FLAGS.runs):
    for part in ('gymnasium', 'scratch'):
      rows = found.get(part, [])
      if part in FLAGS.parts and transfer.env_name(folder) not in {row['env'] for row in rows}:
        run = transfer.load_run(folder)
        keep(**{part: rows + (
          transfer.transfer(run, FLAGS.num_tasks, FLAGS.num_applications) if part == 'gymnasium' else
          [transfer.learn_from_scratch(run, FLAGS.scratch_tasks, FLAGS.scratch_steps)]
        )})
  if 'brax' in FLAGS.parts:
    compare_with_brax(found, keep)
  if 'checks' in FLAGS.parts:
    for name in FLAGS.families or family_names():
      checks = found.get('checks', {})
      if any(name not in of_adapter for of_adapter in checks.values()) or not checks:
        for adapter, passed in check_interfaces(name).items():
          checks.setdefault(adapter, {})[name] = passed
        keep(checks=checks)
        print(f'{name}: ' + ', '.join(f'{adapter} {of[name]}' for adapter, of in checks.items() if name in of))
  print(f'Figures: {path}')


if __name__ == '__main__':
  console.launch(main)
