"""Operators in other code: plain arrays, policies of any make, an agent for any loop, a policy without JAX."""

import dataclasses
import json
import subprocess
import sys
import types

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import onnxruntime
import pytest

from metaimprove import policies
from metaimprove.adapters.agent import Agent
from metaimprove.adapters.improve import improve
from metaimprove.adapters.numpy_policy import NumpyPolicy, load_policy
from metaimprove.adapters.spaces import Spaces
from metaimprove.asks import ask
from metaimprove.episodes import Episode, as_trajectory, episodes_of
from metaimprove.errors import DamagedDataError, ExperienceError, IncompatibleError, NonFinitePolicyError
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.operator import make_operator
from metaimprove.rollouts import make_play
from metaimprove.tasks.splits import sample_tasks
from metaimprove.trees import take

NUM_TASKS = 4


@pytest.fixture(scope='module')
def loaded(operator, operator_params):
  """As `load_operator` gives it."""
  return operator, operator_params


@pytest.fixture(scope='module')
def played(operator, point):
  """(params [B, ...], trajectory [B, E, T, ...]) of two policies one after the other, on the same tasks; episodes end
  early where policies run away."""
  play, tasks = make_play(point, operator.policy, num_episodes=2), sample_tasks(point, 0, NUM_TASKS, 'heldout')
  found = []
  for number in range(2):
    params = jax.vmap(operator.policy.init)(jax.random.split(jax.random.key(number), NUM_TASKS))
    last = policies.layer_names(params)[-1]
    params[last]['b'] = params[last]['b'].at[0, 0].add(3.0)
    found.append(jax.device_get((params, play(params, tasks, jax.random.key(number)))))
  lengths = found[0][1].valid.sum(axis=-1)
  assert lengths.min() < 8 and lengths.max() == 8
  return found


def test_episodes_are_padded_and_cut_again(played):
  """By `as_trajectory` and `episodes_of`, which undo each other."""
  trajectory = take(played[0][1], 0)
  again = as_trajectory(episodes_of(trajectory), 8)
  for name in ('valid', 'reward', 'terminated', 'finite'):
    np.testing.assert_array_equal(getattr(again, name), getattr(trajectory, name))
  for name in ('observation', 'action', 'next_observation'):
    kept = trajectory.valid[..., None]
    np.testing.assert_array_equal(getattr(again, name), np.where(kept, getattr(trajectory, name), 0))


def expected(loaded, played, wanted='best', count=2, **options):
  """The answers to what was played, by the functions of batches."""
  memory, remember = None, make_remember(loaded[0])
  for params, trajectory in played[:count]:
    memory = remember(memory, params, trajectory)
  return make_improve(*loaded, ask(steps=wanted), **options)(params, memory, jax.random.key(0))


def assert_same(found, params, atol=1e-5):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), found.params, jax.device_get(params))


@pytest.mark.parametrize('row', range(NUM_TASKS))
def test_plain_episodes_give_what_a_batch_gives(loaded, played, row):
  """Of unequal length, of two policies; with and without asking to explore."""
  experience = [(take(params, row), episodes_of(take(trajectory, row))) for params, trajectory in played]
  for explores in (False, True):
    found = improve(loaded, *experience[1], before=experience[:1], explores=explores)
    assert_same(found, take(expected(loaded, played, explores=explores), row))
  found = improve(loaded, *experience[0], ask(steps=1), explores=False)
  assert_same(found, take(expected(loaded, played, 1, count=1), row))


