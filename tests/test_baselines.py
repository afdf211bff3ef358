"""Baselines that learn from the histories of an operator, and one that learns by reinforcement on their tasks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import policies
from metaimprove.asks import steps
from metaimprove.improvers import run as runs
from metaimprove.methods import rl2, task_told, taught, weights_only
from metaimprove.methods.baseline import Lessons, count_params, matched_size
from metaimprove.methods.cloned_best import cloned_best
from metaimprove.methods.cloned_experience import cloned_experience
from metaimprove.methods.imitation import cloned
from metaimprove.methods.in_context.sequences import previous_of
from metaimprove.methods.method import initial_policies
from metaimprove.operators.reading import experience_statistics
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training import fit
from metaimprove.training.examples import endless, split_histories
from metaimprove.trees import take
from metaimprove.types import Trajectory, mean_return, silent
from tests.conftest import Killed, kill_at

pytestmark = pytest.mark.xdist_group('baselines')  # what was trained is there once
NUM_TASKS, NUM_APPLICATIONS, NUM_STEPS = 4, 2, 80
RL2 = rl2.RL2Settings(num_episodes=2, num_trials=8, num_updates=4, num_epochs=1, num_minibatches=2, snapshot_updates=1)
BUILDERS = {
  'cloned_best': lambda lessons, play: cloned_best(lessons, num_episodes=lessons.config.num_episodes),
  'cloned_experience': cloned_experience,
  'weights_only': weights_only.weights_only,
  'task_told': lambda lessons, play: task_told.task_told(lessons, play, num_episodes=lessons.config.num_episodes),
  'rl2': lambda lessons, play: rl2.rl2(lessons, RL2),
}
WITHOUT_EXPERIENCE = ('cloned_best', 'task_told')
WITH_PARAMETERS = tuple(name for name in BUILDERS if name != 'cloned_experience')


@pytest.fixture(scope='module')
def blind(point):
  """The point family whose experience is the same wherever the goal is."""
  def step(task, state, action):
    return point.step(task.replace(goal=jnp.zeros_like(task.goal)), state, action)

  return dataclasses.replace(point, step=step)


@pytest.fixture(scope='module')
def lessons(blind, dataset, operator, operator_params, tmp_path_factory):
  return Lessons(
    family=blind, dataset=dataset, histories=split_histories(dataset, 2)[0], config=operator.config,
    num_params=count_params(operator_params['network']), seed=0,
    settings=fit.FitSettings(num_steps=NUM_STEPS, batch_size=8, learning_rate=1e-2),
    folder=tmp_path_factory.mktemp('baselines'), num_applications=NUM_APPLICATIONS,
  )


@pytest.fixture(scope='module')
def play(blind, lessons):
  return make_play(blind, lessons.dataset.policy, num_episodes=lessons.config.num_episodes)


@pytest.fixture(scope='module')
def baselines(lessons, play):
  return {name: build(lessons, play) for name, build in BUILDERS.items()}


@pytest.fixture(scope='module')
def tasks(point):
  return sample_tasks(point, 0, NUM_TASKS, 'validation')


@pytest.fixture(scope='module')
def curve_of(baselines, tasks):
  """The curve of a baseline, found once."""
  return functools.cache(lambda name: baselines[name].method.run(tasks, jax.random.key(0), silent))


@pytest.mark.parametrize('name', BUILDERS)
def test_curves(baselines, curve_of, lessons, name):
  curve, num = curve_of(name), 1 if name in WITHOUT_EXPERIENCE else NUM_APPLICATIONS + 1
  assert baselines[name].method.name == name
  assert curve.returns.shape == (num, NUM_TASKS) and np.isfinite(curve.returns).all()
  np.testing.assert_array_equal(curve.episodes, lessons.config.num_episodes * np.arange(num))
  np.testing.assert_array_equal(curve.env_steps, curve.episodes * lessons.config.episode_length)


@pytest.mark.parametrize('name', BUILDERS)
def test_no_baseline_but_one_knows_the_goal(baselines, curve_of, tasks, name):
  """Where experience is the same, curves are the same for all goals. The same key gives the same curve."""
  moved = baselines[name].method.run(tasks.replace(goal=-tasks.goal), jax.random.key(0), silent)
  difference = np.abs(moved.returns - curve_of(name).returns).max()
  assert difference > 1e-4 if name == 'task_told' else difference == 0


@pytest.mark.parametrize('name', WITH_PARAMETERS)
def test_sizes_are_those_of_the_operator(baselines, lessons, name):
  assert abs(count_params(baselines[name].train(silent)) / lessons.num_params - 1) < 0.1


@pytest.mark.parametrize('name', WITH_PARAMETERS)
def test_a_stopped_training_goes_on(baselines, lessons, play, tmp_path, monkeypatch, name):
  """From the last state that was kept: of step 60, or of update 2."""
  for module in (fit, runs):
    monkeypatch.setattr(module, '_SAVE_SECONDS', 0)
  again = BUILDERS[name](dataclasses.replace(lessons, folder=tmp_path), play)
  stopped, kept = (3, 2) if name == 'rl2' else (NUM_STEPS - 5, NUM_STEPS - 20)
  with pytest.raises(Killed):
    again.train(kill_at(stopped))
  seen = []
  found = again.train(lambda stage, done, total, figures: seen.append(done))
  assert seen[0] == kept + 1
  jax.tree.map(np.testing.assert_array_equal, found, baselines[name].train(silent))


@pytest.mark.parametrize('name', WITH_PARAMETERS)
def test_what_is_learned_follows_from_lessons(baselines, lessons, tmp_path, name):
  """Fewer histories are other lessons, and other settings."""
  fewer = dataclasses.replace(lessons, histories=lessons.histories[:3], folder=tmp_path)
  assert BUILDERS[name](fewer, None).method.settings != baselines[name].method.settings


def test_what_is_simulated_besides_the_histories(baselines):
  """4 updates of 8 trials of 2 episodes of 8 steps."""
  assert {name: one.env_steps for name, one in baselines.items() if one.env_steps} == {'rl2': 512}


@pytest.mark.parametrize('name', ['cloned_best', 'rl2'])
def test_act_is_one_step(baselines, name):
  params, acting = baselines[name].train(silent), baselines[name].acting
  action = acting.step(params, acting.begin(params, 3), jnp.zeros((3, 1)))
  assert action.shape == (3, 1) and (np.abs(action) < 1).all()


def test_matched_size_by_hand():
  """Squares 1, 4, 9, ...: 6 is nearer to 4, 7 to 9; beyond the ends, the ends."""
  found = [matched_size(lambda size: size**2, num, range(1, 6)) for num in (6, 7, 9, 0, 100)]
  assert found == [2, 3, 3, 1, 5]


def test_pairs_are_of_one_history(lessons):
  """Shown is a level, the answer the best policy's; a fresh policy stands for the first level."""
  dataset = lessons.dataset
  histories = endless(dataset, lessons.histories, lessons.seed)
  pairs = taught.draw_pairs('any', lessons, histories, taught.ONLY_BEST, 0.5, 3)
  assert set(pairs.history) <= set(lessons.histories) and 0 < pairs.is_fresh.sum() < len(pairs.history)
  assert (pairs.size != 0).all() and (pairs.weight == 1).all()
  best = dataset.read_params(pairs.history, dataset.best[pairs.history])
  np.testing.assert_allclose(pairs.answer, policies.apply_numpy(best, pairs.states), atol=1e-6)
  first = dataset.read_params(pairs.history, np.zeros_like(pairs.history))
  name = policies.layer_names(first)[0]
  np.testing.assert_array_equal(pairs.shown[name]['w'][pairs.is_fresh], first[name]['w'][pairs.is_fresh])
  again = taught.draw_pairs('any', lessons, histories, taught.ONLY_BEST, 0.5, 3)
  jax.tree.map(np.testing.assert_array_equal, pairs, again)


