"""One contract for every family on every backend it declares, and what is particular to each."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import files
from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.rollouts import unroll
from metaimprove.tasks import hindsight
from metaimprove.tasks.family import TASK_SUITE_VERSION, distribution_of
from metaimprove.tasks.from_brax import from_brax_env
from metaimprove.tasks.practice import practice_family
from metaimprove.tasks.registry import backends_of, family_names, make_family
from metaimprove.tasks.robots import dynamics, physics, reacher
from metaimprove.tasks.robots.physics import PhysicsState
from metaimprove.types import Task, Trajectory
from tests import robots
from tests.compilations import counted
from tests.point_family import point_family
from tests.record_golden import FOLDER

NUM_TASKS, NUM_STEPS = robots.BATCH, 3
COMBINATIONS = [(name, backend) for name in family_names() for backend in backends_of(name)]


class Bench:
  """A family on a backend with everything randomised that is real there, and a short run of it.

  Steps are taken one by one, so that what is compiled is the robot's physics, once for all families on it.
  """

  def __init__(self, name, backend):
    self.name, self.backend = name, backend
    self.parameters = tuple(dict.fromkeys((*backends_of(name)[backend], *make_family(name, backend).ranges)))
    self.family = make_family(name, backend, self.parameters)
    keys = jax.random.split(jax.random.key(0), NUM_TASKS)
    self.tasks = jax.jit(jax.vmap(self.family.sample))(keys)
    self.keys = jax.random.split(jax.random.key(1), NUM_TASKS)
    self.actions = jax.random.uniform(
      jax.random.key(2), (NUM_STEPS, NUM_TASKS, self.family.action_size), minval=-1, maxval=1
    )

  def run(self, tasks, keys=None):
    """(start, states [NUM_STEPS, NUM_TASKS, ...])"""
    state = start = jax.vmap(self.family.reset)(tasks, self.keys if keys is None else keys)
    after = []
    for action in self.actions:
      state = jax.vmap(self.family.step)(tasks, state, action)
      after.append(state)
    return start, jax.tree.map(lambda *x: jnp.stack(x), *after)

  @functools.cached_property
  def done(self):
    return self.run(self.tasks)


def golden_of(bench):
  _, after = bench.done
  return {'observation': after.observation, 'reward': after.reward, 'terminated': after.terminated}


def robot_group(name, backend):
  """Tests that share compiled programs run in one process."""
  robot = next((robot for robot, (_, families) in robots.ROBOTS.items() if name in families), name)
  return pytest.mark.xdist_group(f'{robot}-{backend}')


@pytest.fixture(scope='module', params=[
  pytest.param(pair, id='-'.join(pair), marks=robot_group(*pair)) for pair in COMBINATIONS
])
def bench(request):
  return Bench(*request.param)


def test_shapes_and_sizes(bench):
  family = bench.family
  start, after = bench.done
  assert start.observation.shape == (NUM_TASKS, family.observation_size)
  assert after.observation.shape == (NUM_STEPS, NUM_TASKS, family.observation_size)
  assert after.reward.shape == after.terminated.shape == (NUM_STEPS, NUM_TASKS)
  assert after.outcome.shape == (NUM_STEPS, NUM_TASKS, family.outcome_size) and after.outcome.dtype == np.float32
  np.testing.assert_array_equal(start.outcome, np.zeros((NUM_TASKS, family.outcome_size)))
  assert bench.tasks.goal.shape == (NUM_TASKS, family.goal_size)
  assert after.terminated.dtype == bool
  assert np.isfinite(after.observation).all() and np.isfinite(after.reward).all()
  task = jax.tree.map(lambda x: x[0], bench.tasks)
  privileged = family.privileged(task)
  assert privileged.shape == (family.privileged_size,) and np.abs(privileged).max() <= 2.01
  assert family.definition.strip() and 'Reward per step' in family.definition
  words = family.describe(task)
  assert len(words) > 20 and 'nan' not in words and words != family.describe(jax.tree.map(lambda x: x[1], bench.tasks))
  picture = family.picture(task, after.physics.q[0, 0])
  assert picture['lines'].shape[1:] == (2, 2) and np.isfinite(picture['lines']).all() and picture['goal'].shape == (2,)


def drawn_of(name):
  """What a family draws by default, and the range of each parameter that it has, as plain data."""
  def drawn(chosen):
    return jax.tree.map(lambda x: round(x, 6), distribution_of(make_family(name, dynamics=chosen))['dynamics'])

  everything = (*next(iter(backends_of(name).values())), 'action_delay', 'action_noise', 'observation_noise')
  return json.loads(json.dumps({'default': drawn('default'), 'everything': drawn(everything)}))


def test_ranges_are_frozen():
  """If one changes, raise TASK_SUITE_VERSION and record the golden files anew. What is new is only added to them."""
  golden = files.read_json(FOLDER / 'ranges.json')
  assert golden['task_suite_version'] == TASK_SUITE_VERSION and set(golden['families']) == set(family_names())
  for name, recorded in golden['families'].items():
    assert drawn_of(name) == recorded, name


def test_definitions_are_frozen(bench):
  """Tasks, starts, observations, rewards and ends of fixed keys are those of this TASK_SUITE_VERSION.

  Held in the median over tasks: rounding, which differs between processors, may flip a contact of one or two (a cheetah
  without fused multiply-add: 2 of 8 in the third step), and another definition changes them all.
  """
  golden = files.load_arrays(FOLDER / 'families.safetensors')
  for name, value in golden_of(bench).items():
    recorded = golden[f'{bench.name}-{physics.simulator_of(bench.backend)}-{name}']
    scale = np.abs(recorded).max(axis=(0, 1), keepdims=True) + 1e-3
    error = (np.abs(np.asarray(value, np.float32) - recorded) / scale).reshape(NUM_STEPS, NUM_TASKS, -1).max(axis=2)
    assert np.median(error, axis=1).max() < 1e-3, name


def test_other_tasks_and_true_resets_in_the_same_program(bench):
  """New goals, dynamics and starts compile nothing, and every key gives another start: the point's are all the same."""
  first, _ = bench.done
  with counted() as compilations:
    other, _ = bench.run(jax.tree.map(lambda x: x[::-1], bench.tasks), jax.random.split(jax.random.key(5), NUM_TASKS))
    again = jax.vmap(bench.family.reset)(bench.tasks, bench.keys)
  assert not {'step', 'start', 'jit(step)', 'jit(start)'} & set(compilations), compilations
  np.testing.assert_array_equal(first.observation, again.observation)
  differs = np.abs(first.observation - other.observation).max(axis=1) > 0
  assert not differs.any() if bench.backend == 'kinematic' else differs.all()


