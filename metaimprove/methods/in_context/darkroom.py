"""The dark room of the papers on in-context agents, small enough to check them in minutes: find a goal unseen.

A room of 9 x 9 cells, episodes of 20 steps from its centre, five actions (stay, and one cell to each side); each step
that ends on the goal is rewarded with 1 (Laskin et al., arXiv:2210.14215). The agent sees in which cell it is.

The learning histories of Algorithm Distillation are of tabular Q-learning, and the questions of the Decision-Pretrained
Transformer are random transitions with optimal actions (Lee et al., arXiv:2306.14892). The models are the very same as
for continuous actions, with another head.
"""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.methods.in_context.decision_pretrained import Question
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.goal import Goal
from metaimprove.tasks.robots.build import make_family
from metaimprove.tasks.robots.physics import Physics
from metaimprove.types import Task, Trajectory

SIZE, HORIZON = 9, 20
CENTRE = SIZE // 2
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
CELLS = np.stack(np.divmod(np.arange(SIZE * SIZE), SIZE), axis=1)
"""[81, 2] all cells, each of which may be the goal."""

_DISCOUNT, _RATE = 0.9, 0.9
_CERTAIN = 30.0
"""The logit of an optimal action, beside zeros."""


def dark_room() -> TaskFamily:
  """The dark room as a family; an action is a unit vector [5]."""
  def init(parameters, q, qd):
    return _At(q=q, qd=qd)

  def step(parameters, state, control):
    return state.replace(q=jnp.clip(state.q + control @ MOVES.astype(np.float32), 0, SIZE - 1))

  def sample(rng_key):
    return jax.random.randint(rng_key, (2,), 0, SIZE).astype(jnp.float32)

  return make_family(
    'dark_room', Physics(
      backend='none', system=types.SimpleNamespace(act_size=lambda: len(MOVES)), time_step=1.0, init=init, step=step,
    ),
    definition='Find the rewarded cell of a room.',
    goal=Goal(
      sample=sample, sample_far=None, is_far=None, describe=lambda goal: f'cell {int(goal[0])}, {int(goal[1])}',
      position=lambda goal, q: goal, achieved=None,
    ),
    start=lambda goal, key: (jnp.full(2, float(CENTRE)), jnp.zeros(2)), observe=lambda state: seen(state.q),
    outcome=lambda before, after: after.q, reward=lambda goal, cell, action: (cell == goal).all().astype(jnp.float32),
    ranges={}, episode_length=HORIZON, lines=lambda q: jnp.zeros((1, 2, 2)), view=(0.0, SIZE, 0.0, SIZE),
  )


@chex.dataclass(frozen=True)
class _At:
  """Where an agent is: its cell `q` [2]."""

  q: chex.Array
  qd: chex.Array


def seen(cell: chex.Array) -> chex.Array:
  """[..., 18] what is seen in a cell [..., 2]: a unit vector of its row and one of its column; numpy or JAX."""
  array = cell.__array_namespace__()
  rows = cell[..., None] == array.arange(SIZE)
  return rows.reshape(*cell.shape[:-1], 2 * SIZE).astype(array.float32)


STATISTICS = {
  f'{name}_{moment}': np.full(size, value, np.float32)
  for name, size in (('observation', 2 * SIZE), ('change', 2 * SIZE), ('reward', ()), ('return', ()))
  for moment, value in (('mean', 0.0), ('std', 1.0))
}
"""As of `experience_statistics`: all numbers are of order 1 as they are."""


def tasks_of(goals: np.ndarray) -> Task:
  """The tasks [B] of goals [B, 2]."""
  return Task(goal=jnp.asarray(goals, jnp.float32), dynamics={})


def optimal_return(goals: np.ndarray) -> np.ndarray:
  """[B] the highest return for goals [B, 2]."""
  distance = np.abs(goals - CENTRE).sum(axis=1)
  return np.minimum(HORIZON, HORIZON + 1 - distance)


def optimal_logits(goals: np.ndarray, cells: np.ndarray) -> np.ndarray:
  """[B, Q, 5] what is best for goals [B, 2] in cells [B, Q, 2]: along the first axis first, then along the second."""
  way = np.sign(goals[:, None] - cells).astype(int)
  way[..., 1] = np.where(way[..., 0] == 0, way[..., 1], 0)
  return _CERTAIN * (way[..., None, :] == MOVES).all(axis=-1).astype(np.float32)


