"""Statistics by hand."""

import numpy as np
import pytest

from metaimprove.evaluation import metrics
from metaimprove.evaluation.results import break_even_tasks


def test_normalise_by_hand():
  np.testing.assert_allclose(
    metrics.normalise(np.array([[-100.0, -5], [-20, 0]]), np.array([-100.0, -10]), np.array([-20.0, -5])),
    [[0, 1], [1, 2]],
  )


def test_returns_of_is_the_inverse():
  bounds = np.array([-100.0, -10]), np.array([-20.0, -5])
  assert metrics.returns_of(metrics.normalise(np.array([-60.0, -5]), *bounds), *bounds).tolist() == [-60, -5]


def test_iqm_leaves_out_a_quarter_on_each_side():
  assert metrics.iqm(np.array([-1000.0, 1, 3, 1000])) == 2


def test_interval_is_that_of_resampled_tasks():
  rng = np.random.default_rng(0)
  curve = metrics.iqm_with_interval([rng.normal(size=(2, 200)) + np.array([0.0, 5.0])[:, None]])
  for n, centre in enumerate((0.0, 5.0)):
    assert curve['low'][n] < curve['iqm'][n] < curve['high'][n]
    assert abs(curve['iqm'][n] - centre) < 0.3
    # The standard error of the interquartile mean of a normal is about 1.09 / sqrt(200), so the width about 0.30.
    assert 0.2 < curve['high'][n] - curve['low'][n] < 0.4


def test_strata_are_resampled_apart():
  """Two seeds with other numbers of tasks, each the same on all of its own: whatever tasks are drawn, the mean is that
  of 2 x 0 and 6 x 1, less two on each side: 1. One bag of 8 tasks would vary. A seed without tasks changes nothing."""
  curve = metrics.iqm_with_interval([np.zeros((1, 2)), np.ones((1, 6)), np.zeros((1, 0))])
  assert curve == {'iqm': [1.0], 'low': [1.0], 'high': [1.0]}
  half = metrics.iqm_with_interval([np.zeros((1, 4)), np.ones((1, 4))])
  assert half == {'iqm': [0.5], 'low': [0.5], 'high': [0.5]}


def test_without_tasks_nothing_is_known():
  assert metrics.iqm_with_interval([np.zeros((2, 0))]) == {name: [None, None] for name in ('iqm', 'low', 'high')}
  assert metrics.mean_and_found([np.zeros((2, 0))]) == {'mean': [None, None], 'found': [None, None]}


def test_mean_and_share_found_by_hand():
  """The IQM of the last point is 0.95; it hides that a quarter of the tasks was not found."""
  strata = [np.array([[0.0, 0.2], [0.1, 0.9]]), np.array([[0.0, 0.4], [1.0, 1.0]])]
  assert metrics.mean_and_found(strata) == {
    'mean': pytest.approx([0.15, 0.75]), 'found': pytest.approx([0.25, 0.75])
  }


def test_first_at_least():
  assert metrics.first_at_least([None, 0.1, 0.96, 0.5, 0.97], 0.95) == 2
  assert metrics.first_at_least([0.1], 0.95) is None


def test_a_curve_is_flat_where_its_last_tenth_is_like_the_tenth_before():
  rising = np.linspace(0, 1, 20).tolist()
  assert metrics.rise_at_end(rising) == pytest.approx(2 / 19) and not metrics.is_flat(metrics.rise_at_end(rising))
  assert metrics.is_flat(metrics.rise_at_end([*rising, *[1.0] * 20]))
  assert metrics.is_flat(metrics.rise_at_end([None, 1.0])) is None
  assert not metrics.is_flat(metrics.rise_at_end(rising[::-1])), 'a curve that falls is not flat'


def test_break_even_by_hand():
  """1,000 steps of training, and a task costs 100 instead of 300: paid off after 5 tasks, controls not counted."""
  training = {'source': 900, 'rounds': 100, 'controls': 5_000}
  assert break_even_tasks(training, 100, 300) == 5
  assert break_even_tasks(training, 100, 299) == 6
  assert break_even_tasks(training, 300, 100) is None
  assert break_even_tasks(training, 100, None) is None and break_even_tasks(training, None, 300) is None
  assert break_even_tasks({**training, 'rounds': None}, 100, 300) is None


def test_an_interval_of_any_figure():
  """Of a mean it is that of the bootstrap, and tasks are drawn within each stratum: between strata nothing varies."""
  rng = np.random.default_rng(0)
  values = rng.normal(size=(1, 400))
  low, high = metrics.interval_of(lambda strata: float(np.mean(np.concatenate(strata, axis=1))), [values])
  assert low == pytest.approx(values.mean() - 1.96 / 20, abs=0.02)
  assert high == pytest.approx(values.mean() + 1.96 / 20, abs=0.02)
  apart = [np.zeros((1, 5)), np.ones((1, 5))]
  assert metrics.interval_of(lambda strata: float(np.mean(np.concatenate(strata, axis=1))), apart) == (0.5, 0.5)
