"""How many steps Brax's PPO saves, by hand."""

import types

import pytest

from experiments.benchmark_import import STARTS, compare_starts


def test_steps_to_the_ends_of_other_starts_by_hand():
  """Two tasks. The better of two learning rates counts on either side, in where it ends and in how fast it is there."""
  config = types.SimpleNamespace(family='point', num_episodes=2, episode_length=100)
  curves = {
    'scratch': [[(0, -9.0), (100, -5.0), (200, -4.0)], [(0, -9.0), (100, -3.0), (200, -3.5)]],
    'scratch_slow': [[(0, -9.0), (100, -8.0), (200, -7.0)], [(0, -9.0), (100, -4.0), (200, -3.0)]],
    'usual': [[(0, -9.0), (100, -2.0), (200, -1.0)], [(0, -9.0), (100, -2.0), (200, -2.0)]],
    'operator': [[(0, -4.0), (100, -3.0), (200, -0.5)], [(0, -3.2), (100, -4.0), (200, -4.0)]],
    'operator_slow': [[(0, -4.5), (100, -2.0), (200, -1.5)], [(0, -3.2), (100, -2.9), (200, -2.5)]],
  }
  assert {name for names in STARTS.values() for name in names} == set(curves)
  found = compare_starts(types.SimpleNamespace(config=config), {'slow_rate': 0.1}, curves)
  # A random policy ends at -4 and -3; it is there after 200 and, before it gets worse again, after 100 steps.
  assert found['needed']['scratch'] == {'scratch': [200, 100], 'usual': [100, 100], 'operator': [0, 100]}
  assert (found['scratch_env_steps'], found['operator_env_steps']) == (150, 50)
  # Brax's own start ends at -1 and -2, where the operator's output gets on the first task only.
  assert found['needed']['usual'] == {'scratch': [None, None], 'usual': [200, 100], 'operator': [200, None]}
  assert found['usual_env_steps'] == 150 and found['operator_env_steps_to_usual'] is None
  assert found['operator_experience_env_steps'] == pytest.approx(3 * 2 * 100) and found['family'] == 'point'