def test_the_goal_is_hidden_and_matters(bench):
  """Another goal changes the rewards, but no observation and no outcome."""
  if not bench.tasks.goal.shape[1]:
    pytest.skip('tasks differ in dynamics only')
  start, after = bench.done
  start_moved, after_moved = bench.run(bench.tasks.replace(goal=-bench.tasks.goal))
  np.testing.assert_array_equal(start.observation, start_moved.observation)
  np.testing.assert_allclose(after.observation, after_moved.observation, atol=1e-4)
  np.testing.assert_allclose(after.outcome, after_moved.outcome, atol=1e-4)
  if 'sparse' not in bench.name:  # by hand, below: hardly any first steps are rewarded
    assert np.abs(after.reward - after_moved.reward).max() > 1e-3


def test_the_outcome_is_hidden(bench):
  """A policy cannot see the last outcome: with another one in the state, everything that follows is the same."""
  start, after = bench.done
  step = jax.vmap(bench.family.step)
  again = step(bench.tasks, start.replace(outcome=start.outcome + 7), bench.actions[0])
  np.testing.assert_array_equal(again.observation, after.observation[0])
  np.testing.assert_array_equal(again.outcome, after.outcome[0])


def trajectories_of(bench):
  """[NUM_TASKS, 1, NUM_STEPS, ...]: the run as one episode of each task, all steps valid."""
  _, after = bench.done
  by_task = lambda x: jnp.moveaxis(x, 0, 1)[:, None]
  reward, observation = by_task(after.reward), by_task(after.observation)
  return Trajectory(
    observation=observation, action=by_task(bench.actions), reward=reward, next_observation=observation,
    outcome=by_task(after.outcome), terminated=jnp.zeros(reward.shape, bool), valid=jnp.ones(reward.shape, bool),
    finite=jnp.ones(reward.shape[:2], bool),
  )


def test_relabelling_with_its_own_goal_gives_the_stored_rewards(bench):
  trajectories = trajectories_of(bench)
  rewards = jax.vmap(functools.partial(hindsight.relabel, bench.family))(trajectories, bench.tasks.goal)
  np.testing.assert_allclose(rewards, trajectories.reward, rtol=1e-5, atol=1e-5)


