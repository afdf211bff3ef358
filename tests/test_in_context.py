"""Agents that get better within their context: what they read, by hand, and that they act as they were trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.acting_cost import acting_costs
from metaimprove.errors import IncompatibleError
from metaimprove.methods.baseline import Lessons, count_params
from metaimprove.methods.in_context import acting, causal, darkroom, heads, sequences
from metaimprove.methods.in_context.algorithm_distillation import algorithm_distillation
from metaimprove.methods.in_context.causal import Causal
from metaimprove.methods.in_context.decision_pretrained import (
  NUM_QUERIES, DecisionPretrained, decision_pretrained, draw_questions
)
from metaimprove.methods.in_context.decision_transformer import (
  decision_transformer, prompted_decision_transformer, target_return, without_prompts,
)
from metaimprove.operators.memory import thinned
from metaimprove.policies import divergence, make_policy
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training.fit import FitSettings
from metaimprove.trees import take
from metaimprove.types import Trajectory, hide_outcome, silent
from tests.conftest import Killed, kill_at

BASELINES = {
  'algorithm_distillation': algorithm_distillation, 'decision_pretrained': decision_pretrained,
  'decision_transformer': decision_transformer, 'prompted_decision_transformer': prompted_decision_transformer,
}
POLICY = make_policy(1, 1)
LOCATIONS = dataclasses.replace(heads.tanh_normal(POLICY), sample=lambda logits, rng_key: jnp.sin(logits[:1]))
"""A head that acts by its location, so that what an agent did tells its logits."""
STATISTICS = {
  f'{name}_{moment}': np.full(size, value, np.float32)
  for name, size in (('observation', 1), ('change', 1), ('reward', ()), ('return', ()))
  for moment, value in (('mean', 0.0), ('std', 1.0))
}
SIZES = {'observation_size': 1, 'action_size': 1, 'episode_length': 8, 'width': 12, 'num_blocks': 2}


def make_lessons(point, dataset, operator, folder, num_steps=2):
  return Lessons(
    family=point, dataset=dataset, histories=np.arange(dataset.num_histories - 1), config=operator.config,
    num_params=12_000, settings=FitSettings(num_steps=num_steps, batch_size=4), seed=0, folder=folder,
    num_applications=2,
  )


@pytest.fixture(scope='module')
def lessons(point, dataset, operator, tmp_path_factory):
  return make_lessons(point, dataset, operator, tmp_path_factory.mktemp('in_context'))


@pytest.fixture(scope='module')
def tasks(point):
  return sample_tasks(point, 0, 4, 'validation')


def scrambled(model, scale=0.5):
  """Parameters that are far from the first ones, which hardly depend on what is read."""
  params = model.init(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(structure, [x + scale * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, params, episodes):
  return model.read(params, STATISTICS, episodes)[0]


def some_episodes(num, seed=0, ends=()):
  """Random episodes [num, 8, ...]; those named end after a few steps."""
  rng = np.random.default_rng(seed)
  valid = np.ones((num, 8), bool)
  for episode, length in ends:
    valid[episode, length:] = False
  draw = lambda *size: rng.uniform(-1, 1, size=(num, 8, *size)).astype(np.float32)
  return Trajectory(
    observation=draw(1), action=draw(1), reward=np.where(valid, draw(), 0), next_observation=draw(1),
    outcome=np.zeros((num, 8, 0), np.float32), terminated=np.zeros((num, 8), bool), valid=valid,
    finite=np.ones(num, bool),
  )


def test_return_to_go_by_hand():
  reward = jnp.array([[1.0, 0.0, 2.0]])
  np.testing.assert_array_equal(sequences.return_to_go(reward), [[3, 2, 2]])


def test_the_step_before_by_hand():
  """Across the early end of an episode, and of the step that would follow."""
  episodes = some_episodes(2, ends=[(0, 3)])
  episodes = episodes.replace(reward=np.where(episodes.valid, np.arange(16).reshape(2, 8), 0.0))
  previous = sequences.previous_of(episodes)
  np.testing.assert_array_equal(previous.reward, [0, 0, 1, 2, 2, 2, 2, 2, 2, 8, 9, 10, 11, 12, 13, 14, 15])
  np.testing.assert_array_equal(previous.there, [False] + 16 * [True])
  np.testing.assert_array_equal(previous.action[8], episodes.action[0, 2])


def test_windows_are_in_order_and_evenly_spaced():
  found = [sequences.window(10, 4, np.random.default_rng(seed)) for seed in range(200)]
  assert {tuple(np.diff(one)) for one in found} == {(1, 1, 1), (2, 2, 2), (3, 3, 3)}
  assert min(one[0] for one in found) == 0 and max(one[-1] for one in found) == 9
  np.testing.assert_array_equal(sequences.window(4, 4, np.random.default_rng(0)), np.arange(4))


def test_sources_are_drawn_equally_often(dataset):
  histories = np.arange(dataset.num_histories)
  few = histories[np.r_[np.flatnonzero(dataset.source == 0), np.flatnonzero(dataset.source == 1)[:1]]]
  drawn = sequences.draw_histories(dataset, few, 2000, np.random.default_rng(0))
  assert abs((dataset.source[drawn] == 1).mean() - 0.5) < 0.05 and len(np.unique(drawn)) == len(few)


def test_stored_episodes_are_read_in_order(dataset, every):
  """Level by level; place 5 of two episodes a level is the second one of the third level."""
  read = sequences.read_stored(dataset)(np.array([1, 0]), np.array([[0, 5], [2, 3]]))
  np.testing.assert_array_equal(read.reward[0, 1], every[1].reward[1, 2, 1])
  np.testing.assert_array_equal(read.observation[1], every[1].observation[0, 1])


def test_a_later_step_does_not_change_what_was_before():
  model = Causal(head=LOCATIONS, num_episodes=2, with_return=False, **SIZES)
  params, episodes = scrambled(model), some_episodes(2, ends=[(0, 5)])
  other = episodes.replace(observation=np.where(np.arange(16).reshape(2, 8, 1) == 10, 3.0, episodes.observation))
  first, second = (logits_of(model, params, one) for one in (episodes, other))
  np.testing.assert_array_equal(first[:10], second[:10])
  assert (np.abs(first[10:] - second[10:]).max(axis=1) > 1e-3).all()


def test_steps_after_an_early_end_are_not_seen():
  model = Causal(head=LOCATIONS, num_episodes=2, with_return=False, **SIZES)
  params, episodes = scrambled(model), some_episodes(2, ends=[(0, 5)])
  other = episodes.replace(observation=np.where(episodes.valid[..., None], episodes.observation, 7.0))
  first, second = (logits_of(model, params, one) for one in (episodes, other))
  np.testing.assert_allclose(first[8:], second[8:], atol=1e-6)


def played(point, model, agent, tasks, num_episodes):
  params = scrambled(model)
  play = acting.make_play_agent(point, agent, num_episodes=num_episodes)
  return params, jax.device_get(play(params, tasks, jax.random.key(0)))


def test_it_acts_step_by_step_as_it_reads_whole_contexts(point, tasks):
  """Keys and values that were kept give what a full pass gives, while the context grows and after it slides."""
  model = Causal(head=LOCATIONS, num_episodes=3, **SIZES)
  params, trajectory = played(point, model, model.agent(STATISTICS, causal.slide), tasks, 5)
  read = functools.partial(logits_of, model, params)
  assert np.std(trajectory.action) > 0.1
  for last in (3, 4, 5):
    row = hide_outcome(take(trajectory, (0, slice(last - 3, last))))
    wanted = np.sin(read(row)[-8:, 0])
    valid = row.valid[-1]
    np.testing.assert_allclose(row.action[-1, valid, 0], wanted[valid], atol=2e-4)
  first = read(hide_outcome(take(trajectory, (0, slice(0, 3)))))
  np.testing.assert_allclose(trajectory.action[0, 0, 0], np.sin(first[0, :1]), atol=2e-4)


@pytest.mark.parametrize('num_tasks', [4, 3])
def test_an_agent_that_is_played_point_by_point_goes_on(point, num_tasks):
  """As if all episodes were played at once, also where devices do not share the tasks evenly; and it tells of each."""
  model = Causal(head=LOCATIONS, num_episodes=3, **SIZES)
  agent, params, told = model.agent(STATISTICS, causal.slide), scrambled(model), []
  tasks = sample_tasks(point, 0, num_tasks, 'validation')
  once, by_points = (
    acting.make_play_agent(point, agent, num_episodes=size, num_points=num) for size, num in ((6, 1), (2, 3))
  )
  whole = once(params, tasks, jax.random.key(1))
  parts = by_points(params, tasks, jax.random.key(1), told.append)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), parts, whole)
  assert told == [1, 2, 3] and np.std(whole.action) > 0.1


def test_a_set_of_transitions_has_no_order():
  model = DecisionPretrained(head=LOCATIONS, num_episodes=2, num_steps=8, **SIZES)
  params, context = scrambled(model), some_episodes(2, ends=[(0, 5)])
  order = np.random.default_rng(0).permutation(16)
  shuffled = jax.tree.map(lambda x: x.reshape(16, *x.shape[2:])[order].reshape(x.shape), context.replace(finite=None))
  queries = np.linspace(-1, 1, 3, dtype=np.float32)[:, None]

  @jax.jit
  def answer(one, asked=queries):
    kept = model.read(params, STATISTICS, one)
    return model.answer(params, STATISTICS, kept, one.valid.reshape(-1), asked)

  first, context = answer(context.replace(finite=None)), context.replace(finite=None)
  np.testing.assert_allclose(first, answer(shuffled), atol=1e-4)
  assert np.abs(first - answer(some_episodes(2, seed=1).replace(finite=None))).max() > 0.05
  np.testing.assert_allclose(first[1:2], answer(context, queries[1:2]), atol=1e-5)


def test_it_acts_on_the_set_of_earlier_episodes(point, tasks):
  model = DecisionPretrained(head=LOCATIONS, num_episodes=2, num_steps=3, **SIZES)
  params, trajectory = played(point, model, model.agent(STATISTICS), tasks, 4)
  context, _ = thinned(take(trajectory, (1, slice(1, 3))), 3)

  @jax.jit
  def answer(context, asked):
    kept = model.read(params, STATISTICS, context)
    return model.answer(params, STATISTICS, kept, context.valid.reshape(-1), asked)

  logits = answer(hide_outcome(context), trajectory.observation[1, 3])
  valid = trajectory.valid[1, 3]
  np.testing.assert_allclose(trajectory.action[1, 3, valid, 0], np.sin(logits[valid, 0]), atol=2e-4)


def test_the_prompt_is_the_best_episode_so_far():
  episodes = some_episodes(2)
  for rewards, wanted in (((1.0, 2.0), 1), ((2.0, 1.0), 0), ((2.0, 2.0), 0)):
    row = episodes.replace(reward=np.repeat(np.float32(rewards), 8).reshape(2, 8))
    kept, place = causal.keep_best(jax.tree.map(jnp.asarray, row), jnp.asarray(1))
    np.testing.assert_array_equal(kept.observation[0], episodes.observation[wanted])
    assert place == 1 and kept.valid[0].all() and not kept.valid[1].any()
  first = episodes.replace(valid=np.array([[False] * 8, [True] * 8]), reward=np.full((2, 8), -5.0))
  kept, _ = causal.keep_best(jax.tree.map(jnp.asarray, first), jnp.asarray(1))
  np.testing.assert_array_equal(kept.observation[0], episodes.observation[1])


def test_what_is_wanted_falls_by_what_was_got():
  model = Causal(head=LOCATIONS, num_episodes=1, with_return=True, **SIZES)
  agent, params = model.agent(STATISTICS, causal.forget, target_return=5.0), scrambled(model)
  state, episode = agent.begin(params), some_episodes(1)
  for step in range(2):
    state = agent.see(params, state, take(episode.replace(finite=np.ones((1, 8), bool)), (0, step)))
  np.testing.assert_allclose(state.to_go, 5 - episode.reward[0, :2].sum(), rtol=1e-6)
  other = state.replace(to_go=state.to_go + 3)
  first, second = (agent.act(params, one, jnp.zeros(1), jax.random.key(0))[0] for one in (state, other))
  assert abs(first - second) > 1e-4
  assert agent.end_episode(params, state).to_go == 5


def test_prompts_that_are_hidden():
  shown = without_prompts(jax.tree.map(lambda x: x[None], some_episodes(2)), np.array([True])).valid
  assert not shown[0, 0].any() and shown[0, 1].all()


def test_the_wanted_return_is_of_training_histories_alone(dataset):
  best = dataset.returns[np.arange(dataset.num_histories), dataset.best]
  kept = np.argsort(best)[:3]
  assert target_return(dataset, kept) <= best[kept].max() < best.max()


def test_questions_have_the_best_policy_as_answer(lessons, dataset, every):
  model = DecisionPretrained(head=heads.tanh_normal(POLICY), num_episodes=4, num_steps=8, **SIZES)
  asked = draw_questions(lessons, model, np.random.default_rng(0))
  assert asked.context.reward.shape == (4, 4, 8) and asked.observation.shape == (4, NUM_QUERIES, 1)
  best = [take(every[0], (history, dataset.best[history])) for history in lessons.histories]
  for observation, answer in zip(asked.observation, asked.answer):
    errors = [np.abs(dataset.policy.apply(params, observation) - answer).max() for params in best]
    assert min(errors) < 1e-4


@pytest.mark.parametrize('name', BASELINES)
def test_a_baseline_learns_acts_and_has_as_many_parameters(name, lessons, tasks):
  """The same key gives the same curve, another one another; its points lie where those of an operator do."""
  baseline = BASELINES[name](lessons)
  params = baseline.train(silent)
  assert abs(count_params(params) / lessons.num_params - 1) < 0.1
  remembered = jax.jit(baseline.acting.between)(params, jax.jit(baseline.acting.begin, static_argnums=1)(params, 3))
  steps = {'step': (baseline.acting.step, (params, remembered, jnp.zeros((3, 1))))}
  assert jax.jit(baseline.acting.step)(*steps['step'][1]).shape == (3, 1)
  # What is remembered is an argument of what is timed, and no constant of it.
  held = max(x.nbytes for x in jax.tree.leaves(remembered))
  assert acting_costs(steps, 'step')['step'].act_kib * 1024 >= held
  first, second, other = (baseline.method.run(tasks, jax.random.key(key), silent) for key in (0, 0, 1))
  np.testing.assert_array_equal(first.returns, second.returns)
  assert not np.array_equal(first.returns, other.returns)
  assert first.returns.shape == (3, 4) and np.isfinite(first.returns).all()
  num_episodes = lessons.config.num_episodes
  np.testing.assert_array_equal(first.episodes, num_episodes * np.arange(3))
  np.testing.assert_array_equal(first.env_steps, 8 * first.episodes)


def test_a_training_that_was_stopped_goes_on(point, dataset, operator, tmp_path, monkeypatch):
  monkeypatch.setattr('metaimprove.training.fit._SAVE_SECONDS', 0.0)
  monkeypatch.setattr('metaimprove.training.fit._LOG_STEPS', 1)
  whole, stopped = (
    algorithm_distillation(make_lessons(point, dataset, operator, tmp_path / name, num_steps=6)).train
    for name in ('whole', 'stopped')
  )
  with pytest.raises(Killed):
    stopped(kill_at(3))
  jax.tree.map(np.testing.assert_array_equal, whole(silent), stopped(silent))


def test_a_context_must_hold_an_episode(lessons):
  with pytest.raises(IncompatibleError, match='context_length'):
    prompted_decision_transformer(lessons, context_length=15)


def test_heads_agree_with_what_they_stand_for():
  logits, target = jnp.array([[0.3, -1.0]]), jnp.array([[-0.2, 0.5]])
  head = heads.tanh_normal(POLICY)
  np.testing.assert_allclose(head.divergence(target, logits), divergence(POLICY.distribution, target, logits))
  action = head.sample(logits[0], jax.random.key(0))
  assert head.log_likelihood(logits[0], action) > head.log_likelihood(logits[0] + jnp.array([9.0, 0.0]), action)
  discrete, even = heads.categorical(4), jnp.zeros(4)
  sharp = jnp.array([50.0, 0.0, 0.0, 0.0])
  np.testing.assert_allclose(discrete.log_likelihood(even, jnp.eye(4)[2]), -np.log(4), rtol=1e-6)
  np.testing.assert_allclose(discrete.divergence(sharp, even), np.log(4), rtol=1e-5)
  np.testing.assert_array_equal(discrete.sample(sharp, jax.random.key(0)), [1, 0, 0, 0])


def test_the_dark_room_by_hand():
  """The optimal actions reach the goal, three cells from the centre, in three steps, and stay: 18 of 20 rewards."""
  room, goal = darkroom.dark_room(), np.array([3, 6])
  task = take(darkroom.tasks_of(goal[None]), 0)
  state, total = room.reset(task, jax.random.key(0)), 0.0
  step = jax.jit(room.step)
  for _ in range(darkroom.HORIZON):
    cell = np.argmax(state.observation.reshape(2, 9), axis=1)
    best = darkroom.optimal_logits(goal[None], cell[None, None])[0, 0]
    state = step(task, state, jnp.eye(5)[np.argmax(best)])
    total += float(state.reward)
  assert total == 18 == darkroom.optimal_return(goal[None])[0]
  assert darkroom.optimal_return(np.array([[4, 4], [0, 0], [4, 5]])).tolist() == [20, 13, 20]
  outside = step(task, room.reset(task, jax.random.key(0)), jnp.eye(5)[1])
  np.testing.assert_array_equal(outside.observation, darkroom.seen(np.array([3, 4])))


def test_q_learning_gets_better_and_its_histories_are_of_the_room():
  histories = darkroom.q_learning(np.arange(81), jax.random.key(0), num_episodes=60)
  returns = histories.returns()
  assert returns[:, -5:].mean() > 3 * returns[:, :5].mean()
  read = histories.read(np.array([3, 50]), np.array([[0, 59], [7, 8]]))
  np.testing.assert_array_equal(read.reward.sum(axis=-1), [returns[3, [0, 59]], returns[50, [7, 8]]])
  np.testing.assert_array_equal(read.observation[..., 1:, :], read.next_observation[..., :-1, :])
  moved = read.next_observation.reshape(2, 2, 20, 2, 9).argmax(axis=-1)
  before = read.observation.reshape(2, 2, 20, 2, 9).argmax(axis=-1)
  np.testing.assert_array_equal(moved, np.clip(before + read.action @ darkroom.MOVES, 0, 8))


def test_questions_of_the_dark_room():
  asked = darkroom.random_questions(np.array([40]), 8, 2, 3, np.random.default_rng(0))
  assert asked.context.valid.shape == (8, 2, 20) and asked.answer.shape == (8, 3, 5)
  reached = asked.context.next_observation.reshape(8, 2, 20, 2, 9).argmax(axis=-1)
  np.testing.assert_array_equal(asked.context.reward, (reached == 4).all(axis=-1))
  model = functools.partial(heads.categorical(5).divergence, asked.answer)
  assert float(jnp.max(model(asked.answer))) < 1e-6
