"""Algorithm Distillation (Laskin et al., arXiv:2210.14215): a causal transformer that predicts the actions of learning
histories across episodes, so that it gets better within its context as the source did.

Deviations from the paper:
- A step is one token (observation; action, reward and end of the step before) instead of one each for observation,
  action and reward: a third of the length for the same context.
- Positions are the sum of one for the step in its episode and one for the episode in the context.
- The histories are the operator's: levels in order with a few episodes each, instead of every episode that the source
  played. A context is evenly subsampled from one, from consecutive episodes up to the whole history, at random; the
  paper keeps every k-th episode, with one k for a data set.
- What is remembered slides by whole episodes, and is then read anew, so that acting is what was trained.
- Continuous actions have the likelihood of a tanh-squashed normal.
- Norms come first, perceptrons are four times as wide as tokens, and there are three blocks of two heads; the paper has
  norms last, 64 and 2,048, and four of four. No dropout, and no steps masked at random (the paper: 0.1 and 0.3; and 0.5
  of attention). Optimiser and schedule are those of the operator.
"""

import numpy as np

from metaimprove.histories.dataset import Dataset
from metaimprove.methods.baseline import Baseline, Lessons, in_contexts, matched_size
from metaimprove.methods.in_context import causal
from metaimprove.methods.in_context.acting import CONTEXT_LENGTH, agent_baseline
from metaimprove.methods.in_context.causal import Causal
from metaimprove.methods.in_context.heads import Head, tanh_normal
from metaimprove.methods.in_context.sequences import ReadEpisodes, draw_histories, num_stored, read_stored, window
from metaimprove.rollouts import Agent
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Trajectory

WIDTHS = range(4, 513)


def causal_model(family: TaskFamily, head: Head, num_params: int, **options: int | bool) -> Causal:
  """The model with about so many parameters."""
  def of_width(width: int) -> Causal:
    return Causal(
      head=head, observation_size=family.observation_size, action_size=family.action_size,
      episode_length=family.episode_length, width=width, **options,
    )

  return of_width(matched_size(lambda width: of_width(width).num_params, num_params, WIDTHS))


def distilled_agent(model: Causal, statistics: dict[str, np.ndarray]) -> Agent:
  """The agent: it remembers its latest episodes in order."""
  return model.agent(statistics, causal.slide)


def draw_windows(
  read: ReadEpisodes, history: np.ndarray, num_places: int, num_episodes: int, rng: np.random.Generator
) -> Trajectory:
  """[B, M, T, ...] random windows of M episodes of histories [B], of `num_places` episodes each."""
  return read(history, np.stack([window(num_places, num_episodes, rng) for _ in history]))


def num_episodes_of(dataset: Dataset, episode_length: int, context_length: int) -> int:
  """How many episodes a context of so many steps has: at least two, at most those of a history."""
  return min(max(2, context_length // episode_length), num_stored(dataset))


def algorithm_distillation(lessons: Lessons, *, context_length: int = CONTEXT_LENGTH) -> Baseline:
  """Algorithm Distillation, with contexts of at most `context_length` steps, and of two episodes at least."""
  family, dataset = lessons.family, lessons.dataset
  num_episodes = num_episodes_of(dataset, family.episode_length, context_length)
  lessons = in_contexts(lessons, num_episodes * family.episode_length)
  model = causal_model(family, tanh_normal(dataset.policy), lessons.num_params, num_episodes=num_episodes)
  read = read_stored(dataset)

  def draw(rng: np.random.Generator) -> Trajectory:
    history = draw_histories(dataset, lessons.histories, lessons.settings.batch_size, rng)
    return draw_windows(read, history, num_stored(dataset), num_episodes, rng)

  return agent_baseline(
    lessons, model, lambda statistics: distilled_agent(model, statistics), draw, name='algorithm_distillation',
    title='Algorithm Distillation', made_with={'episodes_in_context': num_episodes, **model.sizes},
  )