@chex.dataclass(frozen=True)
class Histories:
  """Learning histories of H learners, of E episodes of T steps.

  Attributes:
    cell: [H, E, T + 1] int8, where they were, an index into `CELLS`.
    action: [H, E, T] int8.
    goal: [H] int8, an index into `CELLS`.
  """

  cell: np.ndarray
  action: np.ndarray
  goal: np.ndarray

  def returns(self) -> np.ndarray:
    """[H, E]"""
    return (self.cell[..., 1:] == self.goal[:, None, None]).sum(axis=-1)

  def read(self, history: np.ndarray, place: np.ndarray) -> Trajectory:
    """Episodes [B, M, T, ...]; see `sequences.ReadEpisodes`."""
    cell, action = self.cell[history[:, None], place], self.action[history[:, None], place]
    return transitions(cell[..., :-1], action, cell[..., 1:], self.goal[history][:, None, None])


def transitions(cell: np.ndarray, action: np.ndarray, next_cell: np.ndarray, goal: np.ndarray) -> Trajectory:
  """Steps [B, M, T, ...] from one cell to the next; goals broadcast."""
  no = np.zeros(cell.shape, bool)
  return Trajectory(
    observation=seen(CELLS[cell]), action=np.eye(len(MOVES), dtype=np.float32)[action],
    reward=(next_cell == goal).astype(np.float32), next_observation=seen(CELLS[next_cell]),
    outcome=np.zeros((*cell.shape, 0), np.float32), terminated=no, valid=~no, finite=np.ones(cell.shape[:-1], bool),
  )


def q_learning(
  goals: np.ndarray, rng_key: chex.PRNGKey, *, num_episodes: int, optimism: float = 6.0
) -> Histories:
  """Histories of tabular Q-learning, one for each goal [H], an index into `CELLS`.

  All values begin high, so that it tries everything; what happened is learned from backwards after each episode.

  Args:
    goals: [H].
    rng_key: breaks ties.
    num_episodes: E.
    optimism: the first values; the highest true one is 10.
  """
  after = jnp.asarray(_neighbours())

  def one_learner(goal, key):
    def one_step(carry, step_key):
      table, cell = carry
      action = jnp.argmax(table[cell] + 1e-3 * jax.random.uniform(step_key, (len(MOVES),)))
      return (table, after[cell, action]), (cell, action)

    def learn(table, step):
      cell, action = step
      following = after[cell, action]
      target = (following == goal) + _DISCOUNT * table[following].max()
      return table.at[cell, action].add(_RATE * (target - table[cell, action])), None

    def one_episode(table, episode_key):
      start = jnp.asarray(CENTRE * SIZE + CENTRE)
      (_, last), steps = jax.lax.scan(one_step, (table, start), jax.random.split(episode_key, HORIZON))
      learned, _ = jax.lax.scan(learn, table, steps, reverse=True)
      return learned, (jnp.append(steps[0], last).astype(jnp.int8), steps[1].astype(jnp.int8))

    first = jnp.full((len(CELLS), len(MOVES)), optimism)
    return jax.lax.scan(one_episode, first, jax.random.split(key, num_episodes))[1]

  cell, action = jax.jit(jax.vmap(one_learner))(jnp.asarray(goals), jax.random.split(rng_key, len(goals)))
  return Histories(cell=np.asarray(cell), action=np.asarray(action), goal=np.asarray(goals, np.int8))


def random_questions(
  goals: np.ndarray, batch_size: int, num_episodes: int, num_queries: int, rng: np.random.Generator
) -> Question:
  """Questions [B] about random ones of the goals, which are indices into `CELLS`.

  A context has 0 to M T transitions from random cells by random actions.
  """
  goal, size = rng.choice(goals, size=batch_size), (batch_size, num_episodes, HORIZON)
  cell, action = rng.integers(len(CELLS), size=size), rng.integers(len(MOVES), size=size)
  context = transitions(cell, action, _neighbours()[cell, action], goal[:, None, None])
  num = rng.integers(num_episodes * HORIZON + 1, size=batch_size)
  asked = CELLS[rng.integers(len(CELLS), size=(batch_size, num_queries))]
  return Question(
    context=context.replace(valid=np.arange(num_episodes * HORIZON).reshape(size[1:]) < num[:, None, None]),
    observation=seen(asked), answer=optimal_logits(CELLS[goal], asked),
    weight=np.ones(asked.shape[:-1], np.float32),
  )


def _neighbours() -> np.ndarray:
  """[81, 5] the cell after each action in each cell, as an index."""
  return np.clip(CELLS[:, None] + MOVES, 0, SIZE - 1) @ np.array([SIZE, 1])
