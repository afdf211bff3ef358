"""Operators, and operators as files."""

import dataclasses
import json
import shutil

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaimprove import files
from metaimprove.asks import ask
from metaimprove.errors import DamagedDataError, IncompatibleError, MetaImproveError
from metaimprove.iteration import iterate
from metaimprove.operators import checkpoints
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.memory import Memory
from metaimprove.operators.operator import make_operator
from metaimprove.operators.reading import experience_statistics, num_transition_features, read, statistics_structure
from metaimprove.trees import take
from metaimprove.types import Task, Trajectory
from tests.compilations import counted
from tests.point_family import point_family

BEST = ask(steps='best')


@pytest.fixture(scope='module')
def shown(every):
  """A stored policy and its experience."""
  return jax.tree.map(lambda x: jnp.asarray(x[0, 1]), every)


@pytest.fixture(scope='module')
def memory(operator, shown):
  return operator.remember(None, *shown)


def largest_difference(first, second):
  return max(float(np.abs(x - y).max()) for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second)))


def changed(memory, **fields):
  return memory.replace(trajectory=memory.trajectory.replace(**fields))


def test_it_never_sees_the_task(operator, operator_params, every):
  """The same policies with the same experience become the same, whatever goal, dynamics and outcomes are."""
  params, trajectory = take(every, (slice(None), 1))
  num = len(trajectory.reward)
  memories = []

  def play_on(params, tasks, rng_key):
    outcome = jnp.full((*trajectory.reward.shape, 3), jnp.nan) + tasks.goal[:, None, None]
    return trajectory.replace(outcome=outcome)

  remember = make_remember(operator)

  def spied(*arguments):
    memories.append(remember(*arguments))
    return memories[-1]

  def improved(goal):
    tasks = Task(goal=np.full((num, 1), goal), dynamics={'gear': np.full(num, goal)})
    return list(iterate(
      make_improve(operator, operator_params, BEST), spied, play_on, params, tasks, jax.random.key(0),
      num_applications=1,
    ))[-1].params

  first, second = improved(0.5), improved(-2.0)
  jax.tree.map(np.testing.assert_array_equal, first, second)
  assert np.isfinite(np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(first)])).all()
  assert memories[0].trajectory.outcome.size == 0


def test_outcomes_are_not_read_even_where_a_memory_holds_them(operator, operator_params, shown, memory):
  """Undefined numbers spread to all that is computed from them."""
  with_outcome = changed(memory, outcome=jnp.full((2, 8, 3), jnp.nan))
  first, second = (operator.improve(operator_params, shown[0], m, BEST) for m in (memory, with_outcome))
  jax.tree.map(np.testing.assert_array_equal, first, second)


def test_it_emits_a_policy_of_the_same_shape(operator, operator_params, shown, memory):
  emitted = operator.improve(operator_params, shown[0], memory, BEST)
  assert jax.tree.map(jnp.shape, emitted) == jax.tree.map(jnp.shape, shown[0])
  assert operator.policy.apply(emitted, memory.trajectory.observation).shape == (2, 8, 2)


@pytest.mark.parametrize('field', ['observation', 'action', 'reward', 'next_observation'])
def test_everything_in_the_experience_matters(operator, operator_params, shown, memory, field):
  other = changed(memory, **{field: getattr(memory.trajectory, field) + 0.3})
  first, second = (operator.improve(operator_params, shown[0], m, BEST) for m in (memory, other))
  assert largest_difference(first, second) > 1e-5


def test_the_policy_and_the_ask_matter(operator, operator_params, shown, memory):
  best = operator.improve(operator_params, shown[0], memory, BEST)
  assert largest_difference(best, operator.improve(operator_params, shown[0], memory, ask(steps=4))) > 1e-5
  other = operator.remember(None, jax.tree.map(lambda x: x + 0.1, shown[0]), shown[1])
  assert largest_difference(best, operator.improve(operator_params, shown[0], other, BEST)) > 1e-5


def test_episodes_are_a_set_and_padding_is_not_read(operator, operator_params, shown, memory):
  flipped = jax.tree.map(lambda x: x[::-1], memory)
  first, second = (operator.improve(operator_params, shown[0], m, ask(steps=2)) for m in (memory, flipped))
  assert largest_difference(first, second) < 1e-5
  padded = changed(memory, valid=memory.trajectory.valid.at[:, 5:].set(False))
  noisy = changed(padded, reward=padded.trajectory.reward.at[:, 5:].set(77.0))
  first, second = (operator.improve(operator_params, shown[0], m, ask(steps=2)) for m in (padded, noisy))
  assert largest_difference(first, second) == 0


