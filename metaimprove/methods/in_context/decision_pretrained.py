"""Decision-Pretrained Transformer (Lee et al., arXiv:2306.14892): from a set of transitions of a task and an
observation to what the best policy for that task would do there. It acts for an episode on the episodes before.

Deviations from the paper:
- The context is a set in the strict sense: there are no positions, and its transitions attend to each other in both
  directions. The authors' code takes a GPT-2, positions and causal mask included, and shuffles the transitions. In
  return, contexts of all lengths are drawn, instead of a loss at each place of one context.
- An observation to act on attends to the context, not the context to it, so that the context is read once an episode,
  and several observations are learned from with one context.
- The best action is known as a distribution, what the best level's policy of the history would do; the divergence from
  it is learned, at observations that this and other levels visited. The paper has one optimal action.
- A context is of whole episodes of some levels of the history, at random, each thinned to evenly spaced steps where
  episodes are long. The paper's are random transitions of a random policy, or of a mixture with the optimal one.
- A next observation is given as the change of the observation, and the end of a task is part of a transition.
- Three blocks of two heads; the authors' code has four of one for the dark room. Optimiser and schedule are the
  operator's.
"""

import dataclasses
import functools

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import policies
from metaimprove.methods.baseline import Baseline, Lessons, count_params, in_contexts, matched_size
from metaimprove.methods.in_context import sequences, transformer
from metaimprove.methods.in_context.acting import CONTEXT_LENGTH, agent_baseline
from metaimprove.methods.in_context.algorithm_distillation import WIDTHS
from metaimprove.methods.in_context.causal import empty_episodes
from metaimprove.methods.in_context.heads import Head, tanh_normal
from metaimprove.methods.in_context.sequences import Statistics, draw_histories, read_stored
from metaimprove.methods.in_context.transformer import Kept
from metaimprove.operators.memory import thinned
from metaimprove.rollouts import Agent
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Trajectory

NUM_QUERIES = 128


@chex.dataclass(frozen=True)
class Question:
  """A context, and what is right at some observations; shapes of one example.

  Attributes:
    context: [M, K, ...] transitions, without outcomes; those that are valid count.
    observation: [Q, O].
    answer: [Q, S] logits of the best policy there.
    weight: [Q] float32, 0 for an observation that does not count.
  """

  context: Trajectory
  observation: chex.Array
  answer: chex.Array
  weight: chex.Array


@chex.dataclass(frozen=True)
class Remembered:
  """What an agent remembers of one task.

  Attributes:
    context: [M, K, ...] thinned earlier episodes, the latest one last.
    kept: of the transformer, [N, M K, H, D].
    episode: [1, T, ...], the one that goes on.
    time: [] int, its step.
  """

  context: Trajectory
  kept: Kept
  episode: Trajectory
  time: chex.Array


@dataclasses.dataclass(frozen=True)
class DecisionPretrained:
  """The model.

  Attributes:
    head: how actions are distributed.
    observation_size: O.
    action_size: A.
    episode_length: T.
    num_episodes: M, which are remembered.
    num_steps: K, which are kept of each.
    width: of tokens.
    num_blocks: of the transformer.
    num_heads: of the transformer.
  """

  head: Head
  observation_size: int
  action_size: int
  episode_length: int
  num_episodes: int
  num_steps: int
  width: int = 64
  num_blocks: int = 3
  num_heads: int = 2

  @property
  def sizes(self) -> dict[str, int]:
    """Of the transformer."""
    return {'width': self.width, 'num_blocks': self.num_blocks, 'num_heads': self.num_heads}

  @property
  def num_features(self) -> int:
    """Of a token."""
    return sequences.num_transition_features(self.observation_size, self.action_size)

  @property
  def num_params(self) -> int:
    """Of the model."""
    return count_params(jax.eval_shape(self.init, jax.random.key(0)))

  @functools.cached_property
  def network(self) -> hk.Transformed:
    """(features [K, F], what is kept, mask) -> (logits [K, S], what to keep)."""
    return hk.without_apply_rng(hk.transform(functools.partial(_network, self)))

  def init(self, rng_key: chex.PRNGKey) -> Params:
    """The first parameters."""
    return self.network.init(rng_key, jnp.zeros((1, self.num_features)), None, jnp.ones((1, 1), bool))

  def read(self, params: Params, statistics: Statistics, context: Trajectory) -> Kept:
    """What to keep of a context [M, K, ...]."""
    features = sequences.transition_features(statistics, context).reshape(-1, self.num_features)
    # Where nothing is there, a token attends to itself, and nobody attends to it.
    mask = context.valid.reshape(-1) | jnp.eye(len(features), dtype=bool)
    return self.network.apply(params, features, None, mask)[1]

  def answer(
    self, params: Params, statistics: Statistics, kept: Kept, seen: chex.Array, observation: chex.Array
  ) -> chex.Array:
    """[Q, S] logits at observations [Q, O], each by itself, for a context of which the tokens `seen` [M K] are
    there."""
    num = len(observation)
    features = sequences.query_features(statistics, observation, self.action_size)
    mask = jnp.concatenate([jnp.broadcast_to(seen, (num, len(seen))), jnp.eye(num, dtype=bool)], axis=1)
    return self.network.apply(params, features, kept, mask)[0]

  def loss(self, statistics: Statistics, params: Params, batch: Question) -> chex.Array:
    """[] mean divergence of the answers to questions [B, ...] from those that are right."""
    def one(question):
      kept = self.read(params, statistics, question.context)
      seen = question.context.valid.reshape(-1)
      return self.head.divergence(
        question.answer, self.answer(params, statistics, kept, seen, question.observation)
      )

    return jnp.sum(jax.vmap(one)(batch) * batch.weight) / jnp.maximum(jnp.sum(batch.weight), 1)

  def agent(self, statistics: Statistics) -> Agent:
    """The agent, which draws its actions."""
    model, sizes = self, (self.observation_size, self.action_size)

    def remember(params, context):
      return Remembered(
        context=context, kept=model.read(params, statistics, context),
        episode=empty_episodes(1, model.episode_length, *sizes), time=jnp.zeros((), int),
      )

    def begin(params):
      return remember(params, empty_episodes(model.num_episodes, model.num_steps, *sizes))

    def act(params, state, observation, rng_key):
      seen = state.context.valid.reshape(-1)
      logits = model.answer(params, statistics, state.kept, seen, observation[None])
      return model.head.sample(logits[0], rng_key), state

    def see(params, state, transition):
      episode = jax.tree.map(
        lambda x, y: x.at[0, state.time].set(y), state.episode.replace(finite=None), transition.replace(finite=None)
      )
      return state.replace(episode=episode.replace(finite=state.episode.finite), time=state.time + 1)

    def end_episode(params, state):
      latest, _ = thinned(state.episode, model.num_steps)
      return remember(params, jax.tree.map(lambda x, y: jnp.concatenate([x[1:], y]), state.context, latest))

    return Agent(begin=begin, act=act, see=see, end_episode=end_episode)


