"""What is said of episodes and understood, worked by hand."""

import pathlib
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaimprove import files
from metaimprove.language import grammar, ngrams, properties, reader
from metaimprove.language.clauses import Clause, Number, Property, is_kept_out
from metaimprove.language.grammar import is_new_pair, may_train, say, sentence
from metaimprove.language.reader import understood, unknown_words
from metaimprove.tasks.hindsight import measured
from metaimprove.tasks.registry import make_family
from metaimprove.types import Trajectory

ROOT = pathlib.Path(__file__).parents[1]
RUNNER = properties.SPEED, properties.EFFORT, properties.SMOOTHNESS


def episode(outcome, action, *, observation=None, num_valid=None, fell=False):
  """One episode [T, ...], of whose steps the first `num_valid` were taken."""
  outcome, action = np.array(outcome, np.float32), np.array(action, np.float32)
  length = len(outcome)
  valid = np.arange(length) < (length if num_valid is None else num_valid)
  terminated = valid & fell & ~np.append(valid[1:], False)
  observation = np.zeros((length, 1), np.float32) if observation is None else np.array(observation, np.float32)
  return Trajectory(
    observation=jnp.asarray(observation), action=jnp.asarray(action), reward=jnp.zeros(length),
    next_observation=jnp.asarray(observation), outcome=jnp.asarray(outcome), terminated=jnp.asarray(terminated),
    valid=jnp.asarray(valid), finite=jnp.asarray(True),
  )


def test_properties_by_hand():
  """Three steps count and a fourth does not."""
  ran = episode([[1.0], [2.0], [3.0], [99.0]], [[1.0], [0.0], [-1.0], [5.0]], num_valid=3, fell=True,
                observation=[[1.0], [1.2], [1.4], [9.0]])
  expected = {'speed': 2.0, 'effort': 2 / 3, 'smoothness': 1.0, 'height': 1.2, 'fall': 1.0}
  for of in (properties.SPEED, properties.EFFORT, properties.SMOOTHNESS, properties.HEIGHT, properties.FALL):
    np.testing.assert_allclose(of.measure(ran), expected[of.name], rtol=1e-6)
  assert properties.FALL.measure(episode([[0.0]], [[0.0]])) == 0
  went = episode([[0.0, 0.0], [0.0, 0.03], [-0.04, 0.03], [9.0, 9.0]], np.zeros((4, 1)), num_valid=3)
  np.testing.assert_allclose(properties.GROUND.measure(went), 0.07, rtol=1e-6)
  np.testing.assert_allclose(properties.SIDE.measure(went), 180 - np.degrees(np.arctan2(3, 4)), rtol=1e-5)
  np.testing.assert_allclose(properties.REACH.measure(went), 5.0, rtol=1e-5)
  ran_south = episode([[0.0, -2.0], [0.0, -1.0]], np.zeros((2, 1)))
  np.testing.assert_allclose(properties.HEADING.measure(ran_south), 270.0)
  np.testing.assert_allclose(properties.PACE.measure(ran_south), 1.5)
  assert np.isnan(properties.HEADING.measure(episode([[0.0, 0.01]], [[0.0]])))


@pytest.mark.parametrize('of', properties.STANDARD, ids=lambda of: of.name)
def test_of_each_value_one_clause_is_true_and_its_ways_differ(of):
  """Whatever is measured, one clause in words is true; and all texts of a property are different."""
  values = np.linspace(*of.span, 1000, endpoint=False)
  assert all(sum(bool(of.holds(clause, value)) for clause in of.clauses) == 1 for value in values)
  assert not any(of.holds(clause, np.float64('nan')) for clause in of.clauses)
  ways = [way for clause in of.clauses for way in clause.ways]
  assert len(set(ways)) == len(ways) and all(len(clause.ways) > 15 for clause in of.clauses)
  # What is new in tests has a word that training never says of the property; two are words themselves.
  known = {word for clause in of.clauses for way in clause.ways[:-1] for word in re.split('[ ,]+', way)}
  for clause in of.clauses:
    assert {*clause.ways[-1].split()} - known or clause.ways[-1] in ('upward', 'downward')


def test_clauses_by_hand():
  assert properties.SPEED.clauses[properties.SPEED.clause_of(-0.3)].ways[0] == 'backward slowly'
  assert properties.SIDE.clauses[properties.SIDE.clause_of(359.0)].ways[0] == 'to the right'
  number = properties.SPEED.said_number(2.04)
  assert (number.low, number.high, number.ways[1]) == (1.75, 2.25, 'at 2.0 m/s')
  angle = properties.SIDE.said_number(5.0)
  np.testing.assert_array_equal(properties.SIDE.holds(angle, np.array([355.0, 349.0, 19.0, 21.0])), [1, 0, 1, 0])