def test_policies_of_every_make_are_read_alike(loaded, played):
  """Ours, parameters of ours, those of Brax's PPO, and a function; of a black box only actions are read."""
  params, episodes = take(played[0][0], 0), episodes_of(take(played[0][1], 0))

  def watched(observations):
    logits = policies.apply_numpy(jax.tree.map(lambda x: x[None], params), observations[None])[0]
    location, raw_scale = np.split(logits, 2, axis=-1)
    return location, np.logaddexp(0, raw_scale) + 0.001

  first = improve(loaded, NumpyPolicy.of(params), episodes)
  brax = policies.to_brax(params)
  normaliser = types.SimpleNamespace(mean=np.zeros(1, np.float32), std=np.ones(1, np.float32))
  for policy in (params, brax, (normaliser, brax, {'params': 'of the value'}), watched):
    assert_same(improve(loaded, policy, episodes), first.params)
  blind = improve(loaded, None, episodes)
  assert_same(blind, improve(loaded, None, episodes).params)
  difference = jax.tree.map(lambda x, y: np.abs(x - y).max(), blind.params, first.params)
  assert 0 < max(jax.tree.leaves(difference)) < 1


@pytest.fixture(scope='module')
def told(operator, operator_params):
  """An operator that can be asked for a goal."""
  knows = make_operator(dataclasses.replace(operator.config, asks=('steps', 'goal'), goal_size=1))
  return knows, knows.init(jax.random.key(0), operator_params['statistics'])


def test_a_goal_can_be_asked_for_before_anything_was_tried(loaded, told):
  first, again, other = (improve(told, None, [], text) for text in ('goal=0.5', 'goal=0.5', 'goal=-0.5'))
  assert_same(first, again.params)
  assert any(np.abs(x - y).max() > 1e-3 for x, y in zip(*map(jax.tree.leaves, (first.params, other.params))))
  agent = Agent(told)
  assert_same(agent.improve('goal=0.5'), first.params)
  assert agent.num_applications == 1
  for without in (lambda: improve(told, None, [], 'best'), lambda: Agent(told).improve()):
    with pytest.raises(ExperienceError, match='There are 0 episodes'):
      without()
  with pytest.raises(IncompatibleError, match="does not understand an ask for 'goal'"):
    improve(loaded, None, [], 'goal=0.5')
  with pytest.raises(IncompatibleError, match='1 numbers, not 2'):
    improve(told, None, [], 'goal=0.5:0.5')


def test_asked_for_nothing_a_policy_stays_and_a_black_box_is_imitated(loaded, played):
  params, episodes = take(played[0][0], 0), episodes_of(take(played[0][1], 0))
  assert_same(improve(loaded, params, episodes, 0), params, atol=0)
  imitated = improve(loaded, None, episodes, 0, explores=True)
  assert_same(imitated, improve(loaded, None, episodes, 0, explores=False).params, atol=0)


def test_minaris_episodes_are_read_too(loaded, played):
  params, episodes = take(played[0][0], 0), episodes_of(take(played[0][1], 0))
  first = improve(loaded, params, episodes)
  for kind in (lambda **fields: fields, types.SimpleNamespace):
    assert_same(improve(loaded, params, [kind(**dataclasses.asdict(episode)) for episode in episodes]), first.params, 0)


@pytest.mark.parametrize('policy, message', [
  (lambda observations: observations * 0, r'must give \(location, scale\)'),
  (lambda observations: (observations, -1 + observations * 0), 'not positive'),
  ({'layer': 3}, 'no parameters of a policy'),
  ({'mlp/~/linear_0': {'w': np.zeros((2, 2)), 'b': np.zeros(2)}}, 'has 2 observations and 1 actions; the operator'),
  ({'mlp/~/linear_0': {'w': np.full((1, 2), np.nan), 'b': np.zeros(2)}}, 'infinite or undefined'),
  ({'mlp/~/linear_0': {'w': np.zeros((1, 2)), 'b': np.zeros(3)}}, 'do not fit together'),
])
def test_policies_that_cannot_be_read(loaded, played, policy, message):
  with pytest.raises(IncompatibleError, match=message):
    improve(loaded, policy, episodes_of(take(played[0][1], 0)))


SMALL = st.floats(-1, 1, width=32)
ANY = st.one_of(SMALL, SMALL, st.sampled_from([np.nan, np.inf, 2.0, 1e38]))


