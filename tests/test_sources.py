"""One contract for all sources of improvement, on the point family; then each worked by hand."""

import dataclasses
import functools
import textwrap
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from metaimprove import improvers, parallel
from metaimprove.errors import DamagedDataError, IncompatibleError, UnknownNameError
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from metaimprove.improvers import run as runs
from metaimprove.improvers.source import Learning, Piece, Snapshots, Source
from metaimprove.improvers.demonstrations import (
  ImitationSettings, demonstrations, imitation_gap, logged_demonstrations, make_act,
)
from metaimprove.improvers.evolution import EvolutionSettings, costs, evolution
from metaimprove.improvers.independent_ppo import independent_ppo
from metaimprove.improvers.noise_ladder import check_ladder, ladder_report, noise_ladder, one_of
from metaimprove.improvers.domain_randomised_ppo import domain_randomised_ppo
from metaimprove.improvers.task_conditioned_ppo import task_conditioned_ppo
from metaimprove.policies import make_policy
from metaimprove.rollouts import rollout, unroll
from metaimprove.types import Task, Trajectory, episode_return
from tests.compilations import counted
from tests.conftest import Killed, kill_at
from tests.point_family import point_family
from tests.point_histories import HIDDEN_SIZES, PPO

NUM_TASKS = 6
NUM_EPISODES = 32  # of all demonstrations, so that all are imitated by one program
EVOLUTION = EvolutionSettings(population_size=16, num_episodes=2, learning_rate=0.1, std=0.1)
# To learn what suits goals on both sides takes more experience, and gains less: to stay in the middle.
PPO_FOR_ALL = dataclasses.replace(PPO, num_envs=64, num_minibatches=8, num_epochs=8, learning_rate=3e-2)
GAINS = {'domain_randomised_ppo': 0.3}
IMITATION = ImitationSettings(steps_per_update=20, batch_size=64, learning_rate=2e-2)


def expert(rng_key, task):
  """θ that goes straight to the goal of the point: swish(z) - swish(-z) = z makes it linear before tanh."""
  gain = 0.8 / task.dynamics['gear']
  to_goal = jnp.array([1.0, -1.0])
  first = {'w': jnp.zeros((1, 8)).at[0, :2].set(-to_goal), 'b': jnp.zeros(8).at[:2].set(to_goal * task.goal)}
  last = {'w': jnp.zeros((8, 2)).at[:2, 0].set([gain, -gain]), 'b': jnp.array([0.0, -5.0])}
  return {'mlp/~/linear_0': first, 'mlp/~/linear_1': last}


def stay(observation, rng_key):
  return -0.5 * observation


def points(*goals, gear=1.0):
  """Tasks by hand."""
  goal = np.array(goals, np.float32)
  return Task(goal=goal[:, None], dynamics={'gear': np.broadcast_to(np.float32(gear), goal.shape)})


def logs(family, tasks):
  """Episodes of the expert on each task, as Minari has them."""
  policy = make_policy(family.observation_size, family.action_size, HIDDEN_SIZES)

  @jax.jit
  @jax.vmap
  def play(task):
    return rollout(family, policy, expert(None, task), task, jax.random.key(2), num_episodes=NUM_EPISODES)

  played = jax.device_get(play(tasks))
  return [
    [
      types.SimpleNamespace(
        observations=np.concatenate([t.observation[e], t.next_observation[e, -1:]]), actions=t.action[e],
        rewards=t.reward[e],
      ) for e in range(NUM_EPISODES)
    ] for t in (take(played, n) for n in range(len(tasks.goal)))
  ]


def make_logged(family):
  tasks = sample_tasks(family, 0, NUM_TASKS, 'train')
  return logged_demonstrations(family, tasks, logs(family, tasks), IMITATION, 10, HIDDEN_SIZES)


def documented(family):
  """The source that the docstring of `improvers` shows as an example."""
  text = improvers.__doc__
  code = text[text.index('    import jax\n'):text.index('`run.make_learn` does the rest')]
  names = {}
  exec(textwrap.dedent(code), names)
  return names['hill_climbing'](family, 60, std=0.3, num_episodes=8, hidden_sizes=HIDDEN_SIZES)


