"""A generator of policies that is told the task, and reads no experience.

HyperZero (Rezaei-Shoshtari et al., arXiv:2211.15457) and HyPoGen (ICLR 2025) generate the weights of a policy from the
parameters of a task: here its goal and its whole dynamics, all that the task-conditioned source is told. It is an upper
reference and no competitor, for operators must find out by experience what it is told: it shows what a generated policy
is worth where nothing has to be found out.

Where it departs from the papers:
- an operator's decoder generates the weights, from a code that a multilayer perceptron makes of the task; HyPoGen's
  steps, which resemble those of an optimiser, are not there;
- no value function is generated, and no temporal difference is minimised, which HyperZero does besides;
- the targets are the action distributions of the best stored policies, by the divergence that operators are trained
  with, at states half of which another policy of the same task visited;
- a wiring is no input: as the source's, its policy is for the stock wiring and is rewired, see `improvers.ppo`.
"""

import functools

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import parallel, policies
from metaimprove.methods.baseline import Baseline, Lessons, count_params, examples_a_step, matched_size
from metaimprove.methods.controls import fixed_policies
from metaimprove.methods.taught import LARGEST, ONLY_BEST, learn_from_pairs, settings_of
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.decoder import decode
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Play, Progress, Task

NAME, TITLE = 'task_told', 'a generator that is told the task'


def task_told(lessons: Lessons, play: Play, *, num_episodes: int) -> Baseline:
  """The baseline; a curve of one point, which `num_episodes` of `play` measure on each task."""
  family, policy = lessons.family, lessons.dataset.policy
  network, hidden_size = _network_for(lessons)
  policy_of = functools.partial(_policy_of, family, network)
  settings = settings_of(lessons, hidden_size=hidden_size)
  of_tasks = jax.jit(parallel.vmap(
    lambda params, task: policy_of(params, family.privileged(task)), in_axes=(None, 0)
  ))

  def train(progress: Progress) -> Params:
    told = jax.vmap(family.privileged)(lessons.dataset.read_tasks(np.arange(lessons.dataset.num_histories)))
    return learn_from_pairs(
      NAME, lessons, lambda rng_key: network.init(rng_key, jnp.zeros(family.told_size)),
      lambda params, pair: policy.apply(policy_of(params, told[pair.history]), pair.states), progress,
      size_shares=ONLY_BEST, hidden_size=hidden_size,
    )

  def policies_of(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Params:
    return of_tasks(train(progress), tasks)

  return Baseline(
    method=fixed_policies(NAME, TITLE, policies_of, play, settings={**settings, 'num_episodes': num_episodes}),
    train=train, acting=None, examples_a_step=examples_a_step(lessons),
  )


def _policy_of(family: TaskFamily, network: hk.Transformed, params: Params, privileged: chex.Array) -> Params:
  """θ for a task that is described by `privileged` [P]."""
  theta = network.apply(params, privileged[:family.told_size])
  if not family.is_wired:
    return theta
  return policies.rewire(theta, privileged[family.told_size:].reshape(family.action_size, family.action_size))


def _network_for(lessons: Lessons) -> tuple[hk.Transformed, int]:
  """The network that has as many parameters as the operator, and the size of its hidden layers."""
  def network_of(size: int) -> hk.Transformed:
    return hk.without_apply_rng(hk.transform(functools.partial(_generate, lessons.config, size)))

  def num_params_of(size: int) -> int:
    return count_params(jax.eval_shape(network_of(size).init, jax.random.key(0), jnp.zeros(lessons.family.told_size)))

  size = matched_size(num_params_of, lessons.num_params, range(1, LARGEST))
  return network_of(size), size


def _generate(config: OperatorConfig, hidden_size: int, told: chex.Array) -> Params:
  """θ from what is told of a task; to be called inside a Haiku transform."""
  code = hk.nets.MLP((hidden_size, hidden_size, config.code_size), activation=jax.nn.swish, name='code')(told)
  return decode(code, config.layer_sizes)
