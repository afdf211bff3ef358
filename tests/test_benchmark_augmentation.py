"""The benchmark of augmentation: what it trains, how it chooses, and its rows."""

import dataclasses
import types

import numpy as np
import pytest

from experiments import ask_rows, benchmark_augmentation, jobs, stages
from experiments.benchmark_augmentation import choose, name_of, rows_of
from experiments.jobs import Job
from metaimprove.errors import IncompatibleError, NoScoreError
from metaimprove.evaluation import rows
from metaimprove.evaluation.evaluate import Bounds, Evaluation
from metaimprove.histories.dataset import first_tasks, with_hindsight
from metaimprove.methods.method import Curve


def judged_of(splits, family='reacher_goal', num_applications=4):
  """Figures of seeds with curves [P, B], each split -> name -> one for each seed: returns that are scores."""
  def evaluation(seed):
    curves = {
      split: {name: Curve(episodes=np.zeros(5, int), env_steps=np.zeros(5, int), returns=np.array(of[seed]))
              for name, of in named.items()}
      for split, named in splits.items()
    }
    num = {split: next(iter(named.values())).returns.shape[1] for split, named in curves.items()}
    return Evaluation(
      family=family, backend='mjx', seed=seed, reference='the best', curves=curves, far_parameter=np.zeros(0, str),
      bounds={split: Bounds(initial=np.zeros(n), reference=np.ones(n), usable=np.ones(n, bool))
              for split, n in num.items()},
    )

  seeds = range(len(next(iter(next(iter(splits.values())).values()))))
  return ask_rows.Judged(
    job=Job(family=family, num_applications=num_applications), family=types.SimpleNamespace(backend='mjx'),
    seeds=[*seeds], command='python -m experiments.benchmark_augmentation --families=reacher_goal', plain=[],
    asked=[evaluation(seed) for seed in seeds], datasets=[],
  )


def curve(first, last):
  """Of five points, with these tasks' scores at 1 and 4."""
  return [[9.0] * len(first), first, [9.0] * len(first), [9.0] * len(first), last]


def test_rows_by_hand():
  """Two seeds of two tasks and one: means over all three, and the gain of each, which is the same on all tasks here."""
  judged = judged_of({'heldout': {
    'without': [curve([0.0, 0.3], [0.5, 0.6]), curve([0.6], [0.7])],
    'share_0_3': [curve([0.2, 0.5], [0.4, 0.5]), curve([0.8], [0.6])],
  }}, family='point_goal_sparse_h20')
  found = {row.metric: row for row in rows_of(judged, 16, 0.3)}
  row = found['mean score after 1, 16 training tasks, share 0.3']
  assert (row.value, row.control_value, row.tasks, row.seeds) == (0.5, 0.3, 3, [0, 1])
  assert row.control == 'without augmentations' and row.ask == 'augmentation' and row.low <= 0.5 <= row.high
  gained = found['gain in mean score after 1, 16 training tasks, share 0.3']
  assert (gained.value, gained.low, gained.high, gained.control_value) == (0.2, 0.2, 0.2, 0.0)
  assert gained.tasks == 3 and found['gain in mean score after 4, 16 training tasks, share 0.3'].value == -0.1
  assert len(found) == 4


def test_gains_are_those_of_the_same_tasks():
  """Tasks differ by much more than what is gained on each, which is told all the same; of a dense family by the IQM."""
  rng = np.random.default_rng(0)
  before = rng.uniform(0, 1, 64)
  after = before + 0.05 + rng.uniform(-0.01, 0.01, 64)
  judged = judged_of({'heldout': {'without': [curve(before, before)], 'share_1': [curve(after, after)]}})
  found = {row.metric: row for row in rows_of(judged, 64, 1.0)}
  row = found['gain in IQM of the score after 4, 64 training tasks, share 1']
  assert 0.03 < row.low < row.value < row.high < 0.07


def test_a_share_is_chosen_on_validation_tasks():
  """Over the points that are told of, whatever held-out tasks say."""
  good, bad = curve([0.5], [0.9]), curve([0.6], [0.7])
  judged = judged_of({'validation': {'share_0_1': [bad], 'share_0_6': [good]},
                      'heldout': {'share_0_1': [good], 'share_0_6': [bad]}})
  assert choose(judged, (0.1, 0.6)) == 0.6


def test_where_no_task_has_a_score_nothing_is_said():
  found = judged_of({'validation': {'without': [curve([0.5], [0.9])]}}).asked[0]
  found.check_scored('validation')
  bounds = {'validation': dataclasses.replace(found.bounds['validation'], usable=np.zeros(1, bool))}
  with pytest.raises(NoScoreError, match='No validation task of reacher_goal has a score: the best is nowhere'):
    dataclasses.replace(found, bounds=bounds).check_scored('validation')