SOURCES = {
  'task_conditioned_ppo': lambda family: task_conditioned_ppo(family, PPO, 30, HIDDEN_SIZES),
  'domain_randomised_ppo': lambda family: domain_randomised_ppo(family, PPO_FOR_ALL, 60, HIDDEN_SIZES),
  'independent_ppo': lambda family: independent_ppo(family, PPO, 20, HIDDEN_SIZES),
  'evolution': lambda family: evolution(family, EVOLUTION, 20, HIDDEN_SIZES),
  'action_noise_ladder': lambda family: noise_ladder(
    family, expert, kind='actions', num_rungs=8, num_episodes=4, hidden_sizes=HIDDEN_SIZES
  ),
  'parameter_noise_ladder': lambda family: noise_ladder(
    family, expert, kind='parameters', num_rungs=8, num_episodes=4, hidden_sizes=HIDDEN_SIZES
  ),
  'demonstrations': lambda family: demonstrations(
    family, stay, IMITATION, 10, HIDDEN_SIZES, num_episodes=NUM_EPISODES
  ),
  'logged_demonstrations': make_logged,
  'hill_climbing': documented,
}


@dataclasses.dataclass
class Run:
  """A source, its function `learn`, all its tasks, a run on the first four and what that compiled."""

  source: Source
  learn: object
  tasks: Task
  learning: Learning
  compiled: list


@functools.cache
def run_of(name):
  family = point_family()
  source = SOURCES[name](family)
  tasks = jax.device_get(sample_tasks(family, 0, NUM_TASKS, 'train') if source.tasks is None else source.tasks)
  learn = runs.make_learn(source)
  with counted() as compiled:
    learning = learn(take(tasks, slice(4)), jax.random.key(0))
  assert source.name == name
  return Run(source=source, learn=learn, tasks=tasks, learning=learning, compiled=compiled)


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SOURCES])
def run(request):
  return run_of(request.param)


def assert_same(learning, other):
  np.testing.assert_array_equal(learning.returns, other.returns)
  jax.tree.map(np.testing.assert_array_equal, learning.snapshots[:], other.snapshots[:])


def test_policies_become_better(run, point):
  policy = make_policy(point.observation_size, point.action_size, HIDDEN_SIZES)
  play = jax.jit(jax.vmap(functools.partial(rollout, point, policy, num_episodes=32)))
  tasks = take(run.tasks, slice(4))
  params = [run.source.params_of(take(run.learning.snapshots, at), tasks) for at in (0, -1)]
  first, last = (
    episode_return(play(theta, tasks, jax.random.split(jax.random.key(1), 4))).mean() for theta in params
  )
  gain = GAINS.get(run.source.name, 1.0)
  assert last > first + gain
  assert run.learning.returns[-3:].mean() > run.learning.returns[:3].mean() + gain
  # Returns are those of episodes of these policies; a shared learner practises on other tasks.
  np.testing.assert_allclose(run.learning.returns[0].mean(), first, atol=3.0)
  np.testing.assert_allclose(run.learning.returns[-1].mean(), last, atol=3.0 if run.source.shared else 1.0)


def test_settings_tell_the_network(run):
  """Histories with another network are not to be taken for those of the same source."""
  assert run.source.settings['hidden_sizes'] == list(HIDDEN_SIZES)


def test_same_key_same_run(run):
  again = run.learn(take(run.tasks, slice(4)), jax.random.key(0))
  assert_same(run.learning, again)


def test_one_program_for_all_updates_and_tasks(run):
  """And a learner's run does not depend on its neighbours, nor on where among them it stands."""
  assert sum('update' in name for name in run.compiled) == 1
  index = np.array([5, 1, 0, 4])
  tasks = take(run.tasks, index)
  with counted() as compiled:
    other = run.learn(tasks, jax.random.key(0), index=index)
  assert compiled == []
  if not run.source.shared:
    np.testing.assert_allclose(other.returns[:, [2, 1]], run.learning.returns[:, :2], rtol=1e-4)
    assert np.abs(other.returns[:, 0] - run.learning.returns[:, 0]).max() > 1e-2


def test_a_run_that_was_stopped_goes_on_where_it_was(run, tmp_path, monkeypatch):
  monkeypatch.setattr(runs, '_SAVE_SECONDS', 0.0)
  tasks = take(run.tasks, slice(4))
  for when in (3, 6):
    with pytest.raises(Killed):
      run.learn(tasks, jax.random.key(0), folder=tmp_path, progress=kill_at(when))
  with pytest.raises(DamagedDataError, match='run the collection again'):
    runs.load_learning(run.source, tasks, tmp_path)
  resumed = run.learn(tasks, jax.random.key(0), folder=tmp_path)
  assert_same(run.learning, resumed)
  assert_same(run.learning, runs.load_learning(run.source, tasks, tmp_path))


