"""Trains an operator by maximum likelihood on histories, and on its own runs; see `loss` and `rounds`."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files
from metaimprove.asks import KINDS, augmentation, goal, of_levels, words
from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import Dataset
from metaimprove.language import reader
from metaimprove.operators.operator import Operator
from metaimprove.operators.reading import experience_statistics
from metaimprove.rng import generator
from metaimprove.training import rounds, validation
from metaimprove.training.examples import Examples, endless, split_histories
from metaimprove.training.explored import explore_tasks
from metaimprove.training.fit import Log, Pause, fit, no_log
from metaimprove.training.loss import mean_loss
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Params, Play, Progress, Trajectory, silent

_STATISTICS_POLICIES = 2048


STAGE, PLAY_STAGE, VALIDATION_STAGE = 'train operator', 'play rounds', 'validation figures'
"""What `Progress` is told of; the last two begin and end while the first one pauses."""


def env_steps(operator: Operator, settings: TrainingSettings) -> dict[str, int]:
  """Environment steps that a training takes for its rounds and its validation figures."""
  return {
    'rounds': rounds.env_steps(settings, operator.config),
    'validation_figures': validation.env_steps(settings, operator.config),
  }


def train(
  operator: Operator, play: Play, dataset: Dataset, settings: TrainingSettings, *, seed: int, folder: files.Path,
  explorers: Params | None = None, log: Log = no_log, progress: Progress = silent,
) -> Params:
  """Trains an operator; a call that was stopped goes on where it was. See `fit` for several processes.

  Args:
    operator: see `make_operator`.
    play: makes experience of the operator's number of episodes.
    dataset: the histories.
    settings: see there.
    seed: the same seed gives the same operator.
    folder: for the states of the training and the operator's own runs.
    explorers: [X, ...] policies to explore with, from which it learns to; see `improvers.explorers`.
    log: figures for TensorBoard.
    progress: told of every step, and of the beginning and the end of each round and of all validation figures.

  Returns:
    operator_params.

  Raises:
    IncompatibleError: if the operator understands no ask that describes the pairs of the settings, if the folder was
      begun with other settings, histories or explorers, or if the processes do not divide a batch.
  """
  _check_asks(operator.config.asks, dataset, settings)
  folder = pathlib.Path(folder)
  share = jax.process_index(), jax.process_count()
  training, kept_out = split_histories(dataset, settings.num_validation)
  statistics = experience_statistics(some_experience(dataset, seed))
  explored = None if explorers is None else explore_tasks(explorers, play, dataset, seed)
  examples = Examples(
    dataset=dataset, histories=endless(dataset, training, seed), config=operator.config,
    settings=settings, seed=seed, explored=explored, statistics=statistics,
  )
  shown: dict[str, float] = {}
  played: list[rounds.Runs] = []

  def operator_params(network):
    return {'network': network, 'statistics': jax.tree.map(jnp.asarray, statistics)}

  def loss(network, batch):
    return mean_loss(operator, operator_params(network), batch)

  def batches(first, last):
    num = sum(at <= first for at in rounds.steps_of(settings))
    played.extend(rounds.load(folder, dataset, range(len(played), num)))
    return examples.stream(first, last, tuple(played), share)

  def add_round(index, step, network):
    progress(PLAY_STAGE, index, len(settings.rounds), {})
    rounds.add_round(
      index, operator, operator_params(network), play, dataset, training, settings, seed=seed, folder=folder,
      explorers=explorers,
    )
    progress(PLAY_STAGE, index + 1, len(settings.rounds), {})
    return {}

  def judge(index, step, network):
    progress(VALIDATION_STAGE, index, settings.num_evaluations, {})
    params = operator_params(network)
    found = validation.scores_of(operator, params, play, dataset, kept_out, settings.round_applications)
    if (last := f'validation_score/{settings.round_applications}') in found:
      shown['validation score'] = found[last]
    figures = {**validation.losses(operator, params, examples, kept_out), **found}
    progress(VALIDATION_STAGE, index + 1, settings.num_evaluations, {})
    return figures

  network = fit(
    lambda rng_key: operator.init(rng_key, statistics)['network'], loss, batches, settings, seed=seed, folder=folder,
    made_with={
      'histories': dataset.checksum, 'operator': dataclasses.asdict(operator.config),
      'explorers': None if explorers is None else files.checksum(files.tree_to_bytes(explorers)),
      **({'words': reader.made_with(dataset.properties)} if _of_words(operator.config.asks) else {}),
    },
    pauses=_pauses(settings, add_round, judge if len(kept_out) else None), stage=STAGE, log=log,
    progress=lambda stage, done, total, figures: progress(stage, done, total, {**figures, **shown}),
  )
  return operator_params(network)


def _check_asks(names: Sequence[str], dataset: Dataset, settings: TrainingSettings) -> None:
  if settings.any_share and not {*names} & {*of_levels()}:
    raise IncompatibleError(
      f'any_share={settings.any_share} needs an operator that understands one of: {", ".join(of_levels())}.'
    )
  if settings.augmented_share and augmentation.NAME not in names:
    raise IncompatibleError(
      f'augmented_share={settings.augmented_share} needs an operator that understands an ask for an '
      f'{augmentation.NAME!r}, which tells how experience was changed; it understands: {", ".join(names)}.'
    )
  if goal.NAME in names and dataset.achieved is None:
    raise IncompatibleError('To learn asks for goals the dataset must tell what was achieved; see `with_hindsight`.')
  if _of_words(names) and not dataset.properties:
    raise IncompatibleError('To learn asks in words the dataset must tell what was measured; see `with_hindsight`.')


def _of_words(names: Sequence[str]) -> list[str]:
  """Those of the kinds named that say what was measured."""
  return [name for name in names if KINDS[name].is_known is words.is_known]


def _pauses(settings, add_round, judge) -> dict[int, list[Pause]]:
  """Step -> what is done before it, rounds first."""
  pauses: dict[int, list[Pause]] = {}
  for index, step in enumerate(rounds.steps_of(settings)):
    pauses.setdefault(step, []).append(functools.partial(add_round, index))
  evaluations = np.linspace(0, settings.num_steps, settings.num_evaluations + 1).astype(int)[1:].tolist()
  for index, step in enumerate(evaluations if judge else []):
    pauses.setdefault(step, []).append(functools.partial(judge, index))
  return pauses


def some_experience(dataset: Dataset, seed: int) -> Trajectory:
  """Experience of at most 2,048 of the policies, which is enough for its means and deviations."""
  every = dataset.num_histories * dataset.num_checkpoints
  chosen = np.arange(every)
  if every > _STATISTICS_POLICIES:
    chosen = generator(seed, 'statistics').choice(every, size=_STATISTICS_POLICIES, replace=False)
  return dataset.read(*divmod(chosen, dataset.num_checkpoints))[1]
