"""Supervised learning that can be stopped at any moment and goes on where it was.

It knows nothing of operators: what is learned is a loss of parameters and a batch. Nothing here waits for the device
but at the moments when a state is saved or the work pauses, so that an accelerator always has its next step at hand.
"""

import collections
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import chex
import jax
import numpy as np
import optax

from metaimprove import files, parallel
from metaimprove.compiling import jit_once
from metaimprove.errors import DamagedDataError, IncompatibleError, NonFiniteLossError
from metaimprove.rng import stream
from metaimprove.types import Params, Progress, silent

_SAVE_SECONDS = 15.0
_LOG_STEPS = 20
_STEPS_IN_FLIGHT = 2
"""Steps that are handed to the device before the first of them is done: enough that it never waits."""
_STATES_KEPT = 2


@dataclasses.dataclass(frozen=True)
class FitSettings:
  """How parameters are learned.

  Attributes:
    num_steps: gradient steps.
    batch_size: examples a step, of all processes together.
    learning_rate: peak of a cosine schedule with 5% warm-up.
    weight_decay: of AdamW.
    max_gradient_norm: gradients are clipped to it.
  """

  num_steps: int = 4000
  batch_size: int = 64
  learning_rate: float = 2e-3
  weight_decay: float = 1e-4
  max_gradient_norm: float = 1.0


class Init(Protocol):
  """The first parameters; traced by `jax.jit`."""

  def __call__(self, rng_key: chex.PRNGKey, /) -> Params: ...


class Loss(Protocol):
  """The mean loss [] of a batch, leaves [B, ...]; traced by `jax.jit`."""

  def __call__(self, params: Params, batch: Any, /) -> chex.Array: ...


class Batches(Protocol):
  """The batches of the steps `first` to `last` - 1 as numpy trees: of each the share of this process, leaves
  [batch_size / processes, ...]. What a step gets must follow from the step alone."""

  def __call__(self, first: int, last: int, /) -> Iterator[Any]: ...


class Pause(Protocol):
  """Work before a step with the parameters so far (numpy); returns figures for the log. Batches are asked for anew
  after it, so that it may add to what they are made of."""

  def __call__(self, step: int, params: Params, /) -> Mapping[str, float]: ...


class Log(Protocol):
  """Keeps figures of a step. It is called in the order of steps, and before a state is saved it has been given all
  figures of the steps before."""

  def __call__(self, step: int, figures: Mapping[str, float], /) -> None: ...


def no_log(step: int, figures: Mapping[str, float], /) -> None:
  """The `Log` that keeps nothing."""


def learning_rate_schedule(settings: FitSettings) -> optax.Schedule:
  """The learning rate of each step."""
  num = settings.num_steps
  return optax.warmup_cosine_decay_schedule(
    0.0, settings.learning_rate, 1 + num // 20, 1 + num, settings.learning_rate / 50
  )


def fit(
  init: Init, loss: Loss, batches: Batches, settings: FitSettings, *, seed: int, folder: files.Path,
  made_with: Mapping[str, Any], pauses: Mapping[int, Sequence[Pause]] | None = None, stage: str = 'train',
  log: Log = no_log, progress: Progress = silent,
) -> Params:
  """Learns parameters; a call that was stopped goes on where it was, and ends with the same parameters.

  Each batch is spread over all devices, and over all processes where JAX is distributed: each reads its share, and all
  end with the same parameters. They share `folder`; the first one writes.

  Args:
    init: gives the first parameters.
    loss: of parameters and a batch.
    batches: what is learned from.
    settings: how; see there.
    seed: of the first parameters, with the stage's name.
    folder: for the states to go on from.
    made_with: plain data that determines the result besides seed and settings, such as a dataset's checksum.
    pauses: step -> what to do before it. `num_steps` is the end.
    stage: for `progress`.
    log: where figures go.
    progress: told of every step.

  Returns:
    The parameters as numpy arrays.

  Raises:
    IncompatibleError: if the folder was begun with another seed, other settings or data; if processes do not divide a
      batch.
    DamagedDataError: if a stored state can not be read.
    NonFiniteLossError: if the loss or its gradient is infinite or undefined; nothing that it led to is stored.
  """
  folder, pauses, num_steps = pathlib.Path(folder), pauses or {}, settings.num_steps
  if settings.batch_size % jax.process_count():
    raise IncompatibleError(
      f'batch_size={settings.batch_size} must be a multiple of the number of processes, {jax.process_count()}.'
    )
  files.remove_leftovers(folder)
  files.claim(folder, {'seed': seed, **dataclasses.asdict(settings), **made_with})
  devices = parallel.devices_for_batch(settings.batch_size)
  first_state, update = _compile(init, loss, settings, devices)
  state, first = _load_state(folder, first_state, devices)
  if first == num_steps:
    return jax.device_get(state['params'])
  resumed = state is not None
  state = state if resumed else first_state(stream(seed, f'first parameters: {stage}'))
  losses = _Losses(settings, log, first)
  last_save, upcoming = time.perf_counter(), None
  for step in range(first, num_steps + 1):
    if step in pauses and not (resumed and step == first):  # a state is saved after the pause of its step
      losses.write_all()
      _pause(pauses[step], step, jax.device_get(state['params']), log)
      losses.restart_clock(step)
      upcoming = None
    # Only where a line of the log ends: a resumed run writes the same lines.
    may_save = step > first and step % _LOG_STEPS == 0 and time.perf_counter() - last_save > _SAVE_SECONDS
    if may_save or step == num_steps:
      losses.write_all()
      _save_state(folder, state, step, kept=1 if step == num_steps else _STATES_KEPT)
      last_save = time.perf_counter()
    if step == num_steps:
      break
    if upcoming is None:
      last = min((at for at in pauses if at > step), default=num_steps)
      upcoming = _on_devices(batches(step, min(last, num_steps)), devices)
    state, figures = update(state, next(upcoming))
    losses.add(step, figures)
    progress(stage, step + 1, num_steps, losses.shown)
  return jax.device_get(state['params'])


