"""Asks: descriptions of pairs of policies, worked by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import asks
from metaimprove.asks import OWN, SAME, ask, explore, from_words, goal, mean_return, score, skill, steps, words
from metaimprove.asks.ask import Ask, Kind, Pairs, batched, bumps, describe, drop, features, num_features
from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.language import ngrams
from metaimprove.language.properties import SPEED
from metaimprove.training.pairs import ANY

RETURN = Kind(
  name='return', value=np.float32, words=str, num_features=1, features=lambda value: jnp.asarray(value)[None],
  describe=lambda pairs, rng: np.take_along_axis(pairs.returns, np.maximum(pairs.target, 0)[:, None], 1)[:, 0],
  is_known=lambda pairs: pairs.target >= 0,
)
"""Another kind, for tests: the return that the answer has."""
KINDS = {**asks.KINDS, 'return': RETURN}


def pairs_of(level, target, rank, shares=steps.SHARES, gain=np.nan):
  """Pairs that are all of one history, with levels of the ranks given."""
  level, target = np.array(level), np.array(target)
  rank = np.tile(rank, (len(level), 1))
  return Pairs(
    level=level, target=target, rank=rank, returns=rank - 4.0, size_shares=shares,
    gain=np.broadcast_to(gain, level.shape), achieved=np.full((len(level), 1), np.nan),
    properties=(), measured=np.zeros((len(level), 0)),
  )


def test_targets_by_hand():
  """0 is the policy itself; others go on to the best policy at most, and back to its first level from the last one."""
  level, size = np.array([0, 2, 3, 1, 1, 3]), np.array([1, 4, 0, steps.BEST, 0, 1])
  rank = np.array([[0, 1, 2, 3]] * 3 + [[0, 1, 2, 2]] * 3)
  np.testing.assert_array_equal(steps.target_level(level, size, rank), [1, 3, SAME, 2, SAME, 2])


def test_levels_that_are_one_policy_count_once():
  """Levels 1 to 3 are one policy, and so are 4 and 5, the best: one better than level 1 is level 4, never 2 or 3."""
  rank = np.array([[0, 1, 1, 1, 2, 2]] * 6)
  target = lambda size: steps.target_level(np.arange(6), np.full(6, size), rank).tolist()
  assert target(1) == [1, 4, 4, 4, 4, 4]
  assert target(2) == target(steps.BEST) == [4] * 6


def test_same_is_no_level_and_no_size():
  """Else a target could be taken for a size, or the other way round."""
  assert max(SAME, OWN, ANY) < 0 and len({SAME, OWN, ANY}) == 3 and not {SAME, OWN, ANY} & set(steps.SIZES)


def test_a_description_leads_to_the_target():
  """Whatever is drawn among the true descriptions, asking for it draws the pair's target again."""
  rng = np.random.default_rng(0)
  level, rank = rng.integers(12, size=500), np.cumsum(rng.integers(2, size=(500, 12)), axis=1)
  target = steps.target_level(level, rng.choice(steps.SIZES, size=500), rank)
  pairs = Pairs(
    level=level, target=target, rank=rank, returns=np.zeros((500, 12)), size_shares=steps.SHARES,
    gain=np.full(500, np.nan), achieved=np.full((500, 1), np.nan), properties=(),
    measured=np.zeros((500, 0)),
  )
  found = steps.describe(pairs, rng)
  np.testing.assert_array_equal(steps.target_level(level, found, rank), target)
  assert set(found[target == SAME]) == {0} and 0 not in found[target != SAME]


def test_descriptions_are_drawn_by_their_shares():
  """From level 1 to the best one, 2: sizes 1, 2, 4, 8 and 'best' are all true; shares 0.15 four times and 0.3, or what
  the settings say."""
  def shares(*settings):
    found = steps.describe(pairs_of([1] * 9000, [2] * 9000, [0, 1, 2, 2], *settings), np.random.default_rng(0))
    return [np.mean(found == size) for size in (1, 2, 4, 8, steps.BEST)]

  np.testing.assert_allclose(shares(), [1 / 6] * 4 + [1 / 3], atol=0.02)
  np.testing.assert_allclose(shares((0.5, 0.1, 0, 0, 0, 0.4)), [0.2, 0, 0, 0, 0.8], atol=0.02)