def test_asked_for_nothing_it_gives_the_policy_back(operator, operator_params, shown, memory):
  same = operator.improve(operator_params, shown[0], memory, ask(steps=0))
  jax.tree.map(np.testing.assert_array_equal, same, shown[0])


def test_one_program_serves_all_parameters(operator, operator_params, every):
  params, trajectory = take(every, (slice(None), 1))
  remember = make_remember(operator)
  memory = remember(None, params, trajectory)
  make_improve(operator, operator_params, BEST)(params, memory)
  other = jax.tree.map(lambda x: x + 0.01, operator_params)
  with counted() as compiled:
    make_improve(operator, other, BEST)(params, remember(None, params, trajectory))
  assert compiled == []


STATISTICS = {
  'observation_mean': 0.0, 'observation_std': 1.0, 'change_mean': 0.0, 'change_std': 1.0, 'reward_mean': 0.0,
  'reward_std': 1.0,
}


def numbered_memory(valid):
  """Episodes in which the observation counts the steps through all of them; [E, T] bool `valid`."""
  valid = np.asarray(valid)
  number = np.arange(valid.size, dtype=np.float32).reshape(*valid.shape, 1) / 100
  trajectory = Trajectory(
    observation=number, action=number, reward=number[..., 0], next_observation=number, outcome=number[..., :0],
    terminated=np.zeros(valid.shape, bool), valid=valid, finite=np.ones(len(valid), bool),
  )
  return Memory(trajectory=trajectory, behaviour=np.zeros((*valid.shape, 2), np.float32))


def steps_read(valid, max_transitions):
  """Which steps of `numbered_memory` are read, and which of them count."""
  features, counts = read(
    numbered_memory(valid), STATISTICS, episode_length=8, max_transitions=max_transitions
  )
  return np.rint(np.asarray(features)[:, 0] * 100).astype(int).tolist(), np.asarray(counts).tolist()


def test_long_experience_is_thinned_out_evenly():
  """Of 16 steps every fourth is read; the first four would not do. The time stamps stay those of the steps."""
  assert steps_read(np.ones((2, 8), bool), 4) == ([0, 4, 8, 12], [True] * 4)
  features, _ = read(numbered_memory(np.ones((2, 8), bool)), STATISTICS, episode_length=8, max_transitions=4)
  np.testing.assert_allclose(features[:, -2], [0, 0.5, 0, 0.5])


def test_thinning_counts_the_steps_that_were_taken():
  """Two steps of the first episode and six of the second are there: every second of these eight is read."""
  valid = np.array([[True] * 2 + [False] * 6, [True] * 6 + [False] * 2])
  assert steps_read(valid, 4) == ([0, 8, 10, 12], [True] * 4)


def test_where_few_steps_were_taken_all_are_read():
  valid = np.array([[True] * 2 + [False] * 6, [True] + [False] * 7])
  steps, counts = steps_read(valid, 4)
  assert [step for step, count in zip(steps, counts) if count] == [0, 1, 8] and sum(counts) == 3


def test_short_experience_is_read_whole():
  assert steps_read(np.ones((2, 8), bool), 16) == (list(range(16)), [True] * 16)


def test_statistics_by_hand():
  """Padding is left out: rewards 0, 0.01 and 0.08 count."""
  memory = numbered_memory(np.array([[True] * 2 + [False] * 6, [True] + [False] * 7]))
  found = experience_statistics(memory.trajectory)
  np.testing.assert_allclose(found['reward_mean'], 0.03, rtol=1e-5)
  np.testing.assert_allclose(found['reward_std'], np.std([0, 0.01, 0.08]), rtol=1e-3)
  assert num_transition_features(1, 1) == read(memory, STATISTICS, episode_length=8, max_transitions=99)[0].shape[1]


def test_experience_or_policies_of_other_sizes_are_refused(operator, operator_params, shown, memory):
  wide = changed(memory, observation=jnp.tile(memory.trajectory.observation, 3))
  with pytest.raises(IncompatibleError, match='1 observations and 1 actions; the experience has 3 and 1'):
    operator.improve_behaviour(operator_params, wide, ask(steps=1))
  deep = {**shown[0], 'mlp/~/linear_2': shown[0]['mlp/~/linear_1']}
  with pytest.raises(IncompatibleError, match='improve_behaviour'):
    operator.improve(operator_params, deep, memory, ask(steps=1))


