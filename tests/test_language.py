"""What is said of episodes and understood, worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaimprove.language import grammar, ngrams, properties
from metaimprove.language.clauses import Clause, Number, Property, is_kept_out
from metaimprove.language.grammar import is_new_pair, may_train, say, sentence
from metaimprove.language.understanding import understood
from metaimprove.types import Trajectory

ALL = (
  properties.SPEED, properties.HEADING, properties.PACE, properties.SIDE, properties.GROUND, properties.EFFORT,
  properties.SMOOTHNESS, properties.HEIGHT, properties.FALL,
  properties.distance(7.0, 14.0, properties.CENTIMETRES, unit=0.01),
)
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
  np.testing.assert_allclose(ALL[-1].measure(went), 5.0, rtol=1e-5)
  ran_south = episode([[0.0, -2.0], [0.0, -1.0]], np.zeros((2, 1)))
  np.testing.assert_allclose(properties.HEADING.measure(ran_south), 270.0)
  np.testing.assert_allclose(properties.PACE.measure(ran_south), 1.5)
  assert np.isnan(properties.HEADING.measure(episode([[0.0, 0.01]], [[0.0]])))


@pytest.mark.parametrize('of', ALL, ids=lambda of: of.name)
def test_of_each_value_one_clause_is_true_and_its_ways_differ(of):
  """Whatever is measured, one clause in words is true; and all texts of a property are different."""
  values = np.linspace(0, 359.9 if of.period else 1.0 if of.name == 'fall' else 5.0, 1000)
  assert all(sum(bool(of.holds(clause, value)) for clause in of.clauses) == 1 for value in values)
  assert not any(of.holds(clause, np.float64('nan')) for clause in of.clauses)
  ways = [way for clause in of.clauses for way in clause.ways]
  assert len(set(ways)) == len(ways) and all(len(clause.ways) >= 3 for clause in of.clauses)


def test_clauses_by_hand():
  assert properties.SPEED.clauses[properties.SPEED.clause_of(-0.3)].ways[0] == 'backward slowly'
  assert properties.SIDE.clauses[properties.SIDE.clause_of(359.0)].ways[0] == 'to the right'
  number = properties.SPEED.said_number(2.04)
  assert (number.low, number.high, number.ways[1]) == (1.75, 2.25, 'at 2.0 m/s')
  angle = properties.SIDE.said_number(5.0)
  np.testing.assert_array_equal(properties.SIDE.holds(angle, np.array([355.0, 349.0, 19.0, 21.0])), [1, 0, 1, 0])


def test_training_never_says_what_is_kept_for_tests():
  """New ways, pairs that are kept out, and numbers that end in 7."""
  rng, numbers = np.random.default_rng(0), set()
  new = {clause.ways[-1] for of in RUNNER for clause in of.clauses}
  pairs = {
    (a.ways[:-1], b.ways[:-1]) for i, a in enumerate(properties.EFFORT.clauses)
    for j, b in enumerate(properties.SMOOTHNESS.clauses) if (i + 2 * j) % 5 == 0
  }
  texts = []
  for _ in range(3000):
    values = rng.uniform([-1, 0, 0], [3, 0.6, 0.8])
    texts.append(sentence(RUNNER, values, rng))
    numbers |= {word for word in texts[-1].split() if word.replace('.', '').isdigit()}
  assert all(texts) and not any(way in text for way in new for text in texts)
  assert len(numbers) > 20 and not any(number.endswith('7') for number in numbers)
  assert len(pairs) == 2  # (0, 0) and (1, 2)
  texts = [text.replace('not quite smoothly', '').replace('unsteadily', '') for text in texts]  # they hold other ways
  for first, second in pairs:
    assert not any(any(a in text for a in first) and any(b in text for b in second) for text in texts)
  assert any('moderate effort' in text and 'smooth movements' in text for text in texts)


def test_pairs_that_are_kept_out_by_hand():
  rng = np.random.default_rng(0)
  little, much = (say(properties.EFFORT, value, rng, number=False) for value in (0.1, 0.5))
  smooth = say(properties.SMOOTHNESS, 0.1, rng)
  assert is_new_pair(little, smooth) and is_new_pair(smooth, little) and not is_new_pair(much, smooth)
  assert not is_new_pair(little, little)
  seventeen = say(properties.SPEED, 1.7, rng, number=True)
  assert is_kept_out('1.7') and not may_train([], seventeen) and may_train([], much)
  assert not may_train([much, little], smooth)


def test_new_words_are_the_last_way():
  rng = np.random.default_rng(0)
  assert say(properties.EFFORT, 0.1, rng, 'new').text == 'without straining'
  assert say(properties.SPEED, 1.7, rng, 'new', number=True).text == 'doing about 1.7 metres every second'
  assert say(properties.SPEED, float('nan'), rng) is None


@given(st.text(alphabet='abcdefghijklmnopqrstuvwxyz .,-0123456789', max_size=150))
def test_letters_keep_the_text(text):
  assert ngrams.text_of(ngrams.letters(text)) == ' '.join(text.split())


def test_counts_by_hand():
  """'ab' with its spaces has the strings ' a', 'ab', 'b ', ' ab', 'ab ' and ' ab '; each counts once."""
  found = np.asarray(ngrams.counts(ngrams.letters('AB')))
  assert (found > 0).sum() == 6 and np.linalg.norm(found) == pytest.approx(1)
  np.testing.assert_array_equal(found, ngrams.counts(ngrams.letters(' ab ')))
  alike, other = (np.asarray(ngrams.counts(ngrams.letters(text))) for text in ('go forward slowly', 'nowhere'))
  this = np.asarray(ngrams.counts(ngrams.letters('forward slowly')))
  assert this @ alike > 0.8 > 0.3 > this @ other


def test_what_is_said_is_understood():
  """Sentences of training are read back: each clause that is found is the one that was said."""
  rng, right, total = np.random.default_rng(1), 0, 0
  for _ in range(60):
    said = [say(of, value, rng) for of, value in zip(RUNNER, rng.uniform([-1, 0, 0], [3, 0.6, 0.8]))]
    found, unknown = understood(RUNNER, grammar.joined(said, rng))
    meant = {one.property.name: (one.clause.low, one.clause.high) for one in found}
    right += sum(meant.get(one.property.name) == (one.clause.low, one.clause.high) for one in said)
    total += len(said)
  assert right / total > 0.95
  said, unknown = understood(RUNNER, 'run backward slowly with weak motors')
  assert [one.text for one in said] == ['backward slowly'] and unknown == ['weak', 'motors']
  assert understood(RUNNER, 'sing a song') == ([], ['sing', 'song'])
  (two, little), unknown = understood(RUNNER, 'at two metres a second, wasting little effort')
  assert {(one.clause.low, one.property.name) for one in (two, little)} == {(1.75, 'speed'), (0.0, 'effort')}


def test_a_property_of_your_own():
  """It needs no words, and no number."""
  spin = Property('spin', lambda t: t.outcome[0, 0], number=Number(('spinning {} times', 'with {} turns'), 0, 1.0))
  rng = np.random.default_rng(0)
  assert sentence((spin,), [3.2], rng).endswith(('3 times', 'three times', ))
  quiet = Property('quiet', lambda t: t.outcome[0, 0], (Clause(0, 1, ('quietly', 'in silence')),))
  assert sentence((quiet,), [2.0], rng) == '' and 'quietly' in sentence((quiet,), [0.5], rng)
