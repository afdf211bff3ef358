"""The binaries as a user runs them: help, errors in one line, and a main job that is killed and run again."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest
import scipy.stats

from experiments import jobs, learn_families, quickstart, transfer
from metaimprove import files
from metaimprove.adapters.agent import Agent
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation.results import read
from metaimprove.evaluation.rows import ComparisonRow
from metaimprove.evaluation.rows import read as read_rows
from metaimprove.histories import merge
from metaimprove.operators.zoo import zoo_card, zoo_folder
from metaimprove.policies import layer_names
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take

pytestmark = pytest.mark.xdist_group('experiments')
apart = pytest.mark.xdist_group('apart')  # tests that need no finished job run beside those that do

ROOT = pathlib.Path(__file__).parents[1]
BINARIES = (
  'collect_histories', 'train_operator', 'evaluate_operator', 'improve', 'quickstart', 'benchmark_families',
  'show_family', 'learn_families', 'count_non_finite', 'benchmark_mjx', 'benchmark_collection', 'inspect_histories',
  'merge_histories', 'simulate_scale', 'choose_ppo',
  'tabulate_results', 'benchmark_operators', 'ablate_operator', 'measure_needs', 'benchmark_import', 'add_to_zoo',
  'benchmark_playground', 'benchmark_asks', 'benchmark_augmentation', 'benchmark_ranked', 'benchmark_pretending',
  'ask', 'ask_page', 'train_reader', 'compare', 'gradient_variance', 'benchmark_darkroom',
  'benchmark_hindsight', 'filter_experience', 'read_phrasings', 'scale_tasks',
)
SMALL = (
  '--family=inverted_pendulum_balance', '--num_tasks=4', '--num_steps=24', '--heldout_tasks=4', '--num_applications=2',
  '--ppo_tasks=4', '--num_updates=3',
)
KILLED_IN = ('train operator', 'train: identify the task')
"""Stages of the main job as progress tells of them: of training, of judging and of controls."""


def start(binary, *arguments):
  return subprocess.Popen(
    [sys.executable, '-m', f'experiments.{binary}', *map(str, arguments)], cwd=ROOT, text=True,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
  )


def run(binary, *arguments):
  process = start(binary, *arguments)
  out, err = process.communicate(timeout=600)
  return process.returncode, out, err


HELP = """
import contextlib, io, json, runpy, sys
from absl import app, flags

app.define_help_flags()
pages = {}
for binary in sys.argv[1:]:
  own = set(flags.FLAGS)
  sys.argv = [binary, '--help']
  with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    runpy.run_module(f'experiments.{binary}', run_name='__main__', alter_sys=True)
  pages[binary] = out.getvalue()
  for name in set(flags.FLAGS) - own:
    delattr(flags.FLAGS, name)