def _pause(pauses, step, params, log):
  for pause in pauses:
    if figures := pause(step, params):
      log(step, figures)


def _compile(init, loss, settings, devices):
  """The jitted functions (rng_key) -> state and (state, batch) -> (state, figures)."""
  optimizer = optax.chain(
    optax.clip_by_global_norm(settings.max_gradient_norm),
    optax.adamw(learning_rate_schedule(settings), weight_decay=settings.weight_decay),
  )

  def first_state(rng_key):
    params = init(rng_key)
    return {'params': params, 'optimizer': optimizer.init(params)}

  def update(state, batch):
    value, gradient = jax.value_and_grad(loss)(state['params'], batch)
    changes, optimizer_state = optimizer.update(gradient, state['optimizer'], state['params'])
    figures = {'loss': value, 'gradient_norm': optax.global_norm(gradient)}
    return {'params': optax.apply_updates(state['params'], changes), 'optimizer': optimizer_state}, figures

  everywhere = parallel.replicated_sharding(devices)
  return jit_once(first_state, out_shardings=everywhere), jax.jit(update, out_shardings=everywhere)


class _Losses:
  """Figures of the latest steps, fetched from the device a few steps late, and written as means of 20 steps."""

  def __init__(self, settings: FitSettings, log: Log, first: int):
    self._settings, self._log = settings, log
    self._schedule = learning_rate_schedule(settings)
    self._steps: collections.deque[tuple[int, Any]] = collections.deque()
    self.shown: dict[str, float] = {}
    self.restart_clock(first)

  def add(self, step: int, figures: Any) -> None:
    """Takes the figures of a step, still on their way, and waits for those of a few steps before."""
    self._steps.append((step, figures))
    if len(self._steps) > _STEPS_IN_FLIGHT:
      late, done = self._steps[-1 - _STEPS_IN_FLIGHT]
      jax.block_until_ready(done)
      if (late + 1) % _LOG_STEPS == 0:
        self._write(late)

  def write_all(self) -> None:
    """Writes the lines that are complete, and checks the steps of the one that is not."""
    ends = [step for step, _ in self._steps if (step + 1) % _LOG_STEPS == 0]
    for end in ends:
      self._write(end)
    self._check([step for step, _ in self._steps], jax.device_get([figures for _, figures in self._steps]))

  def restart_clock(self, step: int) -> None:
    """Leaves the time before `step` out of the speed."""
    self._began, self._first = time.perf_counter(), step

  def _check(self, steps, line):
    """Raises `NonFiniteLossError` for the first step whose figures are not finite."""
    for step, figures in zip(steps, line, strict=True):
      if not all(np.isfinite(value) for value in figures.values()):
        raise NonFiniteLossError(
          f'The loss or its gradient is no finite number in step {step + 1}; try a lower learning rate than '
          f'{self._settings.learning_rate} in another folder.'
        )

  def _write(self, end):
    """The line of the steps up to `end`."""
    steps, line = [], []
    while self._steps and self._steps[0][0] <= end:
      step, figures = self._steps.popleft()
      steps.append(step)
      line.append(figures)
    line = jax.device_get(line)
    self._check(steps, line)
    means = jax.tree.map(lambda *values: float(np.mean(values)), *line)
    seconds = time.perf_counter() - self._began
    self._log(end + 1, {
      'train/loss': means['loss'], 'train/gradient_norm': means['gradient_norm'],
      'train/learning_rate': float(self._schedule(end)),
      'train/examples_per_second': (end + 1 - self._first) * self._settings.batch_size / seconds,
    })
    self.restart_clock(end + 1)
    self.shown = {'loss': means['loss']}


def _on_devices(batches: Iterator[Any], devices: list[Any]) -> Iterator[Any]:
  """Batches on the devices, the next one on its way while one is learned from."""
  ahead = None
  for batch in batches:
    batch = parallel.spread_batch(batch, devices)
    if ahead is not None:
      yield ahead
    ahead = batch
  if ahead is not None:
    yield ahead


def _state_paths(folder: pathlib.Path) -> list[pathlib.Path]:
  """The states that are kept, the newest first."""
  return sorted(folder.glob('training_state_*.safetensors'), reverse=True)


def _save_state(folder: pathlib.Path, state: Any, step: int, kept: int) -> None:
  """Saves the newest state and deletes all but the `kept` newest; the first process does."""
  if jax.process_index() == 0:
    files.save_tree(folder / f'training_state_{step:09d}.safetensors', {'state': state, 'step': np.asarray(step)})
    for path in _state_paths(folder)[kept:]:
      path.unlink()


def _load_state(folder: pathlib.Path, first_state: Any, devices: list[Any]) -> tuple[Any, int]:
  """The newest state and its step; (None, 0) if there is none."""
  paths = _state_paths(folder)
  if not paths:
    return None, 0
  like = {'state': jax.eval_shape(first_state, jax.random.key(0)), 'step': None}
  try:
    saved = files.load_tree(paths[0], like)
  except DamagedDataError as error:
    raise DamagedDataError(f'{error} Without it, training goes on from the state before.') from None
  return jax.device_put(saved['state'], parallel.replicated_sharding(devices)), int(saved['step'])
