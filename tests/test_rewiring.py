"""Examples that are changed to another wiring are what a robot of that wiring would have met."""

import dataclasses

import jax
import numpy as np
import pytest

from metaimprove import policies
from metaimprove.methods.identify import Identifier, with_rewired
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.memory import first_memory
from metaimprove.operators.operator import make_operator
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training.examples import Examples
from metaimprove.training.fit import FitSettings
from metaimprove.training.rewiring import draw_wirings, rewired_logits, rewired_memory
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Trajectory

POLICY = policies.make_policy(3, 4, (8,))


@pytest.fixture(scope='module')
def changes():
  return draw_wirings(4, 0.5, np.random.default_rng(0).spawn(400))


def test_a_share_is_changed_to_any_wiring(changes):
  """Half of them; each sign of each motor and each place of it comes up."""
  np.testing.assert_allclose(changes @ changes.transpose(0, 2, 1), np.tile(np.eye(4), (400, 1, 1)))
  assert 150 < (changes == np.eye(4)).all(axis=(1, 2)).sum() < 250
  for value in (-1, 1):
    assert (changes == value).any(axis=0).all()


def memories(policy, action):
  """[B, 1, 1, ...], of one step each with actions [B, A]."""
  num, size = len(action), policy.observation_size
  trajectory = Trajectory(
    observation=np.zeros((num, 1, 1, size)), action=action[:, None, None], reward=np.zeros((num, 1, 1)),
    next_observation=np.zeros((num, 1, 1, size)), outcome=np.zeros((num, 1, 1, 0)),
    terminated=np.zeros((num, 1, 1), bool), valid=np.ones((num, 1, 1), bool), finite=np.ones((num, 1), bool),
  )
  params = jax.vmap(policy.init)(jax.random.split(jax.random.key(0), num))
  return jax.device_get(jax.vmap(lambda p, t: first_memory(policy, p, t, 1))(params, trajectory))


def multiply(matrix, vector):
  return np.einsum('bij,bj->bi', matrix, vector)


def test_motors_get_the_same(changes):
  """As they would from the action for the wiring before; all else that is remembered stays."""
  rng = np.random.default_rng(1)
  action, wiring = rng.normal(size=(400, 4)).astype(np.float32), draw_wirings(4, 1.0, rng.spawn(400))
  memory = memories(POLICY, action)
  changed = rewired_memory(memory, changes)
  np.testing.assert_allclose(
    multiply(wiring @ changes, changed.trajectory.action[:, 0, 0]), multiply(wiring, action), atol=1e-6
  )
  same = dataclasses.replace(changed, trajectory=memory.trajectory, behaviour=memory.behaviour)
  jax.tree.map(np.testing.assert_array_equal, same, memory)


def test_memory_and_answer_are_changed_alike(operator, dataset):
  """With one motor a changed wiring is a changed sign: of actions, of locations of what policies would do, and of the
  right answer, of about half of the examples. Scales and states stay."""
  settings = TrainingSettings(batch_size=64, num_states=8, num_validation=2)
  plain, changed = (
    Examples(
      dataset=dataset, histories=None, config=operator.config, seed=0,
      settings=dataclasses.replace(settings, rewired_share=share),
    ).of_histories(np.arange(64) % dataset.num_histories, np.ones(64, int), np.random.default_rng(0))
    for share in (1e-9, 1.0)
  )
  np.testing.assert_array_equal(changed.states, plain.states)
  np.testing.assert_array_equal(changed.memory.behaviour[..., 1], plain.memory.behaviour[..., 1])
  signs = []
  for of in (
    lambda example: example.memory.trajectory.action[..., 0], lambda example: example.memory.behaviour[..., 0],
    lambda example: example.answer[..., 0],
  ):
    before, after = of(plain), of(changed)
    signs.append([np.sign(np.vdot(x, y)) for x, y in zip(before, after)])
    np.testing.assert_allclose(after, np.reshape(signs[-1], (-1, *[1] * (after.ndim - 1))) * before, rtol=1e-6)
  assert signs[0] == signs[1] == signs[2] and 16 < signs[0].count(-1) < 48


def test_the_control_is_told_the_changed_wiring():
  """Its estimates are of the wiring of which the actions are that it reads; the goal stays."""
  family = make_family('reacher_wiring')
  operator = make_operator(OperatorConfig.of(family))
  identifier = Identifier(
    family=family, operator=operator, statistics={}, snapshot={}, dataset=None, load_rounds=lambda: [],
    settings=FitSettings(), rewired_share=1.0, made_with={}, seed=0, folder=None,
  )
  told = np.asarray(jax.vmap(family.privileged)(sample_tasks(family, 0, 64, 'train')))
  action = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
  memory = memories(operator.policy, action)
  batch = with_rewired(identifier, memory, told, np.random.default_rng(0))
  before, after = (x[:, family.told_size:].reshape(-1, 2, 2) for x in (told, batch['description']))
  assert (before != after).any(axis=(1, 2)).mean() > 0.5
  np.testing.assert_array_equal(batch['description'][:, :family.told_size], told[:, :family.told_size])
  np.testing.assert_allclose(
    multiply(after, batch['memory'].trajectory.action[:, 0, 0]), multiply(before, action), atol=1e-6
  )
  left_alone = with_rewired(dataclasses.replace(identifier, rewired_share=0.0), memory, told, np.random.default_rng(0))
  np.testing.assert_array_equal(left_alone['description'], told)


def test_logits_are_those_of_the_rewired_policy(changes):
  params, states = POLICY.init(jax.random.key(2)), np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
  for change in changes[:20]:
    wanted = POLICY.apply(policies.rewire(params, change), states)
    np.testing.assert_allclose(rewired_logits(np.asarray(POLICY.apply(params, states)), change), wanted, atol=1e-6)


def test_only_wired_families_are_rewired_and_learn_for_longer():
  settings = [TrainingSettings.of(make_family(name), 8) for name in ('reacher_wiring', 'reacher_goal')]
  assert [one.rewired_share for one in settings] == [0.5, 0.0]
  assert settings[0].num_steps == 2 * settings[1].num_steps
  assert TrainingSettings.of(make_family('reacher_wiring'), 8, num_steps=10).num_steps == 10
