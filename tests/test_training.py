"""Examples, rounds and training on the point family."""

import dataclasses
import functools
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import files
from metaimprove.asks import SAME, steps
from metaimprove.errors import DamagedDataError, IncompatibleError, NonFiniteSimulationError, WaitingError
from metaimprove.histories import storage
from metaimprove.histories.dataset import load_dataset
from metaimprove.histories.header import planned_shards, read_header
from metaimprove.histories.layout import layout_of
from metaimprove.rollouts import make_play
from metaimprove.training import fit as fit_module
from metaimprove.training import rounds, validation
from metaimprove.training.examples import Example, Examples, endless, split_histories
from metaimprove.training.loop import env_steps, train
from metaimprove.training.loss import divergence_loss, visited_states
from metaimprove.training.pairs import pairs_of
from metaimprove.training.settings import TrainingSettings
from metaimprove.trees import batch_size, take
from metaimprove.types import mean_return
from tests.conftest import Killed, kill_at
from tests.point_family import point_family

SETTINGS = TrainingSettings(
  num_steps=80, batch_size=16, num_states=8, rounds=(0.4, 0.7), round_applications=2, round_tasks=8, num_validation=2,
  num_evaluations=4, learning_rate=1e-2,
)


@pytest.fixture(scope='module')
def play(operator, point):
  return make_play(point, operator.policy, num_episodes=2)


def examples_of(dataset, **changes):
  settings = dataclasses.replace(SETTINGS, **changes)
  training, _ = split_histories(dataset, settings.num_validation)
  return Examples(dataset=dataset, histories=endless(dataset, training, 0), kinds=('steps',), settings=settings, seed=0)


@pytest.fixture(scope='module')
def examples(dataset):
  return examples_of(dataset)


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


def test_examples_of_histories_are_pairs_of_one_history(examples, dataset, every):
  """The answer is as much better as the size says; for size 0 it is the policy itself; each comes with its experience
  and without outcomes."""
  rng = np.random.default_rng(0)
  size = np.repeat([0, 1, steps.BEST], 20)
  history = np.array([examples.histories[index] for index in range(60)])
  drawn = examples.of_histories(history, size, rng)
  level = np.random.default_rng(0).integers(4, size=60)  # the first thing that is drawn
  wanted = steps.target_level(level, size, dataset.rank[history])
  target = np.where(wanted == SAME, level, wanted)
  np.testing.assert_array_equal(weights(drawn.params), weights(every[0])[history, level])
  np.testing.assert_array_equal(weights(drawn.target_params), weights(every[0])[history, target])
  np.testing.assert_array_equal(drawn.trajectory.reward, every[1].reward[history, level])
  np.testing.assert_array_equal(drawn.target_trajectory.reward, every[1].reward[history, target])
  assert drawn.trajectory.outcome.size == drawn.target_trajectory.outcome.size == 0
  np.testing.assert_array_equal(
    steps.target_level(level, drawn.ask.values['steps'], dataset.rank[history]), wanted, 'asks describe pairs'
  )


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
  rewards = every[1].reward[history].reshape(4, -1)
  level = np.abs(drawn.trajectory.reward.reshape(400, 1, -1) - rewards).sum(axis=-1).argmin(axis=1)
  assert (np.bincount(level, minlength=4) > 70).all()


def test_shares_of_processes_make_up_the_whole(examples):
  whole = examples.draw(3)
  shares = [examples.draw(3, share=(process, 2)) for process in range(2)]
  joined = jax.tree.map(lambda x, y: np.concatenate([x[:4], y[:4], x[4:], y[4:]]), *shares)
  jax.tree.map(np.testing.assert_array_equal, joined, whole)


def test_the_stream_is_what_is_drawn_from_any_step_on(examples):
  for step, drawn in zip(range(5, 8), examples.stream(5, 8), strict=True):
    jax.tree.map(np.testing.assert_array_equal, drawn, examples.draw(step))


