"""An operator that was trained on a Brax family improves policies there; see `make_reacher_operator`."""

import jax
import numpy as np
import pytest

from metaimprove.asks import ask
from metaimprove.iteration import iterate
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.checkpoints import load_operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.types import mean_return
from tests.make_reacher_operator import FAMILY, RESULT

NUM_TASKS = 32


@pytest.fixture(scope='module')
def improved():
  """(experience_of) -> [3] mean returns of random policies on held-out tasks, and after one and two applications."""
  family = make_family(FAMILY)
  operator, operator_params = load_operator(RESULT, family)
  tasks = sample_tasks(family, 1, NUM_TASKS, 'heldout')
  start = jax.vmap(operator.policy.init)(jax.random.split(stream(1, 'initial'), NUM_TASKS))
  play, remember = make_play(family, operator.policy, num_episodes=2), make_remember(operator)

  def returns(experience_of):
    improve = make_improve(operator, operator_params, ask(steps='best'), experience_of=experience_of)
    found = iterate(improve, remember, play, start, tasks, stream(1, 'episodes'), num_applications=2)
    return [float(np.mean(mean_return(one.trajectory))) for one in found]

  return returns


def test_a_trained_operator_improves_policies_on_a_brax_family(improved):
  """Rewards are distances to a hidden target: with its own experience it gets near, with another task's it does not.
  An untrained operator, or one that is fed wrongly, gains nothing."""
  own, others = improved(None), improved(np.roll(np.arange(NUM_TASKS), 1))
  assert own[1] > 0.5 * own[0], own
  assert own[2] > 0.4 * own[0], own
  assert others[2] < own[2] + 0.4 * own[0], (own, others)
