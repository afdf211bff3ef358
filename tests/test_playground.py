"""Families from MuJoCo Playground environments, on a stand-in with the same interface, and on Playground itself.

Playground wants a newer JAX than Brax's own PPO, so tests of itself are run by `make playground` and skipped elsewhere.
The stand-in has what `MjxEnv` has, read in its code at commit 1ab4cfd of google-deepmind/mujoco_playground, and a real
MJX model.
"""

import copy

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco import mjx

from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.rollouts import make_play
from metaimprove.policies import make_policy
from metaimprove.tasks.from_playground import from_playground_env
from metaimprove.tasks.goal import Goal

XML = """
<mujoco><option timestep="0.02"><flag constraint="disable"/></option><worldbody><body>
  <joint name="hinge" type="hinge" axis="0 1 0" damping="0.1"/>
  <geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.05"/>
</body></worldbody><actuator><motor joint="hinge" gear="2" ctrlrange="-1 1"/></actuator></mujoco>
"""


@chex.dataclass
class State:
  data: mjx.Data
  obs: chex.Array
  reward: chex.Array
  done: chex.Array
  metrics: dict
  info: dict


class Swing:
  """Swing fast."""

  dt = 0.02

  def __init__(self, as_dict=False):
    self.mj_model = mujoco.MjModel.from_xml_string(XML)
    self._mjx_model = mjx.put_model(self.mj_model)
    self._as_dict = as_dict

  @property
  def mjx_model(self):
    return self._mjx_model

  @property
  def action_size(self):
    return self.mjx_model.nu

  def _observe(self, data):
    vector = jnp.concatenate([jnp.cos(data.qpos), jnp.sin(data.qpos), data.qvel])
    return {'state': vector, 'pixels': jnp.zeros((4, 4))} if self._as_dict else vector

  def reset(self, rng):
    data = mjx.make_data(self.mj_model).replace(qpos=0.1 * jax.random.normal(rng, (1,)))
    reward, done = jnp.zeros(2)
    return State(data=data, obs=self._observe(data), reward=reward, done=done, metrics={'speed': reward}, info={})

  def step(self, state, action):
    data = mjx.step(self.mjx_model, state.data.replace(ctrl=action))
    state.metrics['speed'] = data.qvel[0]  # as Playground's environments do
    return state.replace(
      data=data, obs=self._observe(data), reward=data.qvel[0], done=jnp.isnan(data.qpos).any().astype(float)
    )


@pytest.fixture(scope='module')
def env():
  return Swing()


@pytest.fixture(scope='module')
def family(env):
  goal = Goal(sample=lambda key: jax.random.uniform(key, (1,), maxval=2.0), describe=lambda goal: f'swing at {goal}')
  return from_playground_env(
    env, name='swing', goal=goal, reward=lambda goal, before, action, after: -jnp.abs(after.data.qvel[0] - goal[0]),
    dynamics=('gear', 'gravity', 'action_noise'), episode_length=10,
  )


def test_a_step_is_that_of_the_environment_with_its_model_changed(env, family):
  task = family.sample(jax.random.key(1))
  task = task.replace(dynamics={**task.dynamics, 'gear': jnp.float32(1.7), 'action_noise': jnp.float32(0.0)})
  state = jax.jit(family.reset)(task, jax.random.key(0))
  after = jax.jit(family.step)(task, state, jnp.full(1, 0.5))
  changed, model = copy.copy(env), copy.copy(env.mj_model)
  model.actuator_gear *= 1.7
  model.opt.gravity *= float(task.dynamics['gravity'])
  changed._mjx_model = mjx.put_model(model)
  expected = jax.jit(changed.step)(state.physics.env.replace(metrics={}), jnp.full(1, 0.5))
  np.testing.assert_allclose(after.observation, expected.obs, rtol=1e-5)
  np.testing.assert_allclose(after.reward, -abs(expected.data.qvel[0] - task.goal[0]), rtol=1e-5)
  assert family.observation_size == 3 and family.action_size == 1 and family.time_step == 0.02


