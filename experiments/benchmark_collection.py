"""Measures how fast histories are collected, learned by many learners at once, read and trained on, in one run.

1. For each number of tasks, in a process of its own: bare stepping, rollouts with policies, and full collection with
   writing, in environment steps a second over all devices, side by side; and the process's peak memory. Policies are
   random ones; bare stepping takes the very actions of the rollouts, and both run on the tasks of one shard, before and
   after collecting, which is repeated where tasks are few. The shards have the best of --shard_sizes, found with
   --sweep_tasks tasks first: the smallest that is within 5% of the fastest.
2. Independent PPO: one program of --ppo_tasks learners, against Brax's own PPO with the same settings and steps, run
   for the first of --brax_runs tasks, on one device and on all. The faster counts: its first run, and the mean of the
   others for each of the rest of --ppo_tasks. All in: compiling too, without the compilation cache.
3. Examples a second that the reader gives, with and without reading ahead, and that training takes.

  python -m experiments.benchmark_collection --json=runs/benchmark_collection.json
"""

import functools
import json
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import console
from metaimprove import files, policies
from brax import envs
from brax.training.agents.ppo import networks as ppo_networks
from brax.training.agents.ppo import train as ppo
from metaimprove.histories.collect import collect
from metaimprove.histories.dataset import load_dataset
from metaimprove.histories.rates import collecting_rates
from metaimprove.improvers import run as runs
from metaimprove.improvers import tuned
from metaimprove.improvers.independent_ppo import independent_ppo
from metaimprove.improvers.source import Source
from metaimprove.operators.operator import OperatorConfig, make_operator
from metaimprove.rollouts import make_play, raw_stepping_rate
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training.examples import Examples, endless, split_histories
from metaimprove.training.loop import train
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import batch_size, take

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_string('backend', None, "Physics backend; the family's first by default.")
  flags.DEFINE_list('tasks', ['64', '512', '4096'], 'Numbers of tasks.')
  flags.DEFINE_list('shard_sizes', ['64', '128', '256'], 'Histories in a shard to try.')
  flags.DEFINE_integer('sweep_tasks', 512, 'Tasks to find the best shard size with.', 1)
  flags.DEFINE_integer('ppo_tasks', 64, 'Learners of independent PPO; 0 leaves this part out.', 0)
  flags.DEFINE_integer('brax_runs', 2, "Tasks on which Brax's PPO is measured, the first of them apart.", 2)
  flags.DEFINE_integer('num_updates', None, "PPO updates, instead of the family's tuned number.", 1)
  flags.DEFINE_integer('train_steps', 150, 'Gradient steps to measure training with; 0 leaves this part out.', 0)
  flags.DEFINE_integer('seed', 0, 'Of tasks, policies and episodes.')
  flags.DEFINE_string('json', None, 'Where the figures go.')
  flags.DEFINE_string('only', None, 'TASKS:SHARD_SIZE, measured in this process; what the other processes are given.')

NUM_CHECKPOINTS, NUM_EPISODES = 11, 2
NUM_CANDIDATES, NUM_MEASURED = 24, 3
ENOUGH_TASKS, MAX_REPEATS = 2048, 6


def random_policies(family: TaskFamily) -> Source:
  """A source that learns nothing: collecting is to be measured, and not learning."""
  policy = policies.make_policy(family.observation_size, family.action_size)
  return Source(
    name='random', shared=True, init=lambda rng_key, _: policy.init(rng_key),
    update=lambda state, _, rng_key: (state, jnp.zeros(())), snapshot=lambda state: state,
    params=lambda snapshot, _: snapshot, num_updates=NUM_CANDIDATES, env_steps_per_update=0,
  )