print(json.dumps(pages))
"""


def test_help():
  """Of all binaries in one process, which imports JAX once."""
  done = subprocess.run([sys.executable, '-c', HELP, *BINARIES], cwd=ROOT, capture_output=True, text=True, timeout=300)
  pages = json.loads(done.stdout)
  for binary in BINARIES:
    flags = [line for line in pages[binary].splitlines() if line.startswith('  --')]
    assert 1 <= len(flags) <= 18 and '(default:' in pages[binary], pages[binary]


@pytest.mark.parametrize(('binary', 'arguments', 'message'), [
  ('quickstart', ('--backend=positional', '--folder=/nowhere'), "does not support backend 'positional'"),
  ('collect_histories', ('--backend=bullet', '--folder=/nowhere/to/be/made'), "backend 'bullet' is unknown"),
  ('train_operator', ('--histories=/nowhere', '--folder=/nowhere'), 'run collect_histories with this folder first'),
  ('evaluate_operator', ('--operator=/nowhere', '--folder=/nowhere'), 'There is no folder /nowhere'),
  ('evaluate_operator', ('--operator=reacher_goal', '--histories=/nowhere', '--folder=/nowhere'), 'holds no histories'),
  ('improve', ('--operator=/nowhere', '--ask=more'), "An ask is 'best' or a number"),
  ('ask', ('--operator=reacher_goal', 'to the left'), 'was not trained on words'),
  ('ask', ('--operator=/nowhere', ' '), 'holds no word'),
  ('compare', ('--families=reacher_goal', '--methods=rl3', '--folder=/nowhere'), "Baseline 'rl3' is unknown"),
])
def test_errors_are_one_line_and_nothing_is_begun(binary, arguments, message):
  code, _, err = run(binary, *arguments)
  assert code == 1 and err.startswith('error: ') and message in err and len(err.splitlines()) == 1
  assert not pathlib.Path('/nowhere').exists()


def test_unknown_family_is_refused():
  code, _, err = run('quickstart', '--family=unicycle')
  assert code != 0 and 'reacher_goal' in err and 'Traceback' not in err


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  code, out, err = run('quickstart', *SMALL, f'--folder={folder}')
  assert code == 0, err
  return folder, out, err


def shards(histories):
  return {path.name: path.read_bytes() for path in (histories / 'shards').iterdir() if not path.name.startswith('.')}


def figures(folder):
  """What must not depend on when a run was stopped."""
  results = json.loads((folder / 'results.json').read_text())
  measured = ('collect', 'wall_seconds', 'training_wall_seconds')
  same = {name: value for name, value in results.items() if name not in measured}
  return same, shards(folder / 'histories')


def test_the_main_job_on_the_second_family(finished):
  folder, out, err = finished
  assert err == '', err
  assert 'report.html' in out and 'tensorboard --logdir' in out and 'warn' not in out.lower()
  assert re.match(r'This will take roughly \d+ minutes on two cores, and about [\d,]+ MB on disk', out)
  results = read(folder / 'results.json')
  assert results.heldout_tasks + results.left_out_tasks['heldout'] == 4 and results.train_tasks == 4
  assert results.env_steps == [200 * n for n in range(3)] and results.ppo['env_steps'][1] == 16 * 100
  assert set(results.wall_seconds) == {'collect', 'train', 'evaluate', 'controls', 'total'}
  assert results.wall_seconds['total'] == pytest.approx(sum(results.wall_seconds.values()) / 2, abs=0.1)
  assert set(results.training_wall_seconds) == {
    'source', 'histories', 'rounds', 'validation_figures', 'gradient_steps', 'controls'
  }
  assert sum(results.training_wall_seconds.values()) < results.wall_seconds['total']
  assert results.identify_reads == 'histories and rounds'
  assert results.per_seed == {'seeds': [0], 'iqm': [results.normalised_return['iqm']]}
  assert set(results.collect) == {'env_steps_per_second', 'raw_env_steps_per_second'} and all(results.collect.values())
  controls = {'told_goal', 'no_experience', 'identify', 'identify_once', 'shuffled_experience'}
  assert set(results.controls) == controls
  assert set(results.improvement) == {'1', '2', '4', 'best'} and results.verdict in out
  # The source makes 3 updates of 256 environments; one round's 4 tasks see 10 iterates, there are 6 rounds; validation
  # figures are taken 8 times of a task. Episodes have 100 steps, and there are two of each.
  steps = results.training_env_steps
  assert (steps['source'], steps['controls']) == (3 * 256 * 100, 3 * 256 * 100)
  assert (steps['rounds'], steps['validation_figures']) == (6 * 4 * 10 * 200, 8 * 1 * 10 * 200)
  assert steps['histories'] >= 4 * 11 * 200


def test_the_figures_of_the_main_job_are_those_of_what_was_measured(finished):
  """From the returns that are kept, by the definition of a score."""
  folder, results = finished[0] / 'evaluation', read(finished[0] / 'results.json')
  names = ('initial', 'told_everything', 'operator')
  initial, reference, operator = (
    files.load_arrays(folder / name / 'heldout.safetensors')['returns'] for name in names
  )
  initial, reference = initial[-1], reference[-1]
  kept = reference > initial
  scores = (operator[:, kept] - initial[kept]) / (reference - initial)[kept]
  np.testing.assert_allclose(results.per_task['normalised_return'], scores, atol=1e-3)
  np.testing.assert_allclose(results.normalised_return['iqm'], scipy.stats.trim_mean(scores, 0.25, axis=1), atol=1e-3)
  np.testing.assert_allclose(results.mean_return['reference'], reference[kept].mean(), rtol=1e-4)


def test_what_is_not_read_again_is_not_kept(finished):
  folder, _, _ = finished
  names = sorted(path.name for path in (folder / 'training').iterdir())
  assert names == ['env_steps.json', 'settings.json', 'tensorboard']
  assert len(list((folder / 'training' / 'tensorboard').iterdir())) == 1, 'one file of events for one start'
  kept = {path.name for path in (folder / 'evaluation' / 'learning').iterdir()}
  assert kept == {'no_experience', 'identify'}  # what controls have learned, and none of PPO's learners


def test_what_controls_have_learned_acts_elsewhere(finished):
  """A run is read without training again."""
  folder, _, _ = finished
  before = {path: path.stat().st_mtime for path in (folder / 'evaluation').rglob('*') if path.is_file()}
  read = transfer.load_run(folder)
  assert {path: path.stat().st_mtime for path in before} == before
  assert set(read.improvers) == {'operator', 'identify'} and set(read.fixed) == {
    'reference', 'told_goal', 'no_experience'
  }
  tasks = sample_tasks(read.family, read.seed, 2, 'heldout')
  policies = {name: policies(tasks) for name, policies in read.fixed.items()}
  first, second = (take(policies['no_experience'], n) for n in range(2))
  chex.assert_trees_all_equal(first, second)
  assert any((x[0] != x[1]).any() for x in jax.tree.leaves(policies['reference']))
  # The control that identifies the task acts as the reference would if it were told the estimate: what it is told is in
  # the first bias alone, and depends on what was experienced.
  reference, estimated = take(policies['reference'], 0), []
  for reward in (0.0, 1.0):
    agent = Agent(read.improvers['identify'])
    observation = np.zeros(read.family.observation_size, np.float32)
    for step in range(read.family.episode_length):
      agent.act(observation)
      agent.observe(reward, observation, terminated=False, truncated=step == read.family.episode_length - 1)
    params = agent.improve().params
    first, *others = layer_names(params)
    np.testing.assert_allclose(params[first]['w'], reference[first]['w'], rtol=1e-5)
    for name in others:
      jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), params[name], reference[name])
    estimated.append(params[first]['b'])
  assert (estimated[0] != estimated[1]).any()
  with pytest.raises(IncompatibleError, match='no robot in MuJoCo'):
    transfer.env_name(folder)


def test_an_operator_is_judged_on_merged_histories(finished, tmp_path):
  """Nobody knows how fast they were collected, and its rounds are gone."""
  merge.merge(tmp_path / 'histories', [finished[0] / 'histories'])
  shutil.rmtree(tmp_path / 'histories' / 'workers', ignore_errors=True)
  code, out, err = run(
    'evaluate_operator', '--family=inverted_pendulum_balance', f'--operator={finished[0]}/operator',
    f'--histories={tmp_path}/histories', f'--folder={tmp_path}/evaluation', '--num_tasks=4', '--ppo_tasks=4',
    '--num_applications=2', '--num_updates=3', '--nocontrols',
  )
  assert code == 0 and err == '', err
  results = read(tmp_path / 'evaluation' / 'results.json')
  assert set(results.collect.values()) == {None} and set(results.controls) == {'shuffled_experience'}
  assert 'controls were not run' in out and (tmp_path / 'evaluation' / 'report.html').exists()
  # The same operator, tasks and policies as in the main job: the same figures.
  whole = read(finished[0] / 'results.json')
  np.testing.assert_allclose(results.normalised_return['iqm'], whole.normalised_return['iqm'][:3], atol=1e-3)


def test_several_seeds_are_one_result(finished, tmp_path):
  """One of them, and the family that is shown beside, are done and only read."""
  whole, folder = finished[0], tmp_path / 'two'
  for part in ('histories', 'training', 'operator', 'evaluation'):
    shutil.copytree(whole / part, folder / 'seed_0' / part)
  second = shutil.copytree(whole, folder / 'inverted_pendulum_balance')
  files.write_json(second / files.CLAIM, {**files.read_claim(second), 'controls': False})
  arguments = ('--num_seeds=2', '--nocontrols', f'--second_family={second.name}')
  code, out, err = run('quickstart', *SMALL, *arguments, f'--folder={folder}')
  assert code == 0 and err == '', err
  results = read(folder / 'results.json')
  assert results.num_seeds == 2 and results.heldout_tasks + results.left_out_tasks['heldout'] == 8
  assert ', 2 seeds' in out or results.heldout_tasks == 0
  headers = [files.read_json(folder / f'seed_{seed}' / 'histories' / 'header.json') for seed in (0, 1)]
  assert [header['sources'][0]['seed'] for header in headers] == [0, 1]
  assert len({(folder / f'seed_{seed}' / 'operator' / 'operator.safetensors').read_bytes() for seed in (0, 1)}) == 2
  # The family that is shown beside is of one seed.
  assert read(second / 'results.json').num_seeds == 1 and f'Where one look is not enough: {second.name}' in (
    folder / 'report.html'
  ).read_text()
  assert f'{second.name}: mean score, and share of' in out


@apart
def test_a_family_shown_beside_is_that_of_an_operator_of_the_package(tmp_path):
  """It is not trained, and its bill is that of its own training."""
  tiny = {'heldout_tasks': 2, 'num_applications': 1, 'ppo_tasks': 1, 'num_updates': 2, 'num_tasks': 2}
  job, folders = jobs.Job.of('point_goal_sparse_h20', small=True, **tiny), jobs.Folders.of(tmp_path)
  judged = jobs.run_seed(job, 0, folders, tmp_path)
  assert judged.env_steps == zoo_card('point_goal_sparse_h20')['training_env_steps'] and not folders.training.exists()
  name = 'operator.safetensors'
  assert (folders.operator / name).read_bytes() == (zoo_folder('point_goal_sparse_h20') / name).read_bytes()
  given = {'num_steps': 5, 'num_episodes': 3, 'controls': True, 'heldout_tasks': 7, 'backend': 'spring'}
  beside = quickstart.second_job('point_goal_sparse_h20', given)
  assert (beside.num_steps, beside.num_episodes, beside.controls, beside.heldout_tasks, beside.backend) == (
    None, 1, False, 7, None
  )
  assert quickstart.second_job('inverted_pendulum_balance', given).num_steps == 5
  trained = jobs.Job.of('inverted_pendulum_balance', small=True)
  assert trained.zoo is None and trained.num_steps == 1200


def test_baselines_are_compared(finished, tmp_path):
  """Beside a main job that is done, which is not done again."""
  shutil.copytree(finished[0], tmp_path / 'inverted_pendulum_balance')
  code, out, err = run(
    'compare', '--families=inverted_pendulum_balance', *SMALL[1:], f'--folder={tmp_path}',
    f'--json={tmp_path}/comparison.json', '--methods=evolution,task_told', '--budgets=time',
  )
  assert code == 0 and err == '' and 'a generator that is told the task' in out and 'learn ' not in out, err
  row, = read_rows(tmp_path / 'comparison.json', ComparisonRow)
  ours, told, results = row.methods['operator'], row.methods['task_told'], read(finished[0] / 'results.json')
  assert ours['iqm'] == [round(value, 4) for value in results.normalised_return['iqm']] and row.budget == 'time'
  assert abs(told['params'] / ours['params'] - 1) < 0.1 and ours['examples'] == 24 * 64 * 32
  scratch = row.methods['evolution']  # three updates of 65 policies, two episodes each
  assert scratch['episodes'] == [0, 130, 260, 390] and scratch['tasks'] == ours['tasks'] and scratch['params'] is None
  assert scratch['ours_above'] == [None, None] and scratch['title'] == 'evolution strategy from scratch'
  assert told['examples'] > 0 and told['examples'] % (64 * 32) == 0 and ours['between_ms'] > 0
  assert (tmp_path / 'comparison.html').exists()


def test_tables_hold_the_figures(finished):
  folder, _, _ = finished
  code, out, err = run('tabulate_results', f'--results={folder}/results.json')
  assert code == 0 and err == '', err
  results = json.loads((folder / 'results.json').read_text())
  rows = [[cell.strip() for cell in line.split('|')] for line in out.splitlines()]
  first = next(row for row in rows if row[1:3] == ['1', '200'])
  assert first[3].startswith(f'{results["normalised_return"]["iqm"][1]:.3f} [')
  assert first[6] == f'{results["far"]["iqm"][1]:.3f}'
  assert results['verdict'] in out and f'{results["training_env_steps"]["rounds"]:,d}' in out


def test_run_again_it_only_prints(finished):
  """It also deletes what a kill after the report has left."""
  folder, out, _ = finished
  left = folder / 'training' / 'runs_000001.safetensors'
  left.write_bytes(b'')
  stamp = (folder / 'results.json').stat().st_mtime_ns
  code, again, _ = run('quickstart', *SMALL, f'--folder={folder}')
  assert code == 0 and again.splitlines()[-10:] == out.splitlines()[-10:]
  assert (folder / 'results.json').stat().st_mtime_ns == stamp and not left.exists()


def test_other_settings_in_the_same_folder_are_refused(finished):
  folder, _, _ = finished
  code, _, err = run('quickstart', *SMALL, '--seed=1', f'--folder={folder}')
  assert code == 1 and 'seeds=[0]' in err and len(err.splitlines()) == 1


def kill_in(process, stage, seconds):
  """Kills a process with -9 so many seconds after its output tells of a stage; whether it lived so long."""
  shown = ''
  while stage not in shown:
    part = process.stdout.read(1)
    if not part:
      return False
    shown += part
  time.sleep(seconds)
  process.send_signal(signal.SIGKILL)
  return process.wait() == -signal.SIGKILL


def test_killed_and_run_again_it_ends_the_same(finished, tmp_path):
  """A kill in training or in controls (METAIMPROVE_KILL_SEED) loses nothing, doubles nothing and changes no figure."""
  whole, _, _ = finished
  seed = int(os.environ.get('METAIMPROVE_KILL_SEED', '0'))
  stage = KILLED_IN[seed % len(KILLED_IN)]
  shutil.copytree(whole / 'histories', tmp_path / 'histories')  # collecting is killed in test_kills
  process = start('quickstart', *SMALL, f'--folder={tmp_path}')
  assert kill_in(process, stage, np.random.default_rng(seed).uniform(0, 0.5)), f'it was done before {stage!r}'
  process.communicate()
  code, _, err = run('quickstart', *SMALL, f'--folder={tmp_path}')
  assert code == 0, err
  assert figures(tmp_path) == figures(whole)


def test_a_damaged_shard_is_named_and_made_again(finished, tmp_path):
  histories = shutil.copytree(finished[0] / 'histories', tmp_path / 'histories')
  code, out, err = run('inspect_histories', f'--histories={histories}')
  assert code == 0 and err == '' and '4 of 4 histories' in out and '0 are damaged' in out, err
  assert list((histories / 'card' / 'tensorboard').glob('events*')) and (histories / 'card' / 'curves.png').exists()
  whole, victim = shards(histories), next((histories / 'shards').iterdir())
  victim.write_bytes(victim.read_bytes()[:-5] + b'wrong')
  code, out, err = run('inspect_histories', f'--histories={histories}')
  assert code == 1 and f'damaged: {victim.name}' in out and '--repair' in err
  code, out, err = run('inspect_histories', f'--histories={histories}', '--repair')
  assert code == 0 and err == '', err
  assert shards(histories) == whole


def test_improve_prints_and_draws(finished, tmp_path):
  folder, _, _ = finished
  page = tmp_path / 'improve.html'
  code, out, err = run(
    'improve', f'--operator={folder}/operator', '--num_applications=1', '--num_episodes=1', f'--page={page}'
  )
  assert code == 0, err
  assert 'balance' in out and 'after 1 application (100 environment steps)' in out and page.exists()


@apart
def test_show_family_writes_page_and_contact_sheet(tmp_path):
  code, out, err = run(
    'show_family', '--family=inverted_pendulum_balance', '--num_tasks=2',
    f'--folder={tmp_path}',
  )
  assert code == 0 and err == '', err
  page = (tmp_path / 'inverted_pendulum_balance-mjx.html').read_text()
  assert out.count('of the middle') == 2
  assert 'Balance the pole' in page and 'log-uniform' in page and 'http' not in page.replace('http-equiv', '')
  assert (tmp_path / 'inverted_pendulum_balance-mjx.png').read_bytes().startswith(b'\x89PNG')


@apart
def test_blow_ups_are_counted_under_learned_policies(tmp_path):
  name = 'inverted_pendulum_balance'
  learned = f'{tmp_path}/learn'
  code, out, err = run('learn_families', f'--families={name}', '--num_updates=2', f'--folder={learned}')
  assert code == 0 and err == '', err
  assert (tmp_path / 'learn' / 'curves.png').exists() and name in out
  row, = json.loads((tmp_path / 'learn' / 'results.json').read_text())
  # The returns lie between 0 and a reward of 1 a step; another robot gives another return.
  assert row['validation_tasks'] == 256
  assert 0 < row['validation_return_standard_error'] < row['validation_return_after']
  assert row['validation_return_stock_robot'] not in (0, row['validation_return_after'])
  arguments = (f'--families={name}', '--episodes=4', '--batch=4', f'--learned={learned}')
  code, out, err = run('count_non_finite', *arguments, '--dynamics=default')
  assert code == 0 and err == '' and f'{name} on mjx, default, learned policy: 0 of 4 episodes blew up' in out, err
  with pytest.raises(IncompatibleError, match='was learned on mjx, not on generalized'):
    learn_families.final_policies(make_family(name, 'generalized'), tmp_path / 'learn' / name)


@apart
def test_benchmark_writes_json(tmp_path):
  code, _, err = run(
    'benchmark_families', '--families=inverted_pendulum_balance', '--backends=mjx', '--batches=4',
    '--num_steps=2', '--repeats=1', f'--json={tmp_path}/rates.json',
  )
  assert code == 0 and err == '', err
  rows = json.loads((tmp_path / 'rates.json').read_text())
  assert [row['batch'] for row in rows] == [4]
  assert set(rows[0]) == {
    'family', 'backend', 'batch', 'stock_steps_per_second', 'shared_system_steps_per_second',
    'per_task_steps_per_second',
  }
  assert all(value > 0 for row in rows for name, value in row.items() if name.endswith('second'))