def test_training_never_says_what_is_kept_for_tests():
  """New ways, pairs that are kept out, also where one is said as a number, and a seventh of the numbers."""
  rng, numerals, pairs = np.random.default_rng(0), set(), set()
  for _ in range(3000):
    said = grammar.clauses(RUNNER, rng.uniform([-1, 0, 0], [3, 0.6, 0.8]), rng)
    assert said and not any(one.text == clause.ways[-1] for one in said for clause in one.property.clauses)
    numerals |= {one.property.numeral(one.value) for one in said if one.index is None}
    index = {one.property.name: one.property.clause_of(one.value) for one in said}
    pairs.add((index.get('effort'), index.get('smoothness')))
  assert len(numerals) > 20 and not any(int(numeral.strip('-').replace('.', '')) % 7 == 3 for numeral in numerals)
  assert {numeral[-1] for numeral in numerals} == set('0123456789')  # each digit is known
  assert not pairs & {(0, 0), (1, 2)} and {(0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)} <= pairs


@pytest.mark.parametrize('around', ['before', 'leads', 'after'])
def test_a_sentence_has_words_around_that_say_nothing(around, monkeypatch):
  rates = {name: float(name == around) for name in grammar._AROUND}
  monkeypatch.setattr(grammar, '_AROUND', rates)
  rng, parts = np.random.default_rng(0), grammar.WAYS[around]
  slow = say(properties.SPEED, 0.3, rng, number=False)
  wanted = {f'{slow.text} {part}' if around == 'after' else f'{part} {slow.text}' for part in parts}
  texts = {grammar.joined([slow], rng) for _ in range(100)}
  assert len(texts) > 10 and texts <= wanted
  assert grammar.joined([], rng) in parts


def test_pairs_that_are_kept_out_by_hand():
  rng = np.random.default_rng(0)
  little, much = (say(properties.EFFORT, value, rng, number=False) for value in (0.1, 0.5))
  smooth = say(properties.SMOOTHNESS, 0.1, rng)
  assert is_new_pair(little, smooth) and is_new_pair(smooth, little) and not is_new_pair(much, smooth)
  assert not is_new_pair(little, little)
  seventeen = say(properties.SPEED, 1.7, rng, number=True)
  assert is_kept_out('1.7') and not may_train([], seventeen) and may_train([], much)
  # Clause 0 of speed and of effort are such a pair; the speed may be said as a number.
  back = say(properties.SPEED, -1.1, rng, number=True)
  assert back.index is None and is_new_pair(back, little) and not is_new_pair(back, much)
  assert not may_train([much, little], smooth)


def test_new_words_are_the_last_way():
  rng = np.random.default_rng(0)
  assert say(properties.EFFORT, 0.1, rng, 'new').text == properties.EFFORT.clauses[0].ways[-1] == 'conserving energy'
  assert say(properties.SPEED, 1.7, rng, 'new', number=True).text == 'with a speed of 1.7 metres a second'
  assert say(properties.SPEED, float('nan'), rng) is None


@given(st.text(alphabet='abcdefghijklmnopqrstuvwxyz .,-0123456789', max_size=150))
def test_letters_keep_the_text(text):
  assert ngrams.text_of(ngrams.letters(text)) == ' '.join(text.split())


def test_counts_by_hand():
  """'ab' with its spaces has the strings ' a', 'ab', 'b ', ' ab', 'ab ' and ' ab '; each counts once."""
  found = np.asarray(ngrams.counts(ngrams.letters('AB')))
  assert (found > 0).sum() == 6 and np.linalg.norm(found) == pytest.approx(1)
  assert not np.asarray(ngrams.counts(ngrams.letters(' '))).any()
  np.testing.assert_array_equal(found, ngrams.counts(ngrams.letters(' ab ')))
  alike, other = (np.asarray(ngrams.counts(ngrams.letters(text))) for text in ('go forward slowly', 'nowhere'))
  this = np.asarray(ngrams.counts(ngrams.letters('forward slowly')))
  assert this @ alike > 0.8 > 0.3 > this @ other


def test_digits_by_hand():
  """The same digit at the same place of the same unit is the same, and nothing else is."""
  def digits(text):
    return {*np.flatnonzero(np.asarray(ngrams.counts(ngrams.letters(text)))[ngrams.STRINGS:])}

  assert len(digits('17 cm')) == 2 and not digits('no number')
  assert len(digits('17 cm') & digits('47 cm')) == 1 and len(digits('17 cm') & digits('12 cm')) == 1
  assert not digits('17 cm') & digits('71 cm') and not digits('17 cm') & digits('17 degrees')
  assert len(digits('1.7 m') & digits('0.7 m')) == 1 and not digits('1.7 m') & digits('17 m')