CONFIG = {'family': 'point', 'backend': 'none', 'observation_size': 1, 'action_size': 1, 'episode_length': 8}


@pytest.mark.parametrize('changes', [
  {'width': 0}, {'width': 48}, {'width': 64.0}, {'width': True}, {'num_blocks': 10_000}, {'max_transitions': 0},
  {'family': ''}, {'backend': None}, {'hidden_sizes': (0,)}, {'hidden_sizes': 'ab'}, {'hidden_sizes': (4096,) * 3},
  {'asks': ()}, {'asks': ('goal',)}, {'asks': ('steps', 'steps')}, {'asks': (['steps'],)}, {'episode_length': -1},
  {'observation_size': 10**5, 'hidden_sizes': (90,), 'code_size': 4096}, {'action_size': 10**30},
  {'width': 4096, 'num_latents': 1024},
])
def test_configurations_that_make_no_sense_are_refused(changes):
  with pytest.raises(IncompatibleError, match='An operator can not have'):
    OperatorConfig(**{**CONFIG, **changes})


def test_weights_are_counted_before_they_are_made():
  """Sizes that all differ, so that one in the wrong place of the count is noticed."""
  config = OperatorConfig(
    **{**CONFIG, 'observation_size': 5, 'action_size': 3}, hidden_sizes=(7, 11), width=64, num_latents=3, num_blocks=2,
    code_size=13,
  )
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), statistics_structure(5))
  network = jax.eval_shape(lambda: make_operator(config).init(jax.random.key(0), zeros))['network']
  assert config.num_weights == sum(leaf.size for leaf in jax.tree.leaves(network))


def test_lists_are_taken_for_tuples():
  assert hash(OperatorConfig(**CONFIG, hidden_sizes=[8], asks=['steps'])).real


@pytest.fixture(scope='module')
def stored(operator, operator_params, tmp_path_factory):
  folder = tmp_path_factory.mktemp('operator') / 'operator'
  checkpoints.save_operator(folder, operator, operator_params)
  return folder


@pytest.fixture
def saved(stored, tmp_path):
  """A copy of the folder to do harm to."""
  return shutil.copytree(stored, tmp_path / 'operator')


def edit(folder, **changes):
  config = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**config, **changes}))


def replace_params(folder, change):
  """Other parameters with the checksum that they should have."""
  arrays = change(files.load_arrays(folder / 'operator.safetensors'))
  content = files.tree_to_bytes(arrays)
  (folder / 'operator.safetensors').write_bytes(content)
  edit(folder, sha256=files.checksum(content))


def test_a_loaded_operator_does_the_same(stored, operator, operator_params, point, shown, memory):
  loaded, loaded_params = checkpoints.load_operator(stored, point)
  assert loaded.config == operator.config
  before = operator.improve(operator_params, shown[0], memory, ask(steps=1))
  after = loaded.improve(loaded_params, shown[0], memory, ask(steps=1))
  jax.tree.map(np.testing.assert_array_equal, before, after)
  assert sorted(path.name for path in stored.iterdir()) == ['config.json', 'operator.safetensors']


def test_an_operator_of_another_family_is_refused(stored):
  with pytest.raises(IncompatibleError, match="family='point', and line"):
    checkpoints.load_operator(stored, point_family(name='line'))
  with pytest.raises(IncompatibleError, match='observation_size=1.*observation_size=2'):
    checkpoints.load_operator(stored, point_family(observation_size=2))


def test_files_that_are_missing_or_altered_are_refused(saved, tmp_path):
  with pytest.raises(DamagedDataError, match='missing'):
    checkpoints.load_operator(tmp_path / 'nowhere')
  content = bytearray((saved / 'operator.safetensors').read_bytes())
  content[-1] ^= 1
  (saved / 'operator.safetensors').write_bytes(content)
  with pytest.raises(DamagedDataError, match='damaged'):
    checkpoints.load_operator(saved)
  (saved / 'operator.safetensors').unlink()
  with pytest.raises(DamagedDataError, match='missing'):
    checkpoints.load_operator(saved)


def test_the_checksum_comes_first(saved):
  """What was altered is not even parsed."""
  (saved / 'operator.safetensors').write_bytes(b'no safetensors')
  with pytest.raises(DamagedDataError, match='is damaged; copy the whole folder'):
    checkpoints.load_operator(saved)


