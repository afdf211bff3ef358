"""Trains an operator by maximum likelihood on histories, and on what its own iterates meet.

The loss is the divergence KL(θⁿ⁺ᵏ ‖ emitted policy) at states that θⁿ or θⁿ⁺ᵏ visited. Trained on histories alone an
operator drifts when applied to its own results, so in some rounds it is applied to the training tasks, each iterate is
matched to the checkpoint of nearest return on that task, and it learns to go on from there (the idea of DAgger: Ross et
al., arXiv:1011.0686).
"""

import dataclasses
import functools
import json
import pathlib
import time
from typing import Any
from collections.abc import Callable, Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from metaimprove import files, parallel, policies
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.training.examples import Drawn, Example, Examples, assemble
from metaimprove.histories.dataset import Dataset
from metaimprove.histories.storage import history_structure
from metaimprove.iteration import make_iterate
from metaimprove.asks import steps as asks
from metaimprove.operators.operator import Operator, experience_statistics
from metaimprove.tasks.family import TaskFamily

_SAVE_SECONDS = 15.0
_LOG_STEPS = 20
_STATES_KEPT = 3
_STATISTICS_POLICIES = 2048
_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
  """How an operator is trained.

  Attributes:
    num_steps: gradient steps.
    batch_size: examples a step; half of them from its own iterates once there are any.
    learning_rate: peak of a cosine schedule with 5% warm-up.
    weight_decay: of AdamW.
    max_gradient_norm: gradients are clipped to it.
    num_states: states an example's divergence is taken at; half visited by each of the two policies.
    rounds: after which shares of the steps the operator is applied to the training tasks. The first time, untrained, it
      emits random policies: bad ones of many kinds, to learn to improve.
    round_applications: how often in a row.
    round_tasks: tasks of a round.
    round_fresh: share of them that begin with a fresh random policy, as tests do, instead of a stored checkpoint.
    num_validation: training tasks kept out of training for the held-out figures in TensorBoard.
    num_evaluations: how often these are taken.
  """

  num_steps: int = 4000
  batch_size: int = 64
  learning_rate: float = 1e-3
  weight_decay: float = 1e-4
  max_gradient_norm: float = 1.0
  num_states: int = 32
  rounds: tuple[float, ...] = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8)
  round_applications: int = 4
  round_tasks: int = 512
  round_fresh: float = 0.75
  num_validation: int = 64
  num_evaluations: int = 8


def divergence_loss(operator: Operator, operator_params: Any, example: Example) -> chex.Array:
  """[] mean KL(target ‖ emitted) at the example's states. k = 0 is learned as imitation, of the behaviour alone."""
  policy = operator.policy
  behaviour = policy.apply(example.params, example.trajectory.observation)
  emitted = operator.improve_behaviour(operator_params, behaviour, example.trajectory, example.ask)
  value = policies.divergence(
    policy.distribution, policy.apply(example.target_params, example.states), policy.apply(emitted, example.states)
  )
  return jnp.sum(value * example.weight) / jnp.maximum(jnp.sum(example.weight), 1)


@dataclasses.dataclass(frozen=True)
class _Trainer:
  """The compiled functions of a training and what they work on."""

  operator: Operator
  dataset: Dataset
  settings: TrainingSettings
  examples: Examples
  statistics: Any
  schedule: Callable[[int], float]
  init: Callable[[chex.PRNGKey], Any]
  update: Callable[[Any, Drawn], tuple[Any, chex.Array, chex.Array]]
  loss: Callable[[Any, Drawn], chex.Array]
  play: Callable[..., Any]
  devices: list[Any]

  def operator_params(self, network):
    return {'network': network, 'statistics': self.statistics}


def _make_trainer(
  operator: Operator, family: TaskFamily, dataset: Dataset, settings: TrainingSettings, seed: int
) -> _Trainer:
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, settings.learning_rate, 1 + settings.num_steps // 20, 1 + settings.num_steps, settings.learning_rate / 50
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(settings.max_gradient_norm), optax.adamw(schedule, weight_decay=settings.weight_decay)
  )
  examples = Examples(dataset, num_validation=settings.num_validation, seed=seed)
  statistics = jax.tree.map(jnp.asarray, experience_statistics(_some_experience(dataset, seed)))

  def init(rng_key):
    network = operator.init(rng_key, statistics)['network']
    return {'network': network, 'optimizer': optimizer.init(network)}

  def loss(network, drawn):
    operator_params = {'network': network, 'statistics': statistics}
    example = jax.vmap(functools.partial(assemble, num_states=settings.num_states))(drawn)
    return jax.vmap(functools.partial(divergence_loss, operator), in_axes=(None, 0))(operator_params, example).mean()

  def update(state, drawn):
    value, gradient = jax.value_and_grad(loss)(state['network'], drawn)
    changes, optimizer_state = optimizer.update(gradient, state['optimizer'], state['network'])
    network = optax.apply_updates(state['network'], changes)
    return {'network': network, 'optimizer': optimizer_state}, value, optax.global_norm(gradient)

  devices = parallel.devices_for_batch(settings.batch_size)
  everywhere = parallel.replicated_sharding(devices)
  return _Trainer(
    operator=operator, dataset=dataset, settings=settings, statistics=statistics, schedule=schedule,
    init=jax.jit(init, out_shardings=everywhere), examples=examples, loss=jax.jit(loss),
    update=jax.jit(update, out_shardings=everywhere), devices=devices,
    play=make_iterate(
      operator, family, num_applications=settings.round_applications, num_episodes=operator.config.num_episodes,
      chunk=min(64, settings.round_tasks),
    ),
  )


