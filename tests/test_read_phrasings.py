"""What the reader makes of requests that others wrote."""

import numpy as np
import pytest

from experiments.read_phrasings import PATH, properties_of, read_phrasings, share, tallies
from metaimprove import files


def requests(path, *rows):
  files.write_json(path, [
    {'robot': robot, 'text': text, 'said': [{'property': name, 'low': low, 'high': high} for name, low, high in said]}
    for robot, text, said in rows
  ])
  return read_phrasings(path)


def test_what_is_understood_is_counted(tmp_path):
  """In the words of the grammar, so that the reader can be relied on."""
  text, slow = 'forward fast, wasting little effort', ('speed', 0.15, 0.6)
  effort = 'effort', 0, 0.24
  counts, wrong = tallies(requests(
    tmp_path / 'requests.json',
    ('cheetah', text, [('speed', 2.0, None), effort]),
    ('cheetah', text, [slow, effort]),  # understood as something else
    ('cheetah', 'wasting little effort', [('smoothness', None, None)]),  # of another property; right whatever is read
    ('ant', 'to the north-east', [('heading', 22.5, 67.5)]),
  ))
  np.testing.assert_array_equal(counts, [[2, 2, 2, 1, 0], [2, 2, 1, 1, 0], [1, 0, 0, 2, 1], [1, 1, 1, 4, 0]])
  assert wrong[0] == wrong[3] == '' and wrong[1].startswith('taken for speed')
  assert wrong[2].startswith('smoothness is missed; taken for effort')


def test_shares_are_of_clauses_and_not_of_requests():
  counts = np.array([[3, 3, 1, 2, 0], [1, 0, 0, 4, 2]])
  assert share(counts, 1, 0).startswith('0.750 [') and share(counts, 4, 3).startswith('0.333 [')


@pytest.mark.parametrize(('robot', 'own'), [
  ('cheetah', 'speed'), ('ant', 'heading'), ('reacher', 'ground'), ('point', 'distance'), ('walker', 'height'),
])
def test_what_a_robot_has(robot, own):
  names = [of.name for of in properties_of(robot)]
  assert own in names and names[-2:] == ['effort', 'smoothness'] and len(names) == (3 if robot == 'cheetah' else 5)
  assert {'reacher': 21.0, 'point': 1.5}.get(robot) in (None, *(of.span[1] for of in properties_of(robot)))


@pytest.mark.parametrize(('path', 'num'), [(PATH, 240), (PATH.with_name('phrasings_validation.json'), 150)])
def test_the_requests_are_in_order(path, num):
  phrasings = read_phrasings(path)
  texts = [one.text for one in phrasings]
  assert len(set(texts)) == len(texts) == num
  for one in phrasings:
    assert 1 <= len(one.said) <= 3, one.text
    for said in one.said:
      assert said.clause.low < said.clause.high and said.holds(np.float64(said.value)), one.text