def test_a_difference_that_is_no_size_is_described_by_itself():
  """3 is none of the sizes, and level 4, the fourth policy, is not the best. Nor is 1 where it is never drawn."""
  rank = [0, 1, 1, 2, 3, 4]
  np.testing.assert_array_equal(steps.describe(pairs_of([0], [4], rank), np.random.default_rng(0)), [3])
  only_best = pairs_of([0, 0], [1, SAME], rank, (0, 0, 0, 0, 0, 1.0))
  np.testing.assert_array_equal(steps.describe(only_best, np.random.default_rng(0)), [1, 0])


def test_any_level_of_the_best_policy_is_the_best():
  """Levels 2 and 3 are one policy; a size leads to the first of them, and both are its answer."""
  found = steps.describe(pairs_of([0] * 500 + [1] * 500, [3] * 1000, [0, 1, 2, 2]), np.random.default_rng(0))
  assert set(found[:500]) == {2, 4, 8, steps.BEST} and set(found[500:]) == {1, 2, 4, 8, steps.BEST}


def test_words():
  assert ask(steps='best').values['steps'] == steps.BEST and ask(steps='4').values['steps'] == 4
  assert steps.words(steps.BEST) == 'best' and steps.words(0) == '0'
  np.testing.assert_array_equal(ask(steps=[1, 2]).given['steps'], [True, True])
  for wrong in ('better', -2, 1.5, '-1', ''):
    with pytest.raises(UnknownNameError, match="'best' or a number"):
      ask(steps=wrong)
  with pytest.raises(UnknownNameError, match="no kind of ask 'fame'; choose among: steps"):
    ask(fame=3)
  with pytest.raises(UnknownNameError, match='must say what is wanted'):
    ask()


def test_features_by_hand():
  np.testing.assert_allclose(steps.features(jnp.asarray(7)), [0, 1, 1])
  np.testing.assert_allclose(steps.features(jnp.asarray(0)), [0, 0, 0])
  np.testing.assert_allclose(steps.features(jnp.asarray(steps.BEST)), [1, 1, 0])
  # Whether it is given, and its features; a kind that is not there is not given.
  np.testing.assert_allclose(features(KINDS, ('return', 'steps'), ask(steps=7)), [0, 0, 1, 0, 1, 1])
  assert num_features(KINDS, ('return', 'steps')) == 6


def test_what_is_not_given_is_not_read():
  hidden = Ask(values={'steps': np.int32(7)}, given={'steps': np.bool_(False)})
  np.testing.assert_array_equal(features(KINDS, ('steps',), hidden), [0, 0, 0, 0])


def test_a_kind_that_is_not_understood_is_refused():
  with pytest.raises(IncompatibleError, match="does not understand an ask for 'steps'; it understands: return"):
    features(KINDS, ('return',), ask(steps=1))


def test_same_is_asked_for_only_where_it_is_given():
  assert steps.is_same(ask(steps=0)) and not steps.is_same(ask(steps=1))
  assert not steps.is_same(dataclasses.replace(ask(steps=0), given={'steps': np.bool_(False)}))
  assert not steps.is_same(Ask(values={}, given={}))


def test_kinds_are_left_out_but_never_all():
  """Of two kinds one stays; the other one is left out in half of the asks, and in a third of the others."""
  num, rng = 6000, np.random.default_rng(0)
  described = describe(KINDS, ('steps', 'return'), pairs_of([0] * num, [2] * num, [0, 1, 2, 3]), rng)
  np.testing.assert_array_equal(described.values['return'], -2.0)
  given = np.stack(list(drop(described, 1 / 3, rng).given.values()))
  assert given.any(axis=0).all()
  np.testing.assert_allclose(given.mean(axis=1), 1 - (1 / 2 + 1 / 2 * 1 / 3) / 2, atol=0.02)
  given = np.stack(list(drop(described, 0.0, rng).given.values()))
  np.testing.assert_allclose(given.all(axis=0).mean(), 0.5, atol=0.02)


def test_each_kind_is_often_asked_for_alone():
  """Whatever the number of kinds, for that is what users do."""
  num, names = 4000, ('steps', *asks.of_levels())
  pairs = pairs_of([0] * num, [2] * num, [0, 1, 2, 3]).replace(
    achieved=np.zeros((num, 1)), properties=(SPEED,), measured=np.ones((num, 1)),
  )
  dropped = drop(describe(asks.KINDS, names, pairs, np.random.default_rng(0)), 0.3, np.random.default_rng(1))
  given = np.stack(list(dropped.given.values()))
  alone = given[:, given.sum(axis=0) == 1].sum(axis=1) / num
  assert (alone > 0.06).all() and given.sum(axis=0).max() == len(names)