def arrays(*shape, numbers=ANY):
  """Arrays of a shape, or now and then of another one or of another kind."""
  right = hnp.arrays(np.float32, shape, elements=numbers)
  wrong = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), elements=numbers)
  return st.one_of(right, right, right, wrong, st.sampled_from([None, 'nothing', [[1.0], [1.0, 2.0]]]))


@st.composite
def malformed(draw):
  length = draw(st.integers(0, 10))
  bools = st.one_of(st.none(), hnp.arrays(bool, draw(st.sampled_from([length, length, length + 1]))))
  return Episode(
    observations=draw(arrays(length + 1, 1)), actions=draw(arrays(length, 1, numbers=SMALL)),
    rewards=draw(arrays(length)), terminations=draw(bools),
  )


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.lists(malformed(), max_size=5))
def test_malformed_episodes_give_a_policy_or_one_clear_error(loaded, episodes):
  try:
    found = improve(loaded, None, episodes)
  except ExperienceError as error:
    assert str(error).endswith('.')
  else:
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))


@pytest.mark.parametrize('episodes, message', [
  ([], 'There are 0 episodes'), ([Episode(np.zeros((2, 1)), np.zeros((1, 1)), np.zeros(1))] * 5, 'reads 1 to 4'),
  ({'observations': 1}, 'as a list'), (Episode(np.zeros((2, 1)), np.zeros((1, 1)), np.zeros(1)), 'as a list'),
  ([Episode(np.zeros((1, 1)), np.zeros((0, 1)), np.zeros(0))], 'Episode 0 has 0 steps'),
])
def test_lists_of_episodes_that_cannot_be_read(loaded, episodes, message):
  with pytest.raises(ExperienceError, match=message):
    improve(loaded, None, episodes)


def spoilt(loaded):
  """An operator whose every answer is infinite."""
  operator, operator_params = loaded
  return operator, {**operator_params, 'network': jax.tree.map(lambda x: x * 1e38, operator_params['network'])}


def test_an_answer_that_is_not_finite_is_no_policy(loaded, played):
  with pytest.raises(NonFinitePolicyError, match='not finite'):
    improve(spoilt(loaded), None, episodes_of(take(played[0][1], 0)))


SPACES = {
  'observation_indices': [2], 'observation_scale': 0.5, 'observation_offset': -1.0,
  'action_low': 0.0, 'action_high': 10.0,
}


def test_spaces_by_hand():
  spaces = Spaces.of(3, 1, **SPACES)
  np.testing.assert_allclose(spaces.observation(np.array([9.0, 9.0, 4.0])), [1.0])
  np.testing.assert_allclose(spaces.environment_action(np.array([[-1.0], [0.0], [0.5]])), [[0.0], [5.0], [7.5]])
  np.testing.assert_allclose(spaces.action(np.array([[0.0], [7.5], [12.0]])), [[-1.0], [0.5], [1.0]])
  episode = spaces.episode({'observations': [[9, 9, 4], [9, 9, 2]], 'actions': [[7.5]], 'rewards': [3.0]})
  np.testing.assert_allclose(episode.observations, [[1.0], [0.0]])
  np.testing.assert_allclose(episode.actions, [[0.5]])
  with pytest.raises(ExperienceError, match='rows of 3 numbers'):
    spaces.episode({'observations': [[9, 9], [9, 9]], 'actions': [[7.5]], 'rewards': [3.0]})


@pytest.mark.parametrize('changes, message', [
  ({'action_high': np.inf}, 'range of actions is not known'), ({'action_high': 0.0}, 'range of actions'),
  ({'observation_indices': [3]}, 'from 0 to 2'), ({'observation_scale': [1.0, 2.0]}, 'one number or 1'),
  ({'observation_offset': np.nan}, 'must be finite'),
])
def test_spaces_that_are_none(changes, message):
  with pytest.raises(IncompatibleError, match=message):
    Spaces.of(3, 1, **{**SPACES, **changes})


@pytest.fixture(scope='module')
def mapped(operator):
  """A policy in an environment whose observations and actions are others."""
  return NumpyPolicy.of(operator.policy.init(jax.random.key(3)), Spaces.of(3, 1, **SPACES))