def _some_experience(dataset: Dataset, seed: int):
  """Experience of at most 2,048 of the policies, which is enough for its means and deviations."""
  every = dataset.num_histories * dataset.num_checkpoints
  chosen = np.arange(every)
  if every > _STATISTICS_POLICIES:
    chosen = np.random.default_rng([seed, 2]).choice(every, size=_STATISTICS_POLICIES, replace=False)
  return dataset.read(*divmod(chosen, dataset.num_checkpoints))[1]


def _play_round(trainer: _Trainer, network, rng: np.random.Generator) -> dict[str, Any]:
  """Applies the operator to training tasks, from stored checkpoints and from fresh random policies."""
  settings, dataset = trainer.settings, trainer.dataset
  num, training = settings.round_tasks, trainer.examples.training
  several = len(np.unique(dataset.source[training])) > 1
  # Each source as often as any other, however many histories it has.
  chance = 1.0 / np.bincount(dataset.source[training])[dataset.source[training]] if several else None
  history = rng.choice(
    training, size=num, replace=several or num > len(training), p=None if chance is None else chance / chance.sum()
  )
  level = rng.integers(dataset.num_checkpoints, size=num)
  stored = dataset.read_params(history, level)
  fresh = _fresh_policies(trainer, rng, num)
  use_fresh = rng.random(num) < settings.round_fresh
  start = jax.tree.map(lambda x, y: jnp.where(use_fresh.reshape(-1, *[1] * (x.ndim - 1)), x, y), fresh, stored)
  tasks = dataset.read_tasks(history)
  key, ask = jax.random.key(rng.integers(2**31)), rng.choice(asks.TRAINED, size=num, p=asks.TRAINED_SHARES)
  curve = trainer.play(trainer.operator_params(network), tasks, start, key, ask)
  finite = np.flatnonzero(curve.finite.reshape(-1))
  params, trajectory, returns = jax.tree.map(
    lambda x: x.reshape(-1, *x.shape[2:])[finite], (curve.params, curve.trajectory, curve.returns)
  )
  return {
    'params': params, 'trajectory': trajectory, 'returns': returns,
    'history': np.tile(history, settings.round_applications + 1)[finite],
  }


def _fresh_policies(trainer, rng, num):
  return jax.vmap(trainer.dataset.policy.init)(jax.random.split(jax.random.key(rng.integers(2**31)), num))


def _add_round(trainer: _Trainer, network, rng, path: pathlib.Path) -> None:
  """Adds a round to the examples: the one that is stored, or a new one, which is stored.

  Of several processes the first one plays, and the others read what it wrote: all learn from the same.
  """
  if not path.exists() and jax.process_index() == 0:
    files.save_tree(path, _play_round(trainer, network, rng))
  while not path.exists():
    time.sleep(_POLL_SECONDS)
  like = history_structure(trainer.dataset.header)
  like = {'params': like.params, 'trajectory': like.trajectory, 'returns': None, 'history': None}
  trainer.examples.add_iterates(**files.load_tree(path, like))


def _held_out_figures(trainer: _Trainer, network) -> dict[str, float]:
  """Loss for each ask, and IQM of normalised returns after each application, on tasks kept out of training.

  For speed 0 and 1 are here a few episodes' returns: of the initial policy, and of the best checkpoint of the history.
  """
  examples, dataset, rng = trainer.examples, trainer.dataset, np.random.default_rng(0)
  scalars = {}
  for ask in asks.TRAINED:
    history = np.resize(examples.validation, trainer.settings.batch_size)
    held_out = examples.of_histories(rng, np.full(len(history), ask), history)
    scalars[f'held_out_loss/{asks.name(ask)}'] = float(trainer.loss(network, held_out))
  tasks = dataset.read_tasks(examples.validation)
  start = _fresh_policies(trainer, rng, len(examples.validation))
  curve = trainer.play(trainer.operator_params(network), tasks, start, jax.random.key(0), asks.BEST)
  reference = dataset.returns[examples.validation].max(axis=1)
  normalised = (curve.returns - curve.returns[0]) / (reference - curve.returns[0])
  for application, values in enumerate(normalised[1:], start=1):
    scalars[f'held_out_normalised_return/{application}'] = float(stats.trim_mean(values, 0.25))
  return scalars