def test_state_keeps_its_shapes_and_types(run, point):
  """Resuming reads a state into the shapes that `init` gives."""
  task = None if run.source.shared else take(run.tasks, 0)
  data = () if run.source.data is None else (take(run.source.data, 0),)
  before = jax.eval_shape(run.source.init, jax.random.key(0), task, *data)
  jaxpr, (after, value) = jax.make_jaxpr(run.source.update, return_shape=True)(before, task, jax.random.key(0))
  assert any(given is jaxpr.jaxpr.invars[-1] for equation in jaxpr.eqns for given in equation.invars)  # the key is used
  assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(before)), 'a file gives no weak types back'
  assert value.shape == ()
  assert run.source.env_steps_per_update % point.episode_length == 0


# PPO


def test_domain_randomised_ppo_is_told_nothing():
  """One policy for all tasks, where a learner that is told the task has one for each."""
  run = run_of('domain_randomised_ppo')
  params = run.source.params_of(run.learning.snapshots[-1], run.tasks)
  jax.tree.map(lambda x: np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape)), params)
  told = run_of('task_conditioned_ppo')
  told = told.source.params_of(told.learning.snapshots[-1], told.tasks)
  assert len(np.unique(np.asarray(told['mlp/~/linear_0']['b'])[:, 0])) == NUM_TASKS


# Evolution


def test_evolution_climbs():
  """To the goal on whichever side: a cost that is taken for a return goes the other way. Where the simulation always
  blows up, nothing tells what is better, and nothing moves."""
  run = run_of('evolution')
  tasks = points(2.0, -2.0, 2.0, -2.0, gear=[1.0, 1.0, np.inf, np.inf])
  snapshots = run.learn(tasks, jax.random.key(0)).snapshots
  params = [run.source.params_of(snapshots[at], tasks) for at in (0, 5)]
  apply = jax.vmap(make_policy(1, 1, HIDDEN_SIZES).apply, in_axes=(0, None))
  first, last = (apply(theta, jnp.zeros(1))[:, 0] for theta in params)
  moved = last - first
  assert moved[0] > 0.2 and moved[1] < -0.2
  np.testing.assert_allclose(snapshots[5][2:], snapshots[0][2:], atol=1e-5)


def test_evolution_measures_the_mean_alone_before_the_update(point):
  """An expert in a population that is far from it, about to take a step that is far too long."""
  task = take(points(1.0), 0)
  source = evolution(point, dataclasses.replace(EVOLUTION, std=2.0, learning_rate=1.0), 2, HIDDEN_SIZES)
  update = jax.jit(source.update)
  state = jax.jit(source.init)(jax.random.key(0), task)
  state = state.replace(mean=ravel_pytree(expert(None, task))[0])
  key_first, key_second = jax.random.split(jax.random.key(1))
  state, value = update(state, task, key_first)
  # The start is within 0.1 of 0 and what is left of the way shrinks to about a third, 0.35, in the first step.
  np.testing.assert_allclose(value, -0.45, atol=0.25)
  assert update(state, task, key_second)[1] < -2.0


def test_evolution_ranks_a_blow_up_last():
  """A return of -1 that was cut short costs more than one of -9."""
  reward = np.array([[[-4.0, -5.0], [-4.0, -5.0]], [[-1.0, 0.0], [-3.0, -2.0]]], np.float32)
  zero, ends = np.zeros((2, 2, 2, 1), np.float32), np.zeros((2, 2, 2), bool)
  trajectories = Trajectory(
    observation=zero, action=zero, reward=reward, next_observation=zero, outcome=zero, terminated=ends, valid=~ends,
    finite=np.array([[True, True], [False, True]]),
  )
  np.testing.assert_array_equal(costs(trajectories), [9.0, np.inf])


def test_evolution_in_pairs(point):
  with pytest.raises(IncompatibleError, match='must be even'):
    evolution(point, EvolutionSettings(population_size=5), 2)


# Noise ladders


LEVELS = 1 - np.arange(8) / 7  # of noise


def experts(tasks):
  return jax.vmap(expert, in_axes=(None, 0))(None, tasks)


