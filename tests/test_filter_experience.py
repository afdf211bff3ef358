"""Which experience is fed back: worked by hand."""

import jax
import numpy as np

from experiments.filter_experience import remember_the_best
from metaimprove.operators.memory import EMPTY
from metaimprove.rollouts import make_play
from metaimprove.tasks.splits import sample_tasks


def applications(memory):
  """Of each policy, the applications whose episodes are remembered."""
  return [sorted(set(of[number != EMPTY].tolist())) for of, number in zip(*map(
    np.asarray, (memory.application, memory.number)
  ))]


def remembered(operator, quantile, trajectory, returns):
  """After policies of such mean returns, [N, B] of N policies in turn; all else of their episodes is alike."""
  remember, params, memory = remember_the_best(operator, quantile), operator.policy.init(jax.random.key(0)), None
  params = jax.tree.map(lambda x: np.stack([x] * len(returns[0])), params)
  for of in returns:
    reward = np.zeros_like(trajectory.reward)
    reward[:, :, 0] = np.array(of)[:, None]
    memory = remember(memory, params, trajectory.replace(reward=reward))
  return applications(memory)


def test_what_is_worse_is_not_remembered(point, operator):
  """Two policies each, of two tasks; what is forgotten for want of room is not looked at here."""
  play = make_play(point, operator.policy, num_episodes=1)
  params = jax.tree.map(lambda x: np.stack([x] * 2), operator.policy.init(jax.random.key(0)))
  trajectory = jax.device_get(play(params, sample_tasks(point, 0, 2, 'train'), jax.random.key(1)))
  returns = [[2.0, 2.0], [1.0, 3.0], [2.0, 2.5]]
  # What was not remembered leaves no gap: the next one counts as the application after the last that was.
  assert remembered(operator, 1.0, trajectory, returns) == [[0, 1], [0, 1]]
  assert remembered(operator, 0.5, trajectory, returns) == [[0, 1], [0, 1, 2]]
  assert remembered(operator, 0.0, trajectory, returns) == [[0, 1, 2], [0, 1, 2]]