def test_a_clone_is_of_the_policy_before(curve_of, lessons, play, tasks):
  """The first point is of random policies, the second of the clones of what they did."""
  policy, key = lessons.dataset.policy, stream(jax.random.key(0), 'episodes')
  first = initial_policies(policy, NUM_TASKS, jax.random.key(0))
  experience = play(first, tasks, stream(key, 'application 0'))
  second = cloned(policy, experience, stream(key, 'improve 0'))
  expected = [mean_return(x) for x in (experience, play(second, tasks, stream(key, 'application 1')))]
  np.testing.assert_allclose(curve_of('cloned_experience').returns[:2], expected, atol=1e-5)


def test_who_is_told_the_task_does_as_the_best_did(point, dataset, lessons, baselines):
  """On the training tasks: nearly as well as the best policies; the clone of all of them is worse."""
  found = {}
  for name in WITHOUT_EXPERIENCE:
    baselines[name].train(silent)
    sighted = BUILDERS[name](
      dataclasses.replace(lessons, family=point), make_play(point, dataset.policy, num_episodes=8)
    )
    tasks = dataset.read_tasks(lessons.histories)
    found[name] = sighted.method.run(tasks, jax.random.key(3), silent).returns.mean()
  best = dataset.returns[lessons.histories, dataset.best[lessons.histories]].mean()
  assert found['cloned_best'] + 0.5 < found['task_told'] and best - 1 < found['task_told'], (found, best)


def test_who_is_told_a_wiring_is_rewired():
  """Told the stock wiring, and with a motor reversed, of the same goal: the location of its action is reversed."""
  family = make_family('reacher_wiring')
  network = lambda told: {'mlp/~/linear_0': {'w': jnp.outer(told, jnp.arange(1.0, 5.0)), 'b': jnp.zeros(4)}}
  told = np.full(family.told_size, 0.5)

  def policy_of(wiring):
    params = task_told._policy_of(family, _Applied(network), None, np.concatenate([told, wiring.ravel()]))
    return np.asarray(params['mlp/~/linear_0']['w'])[0]

  np.testing.assert_allclose(policy_of(np.eye(2)), [0.5, 1.0, 1.5, 2.0])
  np.testing.assert_allclose(policy_of(np.array([[0.0, -1.0], [1.0, 0.0]])), [1.0, -0.5, 2.0, 1.5])


