"""Examples and training on the point family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove.training import loop as training
from metaimprove.errors import IncompatibleError
from metaimprove.training.examples import Examples, assemble, target_level
from metaimprove.asks import steps as asks
from tests.conftest import Killed, kill_at

SETTINGS = training.TrainingSettings(
  num_steps=80, batch_size=16, num_states=8, rounds=(0.4, 0.7), round_applications=2, round_tasks=8, num_validation=2,
  num_evaluations=4, learning_rate=1e-2,
)


@pytest.fixture(scope='module')
def examples(dataset):
  return Examples(dataset, num_validation=2)


def test_target_level_by_hand():
  level, ask = np.array([0, 2, 3, 1, 1]), np.array([1, 4, 0, asks.BEST, 0])
  np.testing.assert_array_equal(target_level(level, ask, np.array([3, 3, 3, 2, 3]), 4), [1, 3, 3, 2, 1])


def test_validation_tasks_are_kept_out_of_every_source(examples, dataset):
  tasks = set(dataset.task_index[examples.training])
  assert tasks == {0, 1, 2, 3} and set(dataset.task_index[examples.validation]) == {4, 5}


def test_examples_of_histories_are_views(examples, dataset, every):
  ask = np.array([1] * 20 + [asks.BEST] * 20)
  history = np.resize(examples.training, 40)
  drawn = examples.of_histories(np.random.default_rng(0), ask, history)
  bias = np.asarray(every[0]['mlp/~/linear_0']['b'])
  best = dataset.returns.argmax(axis=1)
  for index in range(40):
    level = int(np.abs(every[1].reward[history[index]] - drawn.trajectory.reward[index]).sum(axis=(1, 2)).argmin())
    np.testing.assert_array_equal(drawn.trajectory.reward[index], every[1].reward[history[index], level])
    np.testing.assert_array_equal(drawn.params['mlp/~/linear_0']['b'][index], bias[history[index], level])
    target = min(level + 1, 3) if ask[index] == 1 else best[history[index]]
    np.testing.assert_array_equal(drawn.aim_params['mlp/~/linear_0']['b'][index], bias[history[index], target])
    np.testing.assert_array_equal(drawn.aim_trajectory.reward[index], every[1].reward[history[index], target])


def test_every_history_once_an_epoch_and_sources_alike(examples, dataset):
  """Four histories of each of two sources are left: eight draws are all of them, in another order the next time."""
  drawn = [examples.history(index) for index in range(800)]
  epochs = [drawn[i:i + 8] for i in range(0, 800, 8)]
  assert all(sorted(epoch) == sorted(examples.training) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) > 50
  assert abs(np.mean(dataset.source[drawn]) - 0.5) < 1e-9


def test_levels_are_alike(examples, every):
  drawn = examples.of_histories(np.random.default_rng(0), np.zeros(400, int), np.zeros(400, int))
  rewards = every[1].reward[0].reshape(4, -1)
  level = np.abs(drawn.trajectory.reward.reshape(400, 1, -1) - rewards).sum(axis=-1).argmin(axis=1)
  assert (np.bincount(level, minlength=4) > 70).all()


def test_shares_of_processes_make_up_the_whole(examples):
  whole = examples.draw(3, 8)
  shares = [examples.draw(3, 8, (process, 2)) for process in range(2)]
  joined = jax.tree.map(lambda x, y: np.concatenate([x[:2], y[:2], x[2:], y[2:]]), *shares)
  jax.tree.map(np.testing.assert_array_equal, joined, whole)


def test_the_stream_is_what_is_drawn_from_any_step_on(examples):
  for step, drawn in zip(range(5, 8), examples.stream(5, 8, 4), strict=True):
    jax.tree.map(np.testing.assert_array_equal, drawn, examples.draw(step, 4))


def test_iterates_are_matched_by_return(dataset, every):
  examples = Examples(dataset, num_validation=2)
  history = np.array([1, 3])
  params, trajectory = jax.tree.map(lambda x: x[history, np.array([0, 2])], every)
  examples.add_iterates(params, trajectory, history, dataset.returns[history, [0, 2]] + 1e-4)
  np.testing.assert_array_equal(examples._rounds[0].level, [0, 2])
  drawn = examples.of_iterates(np.random.default_rng(0), np.zeros(10, int))
  for index in range(10):  # k = 0: towards itself, not towards the checkpoint that resembles it
    example = assemble(jax.tree.map(lambda x: x[index], drawn), 8)
    jax.tree.map(np.testing.assert_array_equal, example.target_params, example.params)


def test_loss_is_zero_for_the_target_and_ignores_padding(operator, operator_params, examples):
  drawn = examples.of_histories(np.random.default_rng(0), np.array([1]), np.array([0]))
  example = assemble(jax.tree.map(lambda x: x[0], drawn), 8)
  behaviour = operator.policy.apply(example.params, example.trajectory.observation)
  emitted = operator.improve_behaviour(operator_params, behaviour, example.trajectory, example.ask)
  loss = functools.partial(training.divergence_loss, operator, operator_params)
  np.testing.assert_allclose(loss(example.replace(target_params=emitted)), 0, atol=1e-6)
  assert loss(example) > 1e-3
  half = example.replace(weight=jnp.array([1.0] * 4 + [0.0] * 4))
  noisy = half.replace(states=half.states.at[4:].set(99.0))
  np.testing.assert_allclose(loss(half), loss(noisy))


@pytest.fixture(scope='module')
def trained(operator, point, dataset, tmp_path_factory):
  logged, losses = {}, []
  params = training.train(
    operator, point, dataset, SETTINGS, seed=0, folder=tmp_path_factory.mktemp('training'),
    log=lambda step, scalars: logged.setdefault(step, {}).update(scalars),
    progress=lambda done, figures: losses.append(figures['loss']),
  )
  return params, logged, losses


def test_what_is_logged(trained):
  _, logged, losses = trained
  assert {'train/loss', 'train/gradient_norm', 'train/learning_rate', 'train/examples_per_second'} <= set(logged[20])
  assert {f'held_out_loss/{asks.name(k)}' for k in asks.TRAINED} <= set(logged[40])
  assert {'held_out_normalised_return/1', 'held_out_normalised_return/2'} <= set(logged[60])
  assert logged[80]['train/loss'] == losses[79] and len(losses) == 80
  assert np.mean(losses[60:]) < 0.9 * np.mean(losses[:20])
  # With four tasks to learn from it is the behaviour that carries over, not the likelihood.
  assert logged[80]['held_out_normalised_return/1'] > logged[20]['held_out_normalised_return/1'] + 0.2


def test_a_training_that_was_stopped_ends_with_the_same_operator(
  trained, operator, point, dataset, tmp_path, monkeypatch
):
  monkeypatch.setattr(training, '_SAVE_SECONDS', 0.0)

  run = functools.partial(training.train, operator, point, dataset, SETTINGS, seed=0, folder=tmp_path)
  for when in (7, 32, 33, 60):
    with pytest.raises(Killed):
      run(progress=kill_at(when))
  jax.tree.map(np.testing.assert_array_equal, run(), trained[0])
  jax.tree.map(np.testing.assert_array_equal, run(), trained[0])


def test_a_folder_of_other_settings_is_refused(operator, point, dataset, tmp_path):
  short = training.TrainingSettings(num_steps=1, batch_size=2, rounds=(), num_validation=1, num_evaluations=0)
  training.train(operator, point, dataset, short, seed=0, folder=tmp_path)
  with pytest.raises(IncompatibleError, match='training='):
    training.train(operator, point, dataset, SETTINGS, seed=0, folder=tmp_path)