def test_the_achieved_goal_pays_more_than_the_goals_of_other_tasks(bench):
  """Wrong signs, swapped axes and wrong units of an achieved goal, or of a practice reward, make it pay less than goals
  drawn at random."""
  family, trajectories = bench.family, trajectories_of(bench)
  if not family.goal_size:
    with pytest.raises(IncompatibleError, match=f'{bench.name}.*no goal'):
      hindsight.achieved(family, trajectories)
    return
  achieved = jax.vmap(functools.partial(hindsight.achieved, family))(trajectories)
  assert achieved.shape == (NUM_TASKS, 1, family.goal_size) and np.isfinite(achieved).all()
  dense = practice_family(family)
  returns = lambda goal: jax.vmap(lambda t, g: hindsight.relabel(dense, t, g).sum())(trajectories, goal)
  others = np.stack([returns(jnp.roll(bench.tasks.goal, shift, axis=0)) for shift in range(NUM_TASKS)])
  own = returns(achieved[:, 0])
  assert (own >= others.mean(axis=0) - 1e-5).all() and own.sum() > others.mean(axis=0).sum() + 1e-3


@pytest.fixture
def gliding(monkeypatch):
  """Robots that nothing moves: q[0] and q[1] go on at their velocities, so that rewards can be worked by hand."""
  def load(robot, backend):
    real = physics_load(robot, backend)

    def step(parameters, state, control):
      return PhysicsState(
        q=state.q.at[:2].add(state.qd[:2] * real.time_step), qd=state.qd, qacc_warmstart=state.qacc_warmstart
      )

    def init(parameters, q, qd):
      return PhysicsState(q=q, qd=qd, qacc_warmstart=qd)

    return dataclasses.replace(real, step=step, init=init)

  physics_load = physics.load
  monkeypatch.setattr(physics, 'load', load)


def step_by_hand(name, *, q=None, qd=None, goal=(), action=0.5, pose=None):
  """(reward, terminated) of one step from the model's pose, with entries of q and qd as given."""
  family = make_family(name, None, 'none')
  task = Task(goal=jnp.asarray(goal, jnp.float32), dynamics={})
  state = family.reset(task, jax.random.key(0))
  pose = np.array(np.round(state.physics.q) if pose is None else pose)
  velocity = np.zeros(len(state.physics.qd))
  for index, value in (q or {}).items():
    pose[index] = value
  for index, value in (qd or {}).items():
    velocity[index] = value
  still = state.physics.replace(q=jnp.asarray(pose, jnp.float32), qd=jnp.asarray(velocity, jnp.float32))
  after = family.step(task, state.replace(physics=still), jnp.full(family.action_size, action))
  return float(after.reward), bool(after.terminated)


