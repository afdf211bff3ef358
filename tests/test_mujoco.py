"""A family in Gymnasium's C MuJoCo: task, observation, reward and dynamics are ours, the simulator is not."""

import sys

import gymnasium
import jax
import numpy as np
import pytest

from experiments import gymnasium_run, transfer
from metaimprove.adapters.gymnasium import ImprovingAgent
from metaimprove.adapters.mujoco import HalfCheetahEnv, ReacherEnv
from metaimprove.asks import ask
from metaimprove.errors import IncompatibleError
from metaimprove.operators.checkpoints import load_operator
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import batch_size, stack, take
from tests.make_reacher_operator import RESULT


@pytest.fixture(scope='module')
def family():
  return make_family('reacher_goal')


def test_it_moves_much_as_our_simulator_does(family):
  """From the same start with the same actions, for half an episode; and stronger motors move it more in both."""
  step, found = jax.jit(family.step), {}
  for gear in (0.5, 2.0):
    task = take(sample_tasks(family, 0, 1, 'heldout'), 0)
    task = task.replace(dynamics={**task.dynamics, 'gear': np.float32(gear)})
    env = ReacherEnv(family, task)
    observation, _ = env.reset(seed=0)
    state = jax.jit(family.reset)(task, jax.random.key(0))
    q = np.concatenate([env._stepper.q[:2], np.asarray(task.goal)]).astype(np.float32)
    physics = state.physics.replace(q=q, qd=np.zeros_like(q))
    state = state.replace(physics=physics)
    for _ in range(25):
      action = np.float32([0.02, -0.01])
      state = step(task, state, action)
      observation, reward, *_ = env.step(action)
      assert reward == pytest.approx(-np.linalg.norm(observation[6:] * 0.1 - task.goal) * 10, rel=1e-5)
    np.testing.assert_allclose(observation, state.observation, atol=0.15)
    assert reward == pytest.approx(float(state.reward), abs=0.1)
    found[gear] = env._stepper.q[0]
  assert found[2.0] > 2 * found[0.5] > 0


def test_the_cheetah_moves_much_as_on_our_mjx():
  """From the same start with the same actions, until parts touch the ground that Brax lets pass; the reward is that of
  the family, worked out from where it went."""
  family = make_family('half_cheetah_vel', 'mjx_fast')
  task = take(sample_tasks(family, 0, 1, 'heldout'), 0)
  env = HalfCheetahEnv(family, task)
  observation, _ = env.reset(seed=0)
  state = jax.jit(family.reset)(task, jax.random.key(0))
  qpos, qvel = env._stepper.q.astype(np.float32), observation[8:]
  state, step = state.replace(physics=state.physics.replace(q=qpos, qd=qvel)), jax.jit(family.step)
  for time in range(10):
    action, before = np.sin(time + np.arange(6, dtype=np.float32)), env._stepper.q[0]
    state = step(task, state, action)
    observation, reward, *_ = env.step(action)
    velocity = (env._stepper.q[0] - before) / 0.05
    assert reward == pytest.approx(-abs(velocity - task.goal[0]) - 0.05 * np.sum(action**2), rel=1e-5)
    np.testing.assert_allclose(observation[:8], state.observation[:8], atol=0.05)
    assert reward == pytest.approx(float(state.reward), abs=0.1)
  assert np.abs(env._stepper.q[3:] - qpos[3:]).max() > 0.2


def test_dynamics_are_multiples_of_the_stock_model(family):
  """Whatever task came before."""
  env = ReacherEnv(family, dynamics={'gear': 3.0, 'damping': 0.5, 'mass': 1.5, 'inertia': 2.0})
  stock = gymnasium.make('Reacher-v5').unwrapped.model
  for seed in range(2):
    env.reset(seed=seed)
    model = env._stepper._env.model
    np.testing.assert_allclose(model.actuator_gear, 3 * stock.actuator_gear)
    np.testing.assert_allclose(model.dof_damping, 0.5 * stock.dof_damping)
    np.testing.assert_allclose(model.body_mass, 1.5 * stock.body_mass)
    np.testing.assert_allclose(model.body_inertia, 2 * stock.body_inertia)
    np.testing.assert_allclose(model.dof_armature, 2 * stock.dof_armature)
    np.testing.assert_allclose(env._stepper.q[2:], env.task.goal, rtol=1e-5)


def test_late_and_noisy_motors():
  """A whole step late, the first action does nothing; noise moves an arm that is told to rest."""
  late = make_family('reacher_goal', dynamics=['action_delay', 'action_noise'])
  rest, push = np.zeros(2), np.full(2, 0.5)
  speeds = {}
  for name, delay, noise, action in (('late', 1.0, 0.0, push), ('noisy', 0.0, 0.5, rest)):
    env = ReacherEnv(late, dynamics={'action_delay': delay, 'action_noise': noise})
    env.reset(seed=0)
    speeds[name] = [np.abs(env.step(action)[0][4:6]).max() for _ in range(2)]
  assert speeds['late'][0] < 0.01 < speeds['late'][1] and speeds['noisy'][0] > 0.01