def test_rungs_of_actions_by_hand():
  """A rung's logits are a share of the expert's, from none to all."""
  run = run_of('action_noise_ladder')
  apply = jax.vmap(make_policy(1, 1, HIDDEN_SIZES).apply, in_axes=(0, None))
  logits = np.stack([apply(take(run.learning.snapshots, i), jnp.array([0.7])) for i in range(8)])
  np.testing.assert_array_equal(logits[0], 0.0)
  all_of_it = apply(experts(take(run.tasks, slice(4))), jnp.array([0.7]))
  np.testing.assert_allclose(logits, (1 - LEVELS)[:, None, None] * all_of_it, rtol=1e-5, atol=1e-6)


def test_rungs_of_parameters_by_hand():
  """On the arc to a fresh policy, another one on each task."""
  run = run_of('parameter_noise_ladder')
  for rungs, top in zip(*map(jax.tree.leaves, (run.learning.snapshots[:], experts(take(run.tasks, slice(4)))))):
    angle = np.pi / 2 * LEVELS.reshape(-1, *[1] * top.ndim)
    np.testing.assert_allclose(rungs[:8], np.sin(angle) * rungs[0] + np.cos(angle) * top, atol=1e-5)
  fresh = run.learning.snapshots[0]['mlp/~/linear_1']['w']
  np.testing.assert_allclose(fresh.std(), np.sqrt(1 / 8), rtol=0.3)  # variance scaling over 8 inputs
  assert abs(np.corrcoef(fresh[0].ravel(), fresh[1].ravel())[0, 1]) < 0.9


@pytest.mark.parametrize('kind', ['action', 'parameter'])
def test_the_clean_policy_can_be_chosen(kind):
  """As a checkpoint: it is the last whose return is measured. Zeros are left exactly zero."""
  run = run_of(f'{kind}_noise_ladder')
  assert len(run.learning.returns) == 8
  for at in (7, 8):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-6), take(run.learning.snapshots, at),
      experts(take(run.tasks, slice(4))),
    )
  report = ladder_report(run.learning)
  check_ladder(run.learning)
  assert report['share_rising'] > 0.7 and report['rank_correlation'] > 0.7


def fake_ladder(returns):
  return Learning(snapshots=None, returns=np.asarray(returns, np.float32))


def test_ladder_report_by_hand():
  """Means 1, 3, 2, 4: two steps of three rise. Ranks of the first task are in order; of the second 1, 3, 2, 4 against
  1, 2, 3, 4: 1 - 6 * 2 / (4 * 15) = 0.8; the third says nothing."""
  report = ladder_report(fake_ladder([[0.0, 1.0, 2.0], [0.1, 6.9, 2.0], [0.2, 3.8, 2.0], [0.3, 9.7, 2.0]]))
  np.testing.assert_allclose(report['mean_return'], [1.0, 3.0, 2.0, 4.0], rtol=1e-6)
  np.testing.assert_allclose([report['share_rising'], report['rank_correlation']], [2 / 3, (1 + 0.8 + 0) / 3])


def test_ladders_that_are_refused():
  noise = np.random.default_rng(0).normal(size=(4, 100))
  check_ladder(fake_ladder(np.array([[0.0], [1.0], [1.0], [2.0]]) + noise))
  with pytest.raises(IncompatibleError, match='falls by 1.* from rung 1 to'):
    check_ladder(fake_ladder(np.array([[0.0], [2.0], [1.0], [2.0]]) + noise))
  with pytest.raises(IncompatibleError, match='may be chance'):
    check_ladder(fake_ladder(noise))
  with pytest.raises(IncompatibleError, match='at least two'):
    check_ladder(fake_ladder([[0.0], [2.0], [1.0], [2.0]]))


def test_one_of_takes_whole_policies():
  base = one_of({'a': np.arange(3), 'b': 10.0 * np.arange(3)})
  drawn = jax.vmap(base, in_axes=(0, None))(jax.random.split(jax.random.key(0), 60), None)
  np.testing.assert_array_equal(drawn['b'], 10.0 * drawn['a'])
  assert all(10 <= count <= 30 for count in np.bincount(drawn['a'], minlength=3))


def test_ladders_that_can_not_be(point):
  with pytest.raises(UnknownNameError, match='choose one of: actions, parameters'):
    noise_ladder(point, expert, kind='rewards', num_rungs=3, num_episodes=1)
  with pytest.raises(IncompatibleError, match='at least two'):
    noise_ladder(point, expert, kind='actions', num_rungs=1, num_episodes=1)


# Demonstrations


