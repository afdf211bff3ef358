"""Trains an operator by maximum likelihood on histories, and on what its own iterates meet.

The loss is the divergence KL(θⁿ⁺ᵏ ‖ emitted policy) at states that θⁿ or θⁿ⁺ᵏ visited. Trained on histories alone an
operator drifts when applied to its own results, so in some rounds it is applied to the training tasks, each iterate is
matched to the checkpoint of nearest return on that task, and it learns to go on from there (the idea of DAgger: Ross et
al., arXiv:1011.0686).
"""

import dataclasses
import functools
import pathlib
import time
from typing import Any
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from metaimprove import files, policies
from metaimprove.examples import Example, Examples
from metaimprove.histories import storage
from metaimprove.histories.dataset import Dataset
from metaimprove.iteration import make_iterate
from metaimprove.operators import ask as asks
from metaimprove.operators.operator import Operator, experience_statistics
from metaimprove.tasks.family import TaskFamily

_SAVE_SECONDS = 15.0
_LOG_STEPS = 20


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
  update: Callable[[Any, Example], tuple[Any, chex.Array, chex.Array]]
  loss: Callable[[Any, Example], chex.Array]
  play: Callable[..., Any]

  def operator_params(self, state):
    return {'network': state['network'], 'statistics': self.statistics}


def _make_trainer(operator: Operator, family: TaskFamily, dataset: Dataset, settings: TrainingSettings) -> _Trainer:
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, settings.learning_rate, 1 + settings.num_steps // 20, 1 + settings.num_steps, settings.learning_rate / 50
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(settings.max_gradient_norm), optax.adamw(schedule, weight_decay=settings.weight_decay)
  )
  statistics = jax.tree.map(jnp.asarray, experience_statistics(dataset.histories.trajectory))

  def init(rng_key):
    network = operator.init(rng_key, statistics)['network']
    return {'network': network, 'optimizer': optimizer.init(network)}

  def loss(network, example):
    operator_params = {'network': network, 'statistics': statistics}
    return jax.vmap(functools.partial(divergence_loss, operator), in_axes=(None, 0))(operator_params, example).mean()

  def update(state, example):
    value, gradient = jax.value_and_grad(loss)(state['network'], example)
    changes, optimizer_state = optimizer.update(gradient, state['optimizer'], state['network'])
    network = optax.apply_updates(state['network'], changes)
    return {'network': network, 'optimizer': optimizer_state}, value, optax.global_norm(gradient)

  return _Trainer(
    operator=operator, dataset=dataset, settings=settings, statistics=statistics, schedule=schedule, init=init,
    examples=Examples(dataset, num_states=settings.num_states, num_validation=settings.num_validation),
    update=jax.jit(update), loss=jax.jit(loss),
    play=make_iterate(
      operator, family, num_applications=settings.round_applications, num_episodes=operator.config.num_episodes,
      chunk=min(64, settings.round_tasks),
    ),
  )


def _play_round(trainer: _Trainer, state, rng: np.random.Generator) -> dict[str, Any]:
  """Applies the operator to training tasks, from stored checkpoints and from fresh random policies."""
  settings, dataset = trainer.settings, trainer.dataset
  num, training = settings.round_tasks, trainer.examples.training
  history = rng.choice(training, size=num, replace=num > len(training))
  level = rng.integers(dataset.num_checkpoints, size=num)
  stored = jax.tree.map(lambda x: x[history, level], dataset.histories.params)
  fresh = _fresh_policies(trainer, rng, num)
  use_fresh = rng.random(num) < settings.round_fresh
  start = jax.tree.map(lambda x, y: jnp.where(use_fresh.reshape(-1, *[1] * (x.ndim - 1)), x, y), fresh, stored)
  tasks = jax.tree.map(lambda x: x[history], dataset.histories.task)
  key, ask = jax.random.key(rng.integers(2**31)), rng.choice(asks.TRAINED, size=num, p=asks.TRAINED_SHARES)
  curve = trainer.play(trainer.operator_params(state), tasks, start, key, ask)
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