def test_sizes_are_drawn_by_the_shares_of_the_settings(dataset, every):
  only_nothing = examples_of(dataset, size_shares=(1.0, 0, 0, 0, 0, 0)).draw(0)
  jax.tree.map(np.testing.assert_array_equal, only_nothing.target_params, only_nothing.params)
  assert (only_nothing.ask.values['steps'] == 0).all()
  with pytest.raises(IncompatibleError, match='size_shares=.*add up to 1.*0, 1, 2, 4, 8, best'):
    TrainingSettings(size_shares=(0.5, 0.5))


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
  pairs = pairs_of(dataset, history, level, np.ones_like(level), SETTINGS)
  rank = lambda levels: pairs.rank[np.arange(len(levels)), levels]
  beneath = level < dataset.best[history]
  assert (rank(pairs.target) == rank(level) + 1)[beneath].all() and (pairs.rank[:, -1] < 3).any()
  shown, answers = (weights(dataset.read_params(history[beneath], x[beneath])) for x in (level, pairs.target))
  assert (np.abs(shown - answers).max(axis=-1) > 0).all()
  np.testing.assert_array_equal(pairs.target[~beneath], dataset.best[history[~beneath]])


def test_levels_are_drawn_by_chance_and_the_same_again():
  chance = np.array([[0.2, 0.0, 0.8], [0.0, 1.0, 0.0]])
  iterates = rounds.Iterates(params={}, trajectory=None, history=np.zeros(2, int), chance=chance)
  rows = np.array([0, 1] * 5000)
  drawn = iterates.draw_levels(rows, np.random.default_rng(0))
  np.testing.assert_allclose(np.bincount(drawn[rows == 0]) / 5000, [0.2, 0, 0.8], atol=0.02)
  assert (drawn[rows == 1] == 1).all()
  np.testing.assert_array_equal(drawn, iterates.draw_levels(rows, np.random.default_rng(0)))


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
def played(operator, operator_params, play, dataset):
  training, _ = split_histories(dataset, 2)
  return rounds.play_round(operator, operator_params, play, dataset, training, SETTINGS, np.random.default_rng(0))


def test_a_round_is_played_on_training_tasks(played, dataset):
  assert batch_size(played['params']) == 3 * 8 == len(played['history'])
  training, _ = split_histories(dataset, 2)
  assert set(played['history']) <= set(training)
  assert played['trajectory'].outcome.size == 0
  np.testing.assert_array_equal(played['history'][:8], played['history'][8:16])


def test_a_round_begins_with_fresh_policies_and_stored_ones(played, every):
  first = weights(played['params'])[:8]
  stored = np.abs(weights(every[0])[played['history'][:8]] - first[:, None]).sum(axis=-1).min(axis=1) == 0
  assert 0 < stored.sum() < 8


def test_iterates_that_blew_up_are_left_out(operator, operator_params, dataset, played):
  fragile = make_play(point_family(blow_up_beyond=0.5), operator.policy, num_episodes=2)
  training, _ = split_histories(dataset, 2)
  found = rounds.play_round(operator, operator_params, fragile, dataset, training, SETTINGS, np.random.default_rng(0))
  assert 0 < len(found['history']) < len(played['history'])
  assert np.isfinite(mean_return(found['trajectory'])).all() and not found['trajectory'].finite.all()


def test_an_iterate_asked_for_nothing_is_its_own_answer(dataset, played):
  """Not the checkpoint that resembles it; and a better one is looked for from where it may stand."""
  examples = examples_of(dataset)
  chance = np.zeros((24, 4))
  chance[:, 2] = 1.0
  iterates = rounds.Iterates(**played, chance=chance)
  size = np.array([0] * 5 + [1] * 5)
  drawn = examples.of_iterates(iterates, size, np.random.default_rng(0))
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:5], y[:5]), drawn.target_params, drawn.params)
  rows = np.random.default_rng(0).integers(24, size=10)
  np.testing.assert_array_equal(drawn.trajectory.reward, played['trajectory'].reward[rows])
  history = played['history'][rows]
  wanted = steps.target_level(np.full(10, 2), size, dataset.rank[history])[5:]
  answers = dataset.read_params(history[5:], wanted)
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[5:], y), drawn.target_params, answers)