def test_a_policy_in_numpy_is_the_policy(operator, mapped):
  observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  logits = operator.policy.apply(mapped.params, mapped.spaces.observation(observations))
  mode = np.asarray(operator.policy.distribution.mode(logits))
  np.testing.assert_allclose(mapped(observations), 5 + 5 * mode, atol=1e-5)
  np.testing.assert_allclose(mapped(observations[0]), 5 + 5 * mode[0], atol=1e-5)
  many = np.tile(observations[:1], (20000, 1))
  drawn = np.arctanh(np.clip(mapped(many, np.random.default_rng(0)) / 5 - 1, -0.9999999, 0.9999999))
  dist = operator.policy.distribution.create_dist(logits[0])
  np.testing.assert_allclose([drawn.mean(), drawn.std()], [dist.loc[0], dist.scale[0]], rtol=0.03, atol=0.02)


def test_a_policy_is_saved_and_read_again(mapped, tmp_path):
  mapped.save(tmp_path / 'policy.safetensors')
  again, observation = load_policy(tmp_path / 'policy.safetensors'), np.array([0.1, 0.2, 0.3])
  np.testing.assert_array_equal(again(observation), mapped(observation))
  with pytest.raises(DamagedDataError, match='missing'):
    load_policy(tmp_path / 'other.safetensors')
  NumpyPolicy.of(mapped.params).save(tmp_path / 'policy.safetensors')
  content = (tmp_path / 'policy.safetensors').read_bytes()
  (tmp_path / 'policy.safetensors').write_bytes(content[:-9])
  with pytest.raises(DamagedDataError, match='damaged'):
    load_policy(tmp_path / 'policy.safetensors')


