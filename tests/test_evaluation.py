"""Evaluation and report, end to end on the point family."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from metaimprove import files
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation import report
from metaimprove.evaluation.evaluate import EvaluationSettings, evaluate
from metaimprove.histories.collect import learning_folder
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.improvers.independent_ppo import independent_ppo
from metaimprove.improvers.run import load_learning
from tests.point_histories import HIDDEN_SIZES, PPO, make_sources

SETTINGS = EvaluationSettings(num_tasks=6, num_applications=3, num_episodes=2, ppo_tasks=4, reference_episodes=4)


@pytest.fixture(scope='module')
def run(operator, operator_params, point, histories):
  """`evaluate` with everything but the folder."""
  conditioned, num_tasks = make_sources(point)[0]
  learning = load_learning(
    conditioned, sample_tasks(point, 0, num_tasks, 'train'), learning_folder(histories, conditioned.name, 0)
  )
  return functools.partial(
    evaluate, operator, operator_params, point, seed=0, settings=SETTINGS, conditioned=conditioned,
    conditioned_learning=learning, ppo=independent_ppo(point, PPO, 15, HIDDEN_SIZES),
  )


@pytest.fixture(scope='module')
def evaluated(run, tmp_path_factory):
  folder = tmp_path_factory.mktemp('evaluation')
  return folder, run(folder=folder)


def test_figures(evaluated, point):
  _, results = evaluated
  assert results['episodes'] == [0, 2, 4, 6] and results['env_steps'] == [0, 16, 32, 48]
  for name in ('normalised_return', 'far', 'shuffled_experience'):
    for figure in ('iqm', 'low', 'high'):
      assert len(results[name][figure]) == 4 and np.isfinite(results[name][figure]).all()
  assert results['heldout_tasks'] + results['left_out_tasks']['heldout'] == 6
  assert results['ppo']['env_steps'] == [128 * n for n in range(15)]
  assert results['ppo']['iqm'][-1] > results['ppo']['iqm'][0] + 0.3
  assert results['target'] == min(0.95, max(results['normalised_return']['iqm']))
  assert results['operator_env_steps_to_match'] in results['env_steps']
  json.dumps(results)


def test_done_parts_are_kept_and_lost_ones_made_again(evaluated, run):
  folder, results = evaluated
  (folder / 'operator_far.safetensors').unlink()
  before = (folder / 'ppo_heldout.safetensors').stat().st_mtime_ns
  assert run(folder=folder) == results
  assert (folder / 'ppo_heldout.safetensors').stat().st_mtime_ns == before


def test_a_folder_of_another_operator_is_refused(evaluated, run, operator, operator_params):
  folder, _ = evaluated
  other = jax.tree.map(lambda x: x + 1, operator_params)
  with pytest.raises(IncompatibleError, match='operator='):
    evaluate(operator, other, *run.args[2:], **run.keywords, folder=folder)


def test_thorough_takes_the_best_of_both_sources(run, tmp_path):
  settings = EvaluationSettings(
    num_tasks=4, num_applications=1, num_episodes=2, ppo_tasks=1, reference_episodes=4, thorough=True
  )
  results = run(folder=tmp_path, settings=settings)
  assert results['ppo']['tasks'] == results['heldout_tasks']
  assert 'better of' in results['reference']
  conditioned, ppo = (files.load_arrays(tmp_path / f'{name}.safetensors') for name in ('bounds_heldout', 'ppo_heldout'))
  best = np.maximum(conditioned['reference'], ppo['final'])
  assert results['mean_return']['reference'] == pytest.approx(best.mean())
  assert (best > conditioned['reference']).any(), 'PPO wins somewhere, or the maximum would not be seen'


def test_the_report_is_one_file_that_needs_no_network(evaluated, operator, operator_params, point, tmp_path):
  _, results = evaluated
  task = take(sample_tasks(point, 0, 1, 'heldout'), 0)
  rollouts = report.record_improvement(
    point, operator, operator_params, task, operator.policy.init(jax.random.key(0)), jax.random.key(0),
    num_applications=2, num_episodes=2, ask=-1,
  )
  assert len(rollouts) == 3 and all(1 <= len(r['lines']) <= 8 for r in rollouts)
  results = {
    **results, 'family': point.name, 'backend': 'none', 'seed': 0, 'train_tasks': 6, 'wall_seconds': {'total': 1.0},
    'collect': {'env_steps_per_second': 1.0, 'raw_env_steps_per_second': 2.0}, 'versions': {'python': '3'},
  }
  path = tmp_path / 'report.html'
  report.write_report(path, point, results, rollouts, point.describe(task), ['python -m <this> & that'])
  page = path.read_text()
  assert page.count('<svg') == 2 and 'python -m &lt;this&gt; &amp; that' in page
  assert not re.search(r'(src|href)="?(https?:)?//', page)
  assert point.describe(task) in page
  embedded = json.loads(re.search(r'const rollouts = (\[.*?\]), view', page).group(1))
  assert embedded == rollouts
  report.write_rollouts(path, point, rollouts, point.describe(task))
  assert '<svg' not in path.read_text() and 'const rollouts' in path.read_text()
