"""How generalisation follows the number of training tasks: power laws, rows, tables, and what operators learn from."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import scale_tasks, stages
from experiments.jobs import Job
from experiments.scale_tasks import KEPT_OUT, Scaling, load_histories, name_of, numbers, row_of
from experiments.tabulate_results import draw_scaling, scaling_tables
from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.evaluation import rows
from metaimprove.evaluation.evaluate import Bounds, Evaluation
from metaimprove.evaluation.power_law import fit_power_law
from metaimprove.histories.dataset import first_tasks
from metaimprove.methods.method import Curve
from metaimprove.training.examples import split_histories
from tests.point_histories import use_small_family

SIZES = [16, 64, 256, 1024]
HALVED = (0.8, 0.4, 0.2, 0.1)
"""Regrets of a law whose exponent is 0.5: half as much with four times as many."""


def evaluation(scores):
  """Of operators of `SIZES`: their scores [T, P, B]."""
  scores = np.array(scores, float)
  num_points, num_tasks = scores.shape[1:]
  points = np.arange(num_points)
  return Evaluation(
    family='reacher_goal', backend='mjx', seed=0, reference='the best', far_parameter=np.zeros(0, str),
    curves={'heldout': {
      name_of(num): Curve(episodes=points, env_steps=points, returns=of) for num, of in zip(SIZES, scores)
    }},
    bounds={'heldout': Bounds(
      initial=np.zeros(num_tasks), reference=np.ones(num_tasks), usable=np.full(num_tasks, True)
    )},
  )


def row(family='reacher_goal', **changes):
  """Two seeds of four tasks, with regrets after one application that are `HALVED` and a little more or less."""
  off = np.array([-0.3, -0.1, 0.1, 0.3])
  scores = [[np.zeros(4), 1 - regret * (1 + off)] for regret in HALVED]
  answers = [[{'loss': 1.5 + regret, 'divergence': regret} for regret in HALVED]] * 2
  made = row_of(
    Job(family=family, num_applications=1), 'mjx', SIZES, [0, 1], [evaluation(scores)] * 2, answers, 'a command'
  )
  return dataclasses.replace(made, **changes)


@given(
  st.floats(0, 2), st.floats(0.1, 2), st.integers(10, 250), st.lists(st.integers(8, 4096), min_size=4, unique=True)
)
def test_a_power_law_without_noise_is_found(floor, scale, hundredths, sizes):
  relative = np.array(sizes) / min(sizes)
  values = floor + scale * relative ** -(hundredths / 100)
  law = fit_power_law(np.array(sizes), values)
  np.testing.assert_allclose(law.floor + law.scale * relative ** -law.exponent, values, atol=1e-3)


def test_a_power_law_by_hand():
  law = fit_power_law(np.array(SIZES), np.array(HALVED))
  assert (law.floor, law.scale, law.exponent) == pytest.approx((0.0, 0.8, 0.5), abs=1e-6)
  below = fit_power_law(np.array(SIZES), np.array(HALVED) - 0.03, lowest=-0.05)
  assert (below.floor, below.scale, below.exponent) == pytest.approx((-0.03, 0.8, 0.5), abs=1e-6)
  held = fit_power_law(np.array(SIZES), np.array(HALVED) - 0.03)
  assert held.floor == 0.0 and held.exponent > 0.5


@pytest.mark.parametrize('values', [[0.3, 0.3, 0.3, 0.3], [0.1, 0.2, 0.3, 0.6]])
def test_what_does_not_fall_has_no_exponent(values):
  law = fit_power_law(np.array(SIZES), np.array(values))
  assert (law.floor, law.scale, law.exponent) == pytest.approx((0.3, 0.0, 0.0))


def test_too_few_numbers_are_refused():
  with pytest.raises(IncompatibleError, match='at least 4 different amounts'):
    fit_power_law(np.array([16, 64, 64, 256]), np.ones(4))
  with pytest.raises(IncompatibleError, match='at least 4 different numbers'):
    numbers(['16', '64', '64', '256'])
  assert numbers(['64', '16', '256', '32', '16']) == [16, 32, 64, 256]


@pytest.mark.parametrize('family', ['reacher_goal', 'point_goal_sparse_h20'])
def test_a_row_tells_scores_over_tasks_and_seeds_and_the_laws(family):
  made = row(family)
  assert made.tasks == 8 and made.after == [1]
  assert made.score == [pytest.approx(1 - np.array(HALVED))]
  assert made.low[0][0] < 0.2 < made.high[0][0]
  assert made.loss == pytest.approx([2.3, 1.9, 1.7, 1.6])
  assert made.laws['loss'] == {
    'exponent': 0.5, 'floor': 1.5, 'scale': 0.8, 'low': None, 'high': None, 'per_seed': [0.5, 0.5]
  }
  law = made.laws['regret after 1']
  assert (law['exponent'], law['floor'], law['scale']) == pytest.approx((0.5, 0.0, 0.8), abs=1e-4)
  # Tasks are drawn together for all numbers: whatever is drawn, a regret is half as much with four times as many.
  assert law['low'] == law['high'] == 0.5 and law['per_seed'] == [0.5, 0.5]


def test_seeds_that_differ_show_in_the_exponents():
  curves = [1 - np.array(regrets)[:, None] for regrets in (HALVED, (0.4, 0.4, 0.4, 0.4))]
  laws = Scaling(family='reacher_goal', training_tasks=SIZES, loss=np.ones((2, 4)), scores={1: curves}).laws()
  assert laws['regret after 1']['per_seed'] == [0.5, 0.0]
  assert laws['loss']['exponent'] == 0.0


def test_means_and_interquartile_means():
  """A task that is far off counts where rewards are sparse."""
  strata = [np.array([[0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.8]])]
  of = lambda family: Scaling(family=family, training_tasks=[1], loss=np.zeros((1, 1)), scores={}).score(strata)
  assert of('reacher_goal') == pytest.approx([0.5]) and of('point_goal_sparse_h20') == pytest.approx([0.6])


def test_rows_are_kept_and_shown(tmp_path):
  path = tmp_path / 'scaling.json'
  rows.add(path, row())
  assert rows.read_any(path) == [row()]
  lines = scaling_tables(rows.read_any(path))
  assert any(line.startswith('| 64 | 1.900 | 0.400 | 0.600 [') for line in lines)
  assert any(line.startswith('| loss | 0.50 | 0.50, 0.50 | 2.300 | 1.500 |') for line in lines)
  draw_scaling([row()], tmp_path / 'scaling.png')
  assert (tmp_path / 'scaling.png').read_bytes().startswith(b'\x89PNG')
  for changes, says in (({'score': [[0.1, 0.2]]}, 'score'), ({'laws': {'loss': {}}}, 'laws')):
    with pytest.raises(DamagedDataError, match=says):
      rows.add(path, row(**changes))
      rows.read(path, rows.ScalingRow)
    path.unlink()


def test_operators_of_few_tasks_learn_from_these_and_play_as_much(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(scale_tasks.stages, 'train_operator', lambda *_, **given: asked.append(given))
  monkeypatch.setattr(scale_tasks, 'load_operator', lambda folder, family: folder)
  job = Job.of('point_goal_sparse_h20', num_tasks=2048 + KEPT_OUT)
  for num in (16, 2048):
    scale_tasks.train(job, num, 0, tmp_path)
  assert [given['num_tasks'] for given in asked] == [16, 2048]
  assert [given['explores'] for given in asked] == [False, False]
  for given_ in asked:
    assert given_['settings'] == {'round_tasks': asked[1]['settings']['round_tasks'], 'num_validation': 0}
  assert asked[0]['settings']['round_tasks'] > 16


def test_tasks_that_are_kept_out_are_not_learned_from(dataset, point, monkeypatch, tmp_path):
  """Where simulations were not finite there may be too few for both."""
  there = len(np.unique(dataset.task_index))
  monkeypatch.setattr(scale_tasks, 'KEPT_OUT', 2)
  monkeypatch.setattr(scale_tasks, 'load_dataset', lambda *_, **__: dataset)
  job = Job(family='point_goal_sparse_h20', num_tasks=there)
  loaded = load_histories(job, point, there - 2, tmp_path)
  learned = set(first_tasks(loaded, there - 2).task_index)
  assert not learned & set(loaded.task_index[split_histories(loaded, 2)[1]])
  with pytest.raises(IncompatibleError, match=f'holds {there} tasks .* Pass --num_tasks={there}'):
    load_histories(job, point, there - 1, tmp_path)


def test_a_small_run(point, tmp_path, monkeypatch):
  """Operators are alike but for the histories that they learn from; run again, nothing is trained."""
  use_small_family(monkeypatch, point, scale_tasks, stages)
  monkeypatch.setattr(scale_tasks, 'KEPT_OUT', 2)
  job = Job(
    family='point', num_tasks=6, num_checkpoints=3, num_episodes=1, num_steps=3, heldout_tasks=8, num_applications=2
  )
  found, answers = scale_tasks.judge(job, [2, 4], 0, tmp_path)
  settings = [files.read_json(tmp_path / f'{num}_tasks' / 'settings.json') for num in (2, 4)]
  assert {name for name in settings[0] if settings[0][name] != settings[1][name]} == {'histories'}
  assert [set(answer) for answer in answers] == [{*rows.ANSWERS}] * 2 and answers[0] != answers[1]
  monkeypatch.setattr(stages, 'train_operator', None)
  again, answers_again = scale_tasks.judge(job, [2, 4], 0, tmp_path)
  assert answers_again == answers
  for num in (2, 4):
    returns = found.curves['heldout'][name_of(num)].returns
    assert returns.shape == (3, 8)
    np.testing.assert_array_equal(again.curves['heldout'][name_of(num)].returns, returns)