def test_an_exported_policy_needs_numpy_alone(mapped, tmp_path):
  mapped.to_numpy(tmp_path)
  observation = [0.1, 0.2, 0.3]
  code = (
    'import json, sys; import numpy as np; from forward import act, load; policy = load("policy.npz"); '
    f'print(json.dumps([act(policy, np.float32({observation})).tolist(), '
    f'act(policy, np.float32({observation}), np.random.default_rng(0)).tolist(), "jax" in sys.modules]))'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
  likeliest, drawn, has_jax = json.loads(done.stdout)
  np.testing.assert_allclose(likeliest, mapped(observation), rtol=1e-6)
  np.testing.assert_allclose(drawn, mapped(observation, np.random.default_rng(0)), rtol=1e-6)
  assert not has_jax


def test_an_onnx_file_computes_the_same(mapped, tmp_path):
  """Its contract says what its numbers are, and the range of its actions."""
  path = tmp_path / 'policy.onnx'
  mapped.to_onnx(path, observation_names=['a', 'b', 'position'], action_units=['V'], rate_hz=50.0)
  observations = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
  session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  np.testing.assert_allclose(session.run(['action'], {'observation': observations})[0], mapped(observations), atol=1e-5)
  assert json.loads((tmp_path / 'policy.json').read_text()) == {
    'observation': {'shape': ['batch', 3], 'type': 'float32', 'names': ['a', 'b', 'position'], 'units': None},
    'action': {
      'shape': ['batch', 1], 'type': 'float32', 'names': ['action_0'], 'units': ['V'], 'low': [0.0], 'high': [10.0],
    },
    'deterministic': True, 'rate_hz': 50.0,
  }
  with pytest.raises(IncompatibleError, match=r"must end in '.onnx'"):
    mapped.to_onnx(tmp_path / 'policy.json')
  with pytest.raises(IncompatibleError, match='action_names has 2 entries; this policy has 1'):
    mapped.to_onnx(path, action_names=['a', 'b'])


def run_episode(agent, goal=3.0, length=8):
  """A cart that goes by its action, in units of its own: its position is (x + 1) * 2, its action 0 to 10."""
  x = 0.0
  for step in range(length):
    action = agent.act(np.array([7.0, 8.0, 2 * (x + 1)]))
    x += float(action[0]) / 5 - 1
    agent.observe(-abs(x - goal), np.array([7.0, 8.0, 2 * (x + 1)]), False, step + 1 == length)


def test_an_agent_does_what_improve_does(loaded):
  """Two applications: the second one reads both policies."""
  agent, experience = Agent(loaded, spaces=Spaces.of(3, 1, **SPACES), seed=5), []
  for number in range(2):
    acted = agent.policy
    run_episode(agent), run_episode(agent, length=3)
    experience.append((acted.params, list(agent._episodes)))
    assert agent.num_finished == 2 and agent.num_applications == number
    assert agent.improve() is agent.policy and agent.num_finished == 0
    assert_same(improve(loaded, *experience[-1], before=experience[:-1]), agent.policy.params)
  lengths = [len(episode.rewards) for episode in experience[0][1]]
  assert lengths == [8, 3] and np.abs(experience[0][1][0].observations[0]) < 1e-6
  agent.begin_task()
  assert agent.num_applications == 0 and not agent._episodes


def test_seeds_of_agents_reproduce(loaded):
  def acted(seed):
    agent = Agent(loaded, seed=seed, sample=True)
    run = [agent.act(np.zeros(1))]
    agent.observe(0.0, np.zeros(1), False, True)
    agent.improve()
    return np.concatenate([*run, agent.act(np.zeros(1))])

  np.testing.assert_array_equal(acted(1), acted(1))
  assert (acted(1) != acted(2)).all()


@pytest.mark.parametrize('call, message', [
  (lambda agent: agent.observe(0.0, np.zeros(1), False), 'call `act` before'),
  (lambda agent: agent.act(np.zeros(2)), r'shape \[2\]; \[1\] is needed'),
  (lambda agent: agent.act(np.array([np.nan])), 'not finite'),
  (lambda agent: agent.act({'camera': 1}), 'array of numbers'),
  (lambda agent: agent.improve(), 'There are 0 episodes'),
  (lambda agent: (agent.act(np.zeros(1)), agent.act(np.zeros(1))), 'call `observe` after'),
  (lambda agent: (agent.act(np.zeros(1)), agent.observe(np.nan, np.zeros(1), False)), 'must be one finite number'),
  (lambda agent: (agent.act(np.zeros(1)), agent.improve()), 'has not ended yet'),
  (
    lambda agent: (agent.act(np.zeros(1)), agent.observe(0.0, np.zeros(1), False), agent.act(np.ones(1))),
    'not the observation that came last',
  ),
  (
    lambda agent: (agent.act(np.zeros(1)), agent.observe(0.0, np.zeros(1), False), agent.act(np.zeros((1, 1)))),
    'shape',
  ),
  (lambda agent: agent.act(np.zeros(0)), 'shape'), (lambda agent: agent.act(np.full(1, 1e30)), 'not finite'),
  (lambda agent: run_unlimited(agent), 'goes on after 8 steps'),
])
def test_misuse_of_an_agent_is_told(loaded, call, message):
  with pytest.raises(ExperienceError, match=message):
    call(Agent(loaded))


def run_unlimited(agent):
  for _ in range(8):
    agent.act(np.zeros(1))
    agent.observe(0.0, np.zeros(1), False)


def test_an_episode_that_is_too_long_is_ended_or_dropped(loaded):
  for ends in (True, False):
    agent = Agent(loaded)
    with pytest.raises(ExperienceError, match='goes on after 8 steps'):
      run_unlimited(agent)
    if ends:
      agent.observe(0.0, np.zeros(1), False, truncated=True)
      assert len(agent._episodes[0].rewards) == 8
    else:
      agent.drop_episode()
      assert agent.num_finished == 0
    agent.act(np.ones(1))


def test_a_step_that_blew_up_is_left_out_and_its_episode_is_not_the_best(loaded):
  agent = Agent(loaded)
  for step in range(2):
    agent.act(np.full(1, step))
    agent.observe(-1.0 + step, np.full(1, step + 1), False, finite=step == 0)
  assert agent.num_finished == 1 and agent._episodes[0].rewards.tolist() == [-1.0]
  assert not as_trajectory(agent._episodes, 8).finite.any()
  agent.act(np.zeros(1))
  agent.observe(0.0, np.zeros(1), False, finite=False)  # in the first step: nothing is left
  assert agent.num_finished == 1
  agent.improve()


def test_an_agent_draws_what_its_policy_draws(loaded):
  """From a generator of the same seed, also beyond the first block of numbers; or it takes the most likely actions."""
  for greedy, rng in ((False, np.random.default_rng(3)), (True, None)):
    agent, observation = Agent(loaded, seed=3, greedy=greedy), np.zeros(loaded[0].config.observation_size, np.float32)
    for step in range(300):
      action = agent.act(observation)
      np.testing.assert_array_equal(action, agent.policy(observation, rng))
      observation = observation + np.float32(0.001)
      agent.observe(0.0, observation, terminated=False, truncated=step % 8 == 7)


def test_the_action_that_was_given_is_noted_whatever_becomes_of_it(loaded):
  agent = Agent(loaded)
  action = agent.act(np.zeros(1))
  given = action.copy()
  action *= 0
  agent.observe(0.0, np.zeros(1), True)
  np.testing.assert_allclose(agent._episodes[0].actions[0], given, rtol=1e-6)


def test_actions_stay_within_their_range(operator):
  """Also where the middle and half of the range, added, would be rounded beyond it."""
  rng = np.random.default_rng(0)
  for _ in range(200):
    low = np.float32(rng.uniform(-9, 9))
    high = low + np.float32(rng.uniform(0.01, 3))
    policy = NumpyPolicy.of(operator.policy.init(jax.random.key(0)), Spaces.of(1, 1, action_low=low, action_high=high))
    _, middle, half_range = policy.forward_policy
    assert (middle + half_range <= high).all() and (middle - half_range >= low).all()


def test_a_black_box_cannot_change_what_is_read(loaded, played):
  episodes = episodes_of(take(played[0][1], 0))

  def watched(observations, spoils):
    result = (0 * observations, 1 + 0 * observations)
    observations -= spoils
    return result

  first = improve(loaded, lambda observations: watched(observations, 0.0), episodes)
  assert_same(improve(loaded, lambda observations: watched(observations, 5.0), episodes), first.params, 0)


def test_after_an_error_an_agent_goes_on(loaded):
  """What was noted before is still there."""
  agent = Agent(loaded)
  agent.act(np.zeros(1))
  with pytest.raises(ExperienceError):
    agent.observe(np.inf, np.zeros(1), False)
  for reward in ('nothing', [1.0, 2.0], None, 1e30):
    with pytest.raises(ExperienceError, match='one finite number'):
      agent.observe(reward, np.zeros(1), True)
  agent.observe(1.0, np.zeros(1), True)
  assert agent.num_finished == 1 and agent._episodes[0].terminations.tolist() == [True]
  with pytest.raises(IncompatibleError, match='one thing at a time'):
    agent.improve(ask(steps=np.array([1, 2])))
  assert agent.num_finished == 1 and agent.num_applications == 0
  agent.improve()


def test_observations_are_copied(loaded):
  """Environments may write each observation into the same memory."""
  agent, buffer = Agent(loaded), np.zeros(1)
  for step in range(3):
    agent.act(buffer)
    buffer += 0.5
    agent.observe(0.0, buffer, False, step == 2)
  np.testing.assert_array_equal(agent._episodes[0].observations[:, 0], [0.0, 0.5, 1.0, 1.5])


def test_an_agent_keeps_its_policy_rather_than_one_that_is_not_finite(loaded):
  agent = Agent(spoilt(loaded))
  agent.act(np.zeros(1))
  agent.observe(1.0, np.zeros(1), True)
  acted = agent.policy
  with pytest.warns(RuntimeWarning, match='The last policy stays'):
    assert agent.improve() is acted
  assert agent.num_applications == 1 and np.isfinite(agent.act(np.zeros(1))).all()
