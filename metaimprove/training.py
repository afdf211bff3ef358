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
from typing import Any, Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaimprove import files, policies
from metaimprove.histories import storage
from metaimprove.histories.dataset import Dataset
from metaimprove.iteration import make_iterate
from metaimprove.operators import ask as asks
from metaimprove.operators.operator import Operator, experience_statistics
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Trajectory

_SAVE_SECONDS = 15.0


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
    rounds: after which shares of the steps the operator is applied to the training tasks.
    round_applications: how often in a row.
    round_tasks: tasks of a round.
    num_validation: training tasks kept out of training for the held-out figures in TensorBoard.
    num_evaluations: how often these are taken.
  """

  num_steps: int = 4000
  batch_size: int = 64
  learning_rate: float = 1e-3
  weight_decay: float = 1e-4
  max_gradient_norm: float = 1.0
  num_states: int = 32
  rounds: tuple[float, ...] = (0.25, 0.4, 0.55, 0.7, 0.85)
  round_applications: int = 4
  round_tasks: int = 256
  num_validation: int = 64
  num_evaluations: int = 10


@chex.dataclass(frozen=True)
class Contexts:
  """What an operator may be shown: [R] policies with their experience, and where they stand in a history.

  Attributes:
    params: [R, ...] θ.
    trajectory: [R, E, T, ...] its experience.
    history: [R] int, which history of the dataset its task belongs to.
    level: [R] int, the checkpoint of that history it is, or is nearest to in return.
  """

  params: Params
  trajectory: Trajectory
  history: chex.Array
  level: chex.Array


@chex.dataclass(frozen=True)
class Example:
  """What the loss is taken of; shapes of one example.

  Attributes:
    params: θⁿ.
    trajectory: its experience τⁿ, [E, T, ...].
    ask: [] int.
    target_params: θⁿ⁺ᵏ.
    states: [S, O] where the divergence is taken.
    weight: [S] 1 for a state that was visited, 0 for padding.
  """

  params: Params
  trajectory: Trajectory
  ask: chex.Array
  target_params: Params
  states: chex.Array
  weight: chex.Array


def target_level(level: np.ndarray, ask: np.ndarray, best: np.ndarray, num_checkpoints: int) -> np.ndarray:
  """The checkpoint that is asked for: `ask` further on than `level`, at most the last; the best one for BEST."""
  return np.where(ask == asks.BEST, best, np.minimum(level + np.maximum(ask, 0), num_checkpoints - 1))


def divergence_loss(operator: Operator, operator_params: Any, example: Example) -> chex.Array:
  """[] mean KL(target ‖ emitted) at the example's states."""
  policy = operator.policy
  emitted = operator.improve(operator_params, example.params, example.trajectory, example.ask)
  value = policies.divergence(
    policy.distribution, policy.apply(example.target_params, example.states), policy.apply(emitted, example.states)
  )
  return jnp.sum(value * example.weight) / jnp.maximum(jnp.sum(example.weight), 1)


def _visited_states(trajectory: Trajectory, num: int, rng_key) -> tuple[chex.Array, chex.Array]:
  """`num` random observations [num, O] of a trajectory and whether each was really visited [num]."""
  observation = trajectory.observation.reshape(-1, trajectory.observation.shape[-1])
  index = jax.random.randint(rng_key, (num,), 0, observation.shape[0])
  return observation[index], trajectory.valid.reshape(-1)[index].astype(jnp.float32)