@pytest.mark.parametrize(('name', 'arguments', 'reward', 'terminated'), [
  # |2 - 1.5| and 0.05 * 6 * 0.5²; the weight is not the 0.1 of public copies.
  ('half_cheetah_vel', {'qd': {0: 2.0}, 'goal': [1.5]}, -0.5 - 0.075, False),
  # 0.3 m/s off the goal, and 0.6.
  ('half_cheetah_vel_sparse', {'qd': {0: 2.0}, 'goal': [1.7]}, 1.7 - 0.075, False),
  ('half_cheetah_vel_sparse', {'qd': {0: 2.0}, 'goal': [1.4]}, -0.075, False),
  ('half_cheetah_dir', {'qd': {0: 2.0}, 'goal': [-1.0]}, -2.0 - 0.075, False),
  # (1, 2)·(0.6, 0.8) + 1 - 0.5 * 8 * 0.5²
  ('ant_dir', {'q': {2: 0.5}, 'qd': {0: 1.0, 1: 2.0}, 'goal': [0.6, 0.8]}, 2.2 + 1 - 1, False),
  ('ant_dir', {'q': {2: 0.19}, 'goal': [1.0, 0.0]}, 0.0, True),
  ('ant_dir', {'q': {2: 1.01}, 'goal': [1.0, 0.0]}, 0.0, True),
  # -(|1 - 0| + |-2 - 1|) - 0.1 * 8 * 0.5²; however low it lies
  ('ant_goal', {'q': {0: 1.0, 1: -2.0, 2: 0.1}, 'goal': [0.0, 1.0]}, -4 - 0.2, False),
  # 0.5 m from the goal, and 0.8; 0.01 * 8 * 0.5²
  ('ant_goal_sparse', {'q': {0: 1.0, 1: -2.0, 2: 0.5}, 'goal': [1.0, -1.5]}, 0.5 - 0.02, False),
  ('ant_goal_sparse', {'q': {0: 1.0, 1: -2.0, 2: 0.5}, 'goal': [1.8, -2.0]}, -0.75 - 0.02, False),
  # 1.25 * 2 + 5 - 0.1 * 17 * (0.4 * 0.5)²
  ('humanoid_dir', {'q': {2: 1.4}, 'qd': {0: 2.0}, 'goal': [1.0, 0.0]}, 2.5 + 5 - 0.068, False),
  ('humanoid_dir', {'q': {2: 0.99}, 'goal': [1.0, 0.0]}, 5 - 0.068, True),
  ('humanoid_dir', {'q': {2: 2.01}, 'goal': [1.0, 0.0]}, 5 - 0.068, True),
  # 1.5 + 1 - 1e-3 * 3 * 0.5²
  ('hopper_rand_params', {'qd': {0: 1.5}}, 2.5 - 0.00075, False),
  ('hopper_rand_params', {'q': {1: -0.56}}, 1 - 0.00075, True),
  ('hopper_rand_params', {'q': {2: 0.21}}, 1 - 0.00075, True),
  ('hopper_rand_params', {'qd': {4: 101.0}}, 1 - 0.00075, True),
  ('walker_rand_params', {'qd': {0: 1.5}, 'q': {2: 0.9}}, 2.5 - 0.0015, False),
  ('walker_rand_params', {'q': {1: -0.46}}, 1 - 0.0015, True),
  ('walker_rand_params', {'q': {1: 0.76}}, 1 - 0.0015, True),
  ('walker_rand_params', {'q': {2: -1.01}}, 1 - 0.0015, True),
  # The stretched arm's tip is at (0.21, 0): 0.01 m from the goal.
  ('reacher_goal', {'q': {0: 0, 1: 0}, 'goal': [0.2, 0.0]}, -0.1, False),
  ('reacher_goal_sparse', {'q': {0: 0, 1: 0}, 'goal': [0.181, 0.0]}, 1.0, False),
  ('reacher_goal_sparse', {'q': {0: 0, 1: 0}, 'goal': [0.179, 0.0]}, 0.0, False),
  # An action of 0.5 moves the point by 0.05 m on both axes: 0.1118 m and 0.2159 m from the goal.
  ('point_goal_sparse_h20', {'q': {0: 0.85}, 'goal': [1.0, 0.0]}, 1 - 0.1118, False),
  ('point_goal_sparse_h20', {'q': {0: 0.74}, 'goal': [1.0, 0.0]}, 0.0, False),
  ('point_goal_sparse_h60', {'q': {0: 0.85}, 'goal': [1.0, 0.0]}, 1.0, False),
  ('point_goal_sparse_h60', {'q': {0: 0.74}, 'goal': [1.0, 0.0]}, 0.0, False),
  ('point_wind', {'q': {0: -0.03, 1: 0.95}}, 1.0, False),
  ('point_wind', {'q': {0: -0.01, 1: 0.95}}, 0.0, False),
  # The object, 0.1 m off the goal; the wrist of the stretched arm at (0.821, -0.6, 0) and the object at (0.45, -0.05,
  # -0.275); 0.1 * 7 * (2 * 0.5)².
  ('pusher_goal', {'pose': np.zeros(11), 'goal': [0.1, 0.0]},
   -0.1 - 0.5 * np.sqrt(0.371**2 + 0.55**2 + 0.275**2) - 0.7, False),
  ('inverted_pendulum_balance', {'q': {0: 0.2, 1: 0.19}, 'goal': [0.1]}, 0.8, False),
  ('inverted_pendulum_balance', {'q': {0: 0.1, 1: 0.21}, 'goal': [0.1]}, 1.0, True),
])
def test_rewards_and_ends_by_hand(gliding, name, arguments, reward, terminated):
  got_reward, got_terminated = step_by_hand(name, **arguments)
  assert got_reward == pytest.approx(reward, abs=2e-4) and got_terminated == terminated


