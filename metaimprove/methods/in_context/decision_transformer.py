"""Decision Transformer (Chen et al., arXiv:2106.01345): a causal transformer that predicts the actions of an episode
from the return that is still to come, asked for a high one; and Prompt-DT (Xu et al., arXiv:2206.13499), which sees an
episode of the same task before.

The return that is asked for is the 0.95 quantile, over the training histories, of the measured mean return of the best
level. It knows nothing of the task at hand.

The prompt is the agent's own best earlier episode, by its return; there is none in the first one. The first of equals
stays.

Deviations from the papers:
- A step is one token (return to go, observation; action, reward and end of the step before) instead of three.
- The context is the whole episode instead of its latest 20 steps.
- Continuous actions have the likelihood of a tanh-squashed normal, and are drawn, instead of a squared error.
- Episodes of all levels of the histories are learned from, none filtered by return.
- Prompt-DT: the paper's prompts are short segments of demonstrations of the task, which nobody has here; in training
  they are random whole episodes of the same history, of any level, with their true returns to go, and `NO_PROMPT` of
  the examples have none. Actions of the prompt are not learned, as in the authors' code.
- Positions are the sum of one for the step in its episode and, of Prompt-DT, one for prompt or episode.
- Norms, sizes, optimiser and schedule are those of `algorithm_distillation`; no dropout.
"""

import numpy as np

from metaimprove.errors import IncompatibleError
from metaimprove.histories.dataset import Dataset
from metaimprove.methods.baseline import Baseline, Lessons, in_contexts
from metaimprove.methods.in_context import causal
from metaimprove.methods.in_context.acting import CONTEXT_LENGTH, agent_baseline
from metaimprove.methods.in_context.algorithm_distillation import causal_model
from metaimprove.methods.in_context.heads import tanh_normal
from metaimprove.methods.in_context.sequences import draw_histories, num_stored, read_stored
from metaimprove.types import Trajectory

TARGET_QUANTILE = 0.95
NO_PROMPT = 0.1


def target_return(dataset: Dataset, histories: np.ndarray) -> float:
  """The return that is asked for; see above."""
  return float(np.quantile(dataset.returns[histories, dataset.best[histories]], TARGET_QUANTILE))


def decision_transformer(lessons: Lessons, *, context_length: int = CONTEXT_LENGTH) -> Baseline:
  """Decision Transformer on single episodes, which are no longer than `context_length` steps."""
  return _baseline(
    lessons, 1, context_length, causal.forget, name='decision_transformer', title='Decision Transformer'
  )


def prompted_decision_transformer(lessons: Lessons, *, context_length: int = CONTEXT_LENGTH) -> Baseline:
  """Prompt-DT; prompt and episode together are no longer than `context_length` steps."""
  return _baseline(
    lessons, 2, context_length, causal.keep_best, name='prompted_decision_transformer',
    title='Decision Transformer, prompted by its best episode',
  )


def _baseline(
  lessons: Lessons, num_episodes: int, context_length: int, next_row: causal.NextRow, *, name: str, title: str
) -> Baseline:
  family, dataset, histories = lessons.family, lessons.dataset, lessons.histories
  lessons = in_contexts(lessons, family.episode_length)
  if num_episodes * family.episode_length > context_length:
    raise IncompatibleError(
      f'{num_episodes} episodes of {family.name} have {num_episodes * family.episode_length} steps, more than '
      f'context_length={context_length}; give a longer context.'
    )
  model = causal_model(
    family, tanh_normal(dataset.policy), lessons.num_params, num_episodes=num_episodes, with_return=True,
    first_learned=num_episodes - 1,
  )
  read, wanted = read_stored(dataset), target_return(dataset, histories)

  def draw(rng: np.random.Generator) -> Trajectory:
    size = lessons.settings.batch_size
    place = np.stack([rng.choice(num_stored(dataset), size=num_episodes, replace=False) for _ in range(size)])
    history = draw_histories(dataset, histories, size, rng)
    return without_prompts(read(history, place), rng.random(size) < NO_PROMPT)

  return agent_baseline(
    lessons, model,
    lambda statistics: model.agent(statistics, next_row, first_place=num_episodes - 1, target_return=wanted),
    draw, name=name, title=title, made_with={'target_return': wanted, 'no_prompt': NO_PROMPT, **model.sizes},
  )


def without_prompts(episodes: Trajectory, hidden: np.ndarray) -> Trajectory:
  """Rows [B, M, T, ...] with all but the last episode left out of those that are hidden [B]."""
  shown = ~hidden[:, None] | (np.arange(episodes.valid.shape[1]) == episodes.valid.shape[1] - 1)
  return episodes.replace(valid=episodes.valid & shown[..., None])