def test_each_binary_replaces_its_own_rows_alone(tmp_path):
  """In the file that both write."""
  path = tmp_path / 'asks.json'

  def row(binary, ask, metric, value=0.5, family='reacher_goal'):
    return rows.AskRow(
      ask=ask, family=family, backend='mjx', seeds=[0], tasks=9, metric=metric, value=value, low=0.0, high=1.0,
      control='', control_value=0.0, command=f'python -m experiments.{binary} --families={family}',
    )

  best, got = row('benchmark_asks', 'best', 'a'), row('benchmark_asks', 'goal', 'b')
  other = row('benchmark_asks', 'best', 'a', family='hopper_rand_params')
  augmented = [row('benchmark_augmentation', 'augmentation', metric) for metric in ('c', 'd')]
  for some in ([best, got], [other], augmented):
    ask_rows.write(path, some)
  assert rows.read(path, rows.AskRow) == [best, got, other, *augmented]
  again = row('benchmark_augmentation', 'augmentation', 'e', 0.7)
  ask_rows.write(path, [again])
  assert rows.read(path, rows.AskRow) == [best, got, other, again]
  ask_rows.write(path, [dataclasses.replace(best, value=0.9)])
  assert rows.read(path, rows.AskRow) == [dataclasses.replace(best, value=0.9), other, again]


def test_first_tasks(dataset, point):
  """Of both sources, with all that is known of each history; more tasks than there are is all."""
  told = with_hindsight(dataset, point)
  few = first_tasks(told, 3)
  rows_ = np.flatnonzero(np.isin(dataset.task_index, [0, 1, 2]))
  assert set(few.task_index) == {0, 1, 2} and set(few.source) == {0, 1} and few.num_histories == len(rows_) == 6
  for name in ('returns', 'rank', 'achieved', 'measured'):
    np.testing.assert_array_equal(getattr(few, name), getattr(told, name)[rows_])
  level = np.zeros(6, int)
  np.testing.assert_array_equal(few.read_tasks(np.arange(6)).goal, told.read_tasks(rows_).goal)
  np.testing.assert_array_equal(few.read(np.arange(6), level)[1].reward, told.read(rows_, level)[1].reward)
  assert len({dataset.checksum, first_tasks(dataset, 3).checksum, first_tasks(dataset, 2).checksum}) == 3
  assert first_tasks(dataset, 100).num_histories == dataset.num_histories and first_tasks(dataset, 3).achieved is None


class Seen(Exception):
  """What would be trained."""


@pytest.mark.parametrize(('share', 'kinds'), [(0.0, ('steps',)), (0.3, ('steps', 'augmentation'))])
def test_operators_learn_from_the_first_tasks_alone(histories, point, tmp_path, monkeypatch, share, kinds):
  """From all of them, and are alike but for the share."""
  def seen(operator, play, dataset, settings, **options):
    raise Seen(operator.config, dataset, settings, options)

  monkeypatch.setattr(stages, 'make_family', lambda *_: point)
  monkeypatch.setattr(stages.loop, 'train', seen)
  (tmp_path / 'histories').symlink_to(histories)
  with pytest.raises(Seen) as caught:
    benchmark_augmentation.train(Job(family='point', num_steps=7), point, 3, share, 5, tmp_path)
  config, dataset, settings, options = caught.value.args
  assert config.asks == kinds and set(dataset.task_index) == {0, 1, 2}
  assert (settings.augmented_share, settings.num_validation, settings.num_steps) == (share, 0, 7)
  assert settings.round_tasks == 3 and options['seed'] == 5
  assert options['folder'] == tmp_path / '3_tasks' / name_of(share)


@pytest.mark.parametrize(('shares', 'message'), [
  (['0.3', 'many'], 'are numbers'), (['0', '0.3'], 'shares above 0'), (['1.5'], 'up to 1'), ([], 'shares above 0'),
])
def test_shares_that_make_no_sense_are_refused(shares, message):
  with pytest.raises(IncompatibleError, match=message):
    benchmark_augmentation.augmented_shares(shares)


@pytest.mark.parametrize('tasks', [['16', 'many'], ['0'], ['-1'], []])
def test_numbers_of_tasks_that_make_no_sense_are_refused(tasks):
  with pytest.raises(IncompatibleError, match='numbers of tasks from 1 on'):
    jobs.training_tasks(tasks)


def test_fewer_histories_than_training_tasks_are_refused(monkeypatch):
  monkeypatch.setattr(jobs, 'given', lambda: {'num_tasks': 64})
  with pytest.raises(IncompatibleError, match='--num_tasks=64 must be at least 256'):
    jobs.job_with('point_goal_sparse_h20', 256)
  assert jobs.job_with('point_goal_sparse_h20', 16).num_tasks == 64