def test_fingertip_by_hand():
  np.testing.assert_allclose(reacher._fingertip(jnp.zeros(4)), [0.21, 0.0], atol=1e-7)
  np.testing.assert_allclose(reacher._fingertip(jnp.array([jnp.pi / 2, 0, 0, 0])), [0.0, 0.21], atol=1e-7)


def test_the_pushed_object_is_the_goal_it_achieved(gliding):
  """An object at the goal's sliding joints is a goal achieved, in the goal's own order of axes."""
  family = make_family('pusher_goal', None, 'none')
  task = Task(goal=jnp.array([0.1, -0.05]), dynamics={})
  state = family.reset(task, jax.random.key(0))
  still = state.physics.replace(
    q=jnp.zeros(11).at[7:9].set(jnp.array([-0.2, 0.15])), qd=jnp.zeros_like(state.physics.qd)
  )
  after = family.step(task, state.replace(physics=still), jnp.zeros(family.action_size))
  np.testing.assert_allclose(family.achieved(after.outcome[None], jnp.ones(1, bool)), [-0.2, 0.15], atol=1e-6)


def goals(name, num=4000):
  family = make_family(name, None, 'none')
  return np.asarray(jax.jit(jax.vmap(family.sample))(jax.random.split(jax.random.key(0), num)).goal)


def test_goal_distributions():
  speeds = goals('half_cheetah_vel')
  assert 0 <= speeds.min() < 0.05 and 2.95 < speeds.max() <= 3 and abs(speeds.mean() - 1.5) < 0.05
  directions = goals('half_cheetah_dir')
  assert set(directions.ravel()) == {-1.0, 1.0} and abs(directions.mean()) < 0.05
  # Angles cover the circle; ±1.0 taken for an angle, as in a public copy, would give two directions.
  for name in ('ant_dir', 'humanoid_dir'):
    np.testing.assert_allclose(np.linalg.norm(goals(name), axis=1), 1, atol=1e-5)
    assert np.abs(goals(name).mean(axis=0)).max() < 0.05
  # Uniform over the disc: half of its area lies within 3 / sqrt(2).
  radius = np.linalg.norm(goals('ant_goal'), axis=1)
  assert radius.max() <= 3 and abs((radius < 3 / np.sqrt(2)).mean() - 0.5) < 0.03
  radius = np.linalg.norm(goals('reacher_goal'), axis=1)
  near, wide = reacher.GOAL_RADII
  assert near <= radius.min() and radius.max() <= wide
  # Half the area lies within sqrt((near² + wide²) / 2); Brax's own radius U(0, 0.2) would put 71% there.
  assert abs((radius < np.sqrt((near**2 + wide**2) / 2)).mean() - 0.5) < 0.03


def test_goals_of_the_point():
  family = make_family('point_goal_sparse_h20')
  keys = jax.random.split(jax.random.key(0), 4000)
  near, far = (np.asarray(jax.vmap(sample)(keys).goal) for sample in (family.sample, family.sample_far))
  np.testing.assert_allclose(np.linalg.norm(np.concatenate([near, far]), axis=1), 1, atol=1e-5)
  angle = np.arctan2(near[:, 1], near[:, 0])
  assert angle.min() >= 0 and abs(angle.mean() - np.pi / 2) < 0.05 and abs((angle < np.pi / 4).mean() - 0.25) < 0.03
  assert (far[:, 1] <= 0).all() and (far[:, 1] > -np.sin(np.pi / 4) - 1e-5).all()
  assert abs((far[:, 0] > 0).mean() - 0.5) < 0.03
  is_far = jax.vmap(family.is_far_goal)
  assert not is_far(near).any() and is_far(far).mean() > 0.999


def test_wind_moves_the_point_in_every_step():
  family = make_family('point_wind')
  task = Task(goal=jnp.zeros(0), dynamics={'wind': jnp.array([0.08, -0.02])})
  state = family.reset(task, jax.random.key(0))
  for _ in range(2):
    state = family.step(task, state, jnp.array([0.5, 1.0]))
  np.testing.assert_allclose(state.observation, [2 * (0.05 + 0.08), 2 * (0.1 - 0.02)], atol=1e-6)


def test_swingup_rewards_upright_and_never_ends():
  family = make_family('inverted_pendulum_swingup', None, 'none')
  task = Task(goal=jnp.zeros(0), dynamics={})
  state = family.reset(task, jax.random.key(0))
  for angle, reward in ((0.0, 1.0), (np.pi, 0.0)):
    still = state.physics.replace(q=jnp.array([0.0, angle]), qd=jnp.zeros(2))
    after = family.step(task, state.replace(physics=still), jnp.zeros(1))
    assert float(after.reward) == pytest.approx(reward, abs=1e-3) and not after.terminated


