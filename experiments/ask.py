"""Asks an operator in words, plays what it answers, says what it did, and leaves a film.

  python -m experiments.ask --operator=runs/asks/half_cheetah_vel/seed_0/asks/operator "forward slowly, smoothly"

By default nothing is known but the words. With `--num_applications=2` the operator first gathers the experience of two
policies on the task, asked for the best, which tells it how the robot moves there.
"""

import pathlib

import jax
import numpy as np
from absl import flags

from experiments import console
from metaimprove import asks
from metaimprove.asks import explore, words
from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.evaluation.films import make_film
from metaimprove.evaluation.report import write_films
from metaimprove.language.grammar import description
from metaimprove.language.reader import Understood, understood, unknown_words
from metaimprove.methods.asked import ask_once
from metaimprove.operators import checkpoints
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.hindsight import measured
from metaimprove.tasks.registry import make_family
from metaimprove.trees import take

FLAGS = flags.FLAGS
_EPISODES = 8

if __name__ == '__main__':
  flags.DEFINE_string('operator', None, 'Its folder, or the name of one that comes along.', required=True)
  console.define_task_flags()
  flags.DEFINE_integer('num_applications', 0, 'Policies whose experience is gathered before it is asked.', 0)
  flags.DEFINE_string('page', 'runs/ask.html', 'Where the film goes.')
  flags.adopt_module_key_flags(console)


def tell(family: TaskFamily, text: str) -> list[Understood]:
  """Prints what is understood of a text, and returns it.

  Raises:
    UnknownNameError: if that is nothing.
  """
  said, unknown = understood(family.properties, text), unknown_words(family.properties, text)
  if not said or len(unknown) == len([word for word in text.split() if len(word) > 3]):
    known = ', '.join(f"'{of.clauses[0].ways[0]}'" for of in family.properties if of.clauses)
    raise UnknownNameError(f'Nothing of {text!r} is known on {family.name}; say for instance {known}.')
  print('understood: ' + ', '.join(one.words() for one in said))
  if unknown:
    print(f'not known: {" ".join(unknown)}')
  return said


def main(text: str) -> None:
  """Asks for `text`."""
  wanted = asks.ask(words=text)
  operator, operator_params = checkpoints.load_operator(FLAGS.operator)
  if words.NAME not in operator.config.asks:
    raise IncompatibleError(
      f'The operator {FLAGS.operator} was not trained on words; train one with '
      f'--asks=words, or use one of `python -m experiments.benchmark_asks`.'
    )
  family = make_family(operator.config.family, operator.config.backend)
  checkpoints.check_fits(operator.config, family)
  said = tell(family, text)
  tasks = console.chosen_tasks(family)
  task = take(tasks, 0)
  params = ask_once(
    operator, operator_params, make_play(family, operator.policy, num_episodes=operator.config.num_episodes), wanted,
    tasks, stream(FLAGS.seed, 'ask'), num_applications=FLAGS.num_applications,
    explores=explore.NAME in operator.config.asks,
  )
  played = make_play(family, operator.policy, num_episodes=_EPISODES)(params, tasks, stream(FLAGS.seed, 'played'))
  values = np.asarray(measured(family, take(jax.device_get(played), 0)))
  print(f'it did: {description(family.properties, values)}')
  for of, value in zip(family.properties, values):
    for one in (one for one in said if one.property is of):
      print(f'{of.name}: asked for {one.value:.3g}, got {value:.3g}')
  film = make_film(family, operator.policy.sample)(take(params, 0), task, stream(FLAGS.seed, 'film'))
  write_films(pathlib.Path(FLAGS.page), family, [{**film, 'caption': text}], family.describe(task))
  print(f'The film is in {FLAGS.page}.')


if __name__ == '__main__':
  console.launch(main, 'words, such as "forward slowly"')
