"""Trains the reader of texts, which comes with the package, on sentences of the grammar. It takes ten minutes.

  python -m experiments.train_reader

Prints how much is understood of sentences with known words, and with what training never says: new ways of saying a
thing, new pairs of things, and new numbers.
"""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.language import reader
from metaimprove.language.clauses import Property, is_kept_out
from metaimprove.language.grammar import Said, clauses, is_new_pair, joined, may_train, say
from metaimprove.language.ngrams import PLACES, STRINGS, letters
from metaimprove.language.properties import SAID_TOGETHER, STANDARD
from metaimprove.rng import generator, stream

FLAGS = flags.FLAGS
_SILENT_RATE = 0.05
"""How often a sentence of training says nothing of any property."""
GROUPS = ('known words', 'new words', 'new pairs', 'new numbers')

if __name__ == '__main__':
  flags.DEFINE_string('path', str(reader.PATH), 'Where it goes.')
  flags.DEFINE_integer('num_sentences', 300_000, 'That it learns from.', 1)
  flags.DEFINE_integer('num_steps', 40_000, 'Gradient steps.', 1)
  flags.DEFINE_integer('batch_size', 128, 'Sentences in each.', 1)
  flags.DEFINE_float('learning_rate', 2e-3, 'Of Adam.')
  flags.DEFINE_float('drop_rate', 0.3, 'Share of the strings of letters that are not shown.')
  flags.DEFINE_integer('seed', 0, 'Of all that is drawn.')


def some_values(properties: Sequence[Property], rng: np.random.Generator) -> list[float]:
  """Random numbers within what is expected of each."""
  return [float(rng.uniform(*of.span)) for of in properties]


def said_of(group: str, rng: np.random.Generator) -> tuple[tuple[Property, ...], list[Said]]:
  """The properties of a random robot, and what is said of some; one or two clauses in tests."""
  while True:
    properties = SAID_TOGETHER[rng.integers(len(SAID_TOGETHER))]
    values = some_values(properties, rng)
    if group == 'training':
      if rng.random() < _SILENT_RATE:
        return properties, []
      found = clauses(properties, values, rng)
    else:
      number = {'new numbers': True, 'new pairs': False}.get(group)
      some = rng.permutation([n for n, of in enumerate(properties) if of.number is not None or not number])
      found = [
        say(properties[n], values[n], rng, 'new' if group == 'new words' else 'seen', number)
        for n in some[:1 if group == 'new numbers' else 2]
      ]
      if None in found or {
        'new pairs': lambda: not is_new_pair(*found),
        'new numbers': lambda: not all(is_kept_out(one.property.numeral(one.value)) for one in found),
      }.get(group, lambda: not all(may_train(found[:n], one) for n, one in enumerate(found)))():
        continue
    if found:
      return properties, found


def sentences(group: str, num: int, rng: np.random.Generator) -> tuple[list[list[Said]], dict[str, np.ndarray]]:
  """What is said, and arrays: 'letters' [num, LONGEST], 'spoken' [num, N] bool, 'number' [num, N, 2], and which
  properties the robot has, 'there' [num, N] bool."""
  said, texts = [], []
  size = (num, len(STANDARD))
  arrays = {'spoken': np.zeros(size, bool), 'there': np.zeros(size, bool), 'number': np.zeros((*size, 2), np.float32)}
  for row in tqdm.trange(num, desc=f'say {group}', disable=num < 10_000):
    properties, found = said_of(group, rng)
    said.append(found)
    texts.append(letters(joined(found, rng)))
    for of in properties:
      arrays['there'][row, STANDARD.index(of)] = True
    for one in found:
      index = STANDARD.index(one.property)
      arrays['spoken'][row, index] = True
      arrays['number'][row, index] = reader.number_of(one.property, one.value)
  return said, {**arrays, 'letters': np.stack(texts)}


def train(data: dict[str, np.ndarray], rng: np.random.Generator):
  """The parameters that give the labels of sentences."""
  of_batch = jax.vmap(reader.TRANSFORMED.apply, in_axes=(None, 0, 0))
  params = reader.TRANSFORMED.init(jax.random.key(FLAGS.seed), data['letters'][0])
  optimizer = optax.adam(optax.cosine_decay_schedule(FLAGS.learning_rate, FLAGS.num_steps))

  def loss(params, batch, rng_key):
    kept = jax.random.bernoulli(rng_key, 1 - FLAGS.drop_rate, (FLAGS.batch_size, STRINGS)) / (1 - FLAGS.drop_rate)
    kept = jnp.concatenate([kept, jnp.ones((FLAGS.batch_size, PLACES))], axis=1)  # digits are needed
    found = of_batch(params, batch['letters'], kept)
    spoken = optax.sigmoid_binary_cross_entropy(found.spoken, batch['spoken']) * batch['there']
    number = jnp.square(found.number - batch['number']).sum(axis=-1) * batch['spoken']
    return (spoken + 4 * number).sum(axis=-1).mean()

  @jax.jit
  def update(params, state, batch, rng_key):
    value, gradient = jax.value_and_grad(loss)(params, batch, rng_key)
    changes, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, changes), state, value

  state = optimizer.init(params)
  with tqdm.trange(FLAGS.num_steps, desc='train') as progress:
    for step in progress:
      rows = rng.integers(len(data['letters']), size=FLAGS.batch_size)
      batch = {name: x[rows] for name, x in data.items()}
      params, state, value = update(params, state, batch, stream(FLAGS.seed, f'step {step}'))
      if step % 100 == 0:
        progress.set_postfix(loss=f'{float(value):.3f}')
  return jax.device_get(params)


def main() -> None:
  """Trains, writes and prints."""
  rng = generator(FLAGS.seed, 'reader')
  params = train(sentences('training', FLAGS.num_sentences, rng)[1], rng)
  files.save_tree(pathlib.Path(FLAGS.path), params)
  of_batch = jax.jit(jax.vmap(reader.TRANSFORMED.apply, in_axes=(None, 0)))
  for group in GROUPS:
    said, data = sentences(group, 2000, rng)
    found = jax.device_get(of_batch(params, data['letters']))
    found = found.replace(spoken=np.asarray(jax.nn.sigmoid(found.spoken)))
    spoken, right = np.array(reader.errors(said, found)).T
    others = data['there'] & ~data['spoken']
    print(
      f'{group}: of the clauses {spoken.mean():.3f} are noticed, and of {right.mean():.3f} what is meant is right; '
      f'of what is not spoken of, {np.mean(found.spoken[others] > 0.5):.3f} is taken to be'
    )
  print(f'Reader: {FLAGS.path}')


if __name__ == '__main__':
  console.launch(main)
