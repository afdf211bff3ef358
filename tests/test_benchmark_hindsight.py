"""What hindsight is worth: the labels without it, what is trained, and the rows."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark_hindsight, stages
from experiments.ask_rows import Judged
from experiments.benchmark_hindsight import FOLDERS, LABELS, SOURCES, draw, judge, prepare, rows_of, source_rows
from experiments.jobs import Job
from metaimprove import asks, files
from metaimprove.errors import IncompatibleError
from metaimprove.evaluation.evaluate import Bounds, Evaluation
from metaimprove.histories.dataset import Dataset, goals_of, load_dataset, met_rewards
from metaimprove.methods.method import Curve
from metaimprove.training.pairs import pairs_of
from metaimprove.training.settings import TrainingSettings
from metaimprove.types import Task, Trajectory
from tests.point_histories import use_small_family


def near(goal, x, action):
  return (jnp.abs(x[0] - goal[0]) < 0.3).astype(jnp.float32)


@pytest.fixture(scope='session')
def sparse(point):
  """The point family with a reward of 1 near the goal."""
  def step(task, state, action):
    after = point.step(task, state, action)
    return after.replace(reward=near(task.goal, after.outcome, action))

  return dataclasses.replace(point, step=step, reward=near, practice_reward=point.reward)


class Written(Dataset):
  """Two histories of two levels with two episodes of two steps, written by hand."""

  goals = np.array([[0.5], [-1.0]], np.float32)
  x = np.array([
    [[[0.0, 0.5], [0.0, 0.0]],     # at its goal, but the step was not taken; at none
     [[-1.0, 0.0], [0.0, 0.4]]],   # at the goal of the other task; near its own
    [[[0.5, -0.9], [0.0, 0.0]],    # near its own; at none
     [[0.5, 0.5], [0.5, 0.5]]],    # at the goal of the other task
  ], np.float32)
  valid = np.ones((2, 2, 2, 2), bool)
  valid[0, 0, 0, 1] = False

  def read(self, history, level):
    x, valid = self.x[history, level], self.valid[history, level]
    return None, Trajectory(
      observation=x[..., None], action=np.zeros_like(x)[..., None], reward=np.full_like(x, 7.0),
      next_observation=x[..., None], outcome=x[..., None], terminated=np.zeros_like(valid), valid=valid,
      finite=np.ones(valid.shape[:-1], bool),
    )

  def read_tasks(self, history):
    return Task(goal=self.goals[history], dynamics={})


@pytest.fixture
def written(dataset):
  fields = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(Dataset)}
  returns = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
  return Written(**{**fields, 'returns': returns, 'source': np.zeros(2, int), 'rank': np.array([[0, 1], [0, 1]])})


def test_labels_without_hindsight_by_hand(written, sparse):
  """The goal that was meant, of a level that met a reward for it at a step taken. Stored rewards do not count."""
  np.testing.assert_array_equal(met_rewards(written, sparse, goals_of(written)), [[False, True], [True, False]])
  told = LABELS['without'](written, sparse)
  np.testing.assert_array_equal(told.achieved[..., 0], [[np.nan, np.float32(0.5)], [-1.0, np.nan]])
  assert told.returns is written.returns
  hindsight = LABELS['with'](written, sparse)
  np.testing.assert_allclose(hindsight.achieved[..., 0], [[0.0, 0.2], [-0.45, 0.5]], atol=1e-6)
  mistaken = LABELS['mistaken'](written, sparse)  # each was told the goal of the other task
  np.testing.assert_array_equal(mistaken.achieved[..., 0], [[np.nan, -1.0], [0.5, 0.5]])
  assert len({one.checksum for one in (written, told, mistaken)}) == 3


def test_an_answer_without_a_label_is_not_described_by_a_goal(written, sparse):
  told, every = LABELS['without'](written, sparse), np.array([0, 0, 1, 1])
  settings = TrainingSettings(any_share=1.0)
  pairs = pairs_of(told, every, np.zeros(4, int), np.full(4, 1), settings, np.random.default_rng(0))
  pairs = dataclasses.replace(pairs, target=np.array([0, 1, 0, 1]), achieved=told.achieved[every, [0, 1, 0, 1]])
  np.testing.assert_array_equal(asks.KINDS['goal'].is_known(pairs), [False, True, True, False])
  described = asks.KINDS['goal'].describe(pairs, None)
  np.testing.assert_array_equal(described[:, 0], [0, 0.5, -1, 0])


def judged_of(scores):
  """Of two seeds with scores [B] each of every method."""
  def evaluation(seed):
    curves = {
      name: Curve(episodes=np.zeros(1, int), env_steps=np.zeros(1, int), returns=np.array([of[seed]]))
      for name, of in scores.items()
    }
    num = len(scores['with_own'][seed])
    bounds = Bounds(initial=np.zeros(num), reference=np.ones(num), usable=np.ones(num, bool))
    return Evaluation(
      family='point_goal_sparse_h20', backend='kinematic', seed=seed, reference='the best', curves={'heldout': curves},
      bounds={'heldout': bounds}, far_parameter=np.zeros(0, str),
    )

  return Judged(
    job=Job(family='point_goal_sparse_h20'), family=types.SimpleNamespace(backend='kinematic'), seeds=[0, 1],
    command='a command', plain=[], asked=[evaluation(0), evaluation(1)], datasets=[],
  )


def test_rows_by_hand():
  """Two seeds of two tasks and one; the gain in score is the same on each, so its interval is nothing wide."""
  judged = judged_of({
    'with_own': [[0.9, 0.3], [0.6]], 'without_own': [[0.7, 0.1], [0.4]], 'with_another': [[0.1, 0.2], [0.0]],
    'without_another': [[5.0, 5.0], [5.0]], 'mistaken_own': [[0.0, 0.0], [0.3]], 'source': [[0.5, 0.0], [1.0]],
  })
  score, other, gain, met = rows = rows_of(judged, 'early', 16)
  assert score.metric == 'mean score, source that is stopped early, 16 training tasks, 352 episodes'
  assert (score.value, score.control_value, score.tasks, score.ask) == (0.6, 0.4, 3, 'goal')
  assert (other.value, other.control, other.control_value) == (0.6, "another task's goal", 0.1)
  assert (gain.value, gain.low, gain.high) == (0.2, 0.2, 0.2)
  assert (met.value, met.control_value, met.control) == (1.0, 1.0, 'without hindsight')
  mistaken = rows_of(judged, 'mistaken', 16)
  assert (mistaken[0].control_value, mistaken[2].value, mistaken[3].control_value) == (0.1, 0.5, 0.3333)
  share = [{'early': np.array([[0.0, 0.5]]), 'whole': np.array([[1.0, 0.5]]), 'mistaken': np.array([[0.0, 0.0]])}]
  whole = judged_of({'with_own': [[1.0, 0.8], [0.9]], 'source': [[1.0, 0.8], [0.9]]})
  levels, levels_mistaken, itself, itself_met = source_rows(judged, whole, share)
  assert (levels_mistaken.value, levels_mistaken.control_value) == (0.0, 0.75)
  assert (levels.value, levels.control_value, levels.tasks) == (0.25, 0.75, 2)
  assert (itself.value, itself.control_value, itself_met.value, itself_met.control_value) == (0.5, 0.9, 0.6667, 1.0)
  assert len({row.key for row in (*rows, *mistaken, levels, levels_mistaken, itself, itself_met)}) == 12


def test_a_small_run(sparse, tmp_path, monkeypatch):
  """Both operators are alike but for the labels, learn from the first tasks alone, and are made once."""
  use_small_family(monkeypatch, sparse, benchmark_hindsight, stages)
  job = Job(family='point', num_tasks=6, num_checkpoints=3, num_episodes=1, num_steps=3, heldout_tasks=8)
  shares = prepare(job, 1, 0, tmp_path)
  assert {name: share.shape for name, share in shares.items()} == dict.fromkeys(SOURCES, (1, 6))
  assert shares['whole'].mean() > shares['early'].mean()
  early = load_dataset(tmp_path / 'early' / 'histories', sparse)
  assert early.header['sources'][0]['settings']['num_updates'] == 1 and (early.returns < 0).all()
  found = judge(job, 'early', 4, 0, tmp_path)
  parts = [tmp_path / 'early' / '4_tasks' / label for label in ('with', 'without')]
  made_with = [files.read_json(part / 'settings.json') for part in parts]
  assert {name for name in made_with[0] if made_with[0][name] != made_with[1][name]} == {'histories'}
  assert made_with[0]['blank_share'] == 1 and made_with[0]['rounds'] == [] and made_with[0]['round_tasks'] == 4
  tensors = [(part / 'operator' / 'operator.safetensors').read_bytes() for part in parts]
  assert tensors[0] != tensors[1]  # all else is the same
  monkeypatch.setattr(stages, 'train_operator', None)
  again = judge(job, 'early', 4, 0, tmp_path)
  for name in ('with_own', 'with_another', 'without_own', 'without_another', 'source'):
    np.testing.assert_array_equal(again.curves['heldout'][name].returns, found.curves['heldout'][name].returns)
  judged = Judged(job=job, family=sparse, seeds=[0], command='', plain=[], asked=[found], datasets=[])
  curves = judged.asked[0].curves['heldout']
  curves['mistaken_own'] = curves['without_own']
  draw({(histories, 4): judged for histories in FOLDERS}, tmp_path / 'hindsight.png')
  assert (tmp_path / 'hindsight.png').read_bytes().startswith(b'\x89PNG')


def test_families_with_dense_rewards_are_refused():
  with pytest.raises(IncompatibleError, match='rewards of reacher_goal are not sparse'):
    benchmark_hindsight.job_of('reacher_goal', 16)