def test_the_best_is_asked_for_instead():
  before = Ask(values={'steps': np.array([1, 4]), 'return': np.zeros(2)}, given={
    'steps': np.array([False, True]), 'return': np.array([True, True])
  })
  found = steps.best_instead(before, np.array([True, False]))
  np.testing.assert_array_equal(found.values['steps'], [steps.BEST, 4])
  np.testing.assert_array_equal(found.given['steps'], [True, True])
  np.testing.assert_array_equal(found.given['return'], [False, True])


def test_what_was_not_given_does_not_come_back():
  """The one that stays is one of those that were given."""
  given = {'steps': np.zeros(50, bool), 'return': np.ones(50, bool)}
  values = {name: np.zeros(50) for name in given}
  dropped = drop(Ask(values=values, given=given), 1.0, np.random.default_rng(0))
  assert not dropped.given['steps'].any() and dropped.given['return'].all()


def test_only_what_is_known_is_described():
  """The answer is what an operator gave: no number of levels leads to it, but what it led to is known; the other way
  round for a level. Histories may have two levels only."""
  pairs = pairs_of([0, 0, 1], [OWN, 1, SAME], [0, 1], gain=[0.25, np.nan, np.nan])
  found = describe(KINDS, ('steps', 'explore'), pairs, np.random.default_rng(0))
  np.testing.assert_array_equal(found.given['steps'], [False, True, True])
  np.testing.assert_array_equal(found.given['explore'], [True, False, False])
  np.testing.assert_array_equal(found.values['explore'], [0.25, 0, 0])
  dropped = drop(found, 1.0, np.random.default_rng(0))
  for name, given in found.given.items():
    np.testing.assert_array_equal(dropped.given[name], given, 'the only one stays')


def test_what_a_try_led_to_by_hand():
  """Returns from 0 to 10 are possible. The first run finds 4 at its second policy and 9 at last: a gain of 0.9 for that
  policy, which beat all before it; 0 for the third, which did not, whatever came later. Of the second run the second
  policy blew up, and the third gained all. Below the lowest return nothing counts."""
  returns = np.array([[0.0, 4.0, 1.0, 9.0], [2.0, np.nan, 5.0, 12.0], [-5.0, -1.0, 3.0, 3.0]])
  found = explore.gain(returns, np.zeros(3), np.full(3, 10.0))
  nan = np.nan
  np.testing.assert_allclose(found, [[nan, 0.9, 0, nan], [nan, 0, 1.0, nan], [nan, 0, 0.3, nan]])


def test_a_try_that_met_hardly_more_led_to_nothing():
  returns = np.array([[1.0, 1.05, 9.0], [1.0, 1.2, 9.0]])
  np.testing.assert_allclose(explore.gain(returns, np.zeros(2), np.full(2, 10.0))[:, 1], [0, 0.8])


def test_words_for_exploring():
  assert ask(explore='most').values['explore'] == explore.MOST and explore.words(explore.MOST) == 'most'
  assert ask(explore='0.5').values['explore'] == 0.5 and explore.words(np.float32(0.5)) == '0.5'
  for wrong in ('much', 1.5, -0.1, None, float('nan'), [0.5, 2.0]):
    with pytest.raises(UnknownNameError, match="'most' or a share"):
      ask(explore=wrong)


def test_exploring_instead():
  """Where it is wanted nothing else is asked for; elsewhere all stays as it was."""
  found = explore.instead(ask(steps=[1, 2, 4]), np.array([True, False, True]))
  np.testing.assert_array_equal(found.given['steps'], [False, True, False])
  np.testing.assert_array_equal(found.given['explore'], [True, False, True])
  np.testing.assert_array_equal(found.values['explore'], explore.MOST)
  np.testing.assert_array_equal(found.values['steps'], [1, 2, 4])


def test_what_a_level_is_like_by_hand():
  """Of four levels with returns 4 lower than their ranks 0, 1, 1, 2: a worse answer, the best one, and two that are on
  no level."""
  pairs = pairs_of([1, 1, 1, 1], [0, 3, SAME, OWN], [0, 1, 1, 2])
  pairs = pairs.replace(
    achieved=np.array([[0.5, -1.0], [np.nan, 1.0], [2.0, 2.0], [3.0, 3.0]]),
    properties=(SPEED,), measured=np.array([[np.nan], [-0.3], [1.0], [1.0]]),
  )
  found = describe(asks.KINDS, asks.of_levels(), pairs, np.random.default_rng(0))
  assert set(asks.of_levels()) == {'mean_return', 'score', 'skill', 'goal', 'words'}
  np.testing.assert_array_equal(found.given['goal'], [True, False, False, False])
  np.testing.assert_allclose(found.values['goal'], [[0.5, -1.0], [0, 0], [0, 0], [0, 0]])
  for name, expected in (('mean_return', [-4, -2, 0, 0]), ('score', [0, 1, 0, 0]), ('skill', [0, 1, 0, 0])):
    np.testing.assert_allclose(found.values[name], expected)
    np.testing.assert_array_equal(found.given[name], [True, True, False, False])


