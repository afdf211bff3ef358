"""Statistics by hand."""

import numpy as np

from metaimprove.evaluation import metrics


def test_normalise_by_hand():
  np.testing.assert_allclose(
    metrics.normalise(np.array([[-100.0, -5], [-20, 0]]), np.array([-100.0, -10]), np.array([-20.0, -5])),
    [[0, 1], [1, 2]],
  )


def test_iqm_leaves_out_a_quarter_on_each_side():
  assert metrics.iqm(np.array([-1000.0, 1, 3, 1000])) == 2


def test_interval_is_that_of_resampled_tasks():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(2, 1, 200)) + np.array([0.0, 5.0])[:, None, None]
  curve = metrics.iqm_with_interval(scores)
  for n, centre in enumerate((0.0, 5.0)):
    assert curve['low'][n] < curve['iqm'][n] < curve['high'][n]
    assert abs(curve['iqm'][n] - centre) < 0.3
    # The standard error of the interquartile mean of a normal is about 1.09 / sqrt(200), so the width about 0.30.
    assert 0.2 < curve['high'][n] - curve['low'][n] < 0.4


def test_strata_are_resampled_apart():
  """Two seeds, each the same on all tasks: whatever tasks are drawn, the mean is the same."""
  curve = metrics.iqm_with_interval(np.stack([np.zeros(10), np.ones(10)])[None])
  assert curve['low'] == curve['high'] == curve['iqm'] == [0.5]


def test_first_at_least():
  assert metrics.first_at_least([0.1, 0.96, 0.5, 0.97], 0.95) == 1
  assert metrics.first_at_least([0.1], 0.95) is None
