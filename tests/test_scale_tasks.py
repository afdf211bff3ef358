"""How generalisation follows the number of training tasks: power laws, rows, tables, and what operators learn from."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import scale_tasks
from experiments.jobs import Job
from experiments.scale_tasks import laws_of, name_of, row_of
from experiments.tabulate_results import draw_scaling, scaling_tables
from metaimprove.errors import DamagedDataError, NoScoreError
from metaimprove.evaluation import rows
from metaimprove.evaluation.evaluate import Bounds, Evaluation
from metaimprove.evaluation.power_law import fit_power_law
from metaimprove.methods.method import Curve

SIZES = [16, 64, 256]


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


def row(**changes):
  """Two seeds of two tasks: regrets of 0.8, 0.4 and 0.2 after one application, halved with four times the tasks."""
  scores = [[[0, 0], [1 - regret - 0.1, 1 - regret + 0.1]] for regret in (0.8, 0.4, 0.2)]
  answers = [[{'loss': 1.5 + 1.0 * share, 'divergence': share} for share in (1.0, 0.5, 0.25)]] * 2
  made = row_of(
    Job(family='reacher_goal', num_applications=1), 'mjx', SIZES, [0, 1], [evaluation(scores)] * 2, answers, 'a command'
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
  law = fit_power_law(np.array([16, 64, 256, 1024]), np.array([1.0, 0.5, 0.25, 0.125]))  # halved by four times as many
  assert (law.floor, law.scale, law.exponent) == pytest.approx((0.0, 1.0, 0.5), abs=1e-6)
  flat = fit_power_law(np.array([16, 64, 256]), np.array([0.3, 0.3, 0.3]))
  assert flat.floor + flat.scale == pytest.approx(0.3)


def test_a_figure_that_grows_has_a_flat_law_instead_of_a_negative_one():
  law = fit_power_law(np.array([16, 64, 256]), np.array([0.1, 0.2, 0.3]))
  assert law.scale == pytest.approx(0.0)
  assert law.floor == pytest.approx(0.2)


def test_a_row_tells_means_over_tasks_and_seeds_and_the_laws():
  made = row()
  assert made.tasks == 4
  assert made.after == [1]
  assert made.mean == [pytest.approx([0.2, 0.6, 0.8])]
  assert made.low[0][0] == pytest.approx(0.1)
  assert made.high[0][0] == pytest.approx(0.3)
  assert made.loss == pytest.approx([2.5, 2.0, 1.75])
  assert made.laws['loss']['exponent'] == pytest.approx(0.5)
  assert made.laws['loss']['floor'] == pytest.approx(1.5)
  assert made.laws['regret after 1']['exponent'] == pytest.approx(0.5)
  # Regrets of both seeds' tasks drawn alike, at most 0.1 off: 0.9, 0.5, 0.3, which is no longer halved.
  assert made.laws['regret after 1']['low'] <= 0.5 <= made.laws['regret after 1']['high']


def test_laws_are_of_tasks_that_are_drawn_together():
  """Where all tasks are alike but for what each has lost in all sizes, the exponent of a law with a floor is known."""
  regrets = np.array([[0.8], [0.4], [0.2]]) + np.array([0.0, 0.1, 0.3])
  laws = laws_of(SIZES, [1.0, 1.0, 1.0], {2: [1 - regrets]})
  law = laws['regret after 2']
  assert law['exponent'] == law['low'] == law['high'] == pytest.approx(0.5, abs=0.011)
  assert law['floor'] == pytest.approx(np.mean([0.0, 0.1, 0.3]), abs=0.01)


def test_rows_are_kept_and_shown(tmp_path):
  path = tmp_path / 'scaling.json'
  rows.add(path, row())
  assert rows.read_any(path) == [row()]
  lines = scaling_tables(rows.read_any(path))
  assert '| 64 | 2.000 | 0.500 | 0.600 [0.500, 0.700] |' in lines
  assert any(line.startswith('| loss | -0.50 | 2.500 | 1.500 |') for line in lines)
  draw_scaling([row()], tmp_path / 'scaling.png')
  assert (tmp_path / 'scaling.png').read_bytes().startswith(b'\x89PNG')
  with pytest.raises(DamagedDataError, match='mean'):
    rows.add(path, row(mean=[[0.1, 0.2]]))
    rows.read(path, rows.ScalingRow)


def test_a_family_without_scores_is_refused():
  nothing = evaluation(np.zeros((3, 2, 2)))
  nothing.bounds['heldout'].usable[:] = False
  with pytest.raises(NoScoreError, match='No heldout task'):
    row_of(Job(family='reacher_goal', num_applications=1), 'mjx', SIZES, [0], [nothing], [[]], '')


def test_operators_of_few_tasks_learn_from_these_and_play_as_much(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(scale_tasks.stages, 'train_operator', lambda *_, **given: asked.append(given))
  monkeypatch.setattr(scale_tasks, 'load_operator', lambda folder, family: folder)
  job = Job.of('reacher_goal', num_tasks=2048 + scale_tasks.KEPT_OUT)
  for num in (16, 2048):
    scale_tasks.train(job, num, 0, tmp_path)
  assert [given['num_tasks'] for given in asked] == [16, 2048]
  assert asked[0]['settings'] == asked[1]['settings']
  assert asked[0]['settings']['round_tasks'] > 16