def test_score_and_skill_differ_where_returns_are_not_evenly_spaced():
  pairs = dataclasses.replace(pairs_of([0], [1], [0, 1, 2]), returns=np.array([[10.0, 18.0, 20.0]]))
  rng = np.random.default_rng(0)
  np.testing.assert_allclose(score.describe(pairs, rng), [0.8])
  np.testing.assert_allclose(skill.describe(pairs, rng), [0.5])
  # A learner may end worse than its best level, and begin better than its worst.
  pairs = pairs.replace(returns=np.array([[10.0, 0.0, 40.0]]))
  np.testing.assert_allclose(score.describe(pairs, rng), [0.0])


def test_no_size_leads_to_a_worse_level_or_to_another_one_of_the_same_policy():
  """Nor is such a pair described by one; the best policy is always 'best'."""
  pairs = pairs_of([1, 1, 1, 3, 2, 1], [0, 2, 3, 3, SAME, OWN], [0, 1, 1, 2])
  np.testing.assert_array_equal(steps.is_known(pairs), [False, False, True, True, True, False])


@pytest.mark.parametrize('kind, given, read, shown', [
  (mean_return, '-20', -20.0, '-20'), (mean_return, 1234.5, 1234.5, '1234.5'), (score, 0.5, 0.5, '0.5'),
  (score, '1.2', 1.2, '1.2'), (skill, 1, 1.0, '1'),
])
def test_numbers_are_read_and_written(kind, given, read, shown):
  assert kind.KIND.value(given) == np.float32(read) and kind.KIND.words(np.float32(read)) == shown
  np.testing.assert_array_equal(kind.KIND.value([read, read]), np.float32([read, read]))
  assert kind.KIND.features(jnp.float32(read)).shape == (kind.KIND.num_features,)


@pytest.mark.parametrize('kind, wrong', [
  (mean_return, 'much'), (mean_return, np.nan), (mean_return, np.inf), (mean_return, None), (score, 3.5),
  (score, 'high'), (skill, -0.1), (skill, '1.1'), (skill, [0.5, 2.0]), (explore, 1.5), (explore, 'least'),
])
def test_numbers_that_are_none_are_refused(kind, wrong):
  with pytest.raises(UnknownNameError, match='number|share'):
    kind.KIND.value(wrong)


def test_bumps_by_hand():
  """1 at the centre itself, 1/e at the next one."""
  np.testing.assert_allclose(bumps(jnp.float32(0.5), np.array([0.0, 0.5, 1.0])), [np.exp(-1), 1, np.exp(-1)], rtol=1e-6)


def test_returns_are_read_apart_whatever_their_size():
  """The same share more is the same difference read, near 20 and near 2,000; and the sign counts."""
  read = lambda value: np.asarray(mean_return.features(jnp.float32(value)))
  apart = [np.linalg.norm(read(1.1 * value) - read(value)) for value in (20.0, -20.0, 2000.0)]
  assert min(apart) > 0.05 and max(apart) < 3 * min(apart)
  assert np.linalg.norm(read(20.0) - read(-20.0)) > 1


def test_asks_in_words():
  assert from_words('best') == ask(steps='best') and from_words('4').values['steps'] == 4
  found = from_words('steps=best, mean_return=-20')
  assert found.values == {'steps': steps.BEST, 'mean_return': -20} and all(found.given.values())
  for wrong, message in (
    ('score=0.5,best', 'KIND=VALUE'), ('fame=1', "no kind of ask 'fame'"), ('score=', 'A score is'), ('', "'best' or"),
    ('score=0.1,score=0.9', 'twice'),
  ):
    with pytest.raises(UnknownNameError, match=message):
      from_words(wrong)


def test_goals_are_read_and_written():
  for given in ('0.1:-0.05', [0.1, -0.05], np.float32([0.1, -0.05])):
    np.testing.assert_allclose(goal.value(given), [0.1, -0.05], rtol=1e-6)
  np.testing.assert_array_equal(goal.value(2), [2.0])
  assert goal.words(goal.value('0.1:-0.05')) == '0.1:-0.05' == goal.words(from_words('goal=0.1:-0.05').values['goal'])
  for wrong in ('0.1:', 'north', [], [1, 2, 3, 4], np.nan, None):
    with pytest.raises(UnknownNameError, match='one to 3 numbers'):
      goal.value(wrong)