def test_rounds_are_stored_and_read_again(operator, operator_params, play, dataset, tmp_path, monkeypatch):
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
    np.testing.assert_allclose(one.chance.sum(axis=1), 1.0)
    nearest = np.abs(dataset.returns[one.history] - np.asarray(mean_return(one.trajectory))[:, None]).argmin(axis=1)
    chance_of_nearest = one.chance[np.arange(len(nearest)), nearest]
    assert (chance_of_nearest > 0.2).mean() > 0.8
  assert np.abs(weights(loaded[0].params) - weights(loaded[1].params)).max() > 0, 'each round draws anew'


@pytest.mark.parametrize('name, change', [
  ('history', lambda x: np.full_like(x, 99)), ('history', lambda x: x - 99), ('history', lambda x: x[:3]),
  ('history', lambda x: x.astype(np.float32)), ('trajectory', lambda x: x.replace(reward=x.reward[:, :1])),
  ('params', lambda x: jax.tree.map(lambda leaf: leaf * np.float32(np.nan), x)),
])
def test_iterates_of_other_histories_are_refused(played, dataset, tmp_path, name, change):
  """An index beyond the histories would else raise somewhere, and a negative one would be taken for another history."""
  path = tmp_path / 'iterates_00.safetensors'
  files.save_tree(path, played)
  assert len(rounds.load(tmp_path, dataset)) == 1
  files.save_tree(path, {**played, name: change(played[name])})
  with pytest.raises(DamagedDataError, match='does not hold iterates of these histories; delete it'):
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
  with pytest.raises(WaitingError, match='first process has not written.*iterates_00'):
    rounds.add_round(0, operator, None, None, dataset, None, SETTINGS, seed=0, folder=tmp_path)


def constant_policy(params, location, scale):
  """θ of a policy that does the same everywhere."""
  params = jax.tree.map(jnp.zeros_like, params)
  last = sorted(params)[-1]
  raw_scale = jnp.log(jnp.expm1(scale - 0.001))
  return {**params, last: {'w': params[last]['w'], 'b': jnp.array([location, raw_scale])}}


def test_the_loss_by_hand(operator, examples):
  """KL(N(0, 1) ‖ N(1, 2²)) = log 2 + 2/8 - 1/2 = 0.443; the other way round it would be 1.307."""
  example = take(examples.draw(0), 0)
  target, emitted = (constant_policy(example.params, *values) for values in ((0.0, 1.0), (1.0, 2.0)))
  stub = dataclasses.replace(operator, improve_behaviour=lambda operator_params, memory, ask: emitted)
  loss = divergence_loss(stub, None, example.replace(target_params=target), num_states=8)
  np.testing.assert_allclose(loss, np.log(2) + 2 / 8 - 0.5, rtol=1e-3)
  np.testing.assert_allclose(
    divergence_loss(stub, None, example.replace(target_params=emitted), num_states=8), 0, atol=1e-6
  )


def test_states_are_of_both_policies_and_none_is_padding(examples):
  example = take(examples.draw(0), 0)
  shown, target = (
    trajectory.replace(
      observation=np.full((2, 8, 1), value) + np.arange(8)[:, None] / 100, valid=np.arange(8) < [[3], [1]]
    )
    for trajectory, value in ((example.trajectory, 1.0), (example.target_trajectory, 2.0))
  )
  states, weight = visited_states(example.replace(trajectory=shown, target_trajectory=target), 200)
  assert set(np.unique(states[:100].round(2))) == {np.float32(x) for x in (1.0, 1.01, 1.02)}
  assert set(np.unique(states[100:].round(2))) == {np.float32(x) for x in (2.0, 2.01, 2.02)}
  assert (weight == 1).all()


