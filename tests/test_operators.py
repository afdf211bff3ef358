"""Operators, and operators as files."""

import dataclasses
import functools
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
from metaimprove.operators.operator import make_operator
from metaimprove.operators.reading import statistics_structure
from metaimprove.trees import take
from metaimprove.types import Task
from tests.compilations import counted
from tests.point_family import point_family

BEST = ask(steps='best')


@pytest.fixture(scope='module')
def shown(every):
  """A stored policy and its experience."""
  return jax.tree.map(lambda x: jnp.asarray(x[0, 1]), every)


@pytest.fixture(scope='module')
def memory(operator, shown):
  """Two episodes, in the last two of four places."""
  return operator.remember(None, *shown)


@pytest.fixture(scope='module')
def full(operator, every, memory):
  """The episodes of two policies."""
  return operator.remember(memory, *jax.tree.map(lambda x: jnp.asarray(x[0, 2]), every))


def largest_difference(first, second):
  return max(float(np.abs(x - y).max()) for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second)))


def changed(memory, **fields):
  return memory.replace(trajectory=memory.trajectory.replace(**fields))


@pytest.fixture(scope='module')
def answers(operator, operator_params):
  """All answers of the operator to a memory."""
  compiled = jax.jit(operator.answers)
  return lambda memory, wanted=BEST: compiled(operator_params, memory, wanted)


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
  with_outcome = changed(memory, outcome=jnp.full((4, 8, 3), jnp.nan))
  first, second = (operator.improve(operator_params, shown[0], m, BEST) for m in (memory, with_outcome))
  jax.tree.map(np.testing.assert_array_equal, first, second)


def test_it_emits_a_policy_of_the_same_shape(operator, operator_params, shown, memory):
  emitted = operator.improve(operator_params, shown[0], memory, BEST)
  assert jax.tree.map(jnp.shape, emitted) == jax.tree.map(jnp.shape, shown[0])
  assert operator.policy.apply(emitted, memory.trajectory.observation).shape == (4, 8, 2)


@pytest.mark.parametrize('field', ['observation', 'action', 'reward', 'next_observation'])
def test_everything_in_the_experience_matters(answers, memory, field):
  other = changed(memory, **{field: getattr(memory.trajectory, field) + 0.3})
  assert largest_difference(answers(memory), answers(other)) > 1e-5


@pytest.mark.parametrize('field, change', [
  ('behaviour', 0.1), ('time', 1), ('episode_return', jnp.array([0, 0, 0, 1.0])), ('application', jnp.arange(4)),
])
def test_everything_else_that_is_remembered_matters(answers, full, field, change):
  """What policies would do, when a step was taken, which episodes were good, and which are of the newest policy."""
  other = full.replace(**{field: getattr(full, field) + change})
  assert largest_difference(answers(full), answers(other)) > 1e-5


def test_the_ask_matters(answers, memory):
  asked = [answers(memory, wanted) for wanted in (BEST, ask(steps=4), ask(explore='most'), ask(explore=0.5))]
  differences = [largest_difference(x, y) for index, x in enumerate(asked) for y in asked[:index]]
  assert min(differences) > 1e-5


def test_a_memory_is_a_set_of_episodes(answers, full):
  flipped = take(full, np.array([2, 0, 3, 1]))
  assert largest_difference(answers(full), answers(flipped)) < 1e-5


def test_empty_places_and_padding_are_not_read(answers, memory):
  """Whatever finite numbers are there."""
  def noisy(where):
    noise = lambda x: jnp.where(where.reshape(*where.shape, *[1] * (x.ndim - 2)), 77, x).astype(x.dtype)
    return lambda m: changed(
      m.replace(behaviour=noise(m.behaviour), time=noise(m.time)), observation=noise(m.trajectory.observation),
      action=noise(m.trajectory.action), reward=noise(m.trajectory.reward),
      next_observation=noise(m.trajectory.next_observation),
    )

  padded = changed(memory, valid=memory.trajectory.valid.at[:, 5:].set(False))
  assert largest_difference(answers(padded), answers(noisy(~padded.trajectory.valid)(padded))) == 0
  empty = memory.number == -1
  filled = changed(noisy(jnp.tile(empty[:, None], (1, 8)))(memory), valid=memory.trajectory.valid | empty[:, None])
  filled = filled.replace(
    episode_return=jnp.where(empty, 1e3, filled.episode_return), application=jnp.where(empty, 9, filled.application)
  )
  assert empty.any() and largest_difference(answers(memory), answers(filled)) == 0


def test_more_room_changes_nothing(operator, operator_params, answers, shown, memory):
  """Eight places instead of four, for the same two episodes."""
  larger = make_operator(dataclasses.replace(operator.config, capacity=8))
  roomy = larger.remember(None, *shown)
  assert roomy.number.shape == (8,) and (roomy.number != -1).sum() == 2
  assert largest_difference(answers(memory), larger.answers(operator_params, roomy, BEST)) < 1e-5


def test_answers_are_drawn_as_often_as_they_are_likely(operator, operator_params, shown, memory):
  """And without a key the likeliest one is given. Both answers of the tiny operator, one 0.9 likely."""
  head = operator_params['network']['likelihood']
  likely = {**head, 'b': jnp.array([-10.0, -10.0 + np.log(9.0)]), 'w': jnp.zeros_like(head['w'])}
  params = {**operator_params, 'network': {**operator_params['network'], 'likelihood': likely}}
  codes, log_likelihood = operator.answers(params, memory, BEST)
  np.testing.assert_allclose(np.exp(log_likelihood), [0.1, 0.9], rtol=1e-5)
  first, second = (operator.decode(params, code) for code in codes)
  assert largest_difference(first, second) > 1e-3
  improve = functools.partial(operator.improve, params, shown[0], memory, BEST)
  assert largest_difference(jax.jit(improve)(), second) < 1e-5
  drawn = jax.jit(jax.vmap(improve))(jax.random.split(jax.random.key(0), 2000))
  is_first = np.asarray(largest_per_row(drawn, first)) < 1e-5
  assert (is_first | (np.asarray(largest_per_row(drawn, second)) < 1e-5)).all()
  np.testing.assert_allclose(is_first.mean(), 0.1, atol=0.03)