def test_tasks_differ_under_vmap_and_rollouts_run(family):
  """A batch of tasks with other dynamics in one program; every reset is another start."""
  policy = make_policy(3, 1, (8,))
  tasks = jax.vmap(family.sample)(jax.random.split(jax.random.key(0), 4))
  params = jax.tree.map(lambda x: jnp.stack([x] * 4), policy.init(jax.random.key(0)))
  trajectory = make_play(family, policy, num_episodes=2)(params, tasks, jax.random.key(1))
  assert np.asarray(trajectory.valid).all() and trajectory.finite.all()
  assert len(np.unique(trajectory.observation[:, :, 0, 1])) == 8
  step = jax.jit(jax.vmap(family.step, in_axes=(0, None, None)))
  state = jax.jit(family.reset)(jax.tree.map(lambda x: x[0], tasks), jax.random.key(2))
  assert len(np.unique(step(tasks, state, jnp.ones(1)).observation[:, 2])) == 4


def test_its_own_reward_is_the_default(env):
  family = from_playground_env(env, name='swing')
  task = family.sample(jax.random.key(0))
  state = jax.jit(family.reset)(task, jax.random.key(0))
  after = jax.jit(family.step)(task, state, jnp.ones(1))
  np.testing.assert_allclose(after.reward, after.observation[2], rtol=1e-6)


def test_observations_that_are_dicts_are_picked_from():
  with pytest.raises(IncompatibleError, match="a dict of 'pixels', 'state'; say by observation="):
    from_playground_env(Swing(as_dict=True), name='swing')
  with pytest.raises(IncompatibleError, match='an operator needs one vector'):
    from_playground_env(Swing(as_dict=True), name='swing', observation='pixels')
  assert from_playground_env(Swing(as_dict=True), name='swing', observation='state').observation_size == 3


def test_what_does_not_fit_is_refused(env):
  with pytest.raises(IncompatibleError, match='not a wrapper'):
    from_playground_env(object(), name='swing')
  with pytest.raises(UnknownNameError, match="'colour'"):
    from_playground_env(env, name='swing', dynamics=('colour',))
  with pytest.raises(IncompatibleError, match='needs a `reward`'):
    from_playground_env(env, name='swing', outcome=lambda before, after: after.data.qvel)


@pytest.fixture(scope='module')
def cartpole():
  """Playground's own, and a family of it."""
  suite = pytest.importorskip('mujoco_playground', reason='`make playground` runs it').dm_control_suite
  env = suite.load('CartpoleBalance', config_overrides={'impl': 'jax'})
  return env, from_playground_env(env, name='cartpole', dynamics=('gear', 'gravity'), episode_length=20)


def test_a_family_of_playground_steps_as_playground_does(cartpole):
  """On the stock robot; a motor of twice the gear accelerates the cart twice as much."""
  env, family = cartpole
  stock = {name: jnp.ones(()) for name in family.ranges}
  task, step = family.sample(jax.random.key(0)).replace(dynamics=stock), jax.jit(family.step)
  state = jax.jit(family.reset)(task, jax.random.key(1))
  expected = jax.jit(env.step)(state.physics.env, jnp.ones(1))
  after = step(task, state, jnp.ones(1))
  np.testing.assert_allclose(after.observation, expected.obs, rtol=1e-5)
  np.testing.assert_allclose(after.reward, expected.reward, rtol=1e-5)
  still = step(task, state, jnp.zeros(1)).physics.qd[0]
  strong = step(task.replace(dynamics={**stock, 'gear': jnp.float32(2.0)}), state, jnp.ones(1)).physics.qd[0]
  np.testing.assert_allclose(strong - still, 2 * (after.physics.qd[0] - still), rtol=0.02)


def test_hidden_tasks_of_playground_are_played_side_by_side(cartpole):
  _, family = cartpole
  policy, tasks = make_policy(5, 1, (8,)), jax.vmap(family.sample)(jax.random.split(jax.random.key(0), 4))
  params = jax.tree.map(lambda x: jnp.stack([x] * 4), policy.init(jax.random.key(0)))
  trajectory = make_play(family, policy, num_episodes=2)(params, tasks, jax.random.key(1))
  assert np.asarray(trajectory.valid).all() and trajectory.finite.all()
  assert len(np.unique(trajectory.observation[:, :, 0, 1])) == 8 and (trajectory.reward > 0).all()