def _add_round(trainer: _Trainer, state, rng, path: pathlib.Path) -> None:
  """Adds a round to the examples: the one that is stored, or a new one, which is stored."""
  if not path.exists():
    files.save_tree(path, _play_round(trainer, state, rng))
  histories = trainer.dataset.histories
  like = {'params': histories.params, 'trajectory': histories.trajectory, 'returns': None, 'history': None}
  like = {name: jax.tree.map(lambda x: None, tree) for name, tree in like.items()}
  trainer.examples.add_iterates(**files.load_tree(path, like))


def _held_out_figures(trainer: _Trainer, state) -> dict[str, float]:
  """Loss for each ask, and IQM of normalised returns after each application, on tasks kept out of training.

  For speed 0 and 1 are here a few episodes' returns: of the initial policy, and of the best checkpoint of the history.
  """
  examples, dataset, rng = trainer.examples, trainer.dataset, np.random.default_rng(0)
  scalars = {}
  for ask in asks.TRAINED:
    history = np.resize(examples.validation, trainer.settings.batch_size)
    held_out = examples.of_histories(rng, np.full(len(history), ask), history)
    scalars[f'held_out_loss/{asks.name(ask)}'] = float(trainer.loss(state['network'], held_out))
  tasks = jax.tree.map(lambda x: x[examples.validation], dataset.histories.task)
  start = _fresh_policies(trainer, rng, len(examples.validation))
  curve = trainer.play(trainer.operator_params(state), tasks, start, jax.random.key(0), asks.BEST)
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
    IncompatibleError: if the folder was begun with other settings.
  """
  folder = pathlib.Path(folder)
  trainer = _make_trainer(operator, family, dataset, settings)
  storage.claim(folder, {
    'seed': seed, 'histories': dataset.header, 'operator': dataclasses.asdict(operator.config),
    'training': dataclasses.asdict(settings),
  })
  state_path = folder / 'training_state.safetensors'
  if state_path.exists():
    like = {'state': jax.eval_shape(trainer.init, jax.random.key(0)), 'step': None}
    saved = files.load_tree(state_path, like)
    state, first = saved['state'], int(saved['step'])
  else:
    state, first = trainer.init(jax.random.key(seed)), 0
  round_steps = [int(share * settings.num_steps) for share in settings.rounds]
  evaluation_steps = set(np.linspace(0, settings.num_steps, settings.num_evaluations + 1).astype(int)[1:])
  last_save = last_log = time.perf_counter()
  held_out = float('nan')
  for step in range(first, settings.num_steps + 1):
    for index, at in enumerate(round_steps):
      if at == step or at < step == first:
        _add_round(trainer, state, np.random.default_rng([seed, 1, index]), folder / f'iterates_{index}.safetensors')
    if step in evaluation_steps:
      figures = _held_out_figures(trainer, state)
      held_out = figures[f'held_out_normalised_return/{settings.round_applications}']
      log(step, figures)
    if step > first and (time.perf_counter() - last_save > _SAVE_SECONDS or step == settings.num_steps):
      before_save()
      files.save_tree(state_path, {'state': state, 'step': np.asarray(step)})
      last_save = time.perf_counter()
    if step == settings.num_steps:
      break
    example = trainer.examples.batch(np.random.default_rng([seed, 0, step]), settings.batch_size)
    state, value, gradient_norm = trainer.update(state, example)
    if (step + 1) % _LOG_STEPS == 0:
      now = time.perf_counter()
      log(step + 1, {
        'train/loss': float(value), 'train/gradient_norm': float(gradient_norm),
        'train/learning_rate': float(trainer.schedule(step)),
        'train/examples_per_second': _LOG_STEPS * settings.batch_size / (now - last_log),
      })
      last_log = now
    progress(step + 1, {'loss': float(value), 'held-out return': held_out})
  return trainer.operator_params(state)