def test_goals_are_read_apart():
  """A number that a goal lacks is read as nothing, so a velocity of 2 is no place (2, 0). Places a centimetre apart on
  the reacher's table are told apart."""
  read = lambda *numbers: np.asarray(goal.features(jnp.float32(numbers)))
  assert read(2).shape == read(2, 0, 0).shape == (goal.KIND.num_features,) and (read(2)[7:] == 0).all()
  assert np.linalg.norm(read(2) - read(2, 0)) > 1 and np.linalg.norm(read(0.1, 0.1) - read(0.1, 0.11)) > 0.1


def test_one_ask_or_one_for_each():
  """A goal has an axis of its own, which is no batch axis."""
  one, each = ask(goal=[1.0, 2.0], steps='best'), ask(goal=[[1.0, 2.0], [3.0, 4.0]], steps=[1, 2])
  assert one.given['goal'].shape == () and each.given['goal'].shape == (2,)
  np.testing.assert_array_equal(batched(one, 2).values['goal'], [[1, 2], [1, 2]])
  np.testing.assert_array_equal(batched(each, 2).values['goal'], [[1, 2], [3, 4]])
  np.testing.assert_array_equal(batched(one, 2).values['steps'], [steps.BEST, steps.BEST])
  assert batched(one, 2).given['goal'].shape == (2,)


def test_words_are_read_and_written():
  """In small letters; one for all or one for each; and nothing but words."""
  found = ask(words='  Forward  slowly')
  assert words.KIND.words(found.values['words']) == 'forward slowly' and found.given['words'].shape == ()
  many = ask(words=['to the left', 'to the right'])
  assert many.given['words'].shape == (2,) and words.KIND.words(many.values['words'][1]) == 'to the right'
  np.testing.assert_array_equal(words.value(many.values['words']), many.values['words'])
  told = from_words('steps=best, words=forward slowly, with little effort')
  assert told.values['steps'] == steps.BEST
  assert words.KIND.words(told.values['words']) == 'forward slowly, with little effort'
  assert words.KIND.words(from_words('words=a=b').values['words']) == 'a=b'
  found = from_words('score=0.5,words=far out')
  assert found.values['score'] == 0.5 and words.KIND.words(found.values['words']) == 'far out'
  for wrong, message in (('words=far out,steps=best', 'write steps= before words='), ('mywords=3', 'no kind of ask')):
    with pytest.raises(UnknownNameError, match=message):
      from_words(wrong)
  for wrong, message in (('', 'holds no word'), (' ,.', 'holds no word'), (3, 'is a text such as'), ('a' * 159, '159')):
    with pytest.raises(UnknownNameError, match=message):
      ask(words=wrong)


def test_words_describe_what_was_measured():
  """Of the level that is the answer, and only where something is known of it."""
  pairs = pairs_of([0, 0, 0], [1, 1, OWN], [0, 1, 2]).replace(
    properties=(SPEED,), measured=np.array([[-0.4], [np.nan], [1.0]]),
  )
  np.testing.assert_array_equal(words.is_known(pairs), [True, False, False])
  texts = {ngrams.text_of(words.describe(pairs, np.random.default_rng(seed))[0]) for seed in range(40)}
  assert any('backward slowly' in text for text in texts) and any('-0.4' in text for text in texts)
  assert not any('forward' in text for text in texts)


def test_words_embedded_by_an_encoder_of_yours():
  """Each text is embedded once, and different ones have different words."""
  seen = []

  def embed(text):
    seen.append(text)
    return np.array([len(text), text.count('e')], np.float32)

  kind = words.embedded('sentence', embed, 2)
  np.testing.assert_array_equal(kind.value('be free'), [7, 3])
  np.testing.assert_array_equal(kind.value(['be free', 'no']), [[7, 3], [2, 0]])
  assert seen == ['be free', 'no']
  np.testing.assert_array_equal(kind.value(np.array([1.0, 2.0])), [1, 2])
  assert kind.words(kind.value('no')) != kind.words(kind.value('be free'))
  asks.register(kind)
  try:
    assert {'sentence', 'words', 'goal'} == {*asks.say_all()} and asks.says_all(ask(sentence='be free'))
    assert not asks.says_all(ask(steps='best'))
  finally:
    del asks.KINDS['sentence']
