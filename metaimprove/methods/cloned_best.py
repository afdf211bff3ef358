"""Cloning of the best training policies: one policy for all tasks, which is told nothing and reads no experience.

Behaviour cloning (Pomerleau, "ALVINN", NeurIPS 1988) of the best stored policy of every training task. It shows what
one policy is worth that has seen all solutions and does not know which task it is on.

Where it departs from the paper:
- the targets are the action distributions of the policies, by the divergence that operators are trained with, instead
  of the actions that were taken;
- half of the states are those that another policy of the same task visited, as in an operator's examples;
- it has as many hidden layers as the policies that operators emit, but at least two, and these are so wide that it has
  as many parameters as the operator.
"""

import functools

import jax
import jax.numpy as jnp

from metaimprove.methods.baseline import Acting, Baseline, Lessons, count_params, examples_a_step, matched_size
from metaimprove.methods.controls import fixed_policies
from metaimprove.methods.taught import LARGEST, ONLY_BEST, learn_from_pairs, settings_of
from metaimprove.policies import Policy, make_policy
from metaimprove.rollouts import make_play
from metaimprove.trees import batch_size

NAME, TITLE = 'cloned_best', 'the best training policies, cloned'


def cloned_best(lessons: Lessons, *, num_episodes: int) -> Baseline:
  """The baseline; a curve of one point.

  Args:
    lessons: what it learns from.
    num_episodes: that measure it on each task. It plays them by itself, for its policy is larger than others.
  """
  policy = _policy_for(lessons)
  play = make_play(lessons.family, policy, num_episodes=num_episodes)
  settings = settings_of(lessons, hidden_sizes=list(policy.hidden_sizes))
  train = functools.partial(
    learn_from_pairs, NAME, lessons, policy.init, lambda params, pair: policy.apply(params, pair.states),
    size_shares=ONLY_BEST, hidden_sizes=list(policy.hidden_sizes),
  )

  def policies(tasks, rng_key, progress):
    params = train(progress)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch_size(tasks), *x.shape)), params)

  return Baseline(
    method=fixed_policies(NAME, TITLE, policies, play, settings={**settings, 'num_episodes': num_episodes}),
    train=train, examples_a_step=examples_a_step(lessons), acting=Acting(
      begin=lambda params, num: (),
      step=lambda params, _, observation: policy.distribution.mode(policy.apply(params, observation)),
    ),
  )


def _policy_for(lessons: Lessons) -> Policy:
  """The policy that has as many parameters as the operator."""
  config = lessons.config

  def policy_of(size: int) -> Policy:
    return make_policy(config.observation_size, config.action_size, (size,) * max(2, len(config.hidden_sizes)))

  def num_params_of(size: int) -> int:
    return count_params(jax.eval_shape(policy_of(size).init, jax.random.key(0)))

  return policy_of(matched_size(num_params_of, lessons.num_params, range(1, LARGEST)))
