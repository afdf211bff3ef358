"""Counts episodes whose simulation blows up, per family and backend, under uniformly random actions.

  python -m experiments.count_non_finite --families=half_cheetah_vel --episodes=10000

Those under trained policies are counted while histories are collected: `non_finite_episodes` in their manifest.
"""

import pathlib

import jax
import numpy as np
from absl import flags

from experiments import console
from metaimprove import files, parallel
from metaimprove.rollouts import unroll
from metaimprove.tasks.registry import backends_of, family_names, make_family

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_list('families', list(family_names()), 'Which families.')
  flags.DEFINE_list('backends', None, "Which backends; each family's first by default.")
  flags.DEFINE_list('dynamics', ['default', 'far'], "Presets: 'none', 'default', 'far'.")
  flags.DEFINE_integer('episodes', 10000, 'Episodes of each, every one on a task of its own.', 1)
  flags.DEFINE_integer('batch', 256, 'Episodes at once.', 1)
  flags.DEFINE_integer('seed', 0, 'Of tasks, starts and actions.')
  flags.DEFINE_string('json', None, 'Where the counts go as a list.')


def count(family, num_episodes, batch, seed, progress):
  """How many of `num_episodes` (rounded up to whole batches) were not finite, and how many there were."""
  def act(observation, rng_key):
    return jax.random.uniform(rng_key, (family.action_size,), minval=-1.0, maxval=1.0), None

  def play(rng_key):
    key_task, key_episode = jax.random.split(rng_key)
    return unroll(family, act, family.sample(key_task), key_episode, num_episodes=1)[0].finite[0]

  run = jax.jit(parallel.vmap(play))
  num_batches = -(-num_episodes // batch)
  bad = 0
  for index in range(num_batches):
    bad += int(np.sum(~np.asarray(run(jax.random.split(jax.random.fold_in(jax.random.key(seed), index), batch)))))
    progress(f'{family.name} ({family.backend})', index + 1, num_batches, {'blown up': bad})
  return bad, num_batches * batch


def main():
  rows, progress = [], console.Progress()
  for name in FLAGS.families:
    for backend in FLAGS.backends or list(backends_of(name))[:1]:
      for preset in FLAGS.dynamics:
        bad, total = count(make_family(name, backend, preset), FLAGS.episodes, FLAGS.batch, FLAGS.seed, progress)
        rows.append({'family': name, 'backend': backend, 'dynamics': preset, 'non_finite': bad, 'episodes': total})
        print(f'{name} on {backend}, {preset}: {bad} of {total} episodes blew up', flush=True)
        if FLAGS.json:
          files.write_json(pathlib.Path(FLAGS.json), rows)


if __name__ == '__main__':
  console.launch(main)
