"""Trains an operator by maximum likelihood on histories, and on what its own iterates meet.

The loss is the divergence KL(θⁿ⁺ᵏ ‖ emitted policy) at states that θⁿ or θⁿ⁺ᵏ visited.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files
from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import Dataset
from metaimprove.operators.operator import Operator
from metaimprove.operators.reading import experience_statistics
from metaimprove.rng import generator
from metaimprove.training import held_out, rounds
from metaimprove.training.examples import Examples, endless, split_histories
from metaimprove.training.fit import Log, Pause, fit, no_log
from metaimprove.training.loss import divergence_loss
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Params, Play, Progress, Trajectory, silent

_STATISTICS_POLICIES = 2048


def env_steps(operator: Operator, settings: TrainingSettings) -> dict[str, int]:
  """Environment steps that a training takes for its rounds and its held-out figures."""
  return {
    'rounds': rounds.env_steps(settings, operator.config), 'held_out': held_out.env_steps(settings, operator.config)
  }


def train(
  operator: Operator, play: Play, dataset: Dataset, settings: TrainingSettings, *, seed: int, folder: files.Path,
  log: Log = no_log, progress: Progress = silent,
) -> Params:
  """Trains an operator; a call that was stopped goes on where it was. See `fit` for several processes.

  Args:
    operator: see `make_operator`.
    play: makes experience of the operator's number of episodes.
    dataset: the histories.
    settings: see there.
    seed: the same seed gives the same operator.
    folder: for the states of the training and the operator's own iterates.
    log: figures for TensorBoard.
    progress: told of every step.

  Returns:
    operator_params.

  Raises:
    IncompatibleError: if the folder was begun with other settings or histories, or the processes do not divide half a
      batch.
  """
  folder = pathlib.Path(folder)
  share = jax.process_index(), jax.process_count()
  if settings.batch_size % (2 * share[1]):
    raise IncompatibleError(
      f'batch_size={settings.batch_size} must be a multiple of {2 * share[1]}, twice the number of processes.'
    )
  training, validation = split_histories(dataset, settings.num_validation)
  statistics = experience_statistics(_some_experience(dataset, seed))
  examples = Examples(
    dataset=dataset, histories=endless(dataset, training, seed), kinds=operator.config.asks, settings=settings,
    seed=seed,
  )
  shown: dict[str, float] = {}
  played: list[rounds.Iterates] = []

  def operator_params(network):
    return {'network': network, 'statistics': jax.tree.map(jnp.asarray, statistics)}

  def loss(network, batch):
    one = functools.partial(divergence_loss, operator, num_states=settings.num_states)
    return jax.vmap(one, in_axes=(None, 0))(operator_params(network), batch).mean()

  def batches(first, last):
    num = sum(at <= first for at in rounds.steps_of(settings))
    played.extend(rounds.load(folder, dataset, range(len(played), num)))
    return examples.stream(first, last, tuple(played), share)

  def add_round(index, step, network):
    rounds.add_round(
      index, operator, operator_params(network), play, dataset, training, settings, seed=seed, folder=folder
    )
    return {}

  def judge(step, network):
    params = operator_params(network)
    found = held_out.returns(operator, params, play, dataset, validation, settings.round_applications)
    if (last := f'held_out_normalised_return/{settings.round_applications}') in found:
      shown['held-out return'] = found[last]
    return {**held_out.losses(operator, params, examples, validation), **found}

  network = fit(
    lambda rng_key: operator.init(rng_key, statistics)['network'], loss, batches, settings, seed=seed, folder=folder,
    made_with={'histories': dataset.checksum, 'operator': dataclasses.asdict(operator.config)},
    pauses=_pauses(settings, add_round, judge if len(validation) else None), stage='train operator', log=log,
    progress=lambda stage, done, total, figures: progress(stage, done, total, {**figures, **shown}),
  )
  return operator_params(network)


def _pauses(settings, add_round, judge) -> dict[int, list[Pause]]:
  """Step -> what is done before it, rounds first."""
  pauses: dict[int, list[Pause]] = {}
  for index, step in enumerate(rounds.steps_of(settings)):
    pauses.setdefault(step, []).append(functools.partial(add_round, index))
  evaluations = np.linspace(0, settings.num_steps, settings.num_evaluations + 1).astype(int)[1:].tolist()
  for step in evaluations if judge else []:
    pauses.setdefault(step, []).append(judge)
  return pauses


def _some_experience(dataset: Dataset, seed: int) -> Trajectory:
  """Experience of at most 2,048 of the policies, which is enough for its means and deviations."""
  every = dataset.num_histories * dataset.num_checkpoints
  chosen = np.arange(every)
  if every > _STATISTICS_POLICIES:
    chosen = generator(seed, 'statistics').choice(every, size=_STATISTICS_POLICIES, replace=False)
  return dataset.read(*divmod(chosen, dataset.num_checkpoints))[1]