def imitator_of(learning):
  """The final imitator's own actions, and their scale before tanh, at -0.2 and 0.2 on the first task."""
  policy = make_policy(1, 1, HIDDEN_SIZES)
  params = take(learning.snapshots[-1]['params'], 0)
  normal = policy.distribution.create_dist(policy.apply(params, jnp.array([[-0.2], [0.2]])))
  return np.tanh(normal.loc[:, 0]), normal.scale[:, 0]


def test_a_linear_policy_is_recovered(point):
  def turn_back(observation, rng_key):
    """Drawn, so that a wide range is visited and the spread is to be learned too."""
    return jnp.tanh(-2.0 * observation + 0.5 * jax.random.normal(rng_key, observation.shape))

  source = demonstrations(point, turn_back, IMITATION, 30, HIDDEN_SIZES, num_episodes=NUM_EPISODES)
  actions, scales = imitator_of(runs.learn(source, points(1.0, 1.0, 1.0, 1.0), jax.random.key(0)))
  np.testing.assert_allclose(actions, np.tanh([0.4, -0.4]), atol=0.1)
  np.testing.assert_allclose(scales, 0.5, atol=0.1)


def test_actions_at_the_limit(point):
  """Which tanh never reaches."""
  episode = {'observations': np.zeros((9, 1)), 'actions': np.ones((8, 1)), 'rewards': np.zeros(8)}
  tasks = points(1.0, 1.0, 1.0, 1.0)
  source = logged_demonstrations(point, tasks, [[episode] * NUM_EPISODES] * 4, IMITATION, 10, HIDDEN_SIZES)
  learning = runs.learn(source, tasks, jax.random.key(0))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((learning.snapshots[:], learning.returns)))
  assert (imitator_of(learning)[0] > 0.9).all()


def test_what_was_not_done_is_not_imitated():
  """Right of 0 the policy rushes on: with gear 1.6 two steps lead beyond 3, the end; with gear 2 the second step blows
  up, which spoils the first. Left of 0 it stays."""
  family = point_family(blow_up_beyond=3.5)
  rush = lambda observation, rng_key: jnp.where(observation > 0.0, 7.0, 0.0)  # an action is at most 1
  source = demonstrations(family, rush, IMITATION, 1, HIDDEN_SIZES, num_episodes=NUM_EPISODES)
  keys = jax.random.split(jax.random.key(0), 2)
  shown = jax.jit(jax.vmap(source.init))(keys, points(1.0, 1.0, gear=[1.6, 2.0]))['demonstrations']
  right = shown.observation.reshape(2, NUM_EPISODES, 8)[:, :, 0] > 0
  assert 0 < right.sum() < right.size
  steps = shown.weight.reshape(2, NUM_EPISODES, 8).sum(axis=-1)
  np.testing.assert_array_equal(steps, np.where(right, [[2], [0]], 8))
  np.testing.assert_array_equal(shown.action[0, :, 0], shown.observation[0, :, 0] > 0)
  # |1.6 - 1| + |3.2 - 1|, and eight times |0 - 1|; but for the starts' 0.1.
  np.testing.assert_allclose(shown.mean_return, [np.where(right[0], -2.8, -8.0).mean(), -8.0], atol=0.8)


def test_any_callable_is_the_same_policy(point):
  """Traced, as Brax returns it, and as code that JAX can not trace."""
  def of_numpy(observation, rng_key):
    assert isinstance(observation, np.ndarray) and rng_key.shape == (2,)
    return -0.5 * observation if observation[0] > -100.0 else None

  with_extras = lambda observation, rng_key: (stay(observation, rng_key), {'anything': rng_key})
  np.testing.assert_array_equal(make_act(point, with_extras)(jnp.array([0.5]), jax.random.key(0))[0], [-0.25])
  tasks, keys = points(0.0, 1.0), jax.random.split(jax.random.key(0), 2)  # one on each device
  traced, called = (
    jax.jit(parallel.vmap(functools.partial(unroll, point, make_act(point, policy), num_episodes=2)))(tasks, keys)
    for policy in (stay, of_numpy)
  )
  assert len(np.unique(traced[0].action)) == 2 * 2 * 8
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), traced, called)


def test_a_policy_of_numpy_draws_with_its_key(point):
  act = make_act(point, lambda observation, rng_key: np.random.default_rng(np.asarray(rng_key)).uniform(size=1))
  actions = jax.jit(lambda key: unroll(point, act, take(points(0.0), 0), key, num_episodes=2)[0].action)
  drawn = actions(jax.random.key(0))
  assert len(np.unique(drawn)) == drawn.size
  np.testing.assert_array_equal(drawn, actions(jax.random.key(0)))


