"""Examples, rounds and training on the point family."""

import dataclasses
import functools
import shutil
import types

import jax
import numpy as np
import pytest

from metaimprove import files, policies
from metaimprove.asks import SAME, ask, steps
from metaimprove.errors import DamagedDataError, IncompatibleError, NonFiniteSimulationError, WaitingError
from metaimprove.histories import storage
from metaimprove.histories.dataset import load_dataset, with_hindsight
from metaimprove.histories.header import planned_shards, read_header
from metaimprove.histories.layout import layout_of
from metaimprove.iteration import iterate
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.memory import EMPTY, recorded_behaviour
from metaimprove.operators.operator import make_operator
from metaimprove.operators.reading import experience_statistics
from metaimprove.rollouts import make_play
from metaimprove.language.ngrams import text_of
from metaimprove.tasks.hindsight import achieved, measured
from metaimprove.training import fit as fit_module
from metaimprove.training import rounds, validation
from metaimprove.training.examples import ANY_ANSWER, Examples, endless, split_histories
from metaimprove.training.explored import Explored
from metaimprove.training.loop import env_steps, train
from metaimprove.training.pairs import ANY, describe_pairs, draw_sizes, pairs_of
from metaimprove.training.settings import TrainingSettings
from metaimprove.training.shown import memory_of_levels
from metaimprove.trees import batch_size, concatenate, stack, take
from metaimprove.types import mean_return
from tests.conftest import Killed, kill_at
from tests.point_family import point_family

SETTINGS = TrainingSettings(
  num_steps=80, batch_size=16, num_states=8, rounds=(0.4, 0.7), round_applications=2, round_tasks=8, num_validation=2,
  num_evaluations=4, learning_rate=1e-2, tries_share=0.25,
)


@pytest.fixture(scope='module')
def play(operator, point):
  return make_play(point, operator.policy, num_episodes=2)


def examples_of(dataset, config, **changes):
  settings = dataclasses.replace(SETTINGS, **changes)
  training, _ = split_histories(dataset, settings.num_validation)
  return Examples(dataset=dataset, histories=endless(dataset, training, 0), config=config, settings=settings, seed=0)


@pytest.fixture(scope='module')
def examples(dataset, operator):
  return examples_of(dataset, operator.config)


def weights(params):
  return np.asarray(params['mlp/~/linear_0']['w'])[..., 0, :]


def test_validation_tasks_are_kept_out_of_every_source(dataset):
  training, kept_out = split_histories(dataset, 2)
  assert set(dataset.task_index[training]) == {0, 1, 2, 3} and set(dataset.task_index[kept_out]) == {4, 5}
  everything, none = split_histories(dataset, 0)
  assert len(everything) == dataset.num_histories and len(none) == 0
  for num in (6, 100):
    with pytest.raises(IncompatibleError, match='No histories are left'):
      split_histories(dataset, num)


def episodes_of(memory, row, application):
  """The rewards [E, T] of the episodes of one application in a memory."""
  found = (memory.number[row] != EMPTY) & (memory.application[row] == application)
  return np.asarray(memory.trajectory.reward[row][found])


def levels_of(memory, row, rewards):
  """The levels of a history, whose rewards [N + 1, E, T] are given, that the policies in a memory are, the oldest
  first: they have just their episodes, in any order. Of each policy all levels, for it may be stored twice."""
  levels = []
  for application in range(1 + newest(memory, row)):
    found = sorted(episodes_of(memory, row, application).tolist())
    levels.append([level for level in range(len(rewards)) if found == sorted(rewards[level].tolist())])
    assert levels[-1], 'each policy is a level, whole'
  return levels


def newest(memory, row):
  """The application of the newest policy."""
  return int(memory.application[row][memory.number[row] != EMPTY].max())


def test_memories_of_levels(dataset, operator, every):
  """The level that is wanted comes last, with lower ones before it in half of them or fewer; each step with what the
  policy of that level would do there; the rest is empty."""
  history, level = (index.reshape(-1) for index in np.indices((dataset.num_histories, 4)))
  rngs = np.random.default_rng(0).spawn(len(history))
  memory = memory_of_levels(dataset, operator.config, history, level, rngs)
  alone = []
  for row in range(len(history)):
    levels = levels_of(memory, row, every[1].reward[history[row]])
    assert level[row] in levels[-1] and len(levels) <= 2 and levels[0][0] <= level[row]
    alone.append(len(levels) == 1)
    there = memory.number[row] != EMPTY
    assert memory.number[row][there].tolist() == list(range(there.sum()))
    assert not memory.trajectory.valid[row][~there].any()
    for application, one in enumerate(levels):
      places = there & (memory.application[row] == application)
      params = take(every[0], (history[row], one[0]))
      behaviour = operator.policy.apply(params, memory.trajectory.observation[row][places])
      np.testing.assert_allclose(memory.behaviour[row][places], behaviour, atol=1e-5)
  assert 0.6 < np.mean(np.array(alone)[level > 0]) < 0.95 and np.all(np.array(alone)[level == 0])
  np.testing.assert_allclose(memory.episode_return, memory.trajectory.reward.sum(axis=-1), rtol=1e-6)
  assert memory.trajectory.outcome.size == 0


def test_memories_of_fewer_episodes(dataset, operator):
  history, level, wanted = np.zeros(8, int), np.full(8, 2), np.array([1, 2] * 4)
  memory = memory_of_levels(dataset, operator.config, history, level, np.random.default_rng(0).spawn(8), wanted)
  for row in range(8):
    assert len(episodes_of(memory, row, newest(memory, row))) == wanted[row]


