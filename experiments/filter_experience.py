"""Whether an operator gains when only good experience is fed back to it, as IDAQ does (arXiv:2305.19529).

  python -m experiments.filter_experience --operator=reacher_wiring

IDAQ lets an offline meta-RL agent adapt on those of its own episodes alone that look like the training data, and of its
measures of that the return is best. Here the episodes of a policy are remembered if its mean return is at least a
quantile of those of all policies so far: 0 is all of them, 1 those that are no worse than any before. Prints mean
returns on validation tasks, and the difference from feeding back all, with a 95% interval over tasks.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import console
from metaimprove import asks
from metaimprove.asks import explore
from metaimprove.iteration import RememberBatch, iterate
from metaimprove.methods.method import initial_policies
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.checkpoints import load_operator
from metaimprove.operators.operator import Operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.types import mean_return

FLAGS = flags.FLAGS
QUANTILES = 0.0, 0.25, 0.5, 0.75, 1.0

if __name__ == '__main__':
  flags.DEFINE_string('operator', 'reacher_wiring', 'Its folder, or the name of one that comes along.')
  flags.DEFINE_integer('num_tasks', 128, 'Validation tasks.', 2)
  flags.DEFINE_integer('num_applications', 30, 'Of the operator, in a row.', 1)
  flags.DEFINE_integer('seed', 0, 'Of tasks and episodes.')


def remember_the_best(operator: Operator, quantile: float) -> RememberBatch:
  """Remembers the episodes of a policy if its mean return is at least that quantile of those of all policies so far;
  what is not remembered is as if it had not been."""
  remember, returns = make_remember(operator), []

  def remember_some(memory, params, trajectory):
    returns.append(np.asarray(mean_return(trajectory)))
    new = remember(memory, params, trajectory)
    if memory is None:
      return new
    kept = jnp.asarray(returns[-1] >= np.quantile(returns, quantile, axis=0))
    return jax.tree.map(lambda x, y: jnp.where(kept.reshape(-1, *[1] * (x.ndim - 1)), x, y), new, memory)

  return remember_some


def main() -> None:
  """Prints a line a quantile."""
  operator, operator_params = load_operator(FLAGS.operator)
  config = operator.config
  family = make_family(config.family, config.backend)
  tasks = sample_tasks(family, FLAGS.seed, FLAGS.num_tasks, 'validation')
  play = make_play(family, operator.policy, num_episodes=config.num_episodes)
  improve = make_improve(operator, operator_params, asks.ask(steps='best'), explores=explore.NAME in config.asks)
  initial = initial_policies(operator.policy, FLAGS.num_tasks, stream(FLAGS.seed, 'policy'))
  shown = [n for n in (0, 1, 2, 4, 8, 16, 30) if n <= FLAGS.num_applications]
  print(f'{"quantile":>8s} ' + ''.join(f'{f"after {n}":>10s}' for n in shown) + '   last, less that of all')
  everything = None
  for quantile in QUANTILES:
    iterates = iterate(
      improve, remember_the_best(operator, quantile), play, initial, tasks, stream(FLAGS.seed, 'episodes'),
      num_applications=FLAGS.num_applications,
    )
    returns = np.stack([np.asarray(mean_return(iterate.trajectory)) for iterate in iterates])
    everything = returns if everything is None else everything
    gain = returns[-1] - everything[-1]
    error = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
    figures = ''.join(f'{returns[n].mean():10.2f}' for n in shown)
    print(f'{quantile:8.2f} {figures}   {gain.mean():.3f} [{gain.mean() - error:.3f}, {gain.mean() + error:.3f}]')


if __name__ == '__main__':
  console.launch(main)
