"""Counts episodes whose simulation blows up, per family and backend, under random actions or under learned policies.

  python -m experiments.count_non_finite --families=half_cheetah_vel --episodes=10000
  python -m experiments.count_non_finite --families=hopper_rand_params --learned=runs/learn

Random actions are uniform; learned policies are the last of `experiments.learn_families`, which are told the task.
The bound is that of Clopper and Pearson: the true share is below it with 95% confidence.
"""

import functools
import pathlib

import jax
import numpy as np
from absl import flags
from scipy import stats

from experiments import console, learn_families
from metaimprove import files, parallel, policies
from metaimprove.errors import IncompatibleError
from metaimprove.improvers import tuned
from metaimprove.rollouts import unroll
from metaimprove.tasks.registry import backends_of, family_names, make_family

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_list('families', None, 'Which families; by default all, or with --learned those with PPO settings.')
  flags.DEFINE_list('backends', None, "Which backends; each family's first by default.")
  flags.DEFINE_list('dynamics', ['default', 'far'], "Presets: 'none', 'default', 'far'.")
  flags.DEFINE_string('learned', None, 'Folder of learn_families, whose last policies act instead of random actions.')
  flags.DEFINE_integer('episodes', 10000, 'Episodes of each, every one on a task of its own.', 1)
  flags.DEFINE_integer('batch', 256, 'Episodes at once.', 1)
  flags.DEFINE_integer('seed', 0, 'Of tasks, starts and actions.')
  flags.DEFINE_string('json', None, 'Where the counts go as a list.')


def random_actions(family):
  """task -> a policy of uniformly random actions."""
  def act(observation, rng_key):
    return jax.random.uniform(rng_key, (family.action_size,), minval=-1.0, maxval=1.0), None

  return lambda task: act


def learned_policies(name, backend):
  """task -> the last policy that learn_families found for it; it is told the task's default dynamics and no others."""
  family = make_family(name, backend)
  policy = policies.make_policy(family.observation_size, family.action_size)
  params_of = learn_families.final_policies(family, pathlib.Path(FLAGS.learned) / name)
  return lambda task: functools.partial(policy.sample, params_of(task))


def count(family, policy_of, num_episodes, batch, seed, progress):
  """How many of `num_episodes` (rounded up to whole batches) were not finite, and how many there were."""
  def play(rng_key):
    key_task, key_episode = jax.random.split(rng_key)
    task = family.sample(key_task)
    return unroll(family, policy_of(task), task, key_episode, num_episodes=1)[0].finite[0]

  run = jax.jit(parallel.vmap(play))
  num_batches = -(-num_episodes // batch)
  bad = 0
  for index in range(num_batches):
    bad += int(np.sum(~np.asarray(run(jax.random.split(jax.random.fold_in(jax.random.key(seed), index), batch)))))
    progress(f'{family.name} ({family.backend})', index + 1, num_batches, {'blown up': bad})
  return bad, num_batches * batch


def upper_bound(bad, total):
  """The share of episodes that blow up is below it with 95% confidence."""
  return float(stats.beta.ppf(0.95, bad + 1, total - bad)) if bad < total else 1.0


def main():
  rows, progress = [], console.Progress()
  if FLAGS.learned and 'none' in FLAGS.dynamics:
    raise IncompatibleError(
      "Learned policies are told the dynamics: with --learned, choose --dynamics among 'default', 'far'."
    )
  for name in FLAGS.families or (tuned.tuned_families() if FLAGS.learned else family_names()):
    for backend in FLAGS.backends or list(backends_of(name))[:1]:
      for preset in FLAGS.dynamics:
        family = make_family(name, backend, preset)
        policy_of = learned_policies(name, backend) if FLAGS.learned else random_actions(family)
        bad, total = count(family, policy_of, FLAGS.episodes, FLAGS.batch, FLAGS.seed, progress)
        policy = 'learned' if FLAGS.learned else 'random'
        rows.append({'family': name, 'backend': backend, 'dynamics': preset, 'policy': policy, 'non_finite': bad,
                     'episodes': total, 'bound': upper_bound(bad, total)})
        print(
          f'{name} on {backend}, {preset}, {policy} policy: {bad} of {total} episodes blew up; '
          f'less than 1 in {1 / rows[-1]["bound"]:,.0f}', flush=True,
        )
        if FLAGS.json:
          files.write_json(pathlib.Path(FLAGS.json), rows)


if __name__ == '__main__':
  console.launch(main)
