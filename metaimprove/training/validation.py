"""How good an operator is on validation tasks, training tasks that it does not learn from, measured while it trains."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from metaimprove import asks
from metaimprove.asks import score, skill, steps
from metaimprove.asks.ask import Ask
from metaimprove.histories.dataset import Dataset
from metaimprove.iteration import iterate
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import Operator, OperatorConfig
from metaimprove.rng import generator, stream
from metaimprove.training.examples import Example, Examples
from metaimprove.training.loss import negative_log_likelihood
from metaimprove.training.pairs import ANY
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Params, Play, mean_return


ASKED = (0.25, 0.5, 0.75, 1.0)
"""Scores and skills that are asked for, of operators that understand these."""


def asked_of(config: OperatorConfig) -> list[tuple[str, float]]:
  """Kinds and values that an operator is asked for."""
  return [(kind, value) for kind in (score.NAME, skill.NAME) if kind in config.asks for value in ASKED]


def env_steps(settings: TrainingSettings, config: OperatorConfig) -> int:
  """Environment steps of all validation figures of a training; episodes that end early count as whole ones."""
  policies = settings.num_evaluations * settings.num_validation
  policies *= settings.round_applications + 1 + len(asked_of(config))
  return policies * config.num_episodes * config.episode_length


@functools.partial(jax.jit, static_argnames='operator')
def mean_figures(
  operator: Operator, operator_params: Params, examples: Example
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Means [] over a batch of examples: the negative log likelihood, the divergence of the most likely answer; and the
  number of answers in use, the perplexity of their mean likelihoods."""
  one = functools.partial(negative_log_likelihood, operator)
  value, divergence, log_likelihood = jax.vmap(one, in_axes=(None, 0))(operator_params, examples)
  likeliest = jnp.take_along_axis(divergence, jnp.argmax(log_likelihood, axis=1)[:, None], axis=1)
  likelihood = jnp.exp(log_likelihood).mean(axis=0)
  return value.mean(), likeliest.mean(), jnp.exp(jax.scipy.special.entr(likelihood).sum())


def losses(
  operator: Operator, operator_params: Params, examples: Examples, histories: np.ndarray
) -> dict[str, float]:
  """Negative log likelihood, divergence of the most likely answer, and number of answers in use, of examples of
  validation histories, for each size of improvement by which pairs are drawn, and for any level asked for by one kind
  alone; none of them is augmented."""
  rng, figures = generator(0, 'validation examples'), {}
  examples = dataclasses.replace(examples, settings=dataclasses.replace(examples.settings, augmented_share=0.0))
  history = np.resize(histories, examples.settings.batch_size)
  batches = {
    steps.words(size): examples.of_histories(history, np.full(len(history), size), rng) for size in steps.SIZES
  }
  for kind in (kind for kind in asks.of_levels() if kind in operator.config.asks):
    batch = examples.of_histories(history, np.full(len(history), ANY), rng)
    batches[kind] = batch.replace(ask=alone(batch.ask, kind))
  for asked, batch in batches.items():
    found = mean_figures(operator, operator_params, batch)
    for name, value in zip(('loss', 'divergence', 'answers'), found):
      figures[f'validation_{name}/{asked}'] = float(value)
  return figures


def alone(ask: Ask, kind: str) -> Ask:
  """Asks [B] of which one kind alone is given, everywhere."""
  return ask.replace(given={name: np.full_like(given, name == kind) for name, given in ask.given.items()})


def scores_of(
  operator: Operator, operator_params: Params, play: Play, dataset: Dataset, histories: np.ndarray,
  num_applications: int,
) -> dict[str, float]:
  """IQM of normalised returns after each application with the ask 'best', on the tasks of validation histories.

  Then, where it understands them, it is asked for scores and skills, with the same experience, and the mean of what it
  gives stands beside. For speed 0 and 1 are here few episodes' returns: of the initial policy, and of the best level in
  any history of the task. A figure is absent where no task has a score.
  """
  tasks, first = np.unique(dataset.task_index[histories], return_index=True)
  start = jax.vmap(operator.policy.init)(jax.random.split(stream(0, 'validation policies'), len(tasks)))
  improve, remember, last = make_improve(operator, operator_params, asks.ask(steps='best')), make_remember(operator), []

  def remember_and_keep(memory, params, trajectory):
    last[:] = params, remember(memory, params, trajectory)
    return last[1]

  played = dataset.read_tasks(histories[first])
  found = [np.asarray(mean_return(after.trajectory)) for after in iterate(
    improve, remember_and_keep, play, start, played, stream(0, 'validation episodes'),
    num_applications=num_applications,
  )]
  best = dataset.returns[histories, dataset.best[histories]]
  error = dataset.return_error[histories, dataset.best[histories]]
  same_task = dataset.task_index[histories] == tasks[:, None]
  reference, error = np.where(same_task, best, -np.inf).max(axis=1), np.where(same_task, error, 0).max(axis=1)
  figures = {}

  def note(returns, **of):
    known = scores(returns, found[0], reference, error)
    known = known[np.isfinite(known)]
    if len(known):
      figures.update({name: float(figure(known)) for name, figure in of.items()})

  for application, values in enumerate(found[1:], start=1):
    note(values, **{
      f'validation_score/{application}': lambda known: stats.trim_mean(known, 0.25),
      f'validation_mean_score/{application}': np.mean,
    })
  for kind, value in asked_of(operator.config):
    answer = make_improve(operator, operator_params, asks.ask(**{kind: value}))(*last, stream(0, 'validation answers'))
    got = np.asarray(mean_return(play(answer, played, stream(0, f'validation {kind} {value}'))))
    note(got, **{f'validation_got/{kind}_{value:g}': np.mean})
  return figures


def scores(returns: np.ndarray, initial: np.ndarray, reference: np.ndarray, error: np.ndarray) -> np.ndarray:
  """[B] normalised returns: 0 is `initial`, 1 is `reference`. NaN where a return is not known, and where the reference
  is not above the initial policy by more than twice its standard `error`, so that nothing could be told."""
  gap = reference - initial
  usable = np.isfinite(returns) & np.isfinite(gap) & (gap > 2 * error) & (gap > 0)
  return np.where(usable, (returns - initial) / np.where(usable, gap, 1.0), np.nan)
