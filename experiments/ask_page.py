"""A page to ask an operator on: a slider for the score, a box for words. It opens offline; films are made in advance.

  python -m experiments.ask_page --operator=runs/asks/reacher_goal/seed_0/asks/operator

All is asked on one task: for scores when the experience of some policies is known, in words before anything was tried.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import console
from experiments.ask_methods import experience
from metaimprove import asks
from metaimprove.asks import explore, score, words
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation.films import make_film
from metaimprove.evaluation.report import write_ask_page
from metaimprove.language.grammar import description
from metaimprove.methods.asked import ask_once
from metaimprove.operators import checkpoints
from metaimprove.operators.operator import Operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.hindsight import measured
from metaimprove.tasks.registry import make_family
from metaimprove.trees import take
from metaimprove.types import Task, mean_return

FLAGS = flags.FLAGS
SCORES = tuple(round(0.1 * n, 1) for n in range(13))
_EPISODES = 8

if __name__ == '__main__':
  flags.DEFINE_string('operator', None, 'Its folder, or the name of one that comes along.', required=True)
  console.define_task_flags()
  flags.DEFINE_integer(
    'num_applications', None,
    'Policies whose experience is known when it is asked for a score; 2 by default, or 8 where rewards are sparse.', 0
  )
  flags.DEFINE_string('page', 'runs/ask_page.html', 'Where the page goes.')
  flags.adopt_module_key_flags(console)


def sentences(family: TaskFamily) -> list[str]:
  """A sentence for each clause that the family's properties have, in its first way."""
  return [clause.ways[0] for of in family.properties for clause in of.clauses]


def answered(
  operator: Operator, operator_params: Any, family: TaskFamily, task: Task, kind: str, wanted: Sequence[Any],
  known: int, seed: int,
) -> list[dict[str, Any]]:
  """A film of the answer to each ask of a kind, with the experience of so many policies: what was asked, and what the
  answer did, its mean return and what can be said of it."""
  num = len(wanted)
  tasks = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], num, axis=0), task)
  params = ask_once(
    operator, operator_params, make_play(family, operator.policy, num_episodes=operator.config.num_episodes),
    asks.ask(**{kind: np.array(wanted)}), tasks, stream(seed, 'asked'), num_applications=known,
    explores=explore.NAME in operator.config.asks,
  )
  played = jax.device_get(
    make_play(family, operator.policy, num_episodes=_EPISODES)(params, tasks, stream(seed, 'played'))
  )
  film, returns, found = make_film(family, operator.policy.sample), mean_return(played), []
  for row in range(num):
    values = np.asarray(measured(family, take(played, row))) if family.properties else []
    did = ', '.join(part for part in (f'return {returns[row]:.1f}', description(family.properties, values)) if part)
    found.append({**film(take(params, row), task, stream(seed, 'film')), 'asked': f'{wanted[row]}', 'did': did})
  return found


def main() -> None:
  """Makes the page."""
  operator, operator_params = checkpoints.load_operator(FLAGS.operator)
  family = make_family(operator.config.family, operator.config.backend)
  checkpoints.check_fits(operator.config, family)
  understood = operator.config.asks
  if not {score.NAME, words.NAME} & {*understood}:
    raise IncompatibleError(
      f'The operator {FLAGS.operator} was trained on neither scores nor words; train one with --asks=score,words, or '
      'use one of `python -m experiments.benchmark_asks`.'
    )
  task = take(console.chosen_tasks(family), 0)
  known = FLAGS.num_applications
  known = experience(family.name) if known is None else known
  films = {'scores': [], 'sentences': []}
  if score.NAME in understood:
    films['scores'] = answered(operator, operator_params, family, task, score.NAME, SCORES, known, FLAGS.seed)
  if words.NAME in understood:
    films['sentences'] = answered(
      operator, operator_params, family, task, words.NAME, sentences(family), 0, FLAGS.seed
    )
  for film in (*films['scores'], *films['sentences']):
    print(f'{film["asked"]}: {film["did"]}')
  write_ask_page(pathlib.Path(FLAGS.page), family, family.describe(task), known, **films)
  print(f'The page is {FLAGS.page}.')


if __name__ == '__main__':
  console.launch(main)