def largest_per_row(many, one):
  """[B] the largest difference of each tree of a batch from another one."""
  differences = jax.tree.map(lambda x, y: jnp.abs(x - y).reshape(len(x), -1).max(axis=1), many, one)
  return jnp.stack(jax.tree.leaves(differences)).max(axis=0)


def test_batches_are_drawn_each_with_a_key_of_its_own(operator, operator_params, shown, memory):
  """Sixteen times the same memory: not always the same answer, unless none is to be drawn; and the same again."""
  params, memories = jax.tree.map(lambda x: jnp.stack([x] * 16), (shown[0], memory))
  draw, likeliest = (make_improve(operator, operator_params, BEST, sample=sample) for sample in (True, False))
  different = lambda found: len(np.unique(np.asarray(jax.tree.leaves(found)[0]).reshape(16, -1), axis=0))
  drawn = draw(params, memories, jax.random.key(0))
  assert different(drawn) == 2
  jax.tree.map(np.testing.assert_array_equal, drawn, draw(params, memories, jax.random.key(0)))
  best = likeliest(params, memories, jax.random.key(0))
  assert different(best) == 1
  # Or only some are drawn.
  some = np.arange(16) % 2 == 0
  found = make_improve(operator, operator_params, BEST, sample=some)(params, memories, jax.random.key(0))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x[::2], y[::2], atol=1e-5), found, drawn)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1::2], y[1::2], atol=1e-5), found, best)


def test_asked_for_nothing_it_gives_the_policy_back(operator, operator_params, shown, memory):
  for key in (None, jax.random.key(0)):
    same = operator.improve(operator_params, shown[0], memory, ask(steps=0), key)
    jax.tree.map(np.testing.assert_array_equal, same, shown[0])


def test_one_program_serves_all_parameters(operator, operator_params, every):
  params, trajectory = take(every, (slice(None), 1))
  remember = make_remember(operator)
  memory = remember(None, params, trajectory)
  make_improve(operator, operator_params, BEST)(params, memory, jax.random.key(0))
  other = jax.tree.map(lambda x: x + 0.01, operator_params)
  with counted() as compiled:
    make_improve(operator, other, BEST)(params, remember(None, params, trajectory), jax.random.key(1))
  assert compiled == []


def test_experience_or_policies_of_other_sizes_are_refused(operator, operator_params, shown, memory):
  wide = changed(memory, observation=jnp.tile(memory.trajectory.observation, 3))
  with pytest.raises(IncompatibleError, match='1 observations and 1 actions; the experience has 3 and 1'):
    operator.improve_behaviour(operator_params, wide, ask(steps=1))
  deep = {**shown[0], 'mlp/~/linear_2': shown[0]['mlp/~/linear_1']}
  with pytest.raises(IncompatibleError, match='improve_behaviour'):
    operator.improve(operator_params, deep, memory, ask(steps=1))


CONFIG = {'family': 'point', 'backend': 'none', 'observation_size': 1, 'action_size': 1, 'episode_length': 8}


@pytest.mark.parametrize('changes', [
  {'width': 0}, {'width': 48}, {'width': 64.0}, {'width': True}, {'num_blocks': 10_000}, {'steps_kept': 0},
  {'capacity': 1}, {'num_answers': 0}, {'num_answers': 10_000},
  {'family': ''}, {'backend': None}, {'hidden_sizes': (0,)}, {'hidden_sizes': 'ab'}, {'hidden_sizes': (4096,) * 3},
  {'asks': ()}, {'asks': ('goal',)}, {'asks': ('fame',)}, {'asks': ('steps', 'goal'), 'goal_size': 4}, {'goal_size': 2},
  {'asks': ('steps', 'steps')}, {'asks': (['steps'],)}, {'episode_length': -1},
  {'observation_size': 10**5, 'hidden_sizes': (90,), 'code_size': 4096}, {'action_size': 10**30},
  {'width': 4096, 'num_latents': 1024},
])
def test_configurations_that_make_no_sense_are_refused(changes):
  with pytest.raises(IncompatibleError, match='An operator can not have'):
    OperatorConfig(**{**CONFIG, **changes})


@pytest.mark.parametrize('num_answers', [1, 5])
def test_weights_are_counted_before_they_are_made(num_answers):
  """Sizes that all differ, so that one in the wrong place of the count is noticed."""
  config = OperatorConfig(
    **{**CONFIG, 'observation_size': 5, 'action_size': 3}, hidden_sizes=(7, 11), width=64, num_latents=3, num_blocks=2,
    code_size=13, num_answers=num_answers,
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


def test_operators_from_before_goals_could_be_asked_for_are_read(saved, operator):
  values = json.loads((saved / 'config.json').read_text())['operator']
  del values['goal_size']
  edit(saved, operator=values)
  assert checkpoints.load_operator(saved)[0].config == operator.config


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
  (lambda config: {'operator': {**config, 'capacity': 1}}, IncompatibleError, 'capacity=1; it takes at least'),
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