def pretrained_model(
  family: TaskFamily, head: Head, num_params: int, *, num_episodes: int, num_steps: int
) -> DecisionPretrained:
  """The model with about so many parameters."""
  def of_width(width: int) -> DecisionPretrained:
    return DecisionPretrained(
      head=head, observation_size=family.observation_size, action_size=family.action_size,
      episode_length=family.episode_length, num_episodes=num_episodes, num_steps=num_steps, width=width,
    )

  return of_width(matched_size(lambda width: of_width(width).num_params, num_params, WIDTHS))


def decision_pretrained(lessons: Lessons, *, context_length: int = CONTEXT_LENGTH) -> Baseline:
  """Decision-Pretrained Transformer, with contexts of at most `context_length` transitions of as many episodes as the
  operator remembers."""
  lessons = in_contexts(lessons, NUM_QUERIES)
  family, num_episodes = lessons.family, min(lessons.config.capacity, context_length)
  num_steps = min(family.episode_length, context_length // num_episodes)
  model = pretrained_model(
    family, tanh_normal(lessons.dataset.policy), lessons.num_params, num_episodes=num_episodes, num_steps=num_steps
  )
  return agent_baseline(
    lessons, model, model.agent, functools.partial(draw_questions, lessons, model), name='decision_pretrained',
    title='Decision-Pretrained Transformer', made_with={
      'episodes_in_context': num_episodes, 'steps_of_each': num_steps, 'queries': NUM_QUERIES, **model.sizes,
    },
  )


def draw_questions(lessons: Lessons, model: DecisionPretrained, rng: np.random.Generator) -> Question:
  """A batch of questions about random histories.

  A context has 0 to M episodes, of random levels between two random ones. Half of the observations were visited by the
  best level, half by any.
  """
  dataset, size = lessons.dataset, lessons.settings.batch_size
  stored, history = dataset.header['num_episodes'], draw_histories(dataset, lessons.histories, size, rng)
  ends = np.sort(rng.integers(dataset.num_checkpoints, size=(size, 2)), axis=1)
  level = rng.integers(ends[:, :1], ends[:, 1:] + 1, size=(size, model.num_episodes))
  best = dataset.best[history]
  asked = np.stack([best, rng.integers(dataset.num_checkpoints, size=size)], axis=1)
  place = np.concatenate([level, asked], axis=1) * stored
  episodes = read_stored(dataset)(history, place + rng.integers(stored, size=place.shape))
  context, _ = thinned(jax.tree.map(lambda x: x[:, :model.num_episodes], episodes), model.num_steps)
  there = np.arange(model.num_episodes) < rng.integers(model.num_episodes + 1, size=(size, 1))
  visited = jax.tree.map(lambda x: x[:, model.num_episodes:], episodes)
  steps = rng.integers(np.maximum(visited.valid.sum(axis=2), 1)[..., None], size=(size, 2, NUM_QUERIES // 2))
  observation = np.take_along_axis(visited.observation, steps[..., None], axis=2).reshape(size, NUM_QUERIES, -1)
  weight = np.repeat(visited.valid.any(axis=2), NUM_QUERIES // 2, axis=1).astype(np.float32)
  return Question(
    context=context.replace(valid=context.valid & there[..., None]), observation=observation,
    answer=policies.apply_numpy(dataset.read_params(history, best), observation), weight=weight,
  )


def _network(
  model: DecisionPretrained, features: chex.Array, before: Kept | None, mask: chex.Array
) -> tuple[chex.Array, Kept]:
  """To be called inside a Haiku transform."""
  tokens = hk.Linear(model.width, name='embed')(features)
  outputs, new = transformer.attend(tokens, before, mask, **model.sizes)
  return hk.Linear(model.head.num_logits, w_init=hk.initializers.TruncatedNormal(0.01), name='logits')(outputs), new
