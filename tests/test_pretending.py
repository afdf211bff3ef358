"""Agents that watch each other in turn, and one that says how another would imitate a third."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark_pretending
from experiments.ask_rows import Done
from experiments.jobs import Job
from metaimprove.improvers.source import Learning, Piece, Snapshots
from metaimprove.methods import pretending
from metaimprove.methods.method import initial_policies
from metaimprove.methods.pretending import Cast, Distortion, Scenes, distorted, draw_distortions, memory_in_turns
from metaimprove.operators.memory import EMPTY
from metaimprove.policies import make_policy
from metaimprove.rollouts import make_play
from metaimprove.tasks.splits import sample_tasks
from metaimprove.types import Trajectory, silent

NUM, PLACES, EPISODES, LENGTH = 2, 3, 2, 8
HARDLY = -10.0
"""A raw scale of hardly any spread."""


def test_a_distorted_linear_policy_by_hand():
  """Its locations are its observations; they are turned, stretched and shifted, and its scale is raised."""
  policy = make_policy(2, 2, ())
  layer, = policy.init(jax.random.key(0))
  params = {layer: {'w': jnp.eye(2, 4), 'b': jnp.array([0.0, 0.0, -1.0, -2.0])}}
  found = distorted(params, Distortion(
    mixing=jnp.array([[0.0, -2.0], [1.0, 0.0]]), bias=jnp.array([0.5, 0.0]), tremor=jnp.array(0.25)
  ))
  np.testing.assert_allclose(policy.apply(found, jnp.array([3.0, 4.0])), [-7.5, 3.0, -0.75, -1.75], atol=1e-6)


def test_distortions_are_gains_and_turns():
  """Rows of a mixing are at right angles; one motor alone is not turned."""
  mixing = draw_distortions(3, 5, np.random.default_rng(0)).mixing
  squares = mixing @ np.swapaxes(mixing, 1, 2)
  np.testing.assert_allclose(squares, squares * np.eye(3), atol=1e-5)
  assert np.abs(mixing - mixing * np.eye(3)).max() > 0.1
  assert (draw_distortions(1, 50, np.random.default_rng(0)).mixing > 0).all()


def numbered(number):
  """What somebody did, with a number [...] as rewards."""
  reward = np.broadcast_to(np.asarray(number, np.float32)[..., None, None], (*np.shape(number), EPISODES, LENGTH))
  space = np.zeros((*reward.shape, 1), np.float32)
  return Trajectory(
    observation=space, action=space, reward=reward, next_observation=space, outcome=space[..., :0],
    terminated=np.zeros(reward.shape, bool), valid=np.ones(reward.shape, bool),
    finite=np.ones(reward.shape[:-1], bool),
  )


@pytest.fixture(scope='module')
def scenes():
  """Imitator n, agent p: the agent has the number 100 n + 10 p, its imitation 5 more."""
  number = 100 * np.arange(NUM)[:, None] + 10 * np.arange(PLACES)
  return Scenes(
    shown=numbered(number), imitated=numbered(number + 5), states=np.zeros((NUM, PLACES, 4, 1), np.float32),
    answer=np.tile(number[..., None, None] + 5.0, (4, 2)).astype(np.float32),
    weight=np.ones((NUM, PLACES, 4), np.float32),
  )


def test_a_memory_is_in_turns(scenes):
  """An agent, its imitation, the next agent, its imitation, and the last agent; one of both has seen one pair only."""
  memory = memory_in_turns(
    scenes, np.array([[2, 0], [1, 2]]), np.array([2, 1]), numbered(np.array([999, 998])), steps_kept=4
  )
  turns = np.repeat([[20, 25, 0, 5, 999], [110, 115, 120, 125, 998]], EPISODES, axis=1)
  np.testing.assert_array_equal(memory.trajectory.reward[..., 0], turns)
  np.testing.assert_array_equal(memory.episode_return, LENGTH * turns)
  np.testing.assert_array_equal(memory.application, np.tile(np.repeat(np.arange(5), EPISODES), (2, 1)))
  there = np.array([[True] * 10, [False] * 4 + [True] * 6])
  np.testing.assert_array_equal(memory.number != EMPTY, there)
  np.testing.assert_array_equal(memory.trajectory.valid.all(axis=-1), there)
  assert memory.behaviour.shape == (2, 10, 4, 2)


def test_the_answer_is_the_imitation_of_the_last_one(scenes):
  """By an imitator who was seen imitating others, any number of them."""
  examples = pretending.draw_examples(scenes, 64, 4, np.random.default_rng(0))
  turns = examples.memory.trajectory.reward[:, ::EPISODES, 0]
  np.testing.assert_array_equal(examples.answer[:, 0, 0], turns[:, -1] + 5)
  np.testing.assert_array_equal(turns[:, 1:-1:2], turns[:, :-1:2] + 5)
  assert (turns // 100 == turns[:, -1:] // 100).all()
  assert (np.sort(turns[:, ::2] % 100) == 10 * np.arange(PLACES)).all()
  seen = (examples.memory.number[:, ::EPISODES] != EMPTY).sum(axis=1)
  assert set(seen) == {1, 3, 5} and set(turns[:, -1]) == {0, 10, 20, 100, 110, 120}


def constant(operator, location):
  """The policy of the same location everywhere, with hardly any spread."""
  zeros = jax.tree.map(jnp.zeros_like, operator.policy.init(jax.random.key(0)))
  last = sorted(zeros)[-1]
  return {**zeros, last: {**zeros[last], 'b': jnp.stack([location, jnp.asarray(HARDLY)])}}


def acting_by(operator, location_of):
  """An operator whose answers are constant, of a location that follows from the mean location [C] of each episode, the
  turn [C] of each, and whether it is there [C]."""
  def improve_behaviour(operator_params, memory, ask, rng_key=None):
    location = memory.behaviour[..., 0].mean(axis=-1)
    return constant(operator, location_of(location, memory.application, memory.number != EMPTY))

  return dataclasses.replace(operator, improve_behaviour=improve_behaviour)


def newest(location, turn, there):
  return jnp.mean(location, where=there & (turn == jnp.max(turn, where=there, initial=0)))


def shifted_as_seen(location, turn, there):
  """The newest, and what imitations were seen to add."""
  watched, last = there & (turn < jnp.max(turn)), newest(location, turn, there)
  added = jnp.mean(location, where=watched & (turn % 2 == 1)) - jnp.mean(location, where=watched & (turn % 2 == 0))
  return last + jnp.where(watched.any(), added, 0.0)


def test_a_chain_of_imitators_by_hand(operator, point):
  """Imitators add 0.3 and -0.5 to an agent of location 0.2, on the second task 0.1 and 0.4; C sees by how much."""
  tasks, play = sample_tasks(point, 0, 2, 'validation'), make_play(point, operator.policy, num_episodes=EPISODES)
  added = np.array([[0.3, -0.5], [0.1, 0.4]], np.float32)
  imitating = acting_by(operator, newest)
  agents = jax.vmap(lambda x: constant(operator, x))(jnp.array([0.2, 0.2]))
  both = lambda tree: jax.tree.map(lambda x: jnp.stack([x, x], axis=1), tree)
  imitators = []
  for depth in range(2):
    bias = added[:, depth, None]
    way = Distortion(mixing=np.ones((2, 1, 1), np.float32), bias=bias, tremor=np.zeros(2, np.float32))
    made = pretending.make_scenes(imitating, None, play, both(agents), both(tasks), way, jax.random.key(depth))
    np.testing.assert_allclose(made.answer[..., 0] - bias[..., None], 0.2, atol=0.01)
    imitators.append((made, way))
  cast = Cast(imitating, None, acting_by(operator, shifted_as_seen), None, play)
  found = pretending.distances(cast, agents, tasks, imitators, jax.random.key(9))
  real = np.tanh(0.2 + np.cumsum(added, axis=1)).T
  before = np.concatenate([np.full((1, 2), np.tanh(0.2)), real[:1]])
  expected = {
    'prediction': 0 * real, 'again': 0 * real, 'less': np.abs(real - before), 'another': np.abs(real - real[:, ::-1]),
    **dict.fromkeys(('original', 'own', 'nothing'), np.abs(real - np.tanh(0.2))),
  }
  assert set(found) == {*expected}
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, atol=0.01, err_msg=name)


def test_learned_and_judged_once(operator, operator_params, point, tmp_path):
  """From scenes of random policies to rows; what is there is not made again, and needs no play."""
  params, job = initial_policies(operator.policy, 4, jax.random.key(0)), Job(family='reacher_goal', heldout_tasks=4)
  stage = benchmark_pretending.Stage(
    family=point, source=types.SimpleNamespace(params=lambda snapshot, task: snapshot),
    learning=Learning(snapshots=Snapshots((Piece(4, lambda: jax.device_get(params)),)), returns=np.zeros(3)),
    operator=operator, operator_params=operator_params, play=make_play(point, operator.policy, num_episodes=2), seed=0,
  )
  benchmark_pretending.train(stage, job, 8, 3, tmp_path, silent)
  found = benchmark_pretending.judge(stage, job, 'validation', tmp_path)
  rest = dataclasses.replace(stage, play=None)
  benchmark_pretending.train(rest, job, 8, 3, tmp_path, silent)
  again = benchmark_pretending.judge(rest, job, 'validation', tmp_path)
  assert {*found} == {'prediction', *benchmark_pretending.CONTROLS}
  for name, value in found.items():
    assert value.shape == (benchmark_pretending.DEPTHS, 4) and (value >= 0).all() and np.isfinite(value).all()
    np.testing.assert_array_equal(value, again[name])


def test_rows_by_hand(point):
  """Two tasks: on one of them the prediction is nearer than D itself."""
  depths = np.ones((benchmark_pretending.DEPTHS, 1))
  found = {name: depths * [0.4, 0.2] for name in benchmark_pretending.CONTROLS} | {'prediction': depths * [0.1, 0.3]}
  done = Done(job=Job(family='reacher_goal'), family=point, seeds=[0], command='python -m a')
  rows = {(row.metric, row.control): row for row in benchmark_pretending.rows_of(done, [found])}
  assert len(rows) == len({row.key for row in rows.values()}) == 3 * (6 + 2) - 1
  row = rows['mean absolute difference of actions from the real imitation, depth 2', 'D itself']
  assert (row.value, row.control_value, row.ask) == (pytest.approx(0.2), pytest.approx(0.3), 'as somebody')
  share = rows['share of tasks on which it is nearer than D itself, depth 3', 'as often as not']
  assert (share.value, share.control_value) == (0.5, 0.5)
