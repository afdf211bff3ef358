"""Families as Gymnasium environments, and an agent that improves in Gymnasium environments."""

import subprocess
import sys
import warnings

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from metaimprove.adapters.extras import required
from metaimprove.adapters.gymnasium import FamilyEnv, ImprovingAgent, gymnasium_name, spaces_of
from metaimprove.errors import ExperienceError, IncompatibleError, UnknownNameError
from metaimprove.tasks.registry import family_names
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take
from tests.point_family import point_family


@pytest.fixture(scope='module')
def loaded(operator, operator_params):
  """As `load_operator` gives it."""
  return operator, operator_params


def make(**settings):
  return FamilyEnv(point_family(far_goals=True), **settings)


def test_every_family_is_registered():
  for name in family_names():
    assert gymnasium.spec(gymnasium_name(name)).kwargs == {'family': name}
  assert gymnasium_name('half_cheetah_vel') == 'metaimprove/HalfCheetahVel-v0'
  env = gymnasium.make('metaimprove/PointGoalSparseH20-v0')
  assert env.unwrapped.family.name == 'point_goal_sparse_h20'


def test_gymnasiums_own_check_passes():
  """Its only complaint is that observations have no bounds."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    check_env(make(render_mode='rgb_array'))
  told = [str(one.message) for one in caught]
  assert all('This is probably too' in message or 'spec' in message for message in told), told


def test_steps_are_those_of_the_family(point):
  task = take(sample_tasks(point, 0, 3, 'heldout'), 1)
  env = make(task=task)
  observation, info = env.reset(seed=4)
  assert info == {'task': point.describe(task)} and observation.dtype == np.float32
  state = point.reset(task, jax.random.key(0))
  state = state.replace(physics=state.physics.replace(q=observation))
  for step in range(8):
    action = np.float32([0.1 * step])
    state = point.step(task, state, action)
    observation, reward, terminated, truncated, info = env.step(action)
    np.testing.assert_allclose(observation, state.observation, rtol=1e-6)
    np.testing.assert_allclose(reward, state.reward, rtol=1e-5)
    assert (terminated, truncated, info) == (bool(state.terminated), step == 7, {'finite': True})


def test_actions_are_clipped_as_its_space_says(point):
  env = make(task=take(sample_tasks(point, 0, 1, 'heldout'), 0))
  found = []
  for action in (1.0, 5.0):
    env.reset(seed=1)
    found.append(env.step(np.array([action]))[0])
  np.testing.assert_array_equal(*found)


def test_hidden_tasks_are_drawn_every_so_many_episodes():
  env, goals = make(episodes_per_task=2), []
  for seed in (7, None, None, None, 7):
    env.reset(seed=seed)
    goals.append(float(env.task.goal[0]))
  assert goals[0] == goals[1] == goals[4] and goals[2] == goals[3] != goals[0]
  always = make()
  always.reset(seed=7)
  assert float(always.task.goal[0]) == goals[0] and abs(goals[0]) <= 1
  for _ in range(5):
    always.reset()
  assert float(always.task.goal[0]) == goals[0]
  far = make(far=True)
  for seed in range(8):
    far.reset(seed=seed)
    assert abs(float(far.task.goal[0])) > 1 or not 0.5 <= float(far.task.dynamics['gear']) <= 2


def test_dynamics_and_tasks_are_set_by_hand(point):
  env = make(dynamics={'gear': 0.5})
  env.reset(seed=0)
  assert float(env.task.dynamics['gear']) == 0.5
  task = take(sample_tasks(point, 0, 2, 'heldout'), 1)
  for _ in range(2):
    env.reset(seed=1, options={'task': task})
    assert env.task.goal == task.goal and float(env.task.dynamics['gear']) == 0.5
  start = env.reset(seed=1)[0]
  np.testing.assert_allclose(env.step(np.ones(1))[0] - start, 0.5, rtol=1e-5)


def test_a_blow_up_ends_the_episode():
  env = FamilyEnv(point_family(blow_up_beyond=1.5))
  env.reset(seed=0)
  found = [env.step(np.ones(1)) for _ in range(5)]
  ended = [row[3] for row in found]
  assert True in ended
  last = found[ended.index(True)]
  assert np.isfinite(last[0]).all() and last[1:] == (0.0, False, True, {'finite': False})


@pytest.mark.parametrize('call, error, message', [
  (
    lambda point: make(task=take(sample_tasks(point, 0, 1, 'train'), 0), episodes_per_task=1), IncompatibleError,
    'not both',
  ),
  (lambda point: make(render_mode='human'), UnknownNameError, "'rgb_array' or None"),
  (lambda point: make(dynamics={'colour': 1}).reset(), UnknownNameError, "'colour'; choose among: gear"),
  (lambda point: make().step(np.zeros(1)), ExperienceError, 'Reset the environment'),
  (lambda point: make().step(np.array([np.nan])), ExperienceError, '1 finite numbers'),
  (lambda point: FamilyEnv('no_such'), UnknownNameError, 'no_such'),
])
def test_misuse_is_told(point, call, error, message):
  with pytest.raises(error, match=message):
    call(point)


def test_it_is_drawn_and_recorded(tmp_path):
  """The goal is where the picture is red."""
  env = make(render_mode='rgb_array')
  assert env.render() is None
  env.reset(seed=0)
  pixels = env.render().astype(int)
  assert pixels.shape == (240, 720, 3) and env.metadata['render_fps'] == 1
  red = np.argwhere((pixels[..., 0] > 200) & (pixels[..., 1] < 90))
  np.testing.assert_allclose(red[:, 1].mean() / 720 * 6 - 3, float(env.task.goal[0]), atol=0.02)


def vector(mode, num=3):
  return SyncVectorEnv([make] * num, autoreset_mode=mode)


def test_all_autoreset_modes_give_the_same(loaded):
  """And what a single environment gives: a wrong first or last observation, or a step that is none, would show."""
  found = {mode: ImprovingAgent(loaded, vector(mode), seed=3).run(2) for mode in AutoresetMode}
  single = ImprovingAgent(loaded, make(), seed=3).run(2)
  assert single.shape == (1, 3, 2)
  for mode, returns in found.items():
    np.testing.assert_allclose(returns[:1], single, rtol=1e-6, err_msg=str(mode))
    np.testing.assert_array_equal(returns, found[AutoresetMode.NEXT_STEP])
  assert len(np.unique(single)) == 6


def test_episodes_of_a_vector_environment_are_those_that_were_played(loaded):
  """Each is 8 steps long, begins near 0, and its rewards are distances from the positions in it."""
  for mode in AutoresetMode:
    env = vector(mode, 2)
    agent = ImprovingAgent(loaded, env, seed=1)
    agent.run(0)
    for single, one in zip(env.envs, agent.agents):
      assert one.num_finished == 2
      for episode in one._episodes:
        assert abs(episode.observations[0, 0]) <= 0.1 and len(episode.rewards) <= 8
        distance = np.abs(episode.observations[1:, 0] - np.asarray(single.task.goal))
        np.testing.assert_allclose(episode.rewards, -distance, rtol=1e-5)


def test_environments_that_end_at_different_times_are_all_waited_for(loaded):
  """The last policy of one that is done goes on acting, and nothing of that is noted."""
  agent = ImprovingAgent(loaded, vector(AutoresetMode.NEXT_STEP), seed=3)
  returns = agent.run(1, num_episodes=3)
  assert returns.shape == (3, 2, 3) and [one.num_finished for one in agent.agents] == [3, 3, 3]
  assert agent.run(1, num_episodes=1).shape == (3, 2, 1)


class Thermostat(gymnasium.Env):
  """A point whose observation is [unrelated, 10 (x + 1)] and whose action is 0 to 4."""

  def __init__(self, action_space=None):
    self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    self.action_space = action_space or gymnasium.spaces.Box(0.0, 4.0, (1,))
    self.inner = make(dynamics={'gear': 1.0})

  def reset(self, *, seed=None, options=None):
    return self._of(self.inner.reset(seed=seed)[0]), {}

  def step(self, action):
    assert self.action_space.contains(action)
    observation, *rest = self.inner.step(action / 2 - 1)
    return self._of(observation), *rest

  def _of(self, x):
    return np.float32([99.0, 10 * (x[0] + 1)])


def test_other_spaces_are_mapped(loaded):
  """The same seed does the same in an environment whose numbers are others."""
  mapping = {'observation_indices': [1], 'observation_scale': 0.1, 'observation_offset': -1.0}
  there = ImprovingAgent(loaded, Thermostat(), seed=2, **mapping).run(1)
  here = ImprovingAgent(loaded, make(dynamics={'gear': 1.0}), seed=2).run(1)
  np.testing.assert_allclose(there, here, rtol=1e-3)


BOX = gymnasium.spaces.Box


@pytest.mark.parametrize('spaces, mapping, message', [
  ((BOX(-1, 1, (3,)), BOX(-1, 1, (1,))), {}, r'3 observations.*point, 1; say by observation_indices'),
  ((BOX(-1, 1, (1,)), BOX(-1, 1, (2,))), {}, 'has 2 actions'),
  ((BOX(-1, 1, (1,)), BOX(-np.inf, np.inf, (1,))), {}, 'range of actions is not known'),
  ((gymnasium.spaces.Dict(x=BOX(-1, 1, (1,))), BOX(-1, 1, (1,))), {}, 'FlattenObservation'),
  ((BOX(-1, 1, (1,)), gymnasium.spaces.Discrete(3)), {}, 'one array of numbers'),
  ((BOX(-1, 1, (2, 2)), BOX(-1, 1, (1,))), {}, 'one array of numbers'),
  ((BOX(-1, 1, (3,)), BOX(-1, 1, (1,))), {'observation_indices': [0, 1]}, 'names 2 numbers'),
])
def test_spaces_that_do_not_fit(operator, spaces, mapping, message):
  env = gymnasium.Env()
  env.observation_space, env.action_space = spaces
  with pytest.raises(IncompatibleError, match=message):
    spaces_of(env, operator, **mapping)


def test_an_unknown_range_of_actions_can_be_given(operator):
  env = gymnasium.Env()
  env.observation_space, env.action_space = BOX(-1, 1, (1,)), BOX(-np.inf, np.inf, (1,))
  spaces = spaces_of(env, operator, action_low=-3.0, action_high=3.0)
  np.testing.assert_array_equal(spaces.environment_action(np.ones(1)), [3.0])


def test_a_vector_environment_must_say_how_it_resets(loaded):
  env = vector(AutoresetMode.NEXT_STEP)
  env.metadata = {}
  with pytest.raises(IncompatibleError, match='autoreset_mode'):
    ImprovingAgent(loaded, env).run(0)


def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it():
  with pytest.raises(ImportError, match=r"pip install 'metaimprove\[robots\]'"):
    required('no_such_library', 'robots')


def test_nothing_optional_is_loaded_unless_it_is_used():
  code = "import sys, metaimprove; metaimprove.load_agent; print({'gymnasium', 'dm_env', 'onnx'} & set(sys.modules))"
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
  assert done.stdout.strip() == 'set()', done.stderr


class Buffered(gymnasium.Wrapper):
  """Writes every observation into the same memory, and scales actions in place."""

  def __init__(self, env):
    super().__init__(env)
    self.buffer = np.zeros(1, np.float32)

  def reset(self, **kwargs):
    self.buffer[:] = self.env.reset(**kwargs)[0]
    return self.buffer, {}

  def step(self, action):
    observation, *rest = self.env.step(action)
    self.buffer[:] = observation
    action *= 0
    return self.buffer, *rest


def test_environments_may_reuse_their_memory(loaded):
  plain, buffered = (ImprovingAgent(loaded, env, seed=4) for env in (make(), Buffered(make())))
  np.testing.assert_array_equal(plain.run(1), buffered.run(1))


@pytest.mark.parametrize('mode', [None, *AutoresetMode])
def test_episodes_that_blow_up_are_not_taken_for_good_ones(loaded, mode):
  make_wild = lambda: FamilyEnv(point_family(blow_up_beyond=0.2))
  env = make_wild() if mode is None else SyncVectorEnv([make_wild] * 2, autoreset_mode=mode)
  agent = ImprovingAgent(loaded, env, seed=2)
  agent.run(0, num_episodes=4)
  episodes = [episode for one in agent.agents for episode in one._episodes]
  short = [episode for episode in episodes if len(episode.rewards) < 8]
  assert short and all(not episode.finite and (episode.rewards < 0).all() for episode in short)
  assert all(episode.finite for episode in episodes if len(episode.rewards) == 8)


def test_a_run_that_was_stopped_can_be_begun_again(loaded):
  class Stops(gymnasium.Wrapper):
    count = 0

    def step(self, action):
      self.count += 1
      if self.count == 3:
        raise KeyboardInterrupt
      return self.env.step(action)

  agent = ImprovingAgent(loaded, Stops(make()), seed=1)
  with pytest.raises(KeyboardInterrupt):
    agent.run(1)
  assert agent.run(1).shape == (1, 2, 2)


def test_what_a_run_cannot_do_is_told_before_it_begins(loaded):
  env = make()
  agent = ImprovingAgent(loaded, env)
  for settings in ({'num_applications': -1}, {'num_applications': 1, 'num_episodes': 5}):
    with pytest.raises(IncompatibleError, match='num_episodes from 1 to 4'):
      agent.run(**settings)
  with pytest.raises(UnknownNameError, match="not 'bset'"):
    agent.run(1, ask='bset')
  assert env.task is None  # nothing was played
  env.spec = gymnasium.envs.registration.EnvSpec('Long-v0', entry_point=make, max_episode_steps=9)
  with pytest.raises(IncompatibleError, match='up to 9 steps.*trained on 8'):
    ImprovingAgent(loaded, env)