@pytest.mark.parametrize('change, error, match', [
  (lambda config: {'format_version': 99}, IncompatibleError, 'format version 99'),
  (lambda config: {'operator': {'colour': 'red', 'hidden_sizes': []}}, DamagedDataError, 'does not describe'),
  (lambda config: {'operator': None}, DamagedDataError, 'does not describe'),
  (lambda config: {'sha256': 3}, DamagedDataError, 'does not describe'),
  (lambda config: {'operator': {**config, 'width': 64}}, IncompatibleError, 'shape'),
  (lambda config: {'operator': {**config, 'width': 0}}, IncompatibleError, 'width=0'),
  (lambda config: {'operator': {**config, 'num_blocks': 10_000}}, IncompatibleError, 'num_blocks=10000'),
  (lambda config: {'operator': {**config, 'max_transitions': 0}}, IncompatibleError, 'max_transitions=0'),
])
def test_configurations_on_disk_that_do_not_fit_are_refused(saved, change, error, match):
  edit(saved, **change(json.loads((saved / 'config.json').read_text())['operator']))
  with pytest.raises(error, match=match):
    checkpoints.load_operator(saved)


@pytest.mark.parametrize('text', ['[]', 'null', '3', '"x"', '{', '', '[' * 100_000, '{"format_version": [2]}'])
def test_configurations_that_are_none_are_refused(saved, text):
  (saved / 'config.json').write_text(text)
  with pytest.raises((DamagedDataError, IncompatibleError)):
    checkpoints.load_operator(saved)


def test_parameters_that_are_no_finite_float32_are_refused(saved):
  first = lambda change: lambda arrays: {**arrays, min(arrays): change(arrays[min(arrays)])}
  replace_params(saved, first(lambda x: x.astype(np.int8)))
  with pytest.raises(IncompatibleError, match='int8, not float32'):
    checkpoints.load_operator(saved)
  replace_params(saved, first(lambda x: np.full(x.shape, np.nan, np.float32)))
  with pytest.raises(DamagedDataError, match='not finite'):
    checkpoints.load_operator(saved)


def test_types_that_numpy_has_not_are_refused(saved):
  header = json.dumps({'x': {'dtype': 'BF16', 'shape': [1], 'data_offsets': [0, 2]}}).encode()
  content = len(header).to_bytes(8, 'little') + header + b'xx'
  (saved / 'operator.safetensors').write_bytes(content)
  edit(saved, sha256=files.checksum(content))
  with pytest.raises(DamagedDataError, match='operator.safetensors is damaged'):
    checkpoints.load_operator(saved)


def test_a_deviation_of_zero_is_refused(saved):
  replace_params(saved, lambda arrays: {**arrays, 'statistics::reward_std': np.zeros((), np.float32)})
  with pytest.raises(DamagedDataError, match='reward_std.*not positive'):
    checkpoints.load_operator(saved)


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6,
)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=150)
def test_whatever_is_on_disk_errors_are_documented(stored, tmp_path_factory, data):
  """One part is anything at all: it is an operator still, or a documented error says what is wrong."""
  folder = shutil.copytree(stored, tmp_path_factory.mktemp('fuzzed') / 'operator')
  config = json.loads((folder / 'config.json').read_text())
  part = data.draw(st.sampled_from(['config', 'top', 'operator', 'bytes']))
  if part == 'config':
    (folder / 'config.json').write_text(json.dumps(data.draw(JSON)))
  elif part == 'top':
    edit(folder, **{data.draw(st.sampled_from(sorted(config))): data.draw(JSON)})
  elif part == 'operator':
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(OperatorConfig)]))
    sizes = st.sampled_from([-1, 0, 1, 31, 32, 2**31, 2**63, 10**30])
    edit(folder, operator={**config['operator'], name: data.draw(JSON | sizes | st.lists(sizes, max_size=3))})
  else:
    content = bytearray((folder / 'operator.safetensors').read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
      # The header, where harm is done; and a checksum that fits.
      content[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    (folder / 'operator.safetensors').write_bytes(content)
    edit(folder, sha256=files.checksum(bytes(content)))
  try:
    loaded, loaded_params = checkpoints.load_operator(folder)
  except MetaImproveError:
    return
  assert isinstance(loaded.config, OperatorConfig)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loaded_params))