def test_numbers_of_meanings():
  """Whatever is within a property's span comes back."""
  for of in properties.STANDARD:
    for value in np.linspace(*of.span, 9, endpoint=False):
      assert reader.value_of(of, reader.number_of(of, value)) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize('phrasing, number, least', [('seen', None, 0.97), ('seen', True, 0.95), ('new', False, 0.5)])
def test_what_is_said_is_understood(phrasing, number, least):
  """Of sentences with known words and numbers, and with ways to say a thing that training never has."""
  rng, said, texts = np.random.default_rng(1), [], []
  while len(said) < 300:
    row = [say(of, value, rng, phrasing, number) for of, value in zip(RUNNER, rng.uniform([-1, 0, 0], [3, 0.7, 0.8]))
           if not number or of.number is not None]
    said.append([row[0], *row[1:][:rng.integers(2)]])
    texts.append(ngrams.letters(grammar.joined(said[-1], rng)))
  found = jax.device_get(jax.jit(jax.vmap(reader.meaning))(np.stack(texts)))
  spoken, right = np.array(reader.errors(said, found)).T
  assert spoken.mean() > 0.9 and right.mean() > least, (spoken.mean(), right.mean())


def test_what_is_understood_and_what_is_not():
  (speed,) = understood(RUNNER, 'please move backward slowly')
  assert speed.property is properties.SPEED and -0.5 < speed.value < -0.15 and 'backward slowly' in speed.words()
  text = 'could you run backward slowly with purple socks, thanks'
  assert unknown_words(RUNNER, text) == ['purple', 'socks']
  two, little = understood(RUNNER, 'at two metres a second, wasting little effort')
  assert abs(two.value - 2) < 0.25 and little.property is properties.EFFORT and little.value < 0.24
  assert understood(RUNNER, ' ') == []
  assert not np.asarray(reader.features(ngrams.letters(''))).any()


def test_an_angle_needs_episodes_that_agree():
  """20 and 40 degrees are 30 together, and so are 350 and 70; to the right and to the left is nowhere."""
  family = make_family('point_goal_sparse_h20')

  def side(*degrees):
    ends = np.stack([[np.cos(np.radians(angle)), np.sin(np.radians(angle))] for angle in degrees])[:, None]
    blank = np.zeros((len(degrees), 1), np.float32)
    return measured(family, Trajectory(
      observation=ends, action=np.zeros_like(ends), reward=blank, next_observation=ends, outcome=ends,
      terminated=blank > 0, valid=blank == 0, finite=np.ones(len(degrees), bool),
    ))[0]

  assert side(20, 40) == pytest.approx(30, abs=1e-3) and side(0, 60) == pytest.approx(30, abs=1e-3)
  assert np.isnan(side(0, 180)) and np.isnan(side(0, 179))


def test_a_property_of_your_own():
  """It needs no words, and no number."""
  turns = Number(('spinning {} times', 'with {} turns'), 0, 1.0)
  spin = Property('spin', (0.0, 9.0), lambda t: t.outcome[0, 0], number=turns)
  rng = np.random.default_rng(0)
  text = sentence((spin,), [4.2], rng)
  assert any(way in text for way in ('spinning 4 times', 'spinning four times'))
  assert sentence((spin,), [3.2], rng) == ''  # 3 is kept for tests
  quiet = Property('quiet', (0.0, 1.0), lambda t: t.outcome[0, 0], (Clause(0, 1, ('quietly', 'in silence')),))
  assert sentence((quiet,), [2.0], rng) == '' and 'quietly' in sentence((quiet,), [0.5], rng)


def test_the_reader_is_learned_from_what_is_said(tmp_path):
  """In a few steps it knows more than nothing, and is written as it is read."""
  path = tmp_path / 'reader.safetensors'
  command = [
    sys.executable, '-m', 'experiments.train_reader', '--num_sentences=2000', '--num_steps=400', f'--path={path}'
  ]
  done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=300, check=True)
  lines = [line for line in done.stdout.splitlines() if 'clauses' in line]
  shares = [float(line.split('of the clauses ')[1].split()[0]) for line in lines]
  assert len(shares) == 4 and shares[0] > 0.8
  like = jax.tree.map(lambda _: None, reader.params())
  jax.tree.map(lambda x, y: chex.assert_equal_shape([x, y]), files.load_tree(path, like), reader.params())