@pytest.mark.parametrize('name', ['reacher_goal', 'hopper_rand_params'])
def test_training_and_far_ranges(name):
  family = make_family(name)
  keys = jax.random.split(jax.random.key(3), 500)
  near = jax.vmap(family.sample)(keys).dynamics
  far = jax.vmap(family.sample_far)(keys).dynamics
  outside = []
  for parameter, r in family.ranges.items():
    inside = np.asarray(near[parameter])
    assert inside.shape == ((500, r.elements) if r.elements else (500,))
    assert inside.min() >= r.low * 0.999 and inside.max() <= r.high * 1.001
    values = np.asarray(far[parameter]).reshape(500, -1)
    assert values.min() > r.far_low * 0.999 and values.max() < r.far_high * 1.001
    outside.append(((values < r.low * (1 - 1e-5)) | (values > r.high * (1 + 1e-5))).all(axis=1))
  np.testing.assert_array_equal(np.sum(outside, axis=0), 1)
  assert (np.mean(outside, axis=1) > 0.1).all(), 'every parameter is the far one now and then'


def test_rand_params_ranges():
  ranges = make_family('hopper_rand_params').ranges
  assert ranges['mass'].high == pytest.approx(1.5**3) and ranges['damping'].low == pytest.approx(1.3**-3)
  assert ranges['mass'].elements == 4


def test_presets():
  assert make_family('reacher_goal', None, 'none').ranges == {}
  far = make_family('reacher_goal', None, 'far')
  drawn = jax.vmap(far.sample)(jax.random.split(jax.random.key(0), 50)).dynamics
  outside = np.stack([(m < 0.5) | (m > 2) for m in drawn.values()])
  np.testing.assert_array_equal(outside.sum(axis=0), 1)


def test_stock_robot():
  drawn = {'gear': jnp.array(0.6), 'mass': jnp.array([1.2, 3.0]), 'action_delay': jnp.array(0.4)}
  stock = dynamics.stock(drawn)
  assert jax.tree.map(lambda x: x.tolist(), stock) == {'gear': 1.0, 'mass': [1.0, 1.0], 'action_delay': 0.0}


def test_in_words():
  family = make_family('half_cheetah_vel', 'spring')
  dynamics_of = {'gear': jnp.asarray(0.55), 'friction': jnp.asarray(0.6), 'gravity': jnp.asarray(1.05)}
  said = family.describe(Task(goal=jnp.array([1.4]), dynamics=dynamics_of))
  assert said == 'run forward at 1.4 m/s, with weak motors (x0.55), slippery ground (x0.60)'
  still = Task(goal=jnp.array([1.4]), dynamics={name: jnp.ones(()) for name in dynamics_of})
  assert family.describe(still) == 'run forward at 1.4 m/s, on a nearly stock robot'


def point_with(**imperfections):
  family = point_family(imperfections={
    name: dynamics.IMPERFECTIONS[name] for name in imperfections
  })
  task = Task(goal=jnp.array([0.5]), dynamics={
    'gear': jnp.ones(()), **{name: jnp.asarray(value) for name, value in imperfections.items()}
  })
  return family, task


@pytest.mark.parametrize(('imperfections', 'moves'), [
  # Half a step late: half of an action comes with the next one.
  ({'action_delay': 0.5}, [0.4, 0.35, -0.05, -0.2, 0.05]),
  ({'action_lag': 0.0}, [0.8, -0.1, 0.0, -0.4, 0.5]),
  ({'action_lag': 2.0}, [0.0, 0.0, 0.8, -0.1, 0.0]),
  # Two steps late, and then half a step; a lag of 7 is longer than this run.
  ({'action_lag': 2.0, 'action_delay': 0.5}, [0.0, 0.0, 0.4, 0.35, -0.05]),
  ({'action_lag': 7.0}, [0.0] * 5),
  ({'wiring': [[-1.0]]}, [-0.8, 0.1, 0.0, 0.4, -0.5]),
  ({'wiring': [[-1.0]], 'action_lag': 3.0}, [0.0, 0.0, 0.0, -0.8, 0.1]),
  ({'broken': [1.0], 'action_noise': 0.1}, [0.0] * 5),
  ({'broken': [0.0]}, [0.8, -0.1, 0.0, -0.4, 0.5]),
])
def test_imperfect_motors_by_hand(imperfections, moves):
  family, task = point_with(**imperfections)
  state = family.reset(task, jax.random.key(0))
  positions = [state.physics.q[0]]
  for action in (0.8, -0.1, 0.0, -0.4, 0.5):
    state = family.step(task, state, jnp.array([action]))
    positions.append(state.physics.q[0])
  np.testing.assert_allclose(np.diff(positions), moves, atol=1e-6)