def measure_collecting(family: TaskFamily, num_tasks: int, shard_size: int, seed: int) -> dict[str, int]:
  """A row of the first table; compiling is not counted.

  Machines that are shared change their speed from minute to minute, so bare stepping and rollouts are measured before
  and after collecting, and few tasks are collected several times over.
  """
  shard_size = min(shard_size, num_tasks)
  policy = policies.make_policy(family.observation_size, family.action_size)
  play = make_play(family, policy, num_episodes=NUM_MEASURED)
  key_policy, key_play = jax.random.split(jax.random.key(seed))
  tasks = sample_tasks(family, seed, shard_size, 'train')
  params = jax.tree.map(lambda x: jnp.broadcast_to(x, (shard_size, *x.shape)), policy.init(key_policy))
  keys = jax.random.split(key_play, NUM_CANDIDATES)
  played = [np.asarray(play(params, tasks, key).action) for key in keys]
  actions = np.moveaxis(np.concatenate(played, axis=1), 0, 2)  # [H, E, T, A] -> [E, T, H, A]
  raw, rollouts, collected = [], [], []  # each in environment steps a second

  def measure():
    began = time.perf_counter()
    jax.block_until_ready([play(params, tasks, key).reward for key in keys])
    rollouts.append(actions[..., 0].size / (time.perf_counter() - began))
    raw.append(raw_stepping_rate(family, tasks, actions, key_play))

  measure()
  for _ in range(np.clip(ENOUGH_TASKS // num_tasks, 1, MAX_REPEATS)):
    folder = pathlib.Path(tempfile.mkdtemp(prefix='benchmark_collection_'))
    try:
      collect_random(folder, family, num_tasks, shard_size, seed)
      collected.append(collecting_rates(folder)['env_steps_per_second'])
    finally:
      shutil.rmtree(folder)
    measure()
  return {
    'tasks': num_tasks, 'shard_size': shard_size, 'raw_steps_per_second': round(statistics.harmonic_mean(raw)),
    'rollout_steps_per_second': round(statistics.harmonic_mean(rollouts)),
    'collect_steps_per_second': round(statistics.harmonic_mean(collected)),
    'peak_rss_bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
  }


def collect_random(folder: pathlib.Path, family: TaskFamily, num_tasks: int, shard_size: int, seed: int) -> None:
  """Histories of random policies."""
  collect(
    folder, family, [(random_policies(family), num_tasks)], seed=seed, num_checkpoints=NUM_CHECKPOINTS,
    num_episodes=NUM_EPISODES, num_candidates=NUM_CANDIDATES, num_measured=NUM_MEASURED, shard_size=shard_size,
  )


def measure_apart(num_tasks, shard_size):
  """`measure_collecting` in a process of its own, for its memory."""
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.benchmark_collection', f'--family={FLAGS.family}', f'--seed={FLAGS.seed}',
     f'--only={num_tasks}:{shard_size}', *([f'--backend={FLAGS.backend}'] if FLAGS.backend else [])],
    stdout=subprocess.PIPE, text=True, check=True,
  )
  row = json.loads(done.stdout.splitlines()[-1])
  print(
    f'{row["tasks"]:8,d} {row["shard_size"]:6d} {row["raw_steps_per_second"]:12,d} '
    f'{row["rollout_steps_per_second"]:12,d} {row["collect_steps_per_second"]:12,d} '
    f'{row["collect_steps_per_second"] / row["raw_steps_per_second"]:8.2f} {row["peak_rss_bytes"] / 1e6:12,.0f}',
    flush=True,
  )
  return row


def benchmark_collecting():
  """Finds the best shard size and measures with it."""
  columns = ('tasks', 'shard', 'bare/s', 'rollouts/s', 'collect/s', 'share', 'peak MB')
  print(' '.join(f'{name:>{width}s}' for name, width in zip(columns, (8, 6, 12, 12, 12, 8, 12))))
  swept = [measure_apart(FLAGS.sweep_tasks, int(size)) for size in FLAGS.shard_sizes]
  fastest = max(row['collect_steps_per_second'] for row in swept)
  best = min(row['shard_size'] for row in swept if row['collect_steps_per_second'] > 0.95 * fastest)
  print(f'Best shard size: {best}')
  return [measure_apart(int(num_tasks), best) for num_tasks in FLAGS.tasks]


class FamilyEnv(envs.Env):
  """One task of a family as a Brax environment, which is what Brax's own learners want."""

  def __init__(self, family, task):
    self._family, self._task = family, task

  observation_size = property(lambda self: self._family.observation_size)
  action_size = property(lambda self: self._family.action_size)
  backend = property(lambda self: self._family.backend)

  def reset(self, rng):
    return self._outer(self._family.reset(self._task, rng))

  def step(self, state, action):
    return self._outer(self._family.step(self._task, state.pipeline_state, action), state)

  def _outer(self, inner, before=None):
    done = inner.terminated.astype(jnp.float32)
    if before is None:
      return envs.State(pipeline_state=inner, obs=inner.observation, reward=inner.reward, done=done)
    return before.replace(pipeline_state=inner, obs=inner.observation, reward=inner.reward, done=done)


def seconds_of_brax(family, settings, num_updates, task, seed, num_devices):
  """Brax's own PPO on one task, all in."""
  began = time.perf_counter()
  pieces = settings.num_envs * family.episode_length // settings.unroll_length
  ppo.train(
    environment=FamilyEnv(family, task), num_timesteps=num_updates * settings.num_envs * family.episode_length,
    episode_length=family.episode_length, num_envs=settings.num_envs, unroll_length=settings.unroll_length,
    batch_size=pieces // settings.num_minibatches, num_minibatches=settings.num_minibatches,
    num_updates_per_batch=settings.num_epochs, learning_rate=settings.learning_rate,
    entropy_cost=settings.entropy_cost, discounting=settings.discounting, gae_lambda=settings.gae_lambda,
    clipping_epsilon=settings.clipping_epsilon, reward_scaling=settings.reward_scaling,
    max_grad_norm=settings.max_gradient_norm, normalize_observations=True, num_evals=1, run_evals=False, seed=seed,
    max_devices_per_host=num_devices,
    network_factory=functools.partial(
      ppo_networks.make_ppo_networks, policy_hidden_layer_sizes=policies.HIDDEN_SIZES,
      value_hidden_layer_sizes=settings.value_hidden_sizes,
    ),
  )
  return time.perf_counter() - began