def test_policies_that_do_not_fit(point):
  with pytest.raises(IncompatibleError, match=r'actions of shape \(2,\); point needs \(1,\)'):
    make_act(point, lambda observation, rng_key: jnp.zeros(2))
  with pytest.raises(ZeroDivisionError):  # its own error, not one of the callback
    make_act(point, lambda observation, rng_key: 1 / 0)


def test_imitation_gap_by_hand():
  """The last measured return, 3 and 4, of demonstrations at 5 and 3.5."""
  learning = Learning(
    snapshots=Snapshots(pieces=(Piece(size=3, read=lambda: {'demonstrated': np.array([[5.0, 3.5]] * 3)}),)),
    returns=np.array([[1.0, 2.0], [3.0, 4.0]]),
  )
  np.testing.assert_array_equal(imitation_gap(learning), [2.0, -0.5])


def test_the_imitation_gap_closes():
  learning = run_of('demonstrations').learning
  first = learning.snapshots[0]['demonstrated'] - learning.returns[0]
  assert abs(imitation_gap(learning).mean()) < 0.6 < first.mean()


LOG = {
  'observations': np.array([[0.0], [0.5], [0.9]]), 'actions': np.array([[0.5], [0.4]]),
  'rewards': np.array([-2.0, -1.0]),
}


def test_a_log_by_hand(point):
  """Tasks with one and two episodes, as attributes and as a dict: padded, and not mixed up."""
  short = {'observations': np.zeros((2, 1)), 'actions': np.full((1, 1), -1.0 - 1e-6), 'rewards': np.array([-7.0])}
  tasks = sample_tasks(point, 0, 2, 'train')
  source = logged_demonstrations(point, tasks, [[types.SimpleNamespace(**LOG)], [short, LOG]], IMITATION, 2)
  np.testing.assert_array_equal(source.data.weight, [[1, 1, 0], [1, 1, 1]])
  np.testing.assert_allclose(source.data.action[..., 0], [[0.5, 0.4, 0.0], [-1.0, 0.5, 0.4]], rtol=1e-5)
  np.testing.assert_array_equal(source.data.observation[..., 0], np.float32([[0.0, 0.5, 0.0], [0.0, 0.0, 0.5]]))
  np.testing.assert_array_equal(source.data.mean_return, [-3.0, -5.0])
  assert source.tasks is tasks
  other = logged_demonstrations(point, tasks, [[LOG], [LOG, LOG]], IMITATION, 2)
  assert source.settings != other.settings


@pytest.mark.parametrize('changes, message', [
  ({'observations': np.zeros((3, 2))}, r'observations have shape \[3, 2\]; \[steps \+ 1, 1\] is needed'),
  ({'observations': np.zeros((2, 1))}, r'actions have shape \[2, 1\]; \[1, 1\] is needed'),
  ({'observations': {'camera': np.zeros((3, 1))}}, 'observations are no array of numbers'),
  ({'actions': np.zeros((2, 3))}, r'actions have shape \[2, 3\]'),
  ({'actions': np.array([[0.5], [1.01]])}, 'as large as 1.01'),
  ({'actions': np.array([[0.5], [np.nan]])}, 'actions are not all finite'),
  ({'rewards': np.array([0.0, np.inf])}, 'rewards are not all finite'),
  ({'observations': np.zeros((10, 1))}, 'has 9 steps, one less than it has observations, and 1 to 8 can be read'),
  ({'observations': np.zeros((1, 1))}, 'has 0 steps'),
  ({'rewards': None}, 'has no rewards'),
  ({'terminations': [False]}, 'terminations must be 2 times'),
  ({'terminations': [True, False]}, 'goes on after its end'),
])
def test_logs_that_do_not_fit(point, changes, message):
  with pytest.raises(IncompatibleError, match=f'Episode 1 of task 0.*{message}'):
    logged_demonstrations(point, points(0.0), [[LOG, {**LOG, **changes}]], IMITATION, 2)


def test_a_log_needs_episodes_of_every_task(point):
  for episodes in ([], [[]], [[LOG], [LOG]]):
    with pytest.raises(IncompatibleError, match='each of the 1 tasks'):
      logged_demonstrations(point, points(0.0), episodes, IMITATION, 2)
