"""Simulates the index and the sampler of a dataset of any size, whose shards hold nothing or zeros.

Writes the shards' files with metadata and returns only, then measures what grows with the number of histories: making
the list of what is planned, finding what is missing (which a worker does when it begins), opening the dataset (which a
reader does), choosing the histories of a batch, and memory.

  python -m experiments.simulate_scale --histories=1000000 --shard_size=1024

With --experience the shards are as large as real ones, and whole examples are read, shuffled over all of them, by a
process that may use only a tenth of their size beyond what it used before:

  python -m experiments.simulate_scale --histories=8192 --shard_size=128 --experience
"""

import functools
import pathlib
import resource
import shutil
import tempfile
import time

import jax
import numpy as np
from absl import flags

from experiments import console
from metaimprove import files, policies
from metaimprove.training.examples import Examples
from metaimprove.histories import storage
from metaimprove.histories.dataset import load_dataset
from metaimprove.rollouts import rollout
from metaimprove.tasks.family import distribution_of
from metaimprove.tasks.registry import family_names, make_family

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_integer('histories', 1_000_000, 'How many.', 1)
  flags.DEFINE_integer('shard_size', 1024, 'Histories in a shard.', 1)
  flags.DEFINE_integer('num_checkpoints', 11, 'Policies in a history.', 2)
  flags.DEFINE_bool('experience', False, 'Shards as large as real ones, of which whole examples are read.')
  flags.DEFINE_integer('batches', 200, 'Batches of 64 to draw.', 1)
  flags.DEFINE_string('json', None, 'Where the figures go.')


def history_shapes(family, header):
  """Shape and type of everything in a history."""
  policy = policies.make_policy(family.observation_size, family.action_size, tuple(header['hidden_sizes']))

  def make(rng_key):
    task = family.sample(rng_key)
    play = functools.partial(rollout, family, policy, num_episodes=header['num_episodes'])
    params = jax.vmap(policy.init)(jax.random.split(rng_key, header['num_checkpoints']))
    trajectory = jax.vmap(play, in_axes=(0, None, None))(params, task, rng_key)
    return storage.History(
      task=task, params=params, trajectory=trajectory, returns=trajectory.reward.sum(axis=(1, 2)),
      finite=trajectory.finite.all(axis=1),
    )

  return jax.eval_shape(make, jax.random.key(0))


def write_shards(folder, header, shapes, progress):
  """Every shard that is planned: with zeros for all that is in `shapes`, or nothing but returns and marks."""
  planned = storage.planned_shards(header)
  for index, entry in enumerate(planned):
    num = entry['num_histories']
    histories = jax.tree.map(lambda x: np.zeros((num, *x.shape) if FLAGS.experience else 0, x.dtype), shapes)
    kept = num, header['num_checkpoints']
    histories = histories.replace(returns=np.zeros(kept, np.float32), finite=np.ones(kept, bool))
    path = storage.shard_path(folder, entry)
    path.parent.mkdir(exist_ok=True)
    # No flush to the disk: this is no data.
    path.write_bytes(files.tree_to_bytes(histories, {'entry': storage.entry_text(entry)}))
    if index % 20 == 0 or index + 1 == len(planned):
      progress('write shards', index + 1, len(planned), {})
  return sum(storage.shard_path(folder, entry).stat().st_size for entry in planned)


def data_bytes():
  """What this process holds of memory that is its own."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return 1024 * int(next(line for line in lines if line.startswith('VmData')).split()[1])


def read_with_little_memory(examples, size, batches):
  """Examples a second of whole batches, in a tenth of the dataset's size."""
  examples.draw(0, 64)
  limits = resource.getrlimit(resource.RLIMIT_DATA)
  resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + size // 10, limits[1]))
  began = time.perf_counter()
  for step in range(batches):
    examples.draw(1 + step, 64)
  seconds = time.perf_counter() - began
  resource.setrlimit(resource.RLIMIT_DATA, limits)
  return round(64 * batches / seconds, 1)


def main():
  family, folder = make_family(FLAGS.family), pathlib.Path(tempfile.mkdtemp(prefix='simulate_scale_'))
  figures = {'histories': FLAGS.histories, 'shard_size': FLAGS.shard_size}

  def timed(name, function):
    began = time.perf_counter()
    result = function()
    figures[name] = round(time.perf_counter() - began, 3)
    return result

  header = storage.open_header(folder, {
    **distribution_of(family), 'observation_size': family.observation_size, 'action_size': family.action_size,
    'hidden_sizes': [64, 64], 'num_checkpoints': FLAGS.num_checkpoints, 'num_episodes': 2,
    'shard_size': FLAGS.shard_size,
    'sources': [{'name': 'hollow', 'seed': 0, 'num_tasks': FLAGS.histories, 'settings': {}, 'own_tasks': False}],
  })
  try:
    size = write_shards(folder, header, history_shapes(family, header), console.Progress())
    planned = timed('plan_seconds', lambda: storage.planned_shards(header))
    timed('find_missing_seconds', lambda: [entry for entry in planned if not storage.is_there(folder, entry)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dataset = timed('open_seconds', lambda: load_dataset(folder, family, verify=False))
    examples = timed('sampler_seconds', lambda: Examples(dataset, num_validation=64))
    per_batch = timed('draw_seconds', lambda: [
      [examples.history(64 * step + index) for index in range(64)] for step in range(FLAGS.batches)
    ])
    figures['draw_milliseconds_a_batch'] = round(1000 * figures.pop('draw_seconds') / len(per_batch), 3)
    figures['shards'], figures['gigabytes'] = len(planned), round(size / 1e9, 3)
    figures['index_megabytes'] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)
    if FLAGS.experience:
      figures['limit_megabytes'] = round(size / 1e7, 1)
      figures['examples_per_second'] = read_with_little_memory(examples, size, FLAGS.batches)
  finally:
    shutil.rmtree(folder)
  for name, value in figures.items():
    print(f'{name:28s} {value:12,}')
  if FLAGS.json:
    files.write_json(pathlib.Path(FLAGS.json), figures)


if __name__ == '__main__':
  console.launch(main)