def test_examples_of_histories_are_pairs_of_one_history(examples, dataset, every, operator):
  """The answer is as much better as the size says; for size 0 it is the policy itself."""
  rng = np.random.default_rng(0)
  size = np.repeat([0, 1, steps.BEST], 20)
  history = np.array([examples.histories[index] for index in range(60)])
  drawn = examples.of_histories(history, size, rng)
  level = np.random.default_rng(0).integers(4, size=60)  # the first thing that is drawn
  wanted = steps.target_level(level, size, dataset.rank[history])
  target = np.where(wanted == SAME, level, wanted)
  for row in range(60):
    assert level[row] in levels_of(drawn.memory, row, every[1].reward[history[row]])[-1]
    params, visited = take(every, (history[row], target[row]))
    np.testing.assert_allclose(drawn.answer[row], operator.policy.apply(params, drawn.states[row]), atol=1e-5)
    remembered = drawn.memory.trajectory.observation[row][drawn.memory.trajectory.valid[row]]
    assert np.isin(drawn.states[row][:4], visited.observation).all()
    assert np.isin(drawn.states[row][4:], remembered).all()
  np.testing.assert_array_equal(
    steps.target_level(level, drawn.ask.values['steps'], dataset.rank[history]), wanted, 'asks describe pairs'
  )
  assert (drawn.weight == 1).all() and drawn.ask.given['steps'].all() and not drawn.ask.given['explore'].any()


def test_every_history_once_an_epoch_and_sources_alike(examples, dataset):
  """Four histories of each of two sources are left: eight draws are all of them, in another order the next time."""
  training, _ = split_histories(dataset, 2)
  drawn = [examples.histories[index] for index in range(400)]
  epochs = [drawn[i:i + 8] for i in range(0, 400, 8)]
  assert all(sorted(epoch) == sorted(training) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) > 25
  assert abs(np.mean(dataset.source[drawn]) - 0.5) < 1e-9


