"""What an operator remembers, what it forgets, and how a memory is read: worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.asks import ask
from metaimprove.operators.apply import make_improve
from metaimprove.operators.memory import EMPTY, Memory, forget, newest_met_nothing, remember, thinned
from metaimprove.operators.reading import experience_statistics, num_step_features, read
from metaimprove.trees import take
from metaimprove.types import Trajectory

STATISTICS = {
  f'{name}_{moment}': value for name in ('observation', 'change', 'reward', 'return')
  for moment, value in (('mean', 0.0), ('std', 1.0))
}


def counted_steps(valid):
  """Episodes in which observation, action and reward count the hundredths of the steps; [E, T] bool `valid`."""
  valid = np.asarray(valid)
  number = np.arange(valid.size, dtype=np.float32).reshape(*valid.shape, 1) / 100
  return Trajectory(
    observation=number, action=number, reward=number[..., 0] * valid, next_observation=number,
    outcome=np.full((*valid.shape, 3), np.nan, np.float32), terminated=np.zeros(valid.shape, bool), valid=valid,
    finite=np.ones(len(valid), bool),
  )


def lengths(*counts):
  """[E, 8] bool, episodes of so many steps."""
  return np.arange(8) < np.array(counts)[:, None]


def standing(places, application, number=None, returns=None):
  """A memory whose episodes stay at a place each, for two steps without reward."""
  num = len(places)
  observation = np.repeat(np.array(places, np.float32)[:, None], 2, axis=1)[..., None]
  number = np.arange(num) if number is None else np.array(number)
  trajectory = Trajectory(
    observation=observation, action=np.zeros_like(observation), reward=np.zeros((num, 2), np.float32),
    next_observation=observation, outcome=observation[..., :0], terminated=np.zeros((num, 2), bool),
    valid=np.repeat((number != EMPTY)[:, None], 2, axis=1), finite=np.ones(num, bool),
  )
  return jax.tree.map(jnp.asarray, Memory(
    trajectory=trajectory, behaviour=np.zeros((num, 2, 2), np.float32), time=np.tile(np.arange(2), (num, 1)),
    episode_return=np.array(np.zeros(num) if returns is None else returns, np.float32),
    largest_reward=np.zeros(num, np.float32),
    application=np.array(application), number=number,
  ))


def left(memory, capacity):
  """The numbers of the episodes that are not forgotten."""
  return sorted(np.asarray(jax.jit(forget, static_argnums=1)(memory, capacity).number).tolist())


@pytest.mark.parametrize('arrays', [np.asarray, jnp.asarray])
def test_long_episodes_are_thinned_out_evenly(arrays):
  """Of 8 steps every second one, of 6 taken ones the first of each one and a half; of 2 both, and padding."""
  trajectory = jax.tree.map(arrays, counted_steps(lengths(8, 6, 2)))
  short, time = thinned(trajectory, 4)
  np.testing.assert_array_equal(time, [[0, 2, 4, 6], [0, 1, 3, 4], [0, 1, 2, 3]])
  np.testing.assert_array_equal(np.rint(short.observation[..., 0] * 100), time + np.array([[0], [8], [16]]))
  np.testing.assert_array_equal(short.valid, [[True] * 4, [True] * 4, [True, True, False, False]])
  assert short.outcome.size == 0 and isinstance(short.reward, type(arrays(0.0)))


def test_short_episodes_are_kept_whole_whatever_the_batch():
  trajectory = counted_steps(lengths(8, 3))
  short, time = thinned(jax.tree.map(lambda x: np.stack([x, x]), trajectory), 8)
  np.testing.assert_array_equal(time, np.tile(np.arange(8), (2, 2, 1)))
  np.testing.assert_array_equal(take(short, 1).observation, trajectory.observation)


def test_everything_is_remembered_until_the_memory_is_full(operator, every):
  """Two episodes of each policy; four places. Numbers and applications count on, and each step is remembered with what
  the policy that took it would do there."""
  policies = [jax.tree.map(lambda x, level=level: jnp.asarray(x[0, level]), every) for level in range(2)]
  first = operator.remember(None, *policies[0])
  second = operator.remember(first, *policies[1])
  assert first.number.tolist() == [EMPTY, EMPTY, 0, 1] and not first.trajectory.valid[:2].any()
  assert second.number.tolist() == [0, 1, 2, 3] and second.application.tolist() == [0, 0, 1, 1]
  for policy, episodes in enumerate((slice(0, 2), slice(2, 4))):
    params, trajectory = policies[policy]
    np.testing.assert_array_equal(second.trajectory.reward[episodes], trajectory.reward)
    behaviour = operator.policy.apply(params, trajectory.observation)
    np.testing.assert_allclose(second.behaviour[episodes], behaviour, atol=1e-6)
    np.testing.assert_allclose(second.episode_return[episodes], trajectory.reward.sum(axis=1), rtol=1e-6)
  third = operator.remember(second, *policies[0])
  assert third.number.shape == (4,) and third.number[-2:].tolist() == [4, 5]
  assert third.application[-2:].tolist() == [2, 2]


def test_returns_are_those_of_whole_episodes(operator, every):
  """Also where not all of their steps are remembered."""
  params, trajectory = jax.tree.map(lambda x: jnp.asarray(x[0, 1]), every)
  memory = remember(operator.policy, 4, 3, None, params, trajectory)
  assert memory.trajectory.reward.shape == (4, 3)
  np.testing.assert_allclose(memory.episode_return[2:], trajectory.reward.sum(axis=1), rtol=1e-6)


def test_empty_places_go_first():
  memory = standing([0, 7, 0, 7], [0, 0, 0, 1], number=[0, EMPTY, 1, 2])
  assert left(memory, 3) == [0, 1, 2]


def test_an_older_duplicate_goes_before_what_is_the_only_one():
  """Episode 3 repeats 1. What is like an older one only, as 4 is like 0, is not forgotten for that."""
  returns = [0, 0, 1, 0, 0, 0]
  assert left(standing([0, 5, 9, 5, 20, 30], [0, 1, 2, 3, 4, 5], returns=returns), 5) == [0, 2, 3, 4, 5]
  assert left(standing([0, 5, 9, 0.1, 5.2, 30], [0, 1, 2, 3, 4, 5], returns=returns), 4) == [2, 3, 4, 5]


def test_each_time_one_goes_the_others_are_compared_anew():
  """1 goes, for 2 is only 0.4 away; so 0 has no newer one within 1 any more, and 3, which has one at 1.2, goes next."""
  assert left(standing([0, 1, 1.4, 20, 21.2], range(5), returns=[0, 0, 0, 0, 1]), 3) == [0, 2, 4]


def test_the_newest_and_the_best_stay():
  """All are alike, 0 is the best one, and 3 and 4 are of the newest policy."""
  assert left(standing([0] * 5, [0, 1, 2, 3, 3], returns=[1, 0, 0, 0, 0]), 3) == [0, 3, 4]


def test_an_episode_that_blew_up_is_not_the_best():
  """It has a return of 0 where all others lack no step and have less."""
  memory = standing([0] * 4, [0, 1, 2, 3], returns=[0, -3, -4, -5])
  finite = jnp.array([False, True, True, True])
  assert left(memory, 2) == [0, 3]
  assert left(memory.replace(trajectory=memory.trajectory.replace(finite=finite)), 2) == [1, 3]


def test_of_one_policy_that_played_too_long_the_last_episodes_stay():
  assert left(standing([0, 1, 2, 3, 4], [0, 1, 1, 1, 1], returns=[9, 0, 0, 0, 0]), 3) == [2, 3, 4]


def test_it_does_not_matter_where_episodes_are():
  """Random memories in random order: the same is forgotten; what must stay does."""
  rng = np.random.default_rng(0)
  forgetting = jax.jit(forget, static_argnums=1)
  for _ in range(20):
    application = np.sort(rng.integers(4, size=8))
    memory = standing(rng.normal(size=8), application, returns=rng.normal(size=8))
    order = rng.permutation(8)
    kept, also = (set(np.asarray(forgetting(m, 5).number).tolist()) for m in (memory, take(memory, order)))
    assert kept == also and len(kept) == 5
    newest = set(np.flatnonzero(application == application.max()).tolist())
    assert newest <= kept if len(newest) <= 5 else kept <= newest
    assert int(np.argmax(memory.episode_return)) in kept or len(newest) >= 5


def remembered(valid, application, number):
  trajectory = jax.tree.map(jnp.asarray, counted_steps(valid))
  short, time = thinned(trajectory, 4)
  return Memory(
    trajectory=short, behaviour=jnp.zeros((*short.valid.shape, 2)), time=time, application=jnp.array(application),
    episode_return=trajectory.reward.sum(axis=-1), largest_reward=trajectory.reward.max(axis=-1),
    number=jnp.array(number),
  )


def test_what_is_read_of_episodes_by_hand():
  """Returns 0.28 and 0.08 + 0.09 = 0.17; the second one is the newest; the third place is empty. The first is one
  application old; its last step that is remembered is the 6th of 8."""
  reading = read(remembered(lengths(8, 2, 8), [3, 4, 9], [0, 1, EMPTY]), STATISTICS, episode_length=8)
  np.testing.assert_allclose(
    reading.episodes, [[0.28, 0, 0, np.log(2) / 3, 6 / 8], [0.17, -0.11, 1, 0, 1 / 8], [0] * 5], atol=1e-6
  )
  assert reading.there.tolist() == [True, True, False] and not reading.valid[2].any()
  np.testing.assert_array_equal(reading.valid[:2], [[True] * 4, [True, True, False, False]])


def test_what_is_read_of_steps_by_hand():
  """Observation, change, action, location, scale, reward, time, end; of the second step that is remembered."""
  memory = remembered(lengths(8, 8), [0, 0], [0, 1])
  ended = memory.trajectory.terminated.at[0, 1].set(True)
  memory = memory.replace(
    behaviour=memory.behaviour.at[0, 1].set(jnp.array([0.5, -1.0])),
    trajectory=memory.trajectory.replace(terminated=ended, next_observation=memory.trajectory.observation + 0.3),
  )
  statistics = {**STATISTICS, 'observation_mean': 0.01, 'observation_std': 0.1, 'reward_std': 1e-3}
  reading = read(memory, statistics, episode_length=8)
  np.testing.assert_allclose(
    reading.steps[0, 1], [0.1, 0.3, 0.02, np.tanh(0.5), -0.5, 5, 2 / 8, 1], rtol=1e-5
  )
  assert reading.steps.shape[-1] == num_step_features(1, 1)


def test_an_episode_without_a_step_is_not_there():
  reading = read(remembered(lengths(8, 0), [0, 0], [0, 1]), STATISTICS, episode_length=8)
  assert reading.there.tolist() == [True, False]


def test_statistics_by_hand():
  """Padding is left out: rewards 0, 0.01 and 0.08 count; so are returns of what blew up."""
  found = experience_statistics(counted_steps(lengths(2, 1)))
  np.testing.assert_allclose(found['reward_mean'], 0.03, rtol=1e-5)
  np.testing.assert_allclose(found['reward_std'], np.std([0, 0.01, 0.08]), rtol=1e-3)
  np.testing.assert_allclose([found['return_mean'], found['return_std']], [0.045, 0.035], rtol=1e-4)
  blown_up = counted_steps(lengths(2, 1)).replace(finite=np.array([True, False]))
  np.testing.assert_allclose(experience_statistics(blown_up)['return_mean'], 0.01, rtol=1e-5)


@pytest.mark.parametrize(('largest', 'application', 'number', 'wanted'), [
  ([0.9, 0.0], [0, 1], [0, 1], True), ([0.0, 0.9], [0, 1], [0, 1], False),
  ([0.0, 0.9, 0.0], [0, 1, 1], [0, 1, 2], False),
  ([5.0, 0.9, 0.0], [3, 0, 1], [EMPTY, 0, 1], True),
])
def test_whether_the_newest_policy_met_nothing(largest, application, number, wanted):
  """What older ones met does not count, nor what stands in an empty place; of several episodes one is enough."""
  memory = standing([0.0] * len(largest), application, number).replace(largest_reward=jnp.array(largest))
  assert bool(newest_met_nothing(memory)) == wanted
  batch = jax.tree.map(lambda x: jnp.stack([x, x]), memory)
  assert newest_met_nothing(batch).tolist() == [wanted] * 2


def test_an_operator_explores_where_the_newest_policy_met_nothing(operator, operator_params, every):
  """Of two memories of the same policy one met nothing: it is asked to explore, the other one for the best."""
  params = jax.tree.map(lambda x: jnp.asarray(x[0, 1]), every[0])
  memory = operator.remember(None, params, jax.tree.map(lambda x: jnp.asarray(x[0, 1]), every[1]))
  both = jax.tree.map(lambda *x: jnp.stack(x), *(
    memory.replace(largest_reward=jnp.full_like(memory.largest_reward, value)) for value in (0.0, 1.0)
  ))
  policies = jax.tree.map(lambda x: jnp.stack([x, x]), params)

  def improved(ask, explores=False):
    return make_improve(operator, operator_params, ask, explores=explores)(policies, both, jax.random.key(0))

  found, explored = improved(ask(steps='best'), True), improved(ask(explore='most'))
  best = improved(ask(steps='best'))
  near = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5)
  jax.tree.map(lambda x, y, z: (near(x[0], y[0]), near(x[1], z[1])), found, explored, best)
  assert max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), explored, best))) > 1e-4