class _Applied:
  """A network without parameters."""

  def __init__(self, function):
    self.apply = lambda params, told: function(told)


def test_weights_are_read(baselines, lessons):
  """Normalised, the weights of stored and random policies are of order 1; other weights, another answer."""
  statistics = weights_only._statistics(lessons)
  fresh = initial_policies(lessons.dataset.policy, 64, jax.random.key(lessons.seed))
  normalised = jax.vmap(lambda theta: weights_only._normalised(theta, statistics))(fresh)
  values = np.concatenate([np.ravel(x) for x in jax.tree.leaves(normalised)])
  assert np.abs(values).max() <= 5 and 0.3 < values.std() < 2
  network, _ = weights_only._network_for(lessons)
  params = baselines['weights_only'].train(silent)
  answers = [
    network.apply(params, jax.tree.map(lambda x, row=row: x[row], normalised), size)['mlp/~/linear_1']['w']
    for row, size in ((0, steps.BEST), (1, steps.BEST), (0, 1))
  ]
  assert np.abs(answers[0] - answers[1]).max() > 1e-5 and np.abs(answers[0] - answers[2]).max() > 1e-5


def test_advantages_by_hand():
  """What is still to come, half as much a step, of the steps that were taken: 3, 2 + 3 / 2, 1 + 3.5 / 2; less 0.5."""
  found = rl2.advantages(
    jnp.array([1.0, 2.0, 5.0, 3.0]), jnp.array([0.5, 0.5, 9.0, 0.5]), jnp.array([True, True, False, True]),
    discounting=0.5, gae_lambda=1.0,
  )
  np.testing.assert_allclose(found, [2.25, 3.0, 0.0, 2.5])


@pytest.fixture(scope='module')
def recurrent(point, lessons, every):
  return rl2.make_recurrent(lessons.dataset.policy, experience_statistics(every[1]), 2000)


def test_what_is_learned_from_is_what_the_agent_read(recurrent):
  """Over two episodes, the first of which ended early, step by step."""
  rng = np.random.default_rng(0)
  normal = lambda *size: jnp.asarray(rng.normal(size=(2, 4, *size)), jnp.float32)
  valid = jnp.array([[True, True, False, False], [True, True, True, True]])
  trajectory = Trajectory(
    observation=normal(1), action=jnp.tanh(normal(1)), reward=normal(), next_observation=normal(1), outcome=normal(0),
    terminated=jnp.zeros((2, 4), bool).at[0, 1].set(True), valid=valid, finite=jnp.ones(2, bool),
  )
  params = recurrent.init(jax.random.key(0))
  params = jax.tree.map(lambda x: x + 0.1, params)
  agent = rl2.make_agent(recurrent, 2)
  state, expected, began = agent.begin(params), [], []
  for episode in range(2):
    began.append(state)
    for step in range(4):
      seen = take(trajectory.replace(finite=valid), (episode, step))
      inputs = recurrent.inputs(seen.observation, state.previous, state.is_first)
      expected.append(recurrent.network.apply(params, inputs, state.hidden)[0])
      _, state = agent.act(params, state, seen.observation, jax.random.key(1))
      state = agent.see(params, state, seen.replace(action=jnp.arctanh(seen.action)))
    state = agent.end_episode(params, state)
  inputs = recurrent.inputs(
    trajectory.observation.reshape(8, 1), take(previous_of(trajectory), slice(-1)), jnp.arange(8) % 4 == 0
  )
  logits, _ = recurrent.over_trial(params, inputs, valid.reshape(-1))
  np.testing.assert_allclose(logits[valid.reshape(-1)], np.stack(expected)[valid.reshape(-1)], atol=1e-5)
  # A trial has two episodes: a third one begins as the second one did.
  np.testing.assert_array_equal(state.hidden, began[1].hidden)
  assert np.abs(began[1].hidden - began[0].hidden).max() > 1e-3 and state.number == 2


def test_rl2_learns(point, recurrent):
  """The return of an episode rises from that of random actions."""
  settings = rl2.RL2Settings(
    num_episodes=2, num_trials=32, num_updates=60, num_minibatches=1, learning_rate=1e-2, reward_scaling=0.3,
    snapshot_updates=20,
  )
  tasks = sample_tasks(point, 0, 32, 'train')
  source = rl2.rl2_source(point, recurrent, jax.tree.map(jnp.asarray, tasks), settings, {})
  returns = runs.learn(source, take(tasks, slice(1)), jax.random.key(0)).returns
  assert returns[-1] > returns[0] + 1, returns