def test_noises_have_their_size_and_leave_the_rest_alone():
  family, task = point_with(action_noise=0.1, observation_noise=0.02)
  states = jax.vmap(family.reset, in_axes=(None, 0))(task, jax.random.split(jax.random.key(0), 2000))
  after = jax.vmap(family.step, in_axes=(None, 0, None))(task, states, jnp.array([0.5]))
  moved = after.physics.q[:, 0] - states.physics.q[:, 0]
  seen = after.observation[:, 0] - after.physics.q[:, 0]
  assert abs(moved.std() - 0.1) < 0.01 and abs(moved.mean() - 0.5) < 0.01
  assert abs(seen.std() - 0.02) < 0.002 and abs(np.corrcoef(moved, seen)[0, 1]) < 0.1
  again = jax.vmap(family.step, in_axes=(None, 0, None))(task, after, jnp.array([0.5]))
  assert abs(np.corrcoef(moved, again.physics.q[:, 0] - after.physics.q[:, 0])[0, 1]) < 0.1, 'noise is drawn anew'


def test_time_limits_and_ends_are_told_apart_in_a_scan(point):
  """In a compiled scan each episode starts afresh; one that runs out of time is not terminated."""
  task = Task(goal=jnp.array([0.5]), dynamics={'gear': jnp.ones(())})
  run = jax.jit(functools.partial(unroll, point, lambda o, k: (jnp.array([0.1]), None), num_episodes=3))
  trajectory, _, _ = run(task, jax.random.key(0))
  assert trajectory.valid.all() and not trajectory.terminated.any()
  assert len(set(np.asarray(trajectory.observation[:, 0, 0]))) == 3


def test_unknown_names():
  with pytest.raises(UnknownNameError, match='reacher_goal'):
    make_family('reacher')
  with pytest.raises(UnknownNameError, match='does not support.*mjx'):
    make_family('reacher_goal', backend='positional')
  with pytest.raises(UnknownNameError, match='is unknown.*mjx, mjx_fast, spring, generalized, positional'):
    make_family('reacher_goal', backend='bullet')


@pytest.mark.xdist_group('inverted_pendulum-generalized')
def test_a_brax_environment_as_a_family():
  """Its robot with a multiplier of 1 does what the environment does, and something else with another."""
  from brax.envs.wrappers.training import EpisodeWrapper

  env = robots.stock_env('inverted_pendulum', 'generalized')
  family = from_brax_env(env, name='stock_balance', dynamics=('gear', 'mass'), episode_length=5)
  stock, weak = (
    Task(goal=jnp.zeros(0), dynamics={'gear': jnp.float32(gear), 'mass': jnp.float32(1)}) for gear in (1, 0.6)
  )
  assert family.sample(jax.random.key(0)).dynamics.keys() == stock.dynamics.keys()
  step, reset, env_step = jax.jit(family.step), jax.jit(family.reset), jax.jit(env.step)
  states = [reset(task, jax.random.key(3)) for task in (stock, weak)]
  theirs = states[0].physics.env
  for action in (0.5, -1.0, 1.0):
    action = jnp.array([action])
    states = [step(task, state, action) for task, state in zip((stock, weak), states)]
    theirs = env_step(theirs, action)
    np.testing.assert_allclose(states[0].observation, theirs.obs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(states[0].reward, theirs.reward)
  assert np.abs(states[1].observation - theirs.obs).max() > 1e-2
  assert family.picture(stock, states[0].physics.q)['lines'].shape[1:] == (2, 2)
  with pytest.raises(IncompatibleError, match='EpisodeWrapper wraps InvertedPendulum'):
    from_brax_env(EpisodeWrapper(env, 10, 1), name='wrapped')
  with pytest.raises(UnknownNameError, match='colour'):
    from_brax_env(env, name='x', dynamics=('colour',))
