"""Experience that is changed on purpose: what is changed, that nothing else is, and that it is told."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import asks, policies
from metaimprove.asks import ask, augmentation, from_words
from metaimprove.asks.ask import Ask, features
from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.operators.memory import empty_memory
from metaimprove.operators.operator import make_operator
from metaimprove.rollouts import make_play
from metaimprove.training import rounds, validation
from metaimprove.training.augmentation import augmented, draw_augmentations, rotation_of
from metaimprove.training.examples import Examples, split_histories
from metaimprove.training.loop import train
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import take

POLICY = policies.make_policy(3, 2, (8,))
STATISTICS = {
  'observation_mean': np.float32([1.0, -2.0, 0.5]), 'observation_std': np.float32([2.0, 0.1, 1e-6]),
  'change_mean': np.zeros(3, np.float32), 'change_std': np.float32([0.2, 0.05, 1e-6]),
}
"""Two observations that vary, and one that does not."""
MIRRORED, ROTATED, WARPED, NOISY, HIDDEN = range(1, len(augmentation.NAMES))
SETTINGS = TrainingSettings(
  batch_size=16, num_states=8, rounds=(0.0,), round_applications=2, round_tasks=8, num_validation=2,
)


def experience(lengths, num_steps, seed=0):
  """Memories [B, C, K, ...] of episodes of so many steps [B, C], with what policies would do there, numpy; and of each
  states, and the answer there."""
  lengths, rng = np.array(lengths), np.random.default_rng(seed)
  shape = (*lengths.shape, num_steps)
  observation = (
    STATISTICS['observation_mean'] + STATISTICS['observation_std'] * rng.normal(size=(*shape, 3))
  ).astype(np.float32)
  change = (STATISTICS['change_std'] * rng.normal(size=(*shape, 3))).astype(np.float32)
  empty = jax.tree.map(lambda x: np.broadcast_to(x, (len(lengths), *x.shape)), empty_memory(shape[1], num_steps, 3, 2))
  params = policy_of(len(lengths))
  trajectory = empty.trajectory.replace(
    observation=observation, next_observation=observation + change, valid=np.arange(num_steps) < lengths[..., None],
    action=rng.uniform(-1, 1, (*shape, 2)).astype(np.float32), reward=rng.normal(size=shape).astype(np.float32),
  )
  memory = empty.replace(
    trajectory=trajectory, behaviour=policies.apply_numpy(params, observation),
    time=np.broadcast_to(np.arange(num_steps, dtype=np.int32), shape), number=np.zeros(lengths.shape, np.int32),
  )
  states = observation[:, 0]
  return memory, states, policies.apply_numpy(params, states)


def policy_of(num):
  return jax.device_get(jax.vmap(POLICY.init)(jax.random.split(jax.random.key(0), num)))


def changed(parts, number, seed=0):
  """All of a batch changed by one augmentation."""
  num = len(parts[1])
  return augmented(*parts, np.full(num, number), STATISTICS, np.random.default_rng(seed).spawn(num))


def assert_same(first, second, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or {'rtol': 0})), first, second)


def test_names_are_read_and_written():
  assert ask(steps='best', augmentation='warped').values['augmentation'] == WARPED
  assert augmentation.words(from_words('steps=best, augmentation=hidden').values['augmentation']) == 'hidden'
  many = ask(steps='best', augmentation=['none', 'noisy'])
  np.testing.assert_array_equal(many.values['augmentation'], [augmentation.NONE, NOISY])
  np.testing.assert_array_equal(many.given['augmentation'], [False, True])
  np.testing.assert_array_equal(augmentation.value([0, 5]), [0, 5])
  for wrong in ('mirror', '', 6, -1, 1.0, None, ['none', 'blurred']):
    with pytest.raises(UnknownNameError, match='one of: none, mirrored, rotated, warped, noisy, hidden, not'):
      ask(steps='best', augmentation=wrong)


def test_an_augmentation_alone_says_nothing_of_what_is_wanted():
  for alone in ('none', 'mirrored'):
    with pytest.raises(UnknownNameError, match=r'must say what is wanted, by one or more of: steps, .*, words\.'):
      ask(augmentation=alone)


def test_none_is_the_same_as_not_asking():
  """And each of the others is read as itself."""
  read = lambda **wanted: np.asarray(features(asks.KINDS, ('steps', 'augmentation'), ask(steps='best', **wanted)))
  np.testing.assert_array_equal(read(augmentation='none'), read())
  for number, name in enumerate(augmentation.NAMES[1:]):
    np.testing.assert_array_equal(read(augmentation=name), [1, 1, 1, 0, 1, *np.eye(5)[number]])
  np.testing.assert_array_equal(augmentation.features(jnp.int32(augmentation.NONE)), np.zeros(5))


def test_what_was_changed_is_told():
  """Beside all else that was asked."""
  before = Ask(values={'steps': np.array([1, 2])}, given={'steps': np.array([True, False])})
  found = augmentation.told(before, np.array([augmentation.NONE, HIDDEN]))
  np.testing.assert_array_equal(found.given['augmentation'], [False, True])
  np.testing.assert_array_equal(found.values['augmentation'], [0, HIDDEN])
  np.testing.assert_array_equal(found.given['steps'], [True, False])


def test_a_share_is_changed_in_any_way():
  """Half of them, each way as often."""
  drawn = draw_augmentations(0.5, np.random.default_rng(0).spawn(5000))
  np.testing.assert_allclose(np.bincount(drawn, minlength=6) / 5000, [0.5, *[0.1] * 5], atol=0.02)
  rngs = np.random.default_rng(0).spawn(200)
  assert not draw_augmentations(0.0, rngs).any() and draw_augmentations(1.0, rngs).all()


def test_mirrored_by_hand():
  """Means are 1, -2 and 0.5."""
  memory, *_ = experience([[1]], 1)
  trajectory = memory.trajectory.replace(
    observation=np.float32([[[[4.0, -2.0, 0.0]]]]), next_observation=np.float32([[[[1.0, -1.5, 0.5]]]]),
    action=np.float32([[[[0.5, -1.0]]]]),
  )
  memory = memory.replace(trajectory=trajectory, behaviour=np.float32([[[[0.1, -0.2, -3.0, 2.0]]]]))
  found, states, answer = changed((memory, np.float32([[[0.0, 0.0, 0.0]]]), np.float32([[[1.0, 2.0, 3.0, 4.0]]])), 1)
  np.testing.assert_allclose(found.trajectory.observation[0, 0, 0], [-2, -2, 1])
  np.testing.assert_allclose(found.trajectory.next_observation[0, 0, 0], [1, -2.5, 0.5])
  np.testing.assert_allclose(found.trajectory.action[0, 0, 0], [-0.5, 1])
  np.testing.assert_allclose(found.behaviour[0, 0, 0], [-0.1, 0.2, -3, 2])
  np.testing.assert_allclose(states[0, 0], [2, -4, 1])
  np.testing.assert_allclose(answer[0, 0], [-1, -2, 3, 4])
  rest = dataclasses.replace(found, trajectory=memory.trajectory, behaviour=memory.behaviour)
  assert_same(rest, memory)
  np.testing.assert_array_equal(found.trajectory.reward, memory.trajectory.reward)


@hypothesis.given(st.integers(0, 1000))
def test_mirrored_twice_is_as_before(seed):
  parts = experience([[3, 2], [4, 0]], 4, seed)
  assert_same(changed(changed(parts, MIRRORED), MIRRORED), parts, atol=1e-5)


def mirrored_policy(params):
  """The one that does on the mirrored problem what the policy does, its weights changed by hand."""
  first, last = policies.layer_names(params)
  w, b = params[first]['w'], params[first]['b']
  sign = np.float32([-1, -1, 1, 1])
  return {
    first: {'w': -w, 'b': b + 2 * STATISTICS['observation_mean'] @ w},
    last: {'w': params[last]['w'] * sign, 'b': params[last]['b'] * sign},
  }


def rotated_policy(params):
  """The same on the rotated problem."""
  first, last = policies.layer_names(params)
  mean, std = STATISTICS['observation_mean'], STATISTICS['observation_std']
  back = np.diag(1 / std) @ rotation_of(std).T @ np.diag(std)
  w, b = params[first]['w'], params[first]['b']
  return {first: {'w': back @ w, 'b': b + mean @ w - mean @ back @ w}, last: params[last]}


@pytest.mark.parametrize(('number', 'transformed'), [(MIRRORED, mirrored_policy), (ROTATED, rotated_policy)])
def test_memory_and_answer_are_those_of_a_transformed_policy(number, transformed):
  """What is remembered of it, at the observations that are remembered, and what is answered at the states."""
  parts = experience([[3, 2], [4, 4]], 4)
  memory, states, answer = changed(parts, number)
  params = [transformed(take(policy_of(2), row)) for row in range(2)]
  for row, of in enumerate(params):
    np.testing.assert_allclose(POLICY.apply(of, states[row]), answer[row], atol=1e-4)
    np.testing.assert_allclose(
      POLICY.apply(of, memory.trajectory.observation[row]), memory.behaviour[row], atol=1e-4
    )
  assert np.abs(states - parts[1]).max() > 0.1


def test_rotated_is_turned_and_nothing_else():
  """Lengths in deviations stay, of observations and of changes; what is constant is not turned; it is always the same
  turn."""
  rotation = rotation_of(STATISTICS['observation_std'])
  np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
  np.testing.assert_array_equal(rotation[2], [0, 0, 1])
  assert 0.05 < abs(rotation[0, 0]) < 0.95
  before, states, _ = parts = experience([[4, 2]] * 3, 4)
  after, turned, _ = changed(parts, ROTATED)
  scaled = lambda x: (x - STATISTICS['observation_mean']) / STATISTICS['observation_std']
  length = lambda x: np.linalg.norm(scaled(x)[..., :2], axis=-1)
  for of in ('observation', 'next_observation'):
    np.testing.assert_allclose(length(getattr(after.trajectory, of)), length(getattr(before.trajectory, of)), rtol=1e-4)
  np.testing.assert_allclose(length(turned), length(states), rtol=1e-4)
  np.testing.assert_allclose(turned[..., 2], states[..., 2], atol=1e-6)
  same = dataclasses.replace(after.trajectory, observation=None, next_observation=None)
  assert_same(same, dataclasses.replace(before.trajectory, observation=None, next_observation=None))
  assert_same(changed(parts, ROTATED, seed=1), (after, turned, parts[2]))


def test_warped_by_hand():
  """Of five and of two steps three and one stay, at half the times, with twice the changes."""
  before, *_ = parts = experience([[5, 2]], 6)
  found, *others = changed(parts, WARPED)
  np.testing.assert_array_equal(found.trajectory.valid[0, 0], [True, False, True, False, True, False])
  np.testing.assert_array_equal(found.trajectory.valid[0, 1], [True, False, False, False, False, False])
  np.testing.assert_array_equal(found.time[0, 0], [0, 0, 1, 1, 2, 2])
  change = lambda memory: memory.trajectory.next_observation - memory.trajectory.observation
  np.testing.assert_allclose(change(found), 2 * change(before), atol=1e-5)
  np.testing.assert_array_equal(found.trajectory.observation, before.trajectory.observation)
  np.testing.assert_array_equal(found.behaviour, before.behaviour)
  assert_same(others, [*parts[1:]])


def test_noise_is_a_share_of_each_deviation():
  """Of observations and of changes; policies did what they did, and the answer is to what it was."""
  before, *_ = parts = experience([[50] * 4] * 10, 50)
  found, *others = changed(parts, NOISY)
  shift = found.trajectory.observation - before.trajectory.observation
  np.testing.assert_allclose(shift.std(axis=(0, 1, 2))[:2], 0.3 * STATISTICS['observation_std'][:2], rtol=0.1)
  change = lambda memory: memory.trajectory.next_observation - memory.trajectory.observation
  more = change(found) - change(before)
  np.testing.assert_allclose(more.std(axis=(0, 1, 2))[:2], 0.3 * STATISTICS['change_std'][:2], rtol=0.1)
  assert abs(np.corrcoef(shift[..., 0].ravel(), more[..., 0].ravel())[0, 1]) < 0.1
  assert np.unique(shift[:, 0, 0, 0]).size == 10
  np.testing.assert_array_equal(found.behaviour, before.behaviour)
  np.testing.assert_array_equal(found.trajectory.action, before.trajectory.action)
  assert_same(others, [*parts[1:]])


@hypothesis.given(st.lists(st.integers(0, 7), min_size=2, max_size=2), st.integers(0, 100))
def test_half_of_the_steps_are_hidden(lengths, seed):
  """Of each episode, rounded up: one that was there is still there. Nothing comes up that was not."""
  before, *_ = parts = experience([lengths], 7)
  found, *others = changed(parts, HIDDEN, seed)
  valid = found.trajectory.valid
  np.testing.assert_array_equal(valid[0].sum(axis=-1), -(-np.array(lengths) // 2))
  assert not (valid & ~before.trajectory.valid).any()
  same = found.replace(trajectory=found.trajectory.replace(valid=before.trajectory.valid))
  assert_same((same, *others), parts)


def test_any_steps_are_hidden():
  found, *_ = changed(experience([[6, 6]] * 200, 6), HIDDEN)
  np.testing.assert_allclose(found.trajectory.valid.mean(axis=(0, 1)), 0.5, atol=0.1)


def test_examples_that_are_not_drawn_stay_and_nothing_is_changed_in_place():
  """Each is changed as it would be alone."""
  parts = experience([[4, 4]] * 6, 4)
  kept = jax.tree.map(np.copy, parts)
  found = augmented(*parts, np.arange(6), STATISTICS, np.random.default_rng(0).spawn(6))
  assert_same(parts, kept)
  assert_same(take(found, 0), take(parts, 0))
  rngs = np.random.default_rng(0).spawn(6)
  for number in range(1, 6):
    row = slice(number, number + 1)
    assert_same(take(found, row), augmented(*take(parts, row), np.array([number]), STATISTICS, rngs[row]))
    with pytest.raises(AssertionError):
      assert_same(take(found, row), take(parts, row))


def examples_of(dataset, config, statistics, share, **changes):
  return Examples(
    dataset=dataset, histories=None, config=config, seed=0, statistics=statistics,
    settings=dataclasses.replace(SETTINGS, augmented_share=share, **changes),
  )


@pytest.fixture(scope='module')
def told(operator):
  """A configuration that understands it."""
  return dataclasses.replace(operator.config, asks=('steps', 'explore', 'augmentation'))


@pytest.fixture(scope='module')
def statistics(operator_params):
  return jax.device_get(operator_params['statistics'])


def test_examples_tell_by_what_they_are_changed(dataset, told, statistics):
  """All, half or none of them; whatever else is asked stays; memory and states are those of the same draw, changed."""
  def drawn(share):
    return examples_of(dataset, told, statistics, share).of_histories(
      np.arange(64) % dataset.num_histories, np.ones(64, int), np.random.default_rng(0)
    )

  plain, half, whole = map(drawn, (0.0, 0.5, 1.0))
  assert not plain.ask.given['augmentation'].any() and whole.ask.given['augmentation'].all()
  assert set(whole.ask.values['augmentation']) == {MIRRORED, ROTATED, WARPED, NOISY, HIDDEN}
  given = half.ask.given['augmentation']
  assert 16 < given.sum() < 48
  assert_same(*(take((x.memory, x.states, x.answer), ~given) for x in (half, plain)))
  for example in (half, whole):
    np.testing.assert_array_equal(example.ask.given['steps'], plain.ask.given['steps'])
    np.testing.assert_array_equal(example.ask.values['steps'], plain.ask.values['steps'])
  assert jax.tree.map(lambda x: (x.shape, x.dtype), whole) == jax.tree.map(lambda x: (x.shape, x.dtype), plain)
  mirrored = whole.ask.values['augmentation'] == MIRRORED
  mean = statistics['observation_mean']
  np.testing.assert_allclose(whole.states[mirrored], 2 * mean - plain.states[mirrored], atol=1e-5)
  np.testing.assert_allclose(whole.answer[mirrored][..., 0], -plain.answer[mirrored][..., 0], atol=1e-6)
  hidden = whole.ask.values['augmentation'] == HIDDEN
  count = lambda example: example.memory.trajectory.valid[hidden].sum(axis=-1)
  np.testing.assert_array_equal(count(whole), -(-count(plain) // 2))


def test_validation_losses_are_of_what_tests_ask_for(dataset, operator, told, statistics, monkeypatch):
  seen = []
  monkeypatch.setattr(validation, 'mean_figures', lambda *arguments: seen.append(arguments[-1]) or (0.0, 0.0, 0.0))
  validation.losses(operator, None, examples_of(dataset, told, statistics, 1.0), np.arange(2))
  assert seen and not any(example.ask.given['augmentation'].any() for example in seen)


def test_rounds_are_played_without(dataset, told, point, monkeypatch):
  """Nothing that is experienced in them is changed, so they must not be asked so."""
  operator, asked = make_operator(told), []

  def noting(operator, operator_params, ask, *, sample):
    asked.append(ask)
    return lambda params, memory, rng_key: params

  monkeypatch.setattr(rounds, 'make_improve', noting)
  training, _ = split_histories(dataset, 2)
  found = rounds.play_round(
    operator, None, make_play(point, operator.policy, num_episodes=2), dataset, training,
    dataclasses.replace(SETTINGS, augmented_share=1.0), np.random.default_rng(0),
  )
  assert len(asked) == 2 and found['kept'].shape[:2] == (8, 2)
  assert not any(np.any(one.given['augmentation']) for one in asked)
  assert all(np.any(list(one.given.values()), axis=0).all() for one in asked)


def test_an_operator_that_could_not_be_told_is_refused(operator, dataset, tmp_path):
  with pytest.raises(IncompatibleError, match="augmented_share=0.5 needs .* an ask for an 'augmentation'"):
    train(operator, None, dataset, dataclasses.replace(SETTINGS, augmented_share=0.5), seed=0, folder=tmp_path)
  assert not [*tmp_path.iterdir()]


def test_who_understands_it_is_shown_some(point):
  share = lambda *names: TrainingSettings.of(point, 8, asks=names).augmented_share
  assert (share('steps'), share('steps', 'augmentation')) == (0.0, 0.3)
  with pytest.raises(IncompatibleError, match='augmented_share=1.5 must be a share'):
    TrainingSettings(augmented_share=1.5)