def test_no_two_sources_share_an_order():
  """One history a source would hide it: a hundred each, of two sources and two seeds, and of sources in other order."""
  def orders(names, seed):
    dataset = types.SimpleNamespace(source_names=names, source=np.repeat([0, 1], 100))
    mixed = endless(dataset, np.arange(200), seed)
    drawn = np.array([mixed[index] for index in range(200)])
    return {name: tuple(drawn[drawn // 100 == index] % 100) for index, name in enumerate(names)}

  first, second, turned = orders(('a', 'b'), 0), orders(('a', 'b'), 1), orders(('b', 'a'), 0)
  assert len({*first.values(), *second.values()}) == 4
  assert turned == first, 'they follow from the name, not from the order of sources'


def test_levels_are_alike(examples, dataset, every):
  history = np.flatnonzero(dataset.rank[:, -1] == 3)[0]  # one of four different policies
  drawn = examples.of_histories(np.full(400, history), np.ones(400, int), np.random.default_rng(0))
  level = [levels_of(drawn.memory, row, every[1].reward[history])[-1][0] for row in range(400)]
  assert (np.bincount(level, minlength=4) > 70).all()


@pytest.fixture(scope='module')
def explored(dataset):
  """Levels 0 to 2 as explorers; on every other task the third one meets something first."""
  num = dataset.num_histories
  read = [dataset.read(np.arange(num), np.full(num, level)) for level in range(3)]
  met = np.tile(np.array([[False, False, True], [True, False, True]]), (num, 1))[:num]
  trajectory = jax.tree.map(lambda *x: np.stack(x, axis=1), *(trajectory for _, trajectory in read))
  return Explored(params=stack([take(params, 0) for params, _ in read]), trajectory=trajectory, met=met)


@pytest.mark.parametrize('explores', [False, True])
@pytest.mark.parametrize('num_rounds', [0, 1, 2])
def test_shares_of_processes_make_up_the_whole(examples, explored, runs, num_rounds, explores):
  """Of histories, of runs, and of tries or explorers from the second round on: each process has its part of each."""
  rounds_ = (runs,) * num_rounds
  examples = dataclasses.replace(examples, explored=explored if explores else None)
  whole = examples.draw(3, rounds_)
  shares = [examples.draw(3, rounds_, share=(process, 2)) for process in range(2)]
  parts = {0: [8], 1: [4, 4], 2: [4, 3, 1]}[num_rounds]  # of each process: levels, moments of runs, tries
  ends = np.cumsum(parts)
  pieces = [take(share, slice(end - part, end)) for end, part in zip(ends, parts) for share in shares]
  jax.tree.map(np.testing.assert_array_equal, concatenate(pieces), whole)
  keys = {tuple(key) for key in whole.key_data.tolist()}
  assert len(keys) == 16, 'no two examples share a key'


def test_runs_and_tries_are_augmented_too(dataset, operator, operator_params, runs, explored):
  """Of a batch of histories, runs and tries all are told; without, none is. An explorer stays its own answer."""
  config = dataclasses.replace(operator.config, asks=('steps', 'explore', 'augmentation'))
  for share in (0.0, 1.0):
    examples = dataclasses.replace(
      examples_of(dataset, config, augmented_share=share), statistics=jax.device_get(operator_params['statistics']),
    )
    given = examples.draw(3, (runs, runs)).ask.given
    assert given['explore'].any() and given['augmentation'].shape == (16,)
    np.testing.assert_array_equal(given['augmentation'], share == 1)
    explorers = dataclasses.replace(examples, explored=explored).draw(3, (runs, runs)).which_answer
    assert (explorers[:14] == ANY_ANSWER).all() and (explorers[14:] >= 0).all()


def test_a_share_of_a_batch_shows_runs(dataset, operator, runs):
  """Runs are of applications with more than the two policies that memories of levels hold here."""
  for share, wanted in ((0.0, 0), (0.5, 8), (1.0, 16)):
    drawn = examples_of(dataset, operator.config, runs_share=share, tries_share=0.0).draw(0, (runs,))
    history = np.isin(drawn.memory.episode_return, runs.episodes.episode_return)
    shown = (history | (drawn.memory.number == EMPTY)).all(axis=1)
    assert batch_size(drawn) == 16 and shown[16 - wanted:].all() and not shown[:16 - wanted].any()


def test_the_stream_is_what_is_drawn_from_any_step_on(examples):
  for step, drawn in zip(range(5, 8), examples.stream(5, 8), strict=True):
    jax.tree.map(np.testing.assert_array_equal, drawn, examples.draw(step))


def test_shares_that_are_none_are_refused():
  for name in ('any_share', 'blank_share', 'early_share', 'runs_share', 'watched_share'):
    with pytest.raises(IncompatibleError, match=f'{name}=1.5 must be a share'):
      TrainingSettings(**{name: 1.5})


def test_first_policies_of_runs_are_shown_more_often(runs):
  """Of runs of eight policies, half of the moments and half of the rest are of the first four."""
  long = dataclasses.replace(runs, kept=np.zeros((5, 8, 1), int), returns=np.zeros((5, 9)))
  share = lambda early_share: np.mean(long.draw(4000, np.random.default_rng(0), early_share)[1] < 4)
  np.testing.assert_allclose([share(0.0), share(0.5), share(1.0)], [0.5, 0.75, 1.0], atol=0.03)
  late = dataclasses.replace(long, returns=np.where(np.arange(9) < 4, np.nan, np.zeros((5, 9))))
  assert set(late.draw(200, np.random.default_rng(0), 0.5)[1]) == {4, 5, 6, 7}


@pytest.mark.parametrize(('length', 'applications', 'tasks'), [(50, 16, 376), (100, 9, 320), (200, 4, 320)])
def test_runs_are_as_long_as_a_round_allows(point, length, applications, tasks):
  """320,000 steps for 300 tasks or more, but 4 to 16 applications; in long runs first policies are shown more."""
  settings = TrainingSettings.of(dataclasses.replace(point, episode_length=length), 1024)
  assert (settings.round_applications, settings.round_tasks) == (applications, tasks)
  assert settings.early_share == (0.5 if applications > 4 else 0.0)


def test_sizes_are_drawn_by_the_shares_of_the_settings(dataset, operator):
  only_nothing = examples_of(dataset, operator.config, size_shares=(1.0, 0, 0, 0, 0, 0)).draw(0)
  assert (only_nothing.ask.values['steps'] == 0).all()
  with pytest.raises(IncompatibleError, match='size_shares=.*add up to 1.*0, 1, 2, 4, 8, best'):
    TrainingSettings(size_shares=(0.5, 0.5))


def test_any_level_is_an_answer_where_an_ask_tells_which(dataset, operator, runs):
  """Half of the answers are drawn from all levels alike; each is described by what was measured of it."""
  config = dataclasses.replace(operator.config, asks=('steps', 'mean_return'))
  examples = examples_of(dataset, config, any_share=0.5, batch_size=4000, drop_rate=0.0)
  sizes = draw_sizes(examples.settings, 4000, np.random.default_rng(0))
  np.testing.assert_allclose(np.mean(sizes == ANY), 0.5, atol=0.03)
  history, level = np.zeros(4000, int), np.full(4000, 2)
  pairs = pairs_of(dataset, history, level, np.full(4000, ANY), examples.settings, np.random.default_rng(0))
  every = np.bincount(pairs.target, minlength=dataset.num_checkpoints) / 4000
  np.testing.assert_allclose(every, 1 / dataset.num_checkpoints, atol=0.03)
  found = examples.of_histories(history[:64], sizes[:64], np.random.default_rng(1))
  params = dataset.read_params(history[:dataset.num_checkpoints], np.arange(dataset.num_checkpoints))
  answers = policies.apply_numpy(params, np.broadcast_to(
    found.states.reshape(1, -1, 1), (dataset.num_checkpoints, found.states[..., 0].size, 1)
  )).reshape(dataset.num_checkpoints, *found.answer.shape)
  unlike = np.abs(answers - found.answer).max(axis=(2, 3))  # [N + 1, B]
  given, returns = found.ask.given['mean_return'], found.ask.values['mean_return']
  is_answer = np.isclose(returns, dataset.returns[0][:, None], atol=1e-5)  # levels that are as good as was asked for
  assert given.sum() > 30 and np.where(is_answer, unlike, np.inf).min(axis=0)[given].max() < 1e-4
  assert not found.ask.given['steps'].all()
  of_runs = examples.of_runs(runs, sizes[:64], np.random.default_rng(1)).ask
  measured = of_runs.values['mean_return'][of_runs.given['mean_return']]
  assert len(measured) > 30 and np.isin(measured, dataset.returns.astype(np.float32)).all()


def test_answers_that_no_ask_describes_are_refused(operator, play, dataset, tmp_path):
  with pytest.raises(IncompatibleError, match='any_share=0.5 needs an operator that understands one of: mean_return'):
    train(operator, play, dataset, dataclasses.replace(SETTINGS, any_share=0.5), seed=0, folder=tmp_path)


def test_goals_are_asked_for_as_they_were_achieved(dataset, operator, point):
  """An ask for a goal describes what the answer achieved; a share of the examples shows nothing but the ask."""
  with pytest.raises(IncompatibleError, match='see `with_hindsight`'):
    known = make_operator(dataclasses.replace(operator.config, asks=('steps', 'goal'), goal_size=1))
    train(known, None, dataset, SETTINGS, seed=0, folder='nowhere')
  told = with_hindsight(dataset, point)
  _, trajectory = dataset.read(np.array([1]), np.array([3]))
  by_hand = np.mean([achieved(point, take(trajectory, 0))])
  np.testing.assert_allclose(told.achieved[1, 3], by_hand, rtol=1e-5)
  assert told.achieved.shape == (*dataset.returns.shape, 1) and np.ptp(told.achieved) > 0.1
  config = dataclasses.replace(operator.config, asks=('steps', 'goal'), goal_size=1)
  examples = examples_of(told, config, blank_share=0.5, any_share=0.5, drop_rate=0.0)
  history, rng = np.full(300, 1), np.random.default_rng(0)
  found = examples.of_histories(history, draw_sizes(examples.settings, 300, rng), rng)
  given = found.ask.given['goal']
  assert given.mean() > 0.6 and np.isin(found.ask.values['goal'][given], told.achieved[1].astype(np.float32)).all()
  # Of each level as often: the goals that were asked for are all that were achieved.
  assert set(found.ask.values['goal'][given].ravel()) == set(told.achieved[1].astype(np.float32).ravel())
  is_blank = (found.memory.number == EMPTY).all(axis=1)
  np.testing.assert_allclose(is_blank.mean(), 0.5, atol=0.1)
  np.testing.assert_array_equal(is_blank, ~found.memory.trajectory.valid.any(axis=(1, 2)))
  assert found.weight.mean() > 0.9  # states of the memory are still learned from


def test_some_examples_show_somebody_who_is_watched(dataset, operator, every):
  """Of the policy actions alone are known, and in half of them no reward is seen; the answer is that very policy."""
  examples = examples_of(dataset, operator.config)
  history = np.arange(200) % dataset.num_histories
  found = examples.of_histories(history, np.full(200, steps.BEST), np.random.default_rng(0), watched_share=0.5)
  is_watched, memory = found.ask.values['steps'] == 0, found.memory
  np.testing.assert_allclose(is_watched.mean(), 0.5, atol=0.1)
  valid = memory.trajectory.valid
  recorded = np.isclose(memory.behaviour, recorded_behaviour(memory.trajectory.action), atol=1e-6).all(axis=-1)
  assert recorded[is_watched][valid[is_watched]].all() and not recorded[~is_watched][valid[~is_watched]].all()
  hidden = ~memory.trajectory.reward.any(axis=(1, 2))
  assert not hidden[~is_watched].any()
  np.testing.assert_allclose(hidden[is_watched].mean(), 0.5, atol=0.15)
  assert not memory.episode_return[hidden].any() and not memory.largest_reward[hidden].any()
  for row in np.flatnonzero(is_watched & ~hidden):
    level = levels_of(memory, row, every[1].reward[history[row]])[-1][0]
    expected = operator.policy.apply(take(every[0], (history[row], level)), found.states[row])
    np.testing.assert_allclose(found.answer[row], expected, atol=1e-4)
  drawn = examples_of(dataset, operator.config, watched_share=1.0, runs_share=0.0).draw(0)
  assert (drawn.ask.values['steps'] == 0).all()
  assert examples_of(dataset, operator.config).draw(0).ask.values['steps'].any()


def test_words_are_said_of_what_was_measured(dataset, operator, point):
  """Sentences are true of the level that is the answer."""
  with pytest.raises(IncompatibleError, match='must tell what was measured'):
    known = make_operator(dataclasses.replace(operator.config, asks=('steps', 'words')))
    train(known, None, dataset, SETTINGS, seed=0, folder='nowhere')
  told = with_hindsight(dataset, point)
  names = [of.name for of in told.properties]
  assert names == [of.name for of in point.properties] and told.measured.shape == (*dataset.returns.shape, len(names))
  _, trajectory = dataset.read(np.array([1]), np.array([3]))
  np.testing.assert_allclose(told.measured[1, 3], measured(point, take(trajectory, 0)), rtol=1e-5)
  examples = examples_of(
    told, dataclasses.replace(operator.config, asks=('steps', 'words')), any_share=1.0, drop_rate=0.0
  )
  rng, history = np.random.default_rng(0), np.full(200, 1)
  found = examples.of_histories(history, draw_sizes(examples.settings, 200, rng), rng).ask
  assert found.given['words'].mean() > 0.6
  texts = {text_of(letters) for letters in found.values['words'][found.given['words']]}
  efforts = {of.clauses[of.clause_of(value)].ways[0] for of in told.properties if of.name == 'effort'
             for value in told.measured[1, :, names.index('effort')]}
  every = {clause.ways[0] for of in told.properties if of.name == 'effort' for clause in of.clauses}
  assert any(one in text for one in efforts for text in texts)
  assert not any(one in text for one in every - efforts for text in texts)


def test_matching_by_hand():
  """σ² is the sum of both squared errors: 2 for errors of 1, nearly 0 for none; far from all, the nearest counts."""
  level_returns = np.array([[-10.0, -5.0, 0.0]] * 3)
  found = rounds.match(np.array([-4.0, -4.0, 1000.0]), np.array([1.0, 0.0, 0.0]), level_returns,
                       np.array([[1.0] * 3, [0.0] * 3, [0.0] * 3]), np.array([[0, 1, 2]] * 3))
  weight = np.exp([-36 / 4, -1 / 4, -16 / 4])
  np.testing.assert_allclose(found[0], weight / weight.sum(), rtol=1e-3)
  np.testing.assert_allclose(found[1:], [[0, 1, 0], [0, 0, 1]], atol=1e-6)


def test_a_policy_that_is_stored_twice_is_not_likelier():
  """An iterate half way between two policies, one of which fills three levels: half each, at the first level."""
  found = rounds.match(
    np.array([-5.0]), np.array([1.0]), np.array([[-10.0, 0.0, 0.0, 0.0]]), np.ones((1, 4)), np.array([[0, 1, 1, 1]])
  )
  np.testing.assert_allclose(found, [[0.5, 0.5, 0, 0]])


def test_one_level_better_is_another_policy(dataset):
  """Of all pairs for k = 1 whose policy shown is not the best one. The point's histories hold policies twice."""
  history, level = (index.reshape(-1) for index in np.indices(dataset.returns.shape))
  pairs = pairs_of(dataset, history, level, np.ones_like(level), SETTINGS, np.random.default_rng(0))
  rank = lambda levels: pairs.rank[np.arange(len(levels)), levels]
  beneath = level < dataset.best[history]
  assert (rank(pairs.target) == rank(level) + 1)[beneath].all() and (pairs.rank[:, -1] < 3).any()
  shown, answers = (weights(dataset.read_params(history[beneath], x[beneath])) for x in (level, pairs.target))
  assert (np.abs(shown - answers).max(axis=-1) > 0).all()
  np.testing.assert_array_equal(pairs.target[~beneath], dataset.best[history[~beneath]])


def test_levels_are_drawn_by_chance_and_the_same_again(runs):
  """Of the two policies of one run."""
  runs = runs.replace(chance=np.array([[[0.2, 0.0, 0.8], [0.0, 1.0, 0.0]]]))
  moments = np.stack([np.zeros(10_000, int), np.array([0, 1] * 5000)])
  drawn = runs.draw_levels(moments, np.random.default_rng(0))
  np.testing.assert_allclose(np.bincount(drawn[::2]) / 5000, [0.2, 0, 0.8], atol=0.02)
  assert (drawn[1::2] == 1).all()
  np.testing.assert_array_equal(drawn, runs.draw_levels(moments, np.random.default_rng(0)))


def test_standard_errors_by_hand(every):
  """Returns 1 and 3 have deviation √2, so their mean has error 1; one that blew up does not count."""
  one = take(every[1], (0, 0))
  reward = np.zeros((4, 8), np.float32)
  reward[:, 0] = [1, 3, 99, 2]
  trajectory = one.replace(reward=reward, finite=np.array([True, True, False, False]))
  np.testing.assert_allclose(rounds.standard_error(trajectory), 1.0)
  np.testing.assert_allclose(mean_return(trajectory), 2.0)
  assert rounds.standard_error(trajectory.replace(finite=np.array([True, False, False, False]))) == 0


@pytest.fixture(scope='module')
def played_and_remembered(operator, operator_params, play, dataset):
  """A round, and the memories [R, C, ...] that the operator had after each policy but the last one."""
  training, _ = split_histories(dataset, 2)
  memories, remember = [], make_remember(operator)

  def noting(memory, params, trajectory):
    memories.append(remember(memory, params, trajectory))
    return memories[-1]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(rounds, 'make_remember', lambda operator: noting)
    settings = dataclasses.replace(SETTINGS, round_applications=3)
    found = rounds.play_round(operator, operator_params, play, dataset, training, settings, np.random.default_rng(0))
  return found, jax.device_get(memories)


@pytest.fixture(scope='module')
def played(played_and_remembered):
  return played_and_remembered[0]


@pytest.fixture(scope='module')
def runs(played, dataset, tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  files.save_tree(folder / 'runs_00.safetensors', played)
  return rounds.load(folder, dataset)[0]


def test_a_round_is_played_on_training_tasks(played, dataset):
  """Eight runs of four policies, each with two episodes."""
  training, _ = split_histories(dataset, 2)
  assert played['history'].shape == (8,) and set(played['history']) <= set(training)
  assert played['episodes'].trajectory.reward.shape == (8, 8, 8) and played['returns'].shape == (8, 4)
  assert played['kept'].shape == (8, 3, 4) and played['episodes'].trajectory.outcome.size == 0
  returns = played['episodes'].trajectory.reward.sum(axis=-1).reshape(8, 4, 2)
  np.testing.assert_allclose(played['returns'], returns.mean(axis=-1), rtol=1e-5)
  np.testing.assert_allclose(played['error'], returns.std(axis=-1, ddof=1) / np.sqrt(2), rtol=1e-3, atol=1e-6)


def test_a_round_begins_with_fresh_policies_and_stored_ones(played, every, operator):
  """Stored ones do what a level of the history does."""
  observation, behaviour = played['episodes'].trajectory.observation[:, 0], played['episodes'].behaviour[:, 0]
  stored = []
  for row, history in enumerate(played['history']):
    logits = [operator.policy.apply(take(every[0], (history, level)), observation[row]) for level in range(4)]
    stored.append(min(np.abs(x - behaviour[row]).max() for x in logits) < 1e-4)
  assert 0 < sum(stored) < 8


def test_the_memory_of_a_moment_is_what_the_operator_had_then(played_and_remembered, runs):
  """Memories are not stored, but which episodes they held: put together again they are the same, place by place. By
  the third policy one episode or more is forgotten."""
  _, memories = played_and_remembered
  for policy, wanted in enumerate(memories):
    found = runs.memory(np.stack([np.arange(8), np.full(8, policy)]))
    there = wanted.number != EMPTY
    assert there.sum() == 8 * min(4, 2 * policy + 2)
    np.testing.assert_array_equal(found.number, wanted.number)
    assert not found.trajectory.valid[~there].any()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[there], y[there], atol=1e-5), found, wanted)


def test_what_follows_a_moment_is_the_next_policy(runs):
  following = runs.following(np.array([[3, 5], [0, 2]]))
  np.testing.assert_array_equal(following.number, [[2, 3], [6, 7]])
  np.testing.assert_array_equal(following.trajectory.reward[1], runs.episodes.trajectory.reward[5, 6:])


def test_moments_after_which_all_blew_up_are_not_drawn(runs):
  returns = runs.returns.copy()
  returns[2], returns[:, 1] = np.nan, np.nan
  moments = runs.replace(returns=returns).draw(500, np.random.default_rng(0))
  drawn = {tuple(moment) for moment in moments.T.tolist()}
  assert drawn == {(run, policy) for run in range(8) for policy in (0, 2) if run != 2}


def test_tries_are_drawn_half_from_those_that_led_to_much(runs):
  """Only what the operator gave and what followed are known: the policies 1 and 2 of four."""
  gain = np.full((8, 4), np.nan)
  gain[:, 1:3] = 0.0
  gain[6, 2] = 0.9
  moments = runs.replace(gain=gain).draw_tries(400, np.random.default_rng(0)).T.tolist()
  assert {policy for _, policy in moments} == {0, 1} and len({tuple(moment) for moment in moments}) == 16
  assert 200 <= moments.count([6, 1]) < 250


def test_moments_at_which_nothing_had_been_met_are_drawn(runs):
  """What the first policy of run 2 met is not forgotten; run 3 meets something with its third one, and run 5 too
  little."""
  gained = np.zeros((8, 4))
  gained[2, 0], gained[3, 2], gained[5] = 0.5, 0.02, 0.005
  drawn = runs.replace(gained=gained).draw_unmet(600, np.random.default_rng(0))
  moments = {tuple(moment) for moment in drawn.T.tolist()}
  assert moments == {(run, policy) for run in range(8) for policy in range(3)} - {(2, 0), (2, 1), (2, 2), (3, 2)}


def test_the_answer_to_a_try_is_what_the_operator_gave(examples, runs):
  """At states which that policy visited; the ask tells what came of it, and no level."""
  drawn = examples.of_tries(runs, 20, np.random.default_rng(0))
  moments = runs.draw_tries(20, np.random.default_rng(0))  # the first thing that is drawn
  following = runs.following(moments)
  np.testing.assert_allclose(drawn.ask.values['explore'], runs.gain[moments[0], moments[1] + 1], rtol=1e-5)
  assert drawn.ask.given['explore'].all() and not drawn.ask.given['steps'].any()
  for row in range(20):
    visited = following.trajectory.observation[row].reshape(-1).tolist()
    places = [visited.index(state) for state in drawn.states[row, :, 0].tolist()]
    np.testing.assert_array_equal(drawn.answer[row], following.behaviour[row].reshape(-1, 2)[places])
  assert drawn.states.shape == (20, 8, 1) and (drawn.weight == 1).all()


def test_an_explorer_is_an_answer_of_its_own(examples, explored, runs, dataset):
  """All else may be any answer."""
  read = [dataset.read(np.arange(dataset.num_histories), np.full(dataset.num_histories, level)) for level in range(3)]
  exploring = dataclasses.replace(examples, explored=explored)
  drawn = exploring.of_tries(runs, 20, np.random.default_rng(0))
  moments = runs.draw_unmet(20, np.random.default_rng(0))  # the first thing that is drawn
  np.testing.assert_array_equal(drawn.which_answer, np.where(runs.history[moments[0]] % 2, 0, 2))
  for level in (0, 2):
    logits = policies.apply_numpy(jax.tree.map(lambda x: x[:1], read[level][0]), drawn.states.reshape(1, -1, 1))
    rows = drawn.which_answer == level
    np.testing.assert_allclose(drawn.answer[rows], logits.reshape(20, -1, 2)[rows], atol=1e-5)
  assert set(drawn.which_answer.tolist()) == {0, 2}
  part = exploring.of_tries(runs, 20, np.random.default_rng(0), slice(10, 20)).which_answer
  np.testing.assert_array_equal(part, drawn.which_answer[10:])
  assert (part != drawn.which_answer[:10]).any()
  sizes = np.ones(4, int)
  for others in (
    examples.of_tries(runs, 4, np.random.default_rng(0)), examples.of_runs(runs, sizes, np.random.default_rng(0)),
    examples.of_histories(np.arange(4), sizes, np.random.default_rng(0)),
  ):
    np.testing.assert_array_equal(others.which_answer, ANY_ANSWER)


def test_a_moment_of_a_run_is_improved_from_the_level_it_may_be_on(examples, runs, dataset, operator):
  """All of level 2 here. θⁿ is not stored: asked for nothing better, one level better is asked for instead."""
  chance = np.zeros_like(runs.chance)
  chance[..., 2] = 1.0
  runs = runs.replace(chance=chance)
  drawn = examples.of_runs(runs, np.array([0] * 5 + [1] * 5 + [steps.BEST] * 5), np.random.default_rng(0))
  moments = runs.draw(15, np.random.default_rng(0))
  jax.tree.map(np.testing.assert_array_equal, drawn.memory, runs.memory(moments))
  history = runs.history[moments[0]]
  wanted = steps.target_level(
    np.full(15, 2), np.array([1] * 10 + [steps.BEST] * 5), dataset.rank[history]
  )
  answers = dataset.read_params(history, wanted)
  for row in range(15):
    logits = operator.policy.apply(take(answers, row), drawn.states[row])
    np.testing.assert_allclose(drawn.answer[row], logits, atol=1e-5)
  assert (drawn.ask.values['steps'] != 0).all()


def test_rounds_are_stored_and_read_again(operator, operator_params, play, dataset, tmp_path):
  training, _ = split_histories(dataset, 2)
  add = functools.partial(
    rounds.add_round, operator=operator, operator_params=operator_params, play=play, dataset=dataset,
    histories=training, settings=SETTINGS, seed=0, folder=tmp_path,
  )
  add(0), add(1)
  before = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
  add(0)
  assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == before
  loaded = rounds.load(tmp_path, dataset)
  assert len(loaded) == 2 and len(rounds.load(tmp_path, dataset, [1])) == 1
  for one in loaded:
    np.testing.assert_allclose(one.chance.sum(axis=-1), 1.0)
    distance = np.abs(dataset.returns[one.history][:, None] - one.returns[:, :2, None])
    nearest = np.take_along_axis(one.chance, distance.argmin(axis=-1)[..., None], axis=-1)
    assert (nearest > 0.2).mean() > 0.8
    assert np.isnan(one.gain[:, [0, -1]]).all() and np.isfinite(one.gain[:, 1]).all()
  first, second = (one.episodes.behaviour for one in loaded)
  assert np.abs(first - second).max() > 0, 'each round draws anew'


def of_steps(name, change):
  """A change of one array of the trajectory of a round."""
  return lambda x: x.replace(trajectory=x.trajectory.replace(**{name: change(getattr(x.trajectory, name))}))


@pytest.mark.parametrize('name, change', [
  ('history', lambda x: np.full_like(x, 99)), ('history', lambda x: x - 99), ('history', lambda x: x[:3]),
  ('history', lambda x: x.astype(np.float32)), ('history', lambda x: x[:0]),
  ('kept', lambda x: x + 99), ('kept', lambda x: x - 9), ('kept', lambda x: x[:, :0]), ('kept', lambda x: x[:, :1]),
  ('kept', lambda x: x.astype(np.float32)),
  ('returns', lambda x: x[:, :1]), ('returns', lambda x: np.full_like(x, np.nan)),
  ('returns', lambda x: np.where(x < 0, np.float32(np.inf), x)), ('returns', lambda x: x.astype(np.int32)),
  ('error', lambda x: x * np.float32(np.nan)), ('error', lambda x: x[:3]),
  ('episodes', lambda x: jax.tree.map(lambda leaf: leaf[:, :1], x)),
  ('episodes', lambda x: x.replace(behaviour=x.behaviour * np.float32(np.nan))),
  ('episodes', lambda x: x.replace(behaviour=x.behaviour[..., :1])),
  ('episodes', lambda x: x.replace(time=x.time[:, :, :1])),
  ('episodes', lambda x: x.replace(application=x.application[:3])),
  ('episodes', lambda x: x.replace(episode_return=x.episode_return.astype(np.int32))),
  ('episodes', of_steps('reward', lambda x: x[:, :1])),
  ('episodes', of_steps('next_observation', lambda x: np.full_like(x, np.inf))),
  ('episodes', of_steps('valid', lambda x: x.astype(np.float32))),
])
def test_runs_of_other_histories_are_refused(played, dataset, tmp_path, name, change):
  """An index beyond the histories would else raise somewhere, and a negative one would be taken for another history."""
  files.save_tree(tmp_path / 'runs_00.safetensors', {**played, name: change(played[name])})
  with pytest.raises(DamagedDataError, match='does not hold runs on these histories; delete it'):
    rounds.load(tmp_path, dataset)


def test_a_round_of_which_nothing_is_left_is_not_stored(operator, operator_params, dataset, tmp_path):
  hopeless = make_play(point_family(blow_up_beyond=-1.0), operator.policy, num_episodes=2)
  training, _ = split_histories(dataset, 2)
  with pytest.raises(NonFiniteSimulationError, match='Every policy of a round blew up'):
    rounds.add_round(
      0, operator, operator_params, hopeless, dataset, training, SETTINGS, seed=0, folder=tmp_path
    )
  assert list(tmp_path.iterdir()) == []


def test_waiting_for_a_process_that_is_gone_ends(operator, dataset, tmp_path, monkeypatch):
  monkeypatch.setattr(rounds, '_WAIT_SECONDS', 0.05)
  monkeypatch.setattr(rounds, '_POLL_SECONDS', 0.01)
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with pytest.raises(WaitingError, match='first process has not written.*runs_00'):
    rounds.add_round(0, operator, None, None, dataset, None, SETTINGS, seed=0, folder=tmp_path)


def test_states_are_of_both_policies_and_none_is_padding(examples, monkeypatch):
  """The policy that is the answer visited one step of each of two episodes; what is remembered are four steps."""
  history, draw = np.zeros(1, int), examples.dataset.read

  def read(history, level):
    params, trajectory = draw(history, level)
    return params, trajectory.replace(valid=np.broadcast_to(np.arange(8) < 1, trajectory.valid.shape))

  short = types.SimpleNamespace(
    achieved=None, properties=(), measured=None, read=read,
    **{name: getattr(examples.dataset, name) for name in ('num_checkpoints', 'rank', 'returns', 'header')}
  )
  many = dataclasses.replace(examples, dataset=short, settings=dataclasses.replace(SETTINGS, num_states=100))
  drawn = many.of_histories(history, np.ones(1, int), np.random.default_rng(0))
  assert len(np.unique(drawn.states[0, :50])) == 2 and len(np.unique(drawn.states[0, 50:])) in (2, 4)
  assert (drawn.weight == 1).all()


def test_states_of_a_policy_without_experience_do_not_count(examples):
  draw = examples.dataset.read

  def read(history, level):
    params, trajectory = draw(history, level)
    return params, trajectory.replace(valid=np.zeros(trajectory.valid.shape, bool))

  nothing = types.SimpleNamespace(
    achieved=None, properties=(), measured=None, read=read,
    **{name: getattr(examples.dataset, name) for name in ('num_checkpoints', 'rank', 'returns', 'header')}
  )
  drawn = dataclasses.replace(examples, dataset=nothing).of_histories(
    np.zeros(2, int), np.ones(2, int), np.random.default_rng(0)
  )
  assert (drawn.weight == 0).all() and np.isfinite(drawn.answer).all()


def test_scores_by_hand():
  """Undefined returns, and references within two errors of the initial policy, give no score."""
  returns, initial = np.array([-5.0, np.nan, -5.0, -5.0, 0.0]), np.array([-10.0, -10.0, np.nan, -10.0, -10.0])
  reference, error = np.array([0.0, 0.0, 0.0, -9.0, -10.0]), np.array([1.0, 1.0, 1.0, 0.6, 0.0])
  np.testing.assert_allclose(validation.scores(returns, initial, reference, error), [0.5] + [np.nan] * 4)


def test_validation_figures_leave_out_what_has_no_score(operator, operator_params, play, dataset):
  _, kept_out = split_histories(dataset, 2)
  arguments = operator, operator_params
  figures = validation.scores_of(*arguments, play, dataset, kept_out, 2)
  assert set(figures) == {f'validation_{kind}/{after}' for kind in ('score', 'mean_score') for after in (1, 2)}
  hopeless = dataclasses.replace(dataset, returns=np.full_like(dataset.returns, -1e6))
  assert validation.scores_of(*arguments, play, hopeless, kept_out, 2) == {}

  def fragile(params, tasks, rng_key):
    """The last task blows up whenever it is played, with rewards that would look very good."""
    trajectory = play(params, tasks, rng_key)
    return trajectory.replace(
      reward=trajectory.reward.at[-1].set(1e3), finite=trajectory.finite.at[-1].set(False)
    )

  alone = validation.scores_of(*arguments, play, dataset, kept_out[dataset.task_index[kept_out] == 4], 1)
  assert np.isfinite(list(alone.values())).all()
  found = validation.scores_of(*arguments, fragile, dataset, kept_out, 1)
  assert set(found) == {'validation_score/1', 'validation_mean_score/1'} and max(found.values()) < 10


def test_validation_figures_say_what_asks_give(operator, play, dataset, examples):
  """For each kind the loss of any level asked for by it alone, and scores that were asked for beside what came."""
  config = dataclasses.replace(operator.config, asks=('steps', 'score'))
  told = make_operator(config)
  params = told.init(jax.random.key(0), experience_statistics(dataset.read(np.zeros(8, int), np.zeros(8, int))[1]))
  _, kept_out = split_histories(dataset, 2)
  figures = validation.scores_of(told, params, play, dataset, kept_out, 1)
  asked = {f'validation_got/score_{value:g}' for value in validation.ASKED}
  assert asked < set(figures) and len(figures) == 2 + len(asked)
  found = validation.losses(told, params, examples_of(dataset, config, any_share=0.5), kept_out)
  assert {'validation_loss/best', 'validation_loss/score', 'validation_divergence/score'} <= set(found)
  pairs = pairs_of(dataset, np.zeros(4, int), np.zeros(4, int), np.full(4, ANY), SETTINGS, np.random.default_rng(0))
  both = describe_pairs(pairs, config.asks, dataclasses.replace(SETTINGS, drop_rate=0.0), np.random.default_rng(0))
  alone = validation.alone(both, 'score')
  assert alone.given['score'].all() and not alone.given['steps'].any() and alone.values is both.values


def test_environment_steps_by_hand(operator):
  """2 rounds of 8 tasks, and 4 times 2 validation tasks, each with 3 policies that act for 2 episodes of 8 steps; with
  four more where scores are asked for."""
  assert env_steps(operator, SETTINGS) == {'rounds': 2 * 8 * 3 * 16, 'validation_figures': 4 * 2 * 3 * 16}
  told = dataclasses.replace(operator, config=dataclasses.replace(operator.config, asks=('steps', 'score')))
  assert env_steps(told, SETTINGS)['validation_figures'] == 4 * 2 * 7 * 16


@pytest.fixture(scope='module')
def trained(operator, play, dataset, tmp_path_factory):
  logged, shown = {}, []
  folder = tmp_path_factory.mktemp('training')
  params = train(
    operator, play, dataset, SETTINGS, seed=0, folder=folder,
    log=lambda step, figures: logged.setdefault(step, {}).update(figures),
    progress=lambda stage, done, total, figures: shown.append((stage, done, total, figures)),
  )
  return folder, params, logged, shown


def test_what_is_logged(trained):
  _, _, logged, shown = trained
  assert {'train/loss', 'train/gradient_norm', 'train/learning_rate', 'train/examples_per_second'} <= set(logged[20])
  for figure in ('loss', 'divergence'):
    assert {f'validation_{figure}/{steps.words(k)}' for k in steps.SIZES} <= set(logged[40])
  assert {'validation_score/1', 'validation_score/2'} <= set(logged[60])
  trained_steps = [one for one in shown if one[0] == 'train operator']
  assert [one[1:3] for one in trained_steps] == [(done, 80) for done in range(1, 81)]
  for stage, total in (('play rounds', 2), ('validation figures', 4)):
    ends = [(index + end, total) for index in range(total) for end in (0, 1)]
    assert [one[1:3] for one in shown if one[0] == stage] == ends
  assert set(trained_steps[-1][3]) == {'loss', 'validation score'}


def test_it_learns_by_likelihood(trained, operator, operator_params, play, dataset, examples):
  """The loss falls, answers come near the right ones, and policies become better on the four tasks that it learns from,
  of sixteen random ones each; that is too few tasks for others."""
  _, params, logged, _ = trained
  assert logged[80]['train/loss'] < 0.9 * logged[20]['train/loss']
  training, _ = split_histories(dataset, 2)
  before, after = (
    validation.losses(operator, some, examples, training)['validation_divergence/best']
    for some in (operator_params, params)
  )
  assert after < before / 2, (before, after)
  history = np.repeat(training, 16)
  start = jax.vmap(operator.policy.init)(jax.random.split(jax.random.key(5), len(history)))

  def returns(some):
    *_, last = iterate(
      make_improve(operator, some, ask(steps='best')), make_remember(operator), play, start,
      dataset.read_tasks(history), jax.random.key(6), num_applications=2,
    )
    return float(mean_return(last.trajectory).mean())

  gained = (returns(params) - returns(operator_params)) / np.ptp(dataset.returns[training], axis=1).mean()
  assert gained > 0.2, gained


def test_little_is_left_on_the_disk(trained):
  assert sorted(path.name for path in trained[0].iterdir()) == [
    'runs_00.safetensors', 'runs_01.safetensors', 'settings.json', 'training_state_000000080.safetensors',
  ]


def test_a_training_that_was_stopped_ends_with_the_same_operator(
  trained, operator, play, dataset, tmp_path, monkeypatch
):
  monkeypatch.setattr(fit_module, '_SAVE_SECONDS', 0.0)
  monkeypatch.setattr(fit_module, '_LOG_STEPS', 1)
  run = functools.partial(train, operator, play, dataset, SETTINGS, seed=0, folder=tmp_path)
  for when in (33, 60):  # right after the first round, and after the second
    with pytest.raises(Killed):
      run(progress=kill_at(when))
  jax.tree.map(np.testing.assert_array_equal, run(), trained[1])
  jax.tree.map(np.testing.assert_array_equal, run(), trained[1])


@pytest.mark.parametrize('name, value', [('num_steps', 81), ('size_shares', (0.2, 0.1, 0.1, 0.1, 0.2, 0.3))])
def test_a_folder_of_other_settings_is_refused(trained, operator, play, dataset, name, value):
  """The distribution of asks is among them."""
  with pytest.raises(IncompatibleError, match=f'was made with {name}='):
    train(operator, play, dataset, dataclasses.replace(SETTINGS, **{name: value}), seed=0, folder=trained[0])


def test_a_folder_of_other_histories_is_refused(trained, operator, play, point, histories, tmp_path):
  """The header is the same, but one number in a shard is another."""
  other = shutil.copytree(histories, tmp_path / 'other')
  header = read_header(other)
  entry = planned_shards(header)[0]
  path = storage.shard_path(other, entry)
  stored = storage.read_shard(path, header)
  reward = stored.trajectory.reward.copy()
  reward.flat[0] += 1e-3
  changed = stored.replace(trajectory=stored.trajectory.replace(reward=reward))
  storage.write_shard(other, storage.read_entry(path), layout_of(header), changed)
  with pytest.raises(IncompatibleError, match='was made with histories='):
    train(operator, play, load_dataset(other, point), SETTINGS, seed=0, folder=trained[0])