def _assemble(dataset_arrays, context, ask, target, rng_key, num_states) -> Example:
  """One example of a context; `target` is the checkpoint of the context's history to aim at."""
  aim = jax.tree.map(lambda x: x[context.history, target], dataset_arrays)
  # k = 0 asks for the very policy that acted, which for an iterate is no checkpoint.
  target_params = jax.tree.map(lambda same, other: jnp.where(ask == 0, same, other), context.params, aim['params'])
  keys = jax.random.split(rng_key)
  halves = [_visited_states(t, num_states // 2, k) for t, k in zip((context.trajectory, aim['trajectory']), keys)]
  states, weight = (jnp.concatenate(parts) for parts in zip(*halves))
  return Example(
    params=context.params, trajectory=context.trajectory, ask=ask, target_params=target_params, states=states,
    weight=weight,
  )


class _Examples:
  """Draws batches; which ones follows from the seed and the step alone, so a resumed run sees the same."""

  def __init__(self, dataset: Dataset, settings: TrainingSettings, seed: int):
    self._settings, self._seed = settings, seed
    self._arrays = {'params': dataset.histories.params, 'trajectory': dataset.histories.trajectory}
    self._num_checkpoints = dataset.num_checkpoints
    self._returns = dataset.returns
    self.best = dataset.returns.argmax(axis=1)
    validation = dataset.task_index >= dataset.task_index.max() + 1 - settings.num_validation
    self.validation = np.flatnonzero(validation)
    sources = [np.flatnonzero((dataset.source == s) & ~validation) for s in range(len(dataset.source_names))]
    self._sources = [rows for rows in sources if len(rows)]
    self.training = np.concatenate(self._sources)
    self._pool: list[Contexts] = []

    @jax.jit
    def from_histories(arrays, history, level, ask, target, keys):
      params, trajectory = jax.tree.map(lambda x: x[history, level], (arrays['params'], arrays['trajectory']))
      context = Contexts(params=params, trajectory=trajectory, history=history, level=level)
      return jax.vmap(functools.partial(_assemble, num_states=settings.num_states), in_axes=(None, 0, 0, 0, 0))(
        arrays, context, ask, target, keys
      )

    @jax.jit
    def from_contexts(arrays, pool, rows, ask, target, keys):
      context = jax.tree.map(lambda x: x[rows], pool)
      return jax.vmap(functools.partial(_assemble, num_states=settings.num_states), in_axes=(None, 0, 0, 0, 0))(
        arrays, context, ask, target, keys
      )

    self._from_histories, self._from_contexts = from_histories, from_contexts

  def add_round(self, contexts: Contexts) -> None:
    self._pool.append(contexts)

  def histories(self, rng: np.random.Generator, num: int, ask: np.ndarray, rows: np.ndarray | None = None) -> Example:
    """[num] examples of stored checkpoints, each source equally often."""
    if rows is None:
      which = rng.integers(len(self._sources), size=num)
      rows = np.array([rng.choice(self._sources[s]) for s in which])
    level = rng.integers(self._num_checkpoints, size=num)
    target = target_level(level, ask, self.best[rows], self._num_checkpoints)
    keys = jax.random.split(jax.random.key(rng.integers(2**31)), num)
    return self._from_histories(self._arrays, rows, level, ask, target, keys)

  def iterates(self, rng: np.random.Generator, num: int, ask: np.ndarray) -> Example:
    """[num] examples of the operator's own iterates, of one round."""
    pool = self._pool[rng.integers(len(self._pool))]
    rows = rng.integers(len(pool.level), size=num)
    history = np.asarray(pool.history)[rows]
    target = target_level(np.asarray(pool.level)[rows], ask, self.best[history], self._num_checkpoints)
    keys = jax.random.split(jax.random.key(rng.integers(2**31)), num)
    return self._from_contexts(self._arrays, pool, rows, ask, target, keys)

  def batch(self, step: int) -> Example:
    rng = np.random.default_rng([self._seed, step])
    half = self._settings.batch_size // 2
    ask = rng.choice(asks.TRAINED, size=(2, half))
    first = self.histories(rng, half, ask[0])
    second = self.iterates(rng, half, ask[1]) if self._pool else self.histories(rng, half, ask[1])
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first, second)

  def level_of(self, history: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The checkpoint of nearest return of each history; `value` and the result are [R]."""
    return np.abs(self._returns[history] - value[:, None]).argmin(axis=1)


def _play_round(play, examples: _Examples, dataset: Dataset, operator_params, settings, rng_key, seed) -> Contexts:
  """Applies the operator to training tasks, from stored checkpoints and from fresh random policies, with random asks."""
  rng = np.random.default_rng(seed)
  num = settings.round_tasks
  history = rng.choice(examples.training, size=num, replace=num > len(examples.training))
  key_fresh, key_run = jax.random.split(rng_key)
  stored = jax.tree.map(lambda x: x[history, rng.integers(dataset.num_checkpoints, size=num)], dataset.histories.params)
  fresh = jax.vmap(dataset.policy.init)(jax.random.split(key_fresh, num))
  take_fresh = rng.random(num) < 0.5
  start = jax.tree.map(
    lambda x, y: jnp.where(take_fresh.reshape(-1, *[1] * (x.ndim - 1)), x, y), fresh, stored
  )
  tasks = jax.tree.map(lambda x: x[history], dataset.histories.task)
  curve = play(operator_params, tasks, start, key_run, rng.choice(asks.TRAINED, size=num))
  rows = np.flatnonzero(np.asarray(curve.finite).reshape(-1))
  flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[rows], (curve.params, curve.trajectory, curve.returns))
  histories = np.tile(history, settings.round_applications + 1)[rows]
  return Contexts(
    params=flat[0], trajectory=flat[1], history=histories, level=examples.level_of(histories, np.asarray(flat[2]))
  )


def train(
  operator: Operator, family: TaskFamily, dataset: Dataset, settings: TrainingSettings, *, seed: int,
  folder: files.Path, log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
  progress: Callable[[int, dict[str, float]], None] = lambda done, figures: None,
) -> tuple[Any, float]:
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

  Returns:
    operator_params, and the seconds spent on all calls together.
  """
  folder = pathlib.Path(folder)
  storage.claim(folder, {
    'seed': seed, 'histories': dataset.header, 'operator': dataclasses.asdict(operator.config),
    'training': dataclasses.asdict(settings),
  })
  key_init, key_rounds, key_evaluate = jax.random.split(jax.random.key(seed), 3)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, settings.learning_rate, max(1, settings.num_steps // 20), settings.num_steps, settings.learning_rate / 50
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(settings.max_gradient_norm), optax.adamw(schedule, weight_decay=settings.weight_decay)
  )
  examples = _Examples(dataset, settings, seed)
  operator_params = operator.init(key_init, experience_statistics(dataset.histories.trajectory))
  statistics = operator_params['statistics']
  state = {'network': operator_params['network'], 'optimizer': optimizer.init(operator_params['network'])}

  def loss(network, example):
    per_example = jax.vmap(functools.partial(divergence_loss, operator), in_axes=(None, 0))(
      {'network': network, 'statistics': statistics}, example
    )
    return per_example.mean()

  @jax.jit
  def update(state, example):
    value, gradient = jax.value_and_grad(loss)(state['network'], example)
    changes, optimizer_state = optimizer.update(gradient, state['optimizer'], state['network'])
    network = optax.apply_updates(state['network'], changes)
    return {'network': network, 'optimizer': optimizer_state}, value, optax.global_norm(gradient)

  play = make_iterate(
    operator, family, num_applications=settings.round_applications, num_episodes=operator.config.num_episodes
  )
  begin, seconds = 0, 0.0
  state_path = folder / 'training_state.safetensors'
  if state_path.exists():
    saved = files.load_tree(state_path, {'state': state, 'step': None, 'seconds': None})
    state, begin, seconds = saved['state'], int(saved['step']), float(saved['seconds'])

  def evaluate(step):
    params = {'network': state['network'], 'statistics': statistics}
    rng = np.random.default_rng(0)
    rows = np.tile(examples.validation, 64 // len(examples.validation) + 1)[:64]
    scalars = {}
    for ask in asks.TRAINED:
      held_out = examples.histories(rng, len(rows), np.full(len(rows), ask), rows)
      scalars[f'held_out_loss/{asks.name(ask)}'] = float(held_out_loss(state['network'], held_out))
    tasks, reached = jax.tree.map(
      lambda x: x[examples.validation], (dataset.histories.task, dataset.returns.max(axis=1))
    )
    start = jax.vmap(dataset.policy.init)(jax.random.split(key_evaluate, len(examples.validation)))
    returns = np.asarray(play(params, tasks, start, key_evaluate, asks.BEST).returns)
    normalised = (returns - returns[0]) / (reached - returns[0])
    for application in range(1, settings.round_applications + 1):
      scalars[f'held_out_normalised_return/{application}'] = float(np.median(normalised[application]))
    log(step, scalars)
    return scalars[f'held_out_normalised_return/{settings.round_applications}']

  held_out_loss = jax.jit(loss)
  round_steps = {int(share * settings.num_steps): index for index, share in enumerate(settings.rounds)}
  evaluation_steps = set(np.linspace(0, settings.num_steps, settings.num_evaluations + 1).astype(int)[1:])
  last_save = last_log = clock = time.perf_counter()
  logged, held_out = begin, float('nan')
  for step in range(begin, settings.num_steps + 1):
    for at, index in round_steps.items():
      path = folder / f'iterates_{index}.safetensors'
      if at == step or (step == begin and at < step):
        like = Contexts(
          params=jax.tree.map(lambda x: None, dataset.histories.params),
          trajectory=jax.tree.map(lambda x: None, dataset.histories.trajectory), history=None, level=None,
        )
        if path.exists() and at < step:
          contexts = files.load_tree(path, like)
        else:
          operator_params = {'network': state['network'], 'statistics': statistics}
          contexts = _play_round(
            play, examples, dataset, operator_params, settings, jax.random.fold_in(key_rounds, index), [seed, index]
          )
          files.save_tree(path, contexts)
        examples.add_round(jax.tree.map(jnp.asarray, contexts))
    if step in evaluation_steps and step > begin:
      held_out = evaluate(step)
    now = time.perf_counter()
    seconds, clock = seconds + now - clock, now
    if step > begin and (now - last_save > _SAVE_SECONDS or step == settings.num_steps):
      files.save_tree(state_path, {'state': state, 'step': np.asarray(step), 'seconds': np.asarray(seconds)})
      last_save = time.perf_counter()
    if step == settings.num_steps:
      break
    state, value, gradient_norm = update(state, examples.batch(step))
    if step % 20 == 0:
      now = time.perf_counter()
      log(step, {
        'train/loss': float(value), 'train/gradient_norm': float(gradient_norm),
        'train/learning_rate': float(schedule(step)),
        'train/examples_per_second': (step - logged) * settings.batch_size / max(now - last_log, 1e-9),
      })
      last_log, logged = now, step
    progress(step + 1, {'loss': float(value), 'held-out': held_out})
  return {'network': state['network'], 'statistics': statistics}, seconds