def test_what_it_does_not_simulate_is_refused():
  with pytest.raises(IncompatibleError, match='not for point_goal_sparse_h20'):
    ReacherEnv('point_goal_sparse_h20')
  with pytest.raises(IncompatibleError, match='not for half_cheetah_dir'):
    HalfCheetahEnv('half_cheetah_dir')
  with pytest.raises(IncompatibleError, match='on spring it is another one'):
    HalfCheetahEnv('half_cheetah_vel')
  assert gymnasium.make('metaimprove/MuJoCoHalfCheetahVel-v0').unwrapped.family.backend == 'mjx_fast'
  env = ReacherEnv('reacher_goal', dynamics={'gear': np.array([1.0, 0.5])})
  with pytest.raises(IncompatibleError, match='one multiplier for the whole robot'):
    env.reset(seed=0)


def test_a_simulation_that_blows_up_ends_the_episode():
  """MuJoCo would go on from its first state by itself."""
  env = HalfCheetahEnv('half_cheetah_vel', backend='mjx_fast')
  env.reset(seed=0)
  env.step(np.zeros(6))
  env._stepper._env.data.qvel[:] = 1e12
  _, reward, terminated, truncated, info = env.step(np.zeros(6))
  assert not info['finite'] and truncated and not terminated and reward == 0
  env.reset(seed=0)
  assert env.step(np.zeros(6))[4]['finite']
  with pytest.raises(IncompatibleError, match='does not simulate'):
    ReacherEnv(make_family('reacher_goal', dynamics=['wiring']))


def test_an_operator_that_never_saw_this_simulator_improves_there(family):
  """A small one: three tasks, from random policies, two applications."""
  operator, operator_params = load_operator(RESULT)
  returns = []
  for n in range(3):
    env = ReacherEnv(family, take(sample_tasks(family, 0, 3, 'heldout'), n))
    returns.append(ImprovingAgent((operator, operator_params), env, seed=n).run(2)[0].mean(axis=1))
  first, _, last = np.mean(returns, axis=0)
  assert last > first / 2 and (np.array(returns)[:, 2] > np.array(returns)[:, 0]).all()


def test_a_run_is_printed_and_drawn(tmp_path, capsys):
  """`Reacher-v5` itself shows its target; its hidden twin stands in."""
  page, settings = tmp_path / 'page.html', {'num_applications': 1, 'num_episodes': 1, 'seed': 0, 'mapping': {}}
  gymnasium_run.run('Reacher-v5', load_operator(RESULT), ask(steps='best'), page, **settings)
  title, header, *rows = capsys.readouterr().out.splitlines()
  assert title.startswith('metaimprove/MuJoCoReacherGoal-v0: reach the point') and header.split()[0] == 'after'
  assert [row.split()[:2] for row in rows] == [['0', '0'], ['1', '1']]
  assert float(rows[1].split()[2]) > float(rows[0].split()[2])
  assert page.read_text().count('data:image/gif;base64,') == 2 and 'after 1 application: ' in page.read_text()
  with pytest.raises(IncompatibleError, match='has 7 actions'):
    gymnasium_run.run('Pusher-v5', load_operator(RESULT), ask(steps='best'), page, **settings)
  with pytest.raises(IncompatibleError, match="cannot make 'NoSuch-v5'"):
    gymnasium_run.run('NoSuch-v5', load_operator(RESULT), ask(steps='best'), page, **settings)


def test_an_operator_is_judged_beside_controls(family):
  """Scores are 0 where it begins and 1 for the reference, and dynamics are those that each row says."""
  operator, dynamics = load_operator(RESULT), []

  def improved(tasks):
    dynamics.append(tasks.dynamics)
    agents = [
      ImprovingAgent(operator, ReacherEnv(family, take(tasks, n)), seed=n) for n in range(batch_size(tasks))
    ]
    for agent in agents:
      agent.run(1)
    return stack([agent.agents[0].policy.params for agent in agents])

  rows = transfer.transfer(transfer.Run(
    family=family, seed=0, operator=operator, improvers={'operator': operator, 'identify': operator},
    fixed={'reference': improved, 'no_experience': improved},
  ), num_tasks=2, num_applications=1)
  assert [row['split'] for row in rows] == ['stock', 'inside', 'outside', 'late_and_noisy']
  for row in rows:
    assert row['episodes'] == [0, operator[0].config.num_episodes] and row['iqm'][0] == 0 < row['iqm'][1]
    assert row['controls']['no_experience']['iqm'] == [1.0] and row['reference'] > row['initial']
    assert row['controls']['identify']['iqm'] == row['iqm']
  assert all((value == 1).all() for value in dynamics[0].values())
  ranges = {name: (parameter.low, parameter.high) for name, parameter in family.ranges.items()}
  inside = [
    all((low <= drawn[name]).all() and (drawn[name] <= high).all() for name, (low, high) in ranges.items())
    for drawn in dynamics[2::2]
  ]
  assert inside == [True, False, True]


def test_ppo_from_scratch_needs_a_library_of_its_own(family, monkeypatch):
  monkeypatch.setitem(sys.modules, 'stable_baselines3', None)
  with pytest.raises(IncompatibleError, match='pip install stable-baselines3'):
    transfer.learn_from_scratch(None, 1, 100)
  np.testing.assert_allclose(transfer._smooth([1.0, 3.0, *[5.0] * 20]), [4.7, 4.9, 5.0])
