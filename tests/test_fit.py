"""The supervised loop, on a line through points."""

import contextlib
import dataclasses
import functools
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from experiments import console
from metaimprove.errors import DamagedDataError, IncompatibleError, NonFiniteLossError
from metaimprove.rng import stream
from metaimprove.training import fit as module
from metaimprove.training.fit import FitSettings, fit
from tests.conftest import Killed, kill_at

SETTINGS = FitSettings(num_steps=100, batch_size=8, learning_rate=0.1, weight_decay=0.0)


def init(rng_key):
  return {'slope': jax.random.normal(rng_key)}


def loss(params, batch):
  return jnp.square(params['slope'] * batch['x'] - batch['y']).mean()


class Batches:
  """Points on y = 3 x, a step's own; notes which steps were asked for."""

  def __init__(self):
    self.asked = []

  def __call__(self, first, last):
    self.asked.append((first, last))
    for step in range(first, last):
      x = np.random.default_rng(step).normal(size=8).astype(np.float32)
      yield {'x': x, 'y': 3 * x}


def run(folder, batches=None, settings=SETTINGS, **changes):
  arguments = {'seed': 0, 'folder': folder, 'made_with': {'data': 'line'}, **changes}
  return fit(init, loss, batches or Batches(), settings, **arguments)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that nobody stops: its folder, result and log."""
  folder, logged = tmp_path_factory.mktemp('whole'), {}
  return folder, run(folder, log=logged.__setitem__), logged


def test_it_learns(whole):
  np.testing.assert_allclose(whole[1]['slope'], 3.0, atol=0.05)


def test_a_line_of_the_log_is_the_mean_of_its_steps(whole, tmp_path, monkeypatch):
  single = {}
  monkeypatch.setattr(module, '_LOG_STEPS', 1)
  run(tmp_path, log=single.__setitem__)
  assert list(whole[2]) == [20, 40, 60, 80, 100] and list(single) == list(range(1, 101))
  for end, line in whole[2].items():
    every = [single[step]['train/loss'] for step in range(end - 19, end + 1)]
    np.testing.assert_allclose(line['train/loss'], np.mean(every), rtol=1e-5)


def test_the_learning_rate_by_hand():
  """Up to the peak in 6 steps, then down by half a cosine to a fiftieth."""
  schedule = module.learning_rate_schedule(SETTINGS)
  np.testing.assert_allclose(schedule(0), 0.0)
  np.testing.assert_allclose(schedule(3), 0.05, rtol=1e-5)
  np.testing.assert_allclose(schedule(6), 0.1, rtol=1e-5)
  np.testing.assert_allclose(schedule(101), 0.002, rtol=1e-4)


def test_stopped_it_ends_with_the_same_and_logs_the_same(whole, tmp_path, monkeypatch):
  monkeypatch.setattr(module, '_SAVE_SECONDS', 0.0)
  logged = {}
  for when in (7, 21, 45, 46, 99):
    with pytest.raises(Killed):
      run(tmp_path, log=logged.__setitem__, progress=kill_at(when))
  found = run(tmp_path, log=logged.__setitem__)
  np.testing.assert_array_equal(found['slope'], whole[1]['slope'])
  assert [line['train/loss'] for line in logged.values()] == [line['train/loss'] for line in whole[2].values()]


def test_lines_are_written_before_the_state_that_follows_them(tmp_path, monkeypatch):
  """Killed right after a save, nothing of before is missing in the log: it would not be made again."""
  monkeypatch.setattr(module, '_SAVE_SECONDS', 0.0)
  logged, seen = {}, []
  save = module._save_state

  def spy(folder, state, step, kept):
    seen.append((step, max(logged)))
    save(folder, state, step, kept)

  monkeypatch.setattr(module, '_save_state', spy)
  run(tmp_path, log=logged.__setitem__)
  assert seen == [(20, 20), (40, 40), (60, 60), (80, 80), (100, 100)]


def test_two_states_are_kept_and_one_when_it_is_done(tmp_path, monkeypatch):
  monkeypatch.setattr(module, '_SAVE_SECONDS', 0.0)
  states = lambda: sorted(int(path.stem.rsplit('_', 1)[1]) for path in tmp_path.glob('training_state_*'))
  with pytest.raises(Killed):
    run(tmp_path, progress=kill_at(95))
  assert states() == [60, 80]
  run(tmp_path)
  assert states() == [100]


def test_what_is_done_is_only_read(whole, tmp_path):
  folder = shutil.copytree(whole[0], tmp_path / 'copy')
  batches, paused, logged = Batches(), [], {}
  pause = lambda step, params: paused.append(step) or {}
  found = run(folder, batches, log=logged.__setitem__, pauses={100: [pause]})
  np.testing.assert_array_equal(found['slope'], whole[1]['slope'])
  assert batches.asked == [] and paused == [] and logged == {}


def test_pauses_see_the_parameters_and_batches_are_asked_for_anew(tmp_path, monkeypatch):
  monkeypatch.setattr(module, '_SAVE_SECONDS', 0.0)
  batches, seen, logged = Batches(), [], {}

  def pause(name, step, params):
    seen.append((name, step, float(params['slope'])))
    return {name: 1.0}

  pauses = {step: [functools.partial(pause, name) for name in 'ab'] for step in (0, 40, 100)}
  with pytest.raises(Killed):
    run(tmp_path, batches, pauses=pauses, progress=kill_at(50))
  final = run(tmp_path, batches, pauses=pauses, log=logged.__setitem__)
  # Step 40 had its pauses before it was saved: it goes on from there without them.
  assert [(name, step) for name, step, _ in seen] == [(n, s) for s in (0, 40, 100) for n in 'ab']
  assert batches.asked == [(0, 40), (40, 100), (40, 100)]
  assert seen[-1][2] == float(final['slope'])
  assert seen[0][2] == float(init(stream(0, 'first parameters: train'))['slope'])


def test_what_is_learned_with_one_seed_begins_apart(tmp_path):
  """An operator and what it is compared with would else begin with the same numbers."""
  first = {}
  for stage in ('operator', 'identify'):
    note = lambda step, params, stage=stage: first.setdefault(stage, float(params['slope'])) and {}
    run(tmp_path / stage, stage=stage, pauses={0: [note]}, settings=dataclasses.replace(SETTINGS, num_steps=1))
  assert first['operator'] != first['identify']


@pytest.mark.parametrize('name, changes', [
  ('seed', {'seed': 1}), ('data', {'made_with': {'data': 'other'}}),
  ('num_steps', {'settings': dataclasses.replace(SETTINGS, num_steps=101)}),
])
def test_a_folder_of_another_run_is_refused(whole, name, changes):
  with pytest.raises(IncompatibleError, match=f'was made with {name}='):
    run(whole[0], **changes)


def test_processes_must_divide_a_batch(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  with pytest.raises(IncompatibleError, match='batch_size=8 must be a multiple of the number of processes, 3'):
    run(tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_damaged_state_says_what_to_do(whole, tmp_path):
  folder = shutil.copytree(whole[0], tmp_path / 'copy')
  (folder / 'training_state_000000100.safetensors').write_bytes(b'torn')
  with pytest.raises(DamagedDataError, match='goes on from the state before'):
    run(folder)


def test_a_loss_that_is_no_number_ends_it(tmp_path):
  def broken(params, batch):
    return jnp.log(-1 - params['slope'] ** 2) + batch['x'].sum()

  with pytest.raises(NonFiniteLossError, match='no finite number in step 1; try a lower learning rate than 0.1'):
    fit(init, broken, Batches(), SETTINGS, seed=0, folder=tmp_path, made_with={})


@pytest.mark.parametrize('pause_at, num_steps, broken_from', [(None, 45, 43), (30, 100, 25), (None, 41, 40)])
def test_a_loss_that_ends_in_the_middle_of_a_line_is_noticed(tmp_path, pause_at, num_steps, broken_from):
  """Steps 41 to 45 make no line of the log; and what comes at a pause would get parameters that are no numbers. The
  last one: the loss of the last step is finite, and its gradient is not."""
  class Breaking(Batches):
    def __call__(self, first, last):
      for step, batch in zip(range(first, last), super().__call__(first, last)):
        yield {**batch, 'broken': np.full(8, step >= broken_from, np.float32)}

  def with_broken_gradient(params, batch):
    # sqrt is finite at 0, and its slope there is not.
    return loss(params, batch) + jnp.sqrt(jnp.maximum(0 * params['slope'], 0)) * batch['broken'].mean()

  def with_broken_loss(params, batch):
    return loss(params, batch) + jnp.log(-batch['broken'].mean())

  def guarded(params, batch):
    change = with_broken_gradient if num_steps == 41 else with_broken_loss
    return jax.lax.cond(batch['broken'].mean() > 0, lambda: change(params, batch), lambda: loss(params, batch))

  paused = []
  pauses = {pause_at: [lambda step, params: paused.append(step) or {}]} if pause_at else {}
  settings = dataclasses.replace(SETTINGS, num_steps=num_steps)
  with pytest.raises(NonFiniteLossError, match=f'no finite number in step {broken_from + 1};'):
    fit(init, guarded, Breaking(), settings, seed=0, folder=tmp_path, made_with={}, pauses=pauses)
  assert paused == [] and not list(tmp_path.glob('training_state_*'))


def test_tensorboard_has_a_file_a_start_and_no_step_twice(whole, tmp_path, monkeypatch):
  monkeypatch.setattr(module, '_SAVE_SECONDS', 0.0)
  for start, when in enumerate((50, 71, 99, None)):
    monkeypatch.setattr(os, 'getpid', lambda start=start: start)
    board = console.TensorBoard(tmp_path / 'tensorboard')
    with contextlib.suppress(Killed):
      run(tmp_path / 'state', log=board, progress=kill_at(when))
    board.close()
    assert len(list((tmp_path / 'tensorboard').iterdir())) == start + 1
  read = event_accumulator.EventAccumulator(str(tmp_path / 'tensorboard'))
  read.Reload()
  scalars = read.Scalars('train/loss')
  assert [scalar.step for scalar in scalars] == list(whole[2])
  np.testing.assert_allclose([s.value for s in scalars], [line['train/loss'] for line in whole[2].values()], rtol=1e-6)
