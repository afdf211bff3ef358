"""Simulates the index and the sampler of a dataset of any size, whose shards hold zeros.

Writes the shards' files with metadata and index, and a hole for the rest, then measures what grows with the number of
histories: making the list of what is planned, finding what is missing (which a worker does when it begins), opening the
dataset (which a reader does), choosing the histories of a batch, and memory.

  python -m experiments.simulate_scale --histories=1000000 --shard_size=1024

With --experience the shards are filled with zeros, and whole examples are read, shuffled over all of them, by a
process that may use only a tenth of their size beyond what it used before:

  python -m experiments.simulate_scale --histories=8192 --shard_size=128 --experience
"""

import json
import math
import pathlib
import resource
import shutil
import tempfile
import time

import numpy as np
from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.asks import steps
from metaimprove.histories import storage
from metaimprove.histories.dataset import load_dataset, sizes_of
from metaimprove.histories.header import open_header, planned_shards, shape_of
from metaimprove.histories.layout import layout_of
from metaimprove.tasks.family import distribution_of
from metaimprove.tasks.registry import family_names, make_family
from metaimprove.training.examples import Examples, endless, split_histories
from metaimprove.training.settings import TrainingSettings

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_enum('family', 'reacher_goal', family_names(), 'Task family.')
  flags.DEFINE_integer('histories', 1_000_000, 'How many.', 1)
  flags.DEFINE_integer('shard_size', 1024, 'Histories in a shard.', 1)
  flags.DEFINE_integer('num_checkpoints', 11, 'Policies in a history.', 2)
  flags.DEFINE_bool('experience', False, 'Shards as large as real ones, of which whole examples are read.')
  flags.DEFINE_integer('batches', 200, 'Batches of 64 to draw.', 1)
  flags.DEFINE_string('json', None, 'Where the figures go.')


def arrays_of(header, num):
  """Shape and type of all arrays of a shard of `num` histories: the index, and what is read an example at a time."""
  layout, kept = layout_of(header), (num, header['num_checkpoints'])
  index = {name: (kept, np.dtype(dtype)) for name, dtype in storage.INDEX.items()}
  shapes = {
    'task::goal': (num, header['goal_size']),
    **{
      f'task::dynamics::{name}': (num, *shape_of(r)) for name, r in header['dynamics'].items()
    },
    'params': (*kept, layout.params_size), 'experience': (*kept, layout.experience_size),
  }
  return index, {name: (shape, np.dtype(np.float32)) for name, shape in shapes.items()}


def write_shard(path, header, entry):
  """A shard in safetensors' format with an index of zeros and of marks that all is finite; what is read an example at a
  time is zeros with --experience, else a hole in the file, which takes no room."""
  index, rows = arrays_of(header, entry['num_histories'])
  described, offset = {}, 0
  for name, (shape, dtype) in {**index, **rows}.items():
    size = math.prod(shape) * dtype.itemsize
    kind = {'float32': 'F32', 'int32': 'I32', 'bool': 'BOOL'}[dtype.name]
    described[name] = {'dtype': kind, 'shape': shape, 'data_offsets': [offset, offset + size]}
    offset += size
  entry = {
    **entry, 'env_steps': 0, 'non_finite_episodes': 0, 'layout': layout_of(header).as_json(), 'sha256': '0' * 64
  }
  head = json.dumps({'__metadata__': {'entry': json.dumps(entry)}, **described}).encode()
  head += b' ' * (-len(head) % 8)
  with open(path, 'wb') as file:  # no flush to the disk: this is no data
    file.write(len(head).to_bytes(8, 'little') + head)
    for name, (shape, dtype) in index.items():
      file.write(np.full(shape, name == 'finite', dtype).tobytes())
    if FLAGS.experience:
      file.write(bytes(8 + len(head) + offset - file.tell()))
    file.truncate(8 + len(head) + offset)


def write_shards(folder, header, progress):
  """Writes every planned shard; returns their bytes."""
  planned, size = planned_shards(header), 0
  (folder / storage.SHARDS).mkdir()
  for number, entry in enumerate(planned):
    path = storage.shard_path(folder, entry)
    write_shard(path, header, entry)
    size += path.stat().st_blocks * 512
    if number % 20 == 0 or number + 1 == len(planned):
      progress('write shards', number + 1, len(planned), {})
  return size


def data_bytes():
  """What this process holds of memory that is its own."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return 1024 * int(next(line for line in lines if line.startswith('VmData')).split()[1])


def read_with_little_memory(examples, size, batches):
  """Examples a second of whole batches, in a tenth of the dataset's size."""
  examples.draw(0)
  limits = resource.getrlimit(resource.RLIMIT_DATA)
  resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + size // 10, limits[1]))
  began = time.perf_counter()
  for step in range(batches):
    examples.draw(1 + step)
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

  header = open_header(folder, {
    **distribution_of(family), **sizes_of(family), 'hidden_sizes': [64, 64], 'num_checkpoints': FLAGS.num_checkpoints,
    'num_episodes': 2, 'num_candidates': max(24, FLAGS.num_checkpoints), 'num_measured': 3,
    'shard_size': FLAGS.shard_size,
    'sources': [{'name': 'hollow', 'seed': 0, 'num_tasks': FLAGS.histories, 'settings': {}, 'own_tasks': False}],
  })
  try:
    size = write_shards(folder, header, console.Progress())
    planned = timed('plan_seconds', lambda: planned_shards(header))
    timed('find_missing_seconds', lambda: [entry for entry in planned if not storage.is_there(folder, entry)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dataset = timed('open_seconds', lambda: load_dataset(folder, family, verify=False))
    sequence = timed('sampler_seconds', lambda: endless(dataset, split_histories(dataset, 64)[0], 0))
    per_batch = timed('draw_seconds', lambda: [
      [sequence[64 * step + index] for index in range(64)] for step in range(FLAGS.batches)
    ])
    figures['draw_milliseconds_a_batch'] = round(1000 * figures.pop('draw_seconds') / len(per_batch), 3)
    figures['shards'], figures['gigabytes'] = len(planned), round(size / 1e9, 3)
    figures['index_megabytes'] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)
    if FLAGS.experience:
      figures['limit_megabytes'] = round(size / 1e7, 1)
      examples = Examples(
        dataset=dataset, histories=sequence, kinds=(steps.NAME,), settings=TrainingSettings(batch_size=64), seed=0
      )
      figures['examples_per_second'] = read_with_little_memory(examples, size, FLAGS.batches)
  finally:
    shutil.rmtree(folder)
  for name, value in figures.items():
    print(f'{name:28s} {value:12,}')
  if FLAGS.json:
    files.write_json(pathlib.Path(FLAGS.json), figures)


if __name__ == '__main__':
  console.launch(main)
