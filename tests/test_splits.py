"""Which tasks the splits draw, and what lies outside the training ranges of far ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.errors import IncompatibleError
from metaimprove.tasks.parameters import Range
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import SPLITS, far_parameter, sample_tasks
from metaimprove.types import Task
from tests.point_family import point_family


@pytest.mark.parametrize(('name', 'size_of', 'ends'), [
  ('half_cheetah_vel', lambda goal: goal[:, 0], (3, 4)),
  ('ant_goal', lambda goal: np.linalg.norm(goal, axis=1), (3, 4)),
  ('inverted_pendulum_balance', lambda goal: np.abs(goal[:, 0]), (0.5, 0.7)),
])
def test_far_goals(name, size_of, ends):
  """A far task has a far goal or one far parameter, all equally often, and `far_parameter` says which."""
  family, num = make_family(name), 1000
  far = jax.vmap(family.sample_far)(jax.random.split(jax.random.key(3), num))
  names = np.array(far_parameter(family, far))
  kinds, counts = np.unique(names, return_counts=True)
  assert set(kinds) == {'goal', *family.ranges}
  np.testing.assert_allclose(counts / num, 1 / len(kinds), atol=0.06)
  size, (low, high) = size_of(np.asarray(far.goal)), ends
  is_goal = names == 'goal'
  assert size[is_goal].min() >= low and size[is_goal].max() <= high and size[~is_goal].max() <= low + 1e-5
  assert np.ptp(size[is_goal]) > 0.9 * (high - low)
  for parameter in family.ranges:
    value = np.asarray(far.dynamics[parameter])
    np.testing.assert_array_equal((value < 0.5) | (value > 2), names == parameter)
  near = jax.vmap(family.sample)(jax.random.split(jax.random.key(3), num))
  assert set(far_parameter(family, near)) == {None}


def test_far_parameter_by_hand():
  noise = Range(low=0.0, high=0.02, far_low=0.0, far_high=0.1, logarithmic=False)
  family = point_family(imperfections={'observation_noise': noise}, far_goals=True)
  tasks = Task(
    goal=jnp.array([[0.0], [1.5], [1.0], [0.0], [0.0]]), dynamics={
      'gear': jnp.array([2.0, 1.0, 2.1, 0.45, 1.0]), 'observation_noise': jnp.array([0.02, 0.0, 0.0, 0.01, 0.03]),
    },
  )
  assert far_parameter(family, tasks) == [None, 'goal', 'gear', 'gear', 'observation_noise']
  without = dataclasses.replace(family, is_far_goal=None)
  assert far_parameter(without, tasks)[1] is None
  hopper = make_family('hopper_rand_params')
  names = far_parameter(hopper, jax.vmap(hopper.sample_far)(jax.random.split(jax.random.key(0), 100)))
  assert set(names) == set(hopper.ranges)


def test_far_goals_where_no_dynamics_are_randomised():
  family = make_family('half_cheetah_vel', None, 'none')
  assert jax.vmap(family.sample_far)(jax.random.split(jax.random.key(0), 50)).goal.min() >= 3


def test_splits_share_no_task_and_keep_their_draws():
  family = point_family(far_goals=True)
  splits = {split: sample_tasks(family, 0, 200, split) for split in SPLITS}
  rows = np.concatenate([np.stack([t.goal[:, 0], t.dynamics['gear']], axis=1) for t in splits.values()])
  assert len(np.unique(rows, axis=0)) == len(rows) == 200 * len(SPLITS)
  assert set(far_parameter(family, splits['far'])) == {'goal', 'gear'}
  for split in ('train', 'heldout', 'validation'):
    assert set(far_parameter(family, splits[split])) == {None}
  # The stream of each split is that of its index: a new split changes the tasks of none.
  for index, split in enumerate(('train', 'heldout', 'far', 'validation')):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), index), 5)
    task = (family.sample_far if split == 'far' else family.sample)(key)
    assert splits[split].goal[5] == task.goal and splits[split].dynamics['gear'][5] == task.dynamics['gear']


def test_ranges_and_goals_that_make_no_sense_are_refused():
  for wrong in ({'low': 2.0, 'high': 1.0}, {'far_high': 1.5}, {'far_low': 0.5, 'far_high': 2.0}, {'far_low': 0.0}):
    with pytest.raises(IncompatibleError):
      Range(**wrong)
  with pytest.raises(IncompatibleError, match='both'):
    Goal(sample=lambda key: jnp.zeros(1), describe=str, sample_far=lambda key: jnp.ones(1))
