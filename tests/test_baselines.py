"""Baselines that learn from the histories of an operator, and one that learns by reinforcement on their tasks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import policies
from metaimprove.asks import steps
from metaimprove.methods import taught, task_told, weights_only
from metaimprove.methods.baseline import Lessons, count_params, matched_size
from metaimprove.methods.cloned_best import cloned_best
from metaimprove.methods.cloned_experience import cloned_experience
from metaimprove.methods.imitation import cloned
from metaimprove.methods.method import initial_policies
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training import fit
from metaimprove.training.examples import endless, split_histories
from metaimprove.types import mean_return, silent
from tests.conftest import Killed, kill_at

NUM_TASKS, NUM_APPLICATIONS, NUM_STEPS = 4, 2, 40
BUILDERS = {
  'cloned_best': lambda lessons, play: cloned_best(lessons, num_episodes=lessons.config.num_episodes),
  'cloned_experience': cloned_experience,
  'weights_only': weights_only.weights_only,
  'task_told': lambda lessons, play: task_told.task_told(lessons, play, num_episodes=lessons.config.num_episodes),
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
    num_params=count_params(operator_params['network']), settings=fit.FitSettings(num_steps=NUM_STEPS, batch_size=8),
    seed=0, folder=tmp_path_factory.mktemp('baselines'), num_applications=NUM_APPLICATIONS,
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


@pytest.mark.parametrize('name', ['cloned_best', 'weights_only', 'task_told'])
def test_a_stopped_training_goes_on(baselines, lessons, play, tmp_path, monkeypatch, name):
  monkeypatch.setattr(fit, '_SAVE_SECONDS', 0)
  again = BUILDERS[name](dataclasses.replace(lessons, folder=tmp_path), play)
  with pytest.raises(Killed):
    again.train(kill_at(NUM_STEPS - 5))
  seen = []
  found = again.train(lambda stage, done, total, figures: seen.append(done))
  assert seen[0] == NUM_STEPS // 2 + 1
  jax.tree.map(np.testing.assert_array_equal, found, baselines[name].train(silent))


@pytest.mark.parametrize('name', ['cloned_best', 'weights_only', 'task_told'])
def test_what_is_learned_follows_from_lessons(baselines, lessons, tmp_path, name):
  """Fewer histories are other lessons, and other settings."""
  fewer = dataclasses.replace(lessons, histories=lessons.histories[:3], folder=tmp_path)
  assert BUILDERS[name](fewer, None).method.settings != baselines[name].method.settings


def test_act_is_one_step(baselines):
  params = baselines['cloned_best'].train(silent)
  assert baselines['cloned_best'].act(params, jnp.zeros((3, 1))).shape == (3, 1)


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