def benchmark_many_ppo(family):
  """How many times faster many learners in one program are than Brax's PPO once each."""
  settings = tuned.settings_for(family)
  num_updates = FLAGS.num_updates or settings.independent_updates
  source = independent_ppo(family, settings.independent, num_updates)
  tasks, progress = sample_tasks(family, FLAGS.seed, FLAGS.ppo_tasks, 'train'), console.Progress()
  jax.clear_caches()
  jax.config.update('jax_enable_compilation_cache', False)
  began = time.perf_counter()
  runs.learn(
    source, tasks, jax.random.key(FLAGS.seed),
    progress=progress,
  )
  ours = time.perf_counter() - began
  print(
    f'{FLAGS.ppo_tasks} tasks, {num_updates * source.env_steps_per_update:,d} steps each: {ours:.1f} s in one program'
  )
  extrapolated = []
  for num_devices in sorted({1, jax.local_device_count()}):
    first, *others = [
      seconds_of_brax(family, settings.independent, num_updates, take(tasks, index), FLAGS.seed, num_devices)
      for index in range(FLAGS.brax_runs)
    ]
    extrapolated.append(first + (FLAGS.ppo_tasks - 1) * np.mean(others))
    print(
      f"Brax's PPO, devices: {num_devices}; {', '.join(f'{seconds:.1f}' for seconds in (first, *others))} s a task, "
      f'which makes {extrapolated[-1]:,.0f} s: {extrapolated[-1] / ours:.1f} times as long'
    )
  jax.config.update('jax_enable_compilation_cache', True)
  return min(extrapolated) / ours


def benchmark_reading(family: TaskFamily) -> dict[str, float]:
  """Examples a second of the reader, with and without reading ahead, and of training."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='benchmark_reading_'))
  try:
    collect_random(folder / 'histories', family, FLAGS.sweep_tasks, min(128, FLAGS.sweep_tasks), FLAGS.seed)
    dataset = load_dataset(folder / 'histories', family)
    settings = TrainingSettings(
      num_steps=FLAGS.train_steps, rounds=(), num_evaluations=0, num_validation=min(64, FLAGS.sweep_tasks // 4)
    )
    operator = make_operator(OperatorConfig.of(family, num_episodes=NUM_EPISODES, width=64, code_size=64))
    training, _ = split_histories(dataset, settings.num_validation)
    examples = Examples(
      dataset=dataset, histories=endless(dataset, training, FLAGS.seed), config=operator.config, settings=settings,
      seed=FLAGS.seed,
    )
    num = 4 * FLAGS.train_steps
    rates = {}
    for name, batches in (
      ('reader_examples_per_second', examples.stream(0, num)),
      ('reader_without_prefetch_examples_per_second', (examples.draw(step) for step in range(num))),
    ):
      next(batches)
      began = time.perf_counter()
      rates[name] = round(sum(batch_size(batch) for batch in batches) / (time.perf_counter() - began), 1)
    logged = []
    train(
      operator, make_play(family, operator.policy, num_episodes=NUM_EPISODES), dataset, settings, seed=FLAGS.seed,
      folder=folder / 'training', log=lambda step, scalars: logged.append(scalars),
    )
    speeds = [scalars[name] for scalars in logged for name in scalars if name.endswith('examples_per_second')]
    rates['training_examples_per_second'] = round(float(np.median(speeds[1:])), 1)  # the first ones compile
  finally:
    shutil.rmtree(folder)
  print(
    f'Reader: {rates["reader_examples_per_second"]:,.0f} examples/s, '
    f'{rates["reader_without_prefetch_examples_per_second"]:,.0f} without reading ahead; training takes '
    f'{rates["training_examples_per_second"]:,.0f}: '
    f'{rates["reader_examples_per_second"] / rates["training_examples_per_second"]:.1f} times as much'
  )
  return rates


def main():
  family = make_family(FLAGS.family, FLAGS.backend)
  if FLAGS.only:
    num_tasks, shard_size = map(int, FLAGS.only.split(':'))
    print(json.dumps(measure_collecting(family, num_tasks, shard_size, FLAGS.seed)))
    return
  results = {'family': family.name, 'backend': family.backend, 'collection': benchmark_collecting()}
  if FLAGS.ppo_tasks:
    results['many_ppo_speedup'] = round(float(benchmark_many_ppo(family)), 2)
  if FLAGS.train_steps:
    results.update(benchmark_reading(family))
  if FLAGS.json:
    files.write_json(pathlib.Path(FLAGS.json), results)
    print(f'All figures are in {FLAGS.json}.')


if __name__ == '__main__':
  console.launch(main)