def train(
  operator: Operator, family: TaskFamily, dataset: Dataset, settings: TrainingSettings, *, seed: int,
  folder: files.Path, log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
  progress: Callable[[int, dict[str, float]], None] = lambda done, figures: None,
  before_save: Callable[[], None] = lambda: None,
) -> Any:
  """Trains an operator; a call that was stopped goes on where it was.

  Each step's batch is spread over all devices, and over all processes where JAX is distributed: each reads its share,
  and all end with the same operator. They share `folder`; the first one writes.

  Args:
    operator: see `make_operator`.
    family: the task family, to play on.
    dataset: the histories.
    settings: see there.
    seed: the same seed gives the same operator.
    folder: for the training state and the operator's own iterates.
    log: (step, scalars) for TensorBoard.
    progress: (steps done, figures to show).
    before_save: called before the state is saved: a place to write out what was logged, which is not logged again.

  Returns:
    operator_params.

  Raises:
    IncompatibleError: if the folder was begun with other settings, or the processes do not divide half a batch.
  """
  folder = pathlib.Path(folder)
  if settings.batch_size % (2 * jax.process_count()):
    raise IncompatibleError(
      f'batch_size={settings.batch_size} must be a multiple of {2 * jax.process_count()}, twice the number of '
      'processes.'
    )
  files.remove_leftovers(folder)
  files.claim(folder, {
    'seed': seed, 'histories': files.checksum(json.dumps(dataset.header, sort_keys=True).encode()),
    'operator': dataclasses.asdict(operator.config),
    'training': dataclasses.asdict(settings),
  })
  trainer = _make_trainer(operator, family, dataset, settings, seed)
  state, first = _load_state(trainer, folder)
  if state is None:
    state, first = trainer.init(jax.random.key(seed)), 0
  share = jax.process_index(), jax.process_count()
  round_steps = [int(at * settings.num_steps) for at in settings.rounds]
  evaluation_steps = set(np.linspace(0, settings.num_steps, settings.num_evaluations + 1).astype(int)[1:])
  last_save = last_log = time.perf_counter()
  held_out, stream = float('nan'), None
  for step in range(first, settings.num_steps + 1):
    for index, at in enumerate(round_steps):
      if at == step or at < step == first:
        rng = np.random.default_rng([seed, 1, index])
        _add_round(trainer, jax.device_get(state['network']), rng, folder / f'iterates_{index}.safetensors')
        stream = None
    if step in evaluation_steps:
      figures = _held_out_figures(trainer, jax.device_get(state['network']))
      held_out = figures[f'held_out_normalised_return/{settings.round_applications}']
      log(step, figures)
    if step > first and (time.perf_counter() - last_save > _SAVE_SECONDS or step == settings.num_steps):
      before_save()
      _save_state(folder, state, step)
      last_save = time.perf_counter()
    if step == settings.num_steps:
      break
    if stream is None:  # until the next round, whose iterates are examples too
      stop = min((at for at in round_steps if at > step), default=settings.num_steps)
      stream = _on_devices(trainer.examples.stream(step, stop, settings.batch_size, share), trainer.devices)
    state, value, gradient_norm = trainer.update(state, next(stream))
    if (step + 1) % _LOG_STEPS == 0:
      now = time.perf_counter()
      log(step + 1, {
        'train/loss': float(value), 'train/gradient_norm': float(gradient_norm),
        'train/learning_rate': float(trainer.schedule(step)),
        'train/examples_per_second': _LOG_STEPS * settings.batch_size / (now - last_log),
      })
      last_log = now
    progress(step + 1, {'loss': float(value), 'held-out return': held_out})
  return trainer.operator_params(jax.device_get(state['network']))


def _on_devices(batches: Iterator[Drawn], devices: list[Any]) -> Iterator[Drawn]:
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


def _save_state(folder: pathlib.Path, state, step: int) -> None:
  """Saves the newest state and deletes what is older than the last few; the first process does."""
  if jax.process_index() == 0:
    files.save_tree(folder / f'training_state_{step:09d}.safetensors', {'state': state, 'step': np.asarray(step)})
    for path in _state_paths(folder)[_STATES_KEPT:]:
      path.unlink()


def _load_state(trainer: _Trainer, folder: pathlib.Path) -> tuple[Any, int]:
  """The newest state and its step; (None, 0) if there is none."""
  paths = _state_paths(folder)
  if not paths:
    return None, 0
  like = {'state': jax.eval_shape(trainer.init, jax.random.key(0)), 'step': None}
  try:
    saved = files.load_tree(paths[0], like)
  except DamagedDataError as error:
    raise DamagedDataError(f'{error} Without it, training goes on from the state before.') from None
  return jax.device_put(saved['state'], parallel.replicated_sharding(trainer.devices)), int(saved['step'])
