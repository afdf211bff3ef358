"""Questions in words, and how much of what was said is done, by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from metaimprove.asks import ask
from metaimprove.histories.dataset import with_hindsight
from metaimprove.language.clauses import is_kept_out
from metaimprove.language.grammar import is_new_pair, say
from metaimprove.language.properties import EFFORT, SMOOTHNESS, SPEED
from metaimprove.methods.asked import ask_once, asked_method
from metaimprove.methods.method import initial_policies
from metaimprove.methods.worded import GROUPS, judge_of, questions, share_true
from metaimprove.operators.apply import make_guided, make_improve, make_remember
from metaimprove.operators.operator import make_operator
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.hindsight import describe_trajectory, measured
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.types import silent

NUM_TASKS = 6
PROPERTIES = SPEED, EFFORT, SMOOTHNESS


@pytest.fixture(scope='module')
def told(dataset, point):
  """Histories of which random properties of a runner are known, of which the speed is the goal."""
  rng = np.random.default_rng(0)
  values = rng.uniform([-1, 0, 0], [3, 0.6, 0.8], size=(*dataset.returns.shape, 3))
  told = with_hindsight(dataset, point)
  return dataclasses.replace(told, properties=PROPERTIES, measured=values, achieved=values[..., :1] + 0.01)


@pytest.mark.parametrize('group', GROUPS)
def test_questions_of_each_group(told, group):
  """All are true of some stored policy, and hold what their group is named after."""
  asked = questions(told, group, NUM_TASKS, 0)
  assert len(asked.said) == len(asked.texts) == len(asked.goals) == NUM_TASKS
  assert questions(told, group, NUM_TASKS, 0).texts == asked.texts != questions(told, group, NUM_TASKS, 1).texts
  names = [of.name for of in PROPERTIES]
  every = told.measured.reshape(-1, 3)
  for said, text in zip(asked.said, asked.texts):
    assert all(one.text in text for one in said)
    true = np.all([one.holds(every[:, names.index(one.property.name)]) for one in said], axis=0)
    assert true.any()
    in_words = [one for one in said if one.index is not None]
    assert all((one.text == one.clause.ways[-1]) == (group == 'new words') for one in in_words)
    if group == 'new pairs':
      assert is_new_pair(*said)
    elif group == 'new numbers':
      assert len(said) == 1 and is_kept_out(said[0].property.numeral(said[0].value))
    elif group == 'goals':
      assert {one.property.name for one in said} == {'speed'}


def test_a_goal_that_is_no_speed_says_nothing_of_it(told):
  assert questions(dataclasses.replace(told, achieved=np.sign(told.achieved)), 'goals', NUM_TASKS, 0) is None


def test_a_family_without_numbers_has_no_new_ones(told):
  without = dataclasses.replace(told, properties=(EFFORT, SMOOTHNESS), measured=told.measured[..., 1:])
  assert questions(without, 'new numbers', NUM_TASKS, 0) is None
  assert questions(without, 'known words', NUM_TASKS, 0) is not None


def test_the_share_that_is_done_by_hand():
  """Of two clauses both, one and none are true."""
  rng = np.random.default_rng(0)
  said = [(say(SPEED, 2.5, rng, number=False), say(EFFORT, 0.1, rng))] * 3
  values = np.array([[2.5, 0.1], [2.5, 0.5], [0.0, np.nan]])
  np.testing.assert_array_equal(share_true(said, ['speed', 'effort'], values), [1, 0.5, 0])


def test_asked_in_words_it_is_judged_by_what_it_does(dataset, operator, operator_params, point):
  """The figures are the shares of what its answers do; without experience the words alone count."""
  told = with_hindsight(dataset, point)
  knows = make_operator(dataclasses.replace(operator.config, asks=('steps', 'words')))
  params = knows.init(jax.random.key(0), operator_params['statistics'])
  tasks, play = sample_tasks(point, 0, NUM_TASKS, 'heldout'), make_play(point, operator.policy, num_episodes=2)
  asked, played = questions(told, 'known words', NUM_TASKS, 0), []

  def measure(policies, tasks, rng_key):
    played.append((policies, play(policies, tasks, rng_key)))
    return played[-1][1]

  curve = asked_method(
    knows, params, play, (measure, 2), [asked.ask(), asked.ask(1)], num_applications=0, num_episodes=2,
    judge=judge_of(point, [asked, asked]), name='words', title='words',
  ).run(tasks, stream(0, 'words'), silent)
  names = [of.name for of in point.properties]
  for (_, trajectory), shares in zip(played, curve.returns):
    values = np.stack([measured(point, take(trajectory, n)) for n in range(NUM_TASKS)])
    np.testing.assert_allclose(shares, share_true(asked.said, names, values))
  # With a shift each task is asked what another one was.
  own, another = (np.asarray(policies['mlp/~/linear_0']['w']) for policies, _ in played)
  np.testing.assert_allclose(another, np.roll(own, 1, axis=0), atol=1e-5)
  assert np.abs(own - another).max() > 1e-4
  once = ask_once(knows, params, play, asked.ask(), tasks, stream(0, 'words'))
  np.testing.assert_allclose(once['mlp/~/linear_0']['w'], own, atol=1e-5)
  assert describe_trajectory(point, take(played[0][1], 0))


def test_guidance_by_hand(operator, operator_params, point):
  """Its ends are the answers to both asks, and codes lie on the line through theirs."""
  config = dataclasses.replace(operator.config, asks=('steps', 'score'))
  knows = make_operator(config)
  params = knows.init(jax.random.key(0), operator_params['statistics'])
  tasks, play = sample_tasks(point, 0, NUM_TASKS, 'heldout'), make_play(point, operator.policy, num_episodes=2)
  policies = initial_policies(operator.policy, NUM_TASKS, jax.random.key(0))
  memory = make_remember(knows)(None, policies, play(policies, tasks, jax.random.key(1)))
  asked = [ask(score=0.2), ask(score=1.0)]
  found = {weight: make_guided(knows, params, *asked, weight)(policies, memory, jax.random.key(0))
           for weight in (0.0, 1.0, 2.0)}
  low, high = (make_improve(knows, params, one)(policies, memory, jax.random.key(0)) for one in asked)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), (found[0.0], found[1.0]), (low, high))
  # The decoder is linear in the code.
  jax.tree.map(lambda x, y, z: np.testing.assert_allclose(z, 2 * y - x, atol=1e-4), low, high, found[2.0])