def test_states_of_a_policy_without_experience_do_not_count(operator, operator_params, examples):
  example = take(examples.draw(0), 0)
  nothing = example.target_trajectory.replace(valid=np.zeros((2, 8), bool))
  loss = lambda e: divergence_loss(operator, operator_params, e, num_states=8)
  first = loss(example.replace(target_trajectory=nothing))
  noisy = nothing.replace(observation=np.full((2, 8, 1), 99.0, np.float32))
  np.testing.assert_array_equal(first, loss(example.replace(target_trajectory=noisy)))
  assert first > 1e-4 and isinstance(example, Example)


def test_scores_by_hand():
  """Undefined returns, and references within two errors of the initial policy, give no score."""
  returns, initial = np.array([-5.0, np.nan, -5.0, -5.0, 0.0]), np.array([-10.0, -10.0, np.nan, -10.0, -10.0])
  reference, error = np.array([0.0, 0.0, 0.0, -9.0, -10.0]), np.array([1.0, 1.0, 1.0, 0.6, 0.0])
  np.testing.assert_allclose(validation.scores(returns, initial, reference, error), [0.5] + [np.nan] * 4)


def test_validation_figures_leave_out_what_has_no_score(operator, operator_params, play, dataset):
  _, kept_out = split_histories(dataset, 2)
  arguments = operator, operator_params
  figures = validation.scores_of(*arguments, play, dataset, kept_out, 2)
  assert list(figures) == ['validation_score/1', 'validation_score/2']
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
  assert set(found) == {'validation_score/1'} and found['validation_score/1'] < 10


def test_environment_steps_by_hand(operator):
  """2 rounds of 8 tasks, and 4 times 2 validation tasks, each with 3 policies that act for 2 episodes of 8 steps."""
  assert env_steps(operator, SETTINGS) == {'rounds': 2 * 8 * 3 * 16, 'validation_figures': 4 * 2 * 3 * 16}


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
  assert {f'validation_loss/{steps.words(k)}' for k in steps.SIZES} <= set(logged[40])
  assert {'validation_score/1', 'validation_score/2'} <= set(logged[60])
  trained_steps = [one for one in shown if one[0] == 'train operator']
  assert [one[1:3] for one in trained_steps] == [(done, 80) for done in range(1, 81)]
  for stage, total in (('play rounds', 2), ('validation figures', 4)):
    ends = [(index + end, total) for index in range(total) for end in (0, 1)]
    assert [one[1:3] for one in shown if one[0] == stage] == ends
  assert set(trained_steps[-1][3]) == {'loss', 'validation score'}


def test_it_learns_by_likelihood(trained, operator, operator_params, play, dataset):
  """The loss falls, and policies become better on the four tasks it learns from; that is too few for other tasks."""
  _, params, logged, _ = trained
  assert logged[80]['train/loss'] < 0.9 * logged[20]['train/loss']
  training, _ = split_histories(dataset, 2)
  before, after = (
    validation.scores_of(operator, some, play, dataset, training, 1)['validation_score/1']
    for some in (operator_params, params)
  )
  assert after > before + 0.2, (before, after)


def test_little_is_left_on_the_disk(trained):
  assert sorted(path.name for path in trained[0].iterdir()) == [
    'iterates_00.safetensors', 'iterates_01.safetensors', 'settings.json', 'training_state_000000080.safetensors',
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


def test_a_batch_must_have_two_halves_for_each_process(operator, play, dataset, tmp_path):
  with pytest.raises(IncompatibleError, match='batch_size=15 must be a multiple of 2'):
    train(operator, play, dataset, dataclasses.replace(SETTINGS, batch_size=15), seed=0, folder=tmp_path)
