"""Evaluation and report: figures by hand of methods that are made up, and the real methods on the point family."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import console, stages
from metaimprove import asks, files
from metaimprove.errors import DamagedDataError, IncompatibleError, NoScoreError
from metaimprove.evaluation import bill, exploration, report
from metaimprove.evaluation import results as results_
from metaimprove.evaluation.evaluate import evaluate
from metaimprove.evaluation.results import summarise
from metaimprove.histories.learning import learning_folder
from metaimprove.improvers import tuned
from metaimprove.improvers.domain_randomised_ppo import domain_randomised_ppo
from metaimprove.improvers.independent_ppo import independent_ppo
from metaimprove.improvers.run import load_learning
from metaimprove.methods import controls
from metaimprove.methods.identify import Identifier
from metaimprove.methods.method import Curve, Method
from metaimprove.methods.operator import other_tasks_of
from metaimprove.methods.plays import with_episodes
from metaimprove.methods.standard import (
  EvaluationSettings, Playground, control_methods, from_scratch, operator_methods
)
from metaimprove.rng import stream
from metaimprove.rollouts import make_play
from metaimprove.tasks.parameters import Range
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.training.fit import FitSettings
from metaimprove.trees import batch_size, take
from metaimprove.types import Task, Trajectory
from tests.conftest import Killed, kill_at
from tests.point_histories import HIDDEN_SIZES, PPO, make_sources

NUM_TASKS = 6
SETTINGS = EvaluationSettings(
  num_tasks=NUM_TASKS, num_applications=3, num_episodes=2, improvement_applications=2, ppo_tasks=4,
  reference_episodes=4,
)


def made_up(name, returns, env_steps=None, calls=None, **options):
  """A method with the returns [P][B] for any tasks."""
  returns = np.asarray(returns, np.float32)
  env_steps = np.arange(len(returns)) * 10 if env_steps is None else np.asarray(env_steps)

  def run(tasks, rng_key, progress):
    if calls is not None:
      calls.append((name, batch_size(tasks)))
    progress(name, 1, 1, {})
    return Curve(episodes=env_steps // 5, env_steps=env_steps, returns=returns[:, :batch_size(tasks)])

  return Method(name=name, title=name.title(), run=run, settings={'returns': str(returns.tolist())}, **options)


INITIAL = made_up('initial', [[-10.0] * NUM_TASKS])
# Task 5 is not solved: the reference is no better than the initial policy.
REFERENCE = made_up('told_everything', [[0.0, 0.0, 0.0, 0.0, 0.0, -10.0]])


def scores(*rows):
  """Returns of the scores given; task 5, which has none, returns 7."""
  return [[*(10.0 * score - 10.0 for score in row), 7.0] for row in rows]


def judge(point, folder, methods, seed=0, references=(REFERENCE,), num_tasks=NUM_TASKS, **options):
  return evaluate(
    methods, point, initial=INITIAL, references=references, seed=seed, num_tasks=num_tasks, folder=folder, **options
  )


def methods_by_hand():
  return [
    made_up('operator', scores([0] * 5, [0.4, 0.5, 0.4, 0.6, 0.6], [0.9] * 5, [1] * 5)),
    made_up('operator_double', scores([0] * 5, [0.7] * 5), [0, 20], splits=('heldout',)),
    made_up('operator_1', scores([0] * 5, [0.2] * 5), splits=('heldout',)),
    made_up('shuffled_experience', scores([0] * 5, *[[0.1] * 5] * 3), splits=('heldout',)),
    made_up('told_goal', scores([0.95] * 5), [0], splits=('heldout',)),
    made_up('no_experience', scores([0.25] * 5), [0], splits=('heldout',)),
    made_up('identify_once', scores([0] * 5, [0.8] * 5), splits=('heldout',)),
    made_up('ppo', scores([0] * 5, [0.5] * 5, [0.96] * 5), [0, 400, 800], num_tasks=4, splits=('heldout',)),
  ]


def test_figures_by_hand(point, tmp_path):
  found = summarise([judge(point, tmp_path, methods_by_hand())], ask='best', training_env_steps={'source': 7700})
  assert (found.heldout_tasks, found.far_tasks) == (5, 5)
  assert found.left_out_tasks == {'heldout': 1, 'far': 1} and set(found.blown_up.values()) == {0}
  assert found.episodes == [0, 2, 4, 6] and found.env_steps == [0, 10, 20, 30]
  # Of task 5, which is not solved, nothing enters.
  assert found.normalised_return['iqm'] == pytest.approx([0, 0.5, 0.9, 1], abs=1e-6)
  assert found.normalised_return['mean'] == pytest.approx([0, 0.5, 0.9, 1], abs=1e-6)
  assert found.normalised_return['found'] == [0, 1, 1, 1]
  assert found.normalised_return['low'][1] < 0.5 < found.normalised_return['high'][1]
  assert found.far['iqm'] == pytest.approx([0, 0.5, 0.9, 1], abs=1e-6)
  np.testing.assert_allclose(found.per_task['normalised_return'][1], [0.4, 0.5, 0.4, 0.6, 0.6])
  assert found.mean_return == {'initial': -10, 'reference': 0, 'operator': pytest.approx([-10, -5, -1, 0], abs=1e-5)}
  assert {name: figures['iqm'] for name, figures in found.controls.items()} == {
    'told_goal': pytest.approx([0.95]), 'no_experience': pytest.approx([0.25]), 'identify_once': pytest.approx([0.8]),
    'shuffled_experience': pytest.approx([0, 0.1, 0.1, 0.1], abs=1e-6),
  }
  assert found.need == {'experience': 0.75, 'dynamics': pytest.approx(0.05), 'second_look': pytest.approx(0.2)}
  assert found.verdict.startswith('point needs more than the name of the task')
  assert found.improvement['1']['iqm'] == pytest.approx([0, 0.2], abs=1e-6)
  assert found.improvement['1']['env_steps'] == [0, 10]
  assert found.improvement['best']['iqm'] == found.normalised_return['iqm'] and set(found.improvement) == {'1', 'best'}
  equal = found.equal_experience
  assert equal['env_steps'] == 20 and equal['one_application']['iqm'] == pytest.approx([0.7])
  assert equal['two_applications']['iqm'] == pytest.approx([0.9])
  # On the first four tasks, on which all that have a curve were judged.
  assert found.steps_to_target == {
    'operator': 30, 'operator_double': None, 'operator_1': None, 'shuffled_experience': None, 'identify_once': None,
    'ppo': 800,
  }
  assert (found.operator_env_steps_to_match, found.ppo_env_steps_to_match, found.target) == (30, 800, 0.95)
  assert found.ppo['tasks'] == 4 and found.ppo['env_steps'] == [0, 400, 800]
  assert found.ppo['rise_at_end'] == pytest.approx(0.46) and found.ppo['flat'] is False
  assert found.break_even_tasks == 10
  assert found.per_seed == {'seeds': [0], 'iqm': [found.normalised_return['iqm']]}
  assert sum(part['tasks'] for part in found.far_by_parameter.values()) == found.far_tasks
  assert results_.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)), 'x') == found


def test_a_point_that_blew_up_has_the_worst_score_of_its_task_at_most_0(point, tmp_path):
  """The operator blows up on two of four tasks. The tasks that it masters are not all it is judged on."""
  nan = np.nan
  operator = made_up('operator', scores([0] * 5, [nan, nan, 1, 0.5, 1], [1, nan, nan, nan, 1], [1, 1, 1, 1, 1]))
  sinking = made_up('ppo', scores([0.1] * 5, [-0.5, 0.2, -0.5, -0.5, -0.5], [nan] * 5), num_tasks=4)
  evaluation = judge(point, tmp_path, [operator, sinking])
  np.testing.assert_allclose(evaluation.scores('heldout', 'operator'), [
    [0] * 5, [0, 0, 1, 0.5, 1], [1, 0, 0, 0, 1], [1] * 5,
  ], atol=1e-6)
  np.testing.assert_allclose(evaluation.scores('heldout', 'ppo')[2], [-0.5, 0, -0.5, -0.5], atol=1e-6)
  found = summarise([evaluation], ask='best')
  assert found.heldout_tasks == 5 and found.left_out_tasks == {'heldout': 1, 'far': 1}
  assert found.ppo['tasks'] == 4, 'the first four, whatever the operator does there'
  # Of five tasks one is left out on each side.
  np.testing.assert_allclose(found.normalised_return['iqm'], [0, 0.5, 1 / 3, 1], atol=1e-6)
  np.testing.assert_allclose(found.mean_return['operator'], [-10, -5, -6, 0], atol=1e-5)
  # Of 5 tasks and 4 points: 2 and 3 of 20, on each of the two splits. Of PPO the last of 3 points.
  assert found.blown_up['operator'] == pytest.approx(5 / 20) and found.blown_up['ppo'] == pytest.approx(1 / 3)


def test_a_target_that_is_not_reached_is_not_lowered(point, tmp_path):
  methods = [made_up('operator', scores([0] * 5, [0.94] * 5)), made_up('ppo', scores([0] * 5, [0.9] * 5))]
  found = summarise([judge(point, tmp_path, methods)], ask='best', training_env_steps={'source': 1})
  assert found.target == 0.95 and found.operator_env_steps_to_match is None and found.ppo_env_steps_to_match is None
  assert found.break_even_tasks is None


@pytest.mark.parametrize(('dynamics', 'second_look', 'says'), [
  (0.99, 0.95, 'is no evidence of improving, only of naming the task'), (0.8, 0.95, 'needs more'),
  (0.95, 0.8, 'needs more'), (0.95, None, 'is not known'),
])
def test_the_verdict(point, tmp_path, dynamics, second_look, says):
  methods = [made_up('operator', scores([0] * 5, [1] * 5)), made_up('told_goal', scores([dynamics] * 5), [0])]
  if second_look is not None:
    methods.append(made_up('identify_once', scores([0] * 5, [second_look] * 5)))
  assert says in summarise([judge(point, tmp_path, methods)], ask='best').verdict


def test_the_verdict_is_open_where_the_interval_is_wide(point, tmp_path):
  """0.03 is lost, but of these few tasks it may be 0.5."""
  methods = [
    made_up('operator', scores([0] * 5, [1] * 5)), made_up('identify_once', scores([0] * 5, [1] * 5)),
    made_up('told_goal', scores([0.5, 0.91, 1, 1, 1]), [0]),
  ]
  found = summarise([judge(point, tmp_path, methods)], ask='best')
  assert found.need['dynamics'] == pytest.approx(0.03) and found.need_high['dynamics'] > 0.1
  assert found.need_high['second_look'] == pytest.approx(0)
  assert 'is open, too few tasks were judged' in found.verdict


def test_why_training_is_not_paid_back(point, tmp_path):
  def says(operator, ppo, **bill):
    methods = [made_up('operator', scores([0] * 5, [operator] * 5))]
    if ppo is not None:
      methods.append(made_up('ppo', scores([0] * 5, [ppo] * 5), [0, 30]))
    folder = tmp_path / f'{operator} {ppo}'
    return summarise([judge(point, folder, methods)], ask='best', training_env_steps=bill or {'source': 40}).paid_back()

  assert says(1, 1) == 'paid back after 2 new tasks'
  assert 'not known' in says(1, 1, source=40, rounds=None)
  assert 'was not run' in says(1, None)
  assert says(0.5, 1) == 'not paid back: the operator does not reach 0.95'
  assert says(1, 0.5) == 'not comparable: PPO from scratch does not reach 0.95'


def test_seconds_are_those_of_the_part_that_progress_tells_of(tmp_path, monkeypatch):
  """The time before each call counts; a stage that goes on adds to what is there."""
  now = iter([0, 3, 5, 10, 10, 100, 101, 103, 103])
  monkeypatch.setattr(console.time, 'perf_counter', lambda: next(now))
  monkeypatch.setattr(console, '_TICK', 1000)
  monkeypatch.setattr(console, 'Progress', lambda: ProgressOfNothing())
  with console.stage(tmp_path, 'collect') as progress:
    progress('learn one', 1, 2, {})  # 3 seconds
    progress('record one', 1, 2, {})  # 2
    progress('learn two', 1, 2, {})  # 5
  with console.stage(tmp_path, 'collect') as progress:
    progress('record two', 2, 2, {})  # 1
    progress('wait for another worker', 1, 1, {})  # 2 of nothing
  assert console.read_training_seconds(tmp_path) == {'source': 8, 'histories': 3}
  assert console.read_seconds(tmp_path) == {'collect': 13}


class ProgressOfNothing:
  def __call__(self, *done):
    pass

  def close(self):
    pass


def test_seeds_are_merged_and_resampled_apart(point, tmp_path, capsys):
  """One seed scores 0.2 and the other 0.8 on each of its tasks: tasks of one bag would give an interval. How seeds
  differ stands beside."""
  judged = [
    judge(point, tmp_path / str(seed), [made_up('operator', scores([0] * 5, [score] * 5))], seed=seed)
    for seed, score in enumerate((0.2, 0.8))
  ]
  found = summarise(judged, ask='best')
  assert found.num_seeds == 2 and found.heldout_tasks == 10
  curve = {name: found.normalised_return[name][1] for name in ('iqm', 'low', 'high')}
  assert curve == {name: pytest.approx(0.5, abs=1e-6) for name in curve}
  assert found.per_seed['seeds'] == [0, 1]
  np.testing.assert_allclose(found.per_seed['iqm'], [[0, 0.2], [0, 0.8]], atol=1e-6)
  console.print_results(found)
  out = capsys.readouterr().out
  assert re.search(r'0\.500 \[0\.500, 0\.500\] +0\.200 to 0\.800', out) and 'over tasks, for these operators' in out


@pytest.mark.parametrize('reference', [[-11.0] * NUM_TASKS, [np.nan] * NUM_TASKS])
def test_no_task_with_a_score_is_one_sentence_and_figures_that_can_be_parsed(point, tmp_path, reference, capsys):
  evaluation = judge(point, tmp_path, methods_by_hand(), references=[made_up('told_everything', [reference])])
  found = summarise([evaluation], ask='best', training_env_steps={'source': 7700})
  results_.write(tmp_path / 'results.json', found)

  def refuse(name):
    raise AssertionError(f'{name} is not JSON')

  parsed = json.loads((tmp_path / 'results.json').read_text(), parse_constant=refuse)
  assert parsed['normalised_return']['iqm'] == [None] * 4 and parsed['need']['dynamics'] is None
  assert parsed['heldout_tasks'] == 0 and parsed['left_out_tasks']['heldout'] == NUM_TASKS
  with pytest.raises(NoScoreError, match='None of 6 held-out tasks of point has a score') as error:
    console.print_results(results_.read(tmp_path / 'results.json'))
  assert '\n' not in str(error.value) and capsys.readouterr().out == ''


def test_far_tasks_without_a_score_are_shown_as_unknown(point, tmp_path, capsys):
  evaluation = judge(point, tmp_path, methods_by_hand())
  none = dataclasses.replace(evaluation.bounds['far'], usable=np.zeros(NUM_TASKS, bool))
  found = summarise([dataclasses.replace(evaluation, bounds={**evaluation.bounds, 'far': none})], ask='best')
  assert found.heldout_tasks == 5 and found.far['iqm'] == [None] * 4 and found.far_by_parameter == {}
  console.print_results(found)
  assert '6 tasks have no score (far)' in capsys.readouterr().out
  report.write_report(tmp_path / 'report.html', report.Panel(point, found, report.Shown('', [])), [])


def test_parts_are_kept_and_lost_ones_made_again(point, tmp_path):
  calls, stages_shown = [], []
  methods = [
    made_up('operator', scores([0] * 5, [1] * 5), calls=calls),
    made_up('ppo', scores([0] * 5), [0], calls=calls, num_tasks=4, splits=('heldout',)),
  ]
  first = judge(point, tmp_path, methods, progress=lambda stage, *done: stages_shown.append(stage))
  assert calls == [('operator', 6), ('ppo', 4), ('operator', 6)]
  assert {'operator (heldout)', 'ppo (heldout)', 'operator (far)'} <= set(stages_shown)
  (tmp_path / 'operator' / 'far.safetensors').unlink()
  del calls[:]
  second = judge(point, tmp_path, methods)
  assert calls == [('operator', 6)]
  assert summarise([first], ask='best') == summarise([second], ask='best')


@pytest.mark.parametrize('returns', [np.zeros((2, NUM_TASKS - 1)), np.zeros((3, NUM_TASKS)), np.zeros(NUM_TASKS)])
def test_a_curve_of_another_shape_is_refused_by_name(point, tmp_path, returns):
  methods = [made_up('operator', scores([0] * 5, [1] * 5))]
  judge(point, tmp_path, methods)
  path = tmp_path / 'operator' / 'far.safetensors'
  files.save_tree(path, {**files.load_arrays(path), 'returns': returns.astype(np.float32)})
  with pytest.raises(DamagedDataError, match='far.safetensors is not a curve on 6 tasks'):
    judge(point, tmp_path, methods)


def test_an_evaluation_that_dies_goes_on_after_what_it_has_done(point, tmp_path):
  calls = []

  def dies(tasks, rng_key, progress):
    raise Killed

  dead = Method(name='ppo', title='', run=dies, settings={'returns': str([[0.0] * NUM_TASKS])})
  operator, ppo = (made_up(name, [[0.0] * NUM_TASKS], calls=calls) for name in ('operator', 'ppo'))
  with pytest.raises(Killed):
    judge(point, tmp_path, [operator, dead])
  judge(point, tmp_path, [operator, ppo])
  assert calls == [('operator', 6), ('ppo', 6), ('operator', 6), ('ppo', 6)]


def test_all_methods_get_the_same_tasks_and_key(point, tmp_path):
  seen = []

  def run(tasks, rng_key, progress):
    seen.append((np.asarray(tasks.goal), jax.random.key_data(rng_key).tolist()))
    return Curve(
      episodes=np.zeros(1, int), env_steps=np.zeros(1, int), returns=np.zeros((1, len(tasks.goal))),
    )

  judge(point, tmp_path, [Method(name=name, title='', run=run, settings={}) for name in ('one', 'two')])
  (one, key_one), (two, key_two), (far, key_far), _ = seen
  np.testing.assert_array_equal(one, np.asarray(sample_tasks(point, 0, NUM_TASKS, 'heldout').goal))
  np.testing.assert_array_equal(one, two)
  assert key_one == key_two != key_far and not np.array_equal(one, far)


@pytest.mark.parametrize(('changes', 'says'), [
  ({'methods': [made_up('operator', [[1.0] * NUM_TASKS])]}, 'returns='), ({'seed': 1}, 'seed=0'),
  ({'num_tasks': 5}, 'num_tasks=6'), ({'references': [made_up('told_everything', [[5.0] * NUM_TASKS])]}, 'returns='),
  ({'family': {'ranges': {'gear': Range(high=2.5)}}}, 'dynamics='),
  ({'family': {'episode_length': 9}}, 'episode_length=8'),
])
def test_what_has_changed_is_refused_by_name(point, tmp_path, changes, says):
  operator = made_up('operator', [[0.0] * NUM_TASKS])
  judge(point, tmp_path, [operator])
  family = dataclasses.replace(point, **changes.pop('family', {}))
  with pytest.raises(IncompatibleError, match=re.escape(says)):
    judge(family, tmp_path, **{'methods': [operator], **changes})


@pytest.mark.parametrize('names', [('../x',), ('a', 'a'), ('initial',)])
def test_names_that_would_be_files_elsewhere_or_twice_are_refused(point, tmp_path, names):
  with pytest.raises(IncompatibleError, match='named'):
    judge(point, tmp_path / 'here', [made_up(name, [[0.0] * NUM_TASKS]) for name in names])
  assert not list(tmp_path.iterdir())


def test_of_several_references_the_best_counts_where_it_did_not_blow_up(point, tmp_path):
  other = made_up('ppo', [[-5.0, 5.0, np.nan, -1.0, -5.0, 5.0]])
  bounds = judge(point, tmp_path, [other], references=[REFERENCE, other]).bounds['heldout']
  np.testing.assert_array_equal(bounds.reference, [0, 5, 0, 0, 0, 5])
  assert bounds.usable.all()


@pytest.mark.parametrize('content', ['[]', '{"family": "point"}', 'null'])
def test_other_files_are_no_results(tmp_path, content):
  (tmp_path / 'results.json').write_text(content)
  with pytest.raises(DamagedDataError, match='run the evaluation again'):
    results_.read(tmp_path / 'results.json')


def test_other_tasks_have_other_goals_where_there_are_any():
  def others(goals):
    return other_tasks_of(Task(goal=np.asarray(goals, np.float32), dynamics={})).tolist()

  assert others([[0], [0], [1], [1], [0]]) == [2, 2, 4, 4, 2]
  assert others([[0], [1], [2]]) == [1, 2, 0]
  assert others(np.zeros((3, 0))) == [1, 2, 0] and others(np.ones((3, 1))) == [1, 2, 0]


def test_plays_of_other_numbers_of_episodes(operator, point):
  play = make_play(point, operator.policy, num_episodes=2)
  tasks, key = sample_tasks(point, 0, 4, 'heldout'), jax.random.key(0)
  params = jax.vmap(operator.policy.init)(jax.random.split(key, 4))
  five, one = (with_episodes(play, 2, num)(params, tasks, key) for num in (5, 1))
  assert five.reward.shape[:2] == (4, 5) and one.reward.shape[:2] == (4, 1)
  for part in range(2):
    expected = play(params, tasks, stream(key, f'part {part}'))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, 2 * part:2 * part + 2], y), five, expected)
  assert len({float(value) for value in five.reward[0, :, 0]}) == 5, 'no episode is there twice'


@pytest.fixture(scope='module')
def conditioned(point, histories):
  """The task-conditioned source of the histories and its last snapshot."""
  source, num_tasks = make_sources(point)[0]
  tasks = sample_tasks(point, 0, num_tasks, 'train')
  return source, load_learning(source, tasks, learning_folder(histories, source.name, 0)).snapshots[-1]


@pytest.fixture(scope='module')
def make_methods(operator, operator_params, point, dataset, conditioned):
  """(folder, changes) -> all methods, initial policies and reference; `identify` learns for 60 steps."""
  play = make_play(point, operator.policy, num_episodes=2)

  def make(folder, *, settings=SETTINGS, ppo=PPO, operator=operator, num_steps=60, operator_params=operator_params):
    playground = Playground(play=play, num_episodes=2, settings=settings)
    identifier = Identifier(
      family=point, operator=operator, statistics=operator_params['statistics'], snapshot=conditioned[1],
      dataset=dataset, load_rounds=lambda: [], settings=FitSettings(num_steps=num_steps, batch_size=16),
      rewired_share=0.0, made_with={'histories': dataset.checksum}, seed=0, folder=folder / 'learning' / 'identify',
    )
    ppo_method = from_scratch(independent_ppo(point, ppo, 15, HIDDEN_SIZES), playground, folder / 'learning')
    methods = [
      *operator_methods(operator, operator_params, playground), ppo_method,
      *control_methods(
        *conditioned, domain_randomised_ppo(point, PPO, 5, HIDDEN_SIZES), identifier, playground,
        folder=folder / 'learning', seed=0,
      ),
    ]
    bounds = {
      'initial': controls.random_policies(operator.policy, *playground.measure()),
      'references': [controls.told_everything(*conditioned, *playground.measure())],
    }
    if settings.thorough:
      bounds['references'].append(ppo_method)
    return methods, bounds

  return make


@pytest.fixture(scope='module')
def evaluated(point, make_methods, tmp_path_factory):
  folder = tmp_path_factory.mktemp('evaluation')
  methods, bounds = make_methods(folder)
  return folder, evaluate(methods, point, **bounds, seed=0, num_tasks=NUM_TASKS, folder=folder)


def test_the_methods_of_an_evaluation(evaluated):
  _, evaluation = evaluated
  found = summarise([evaluation], ask='best')
  assert found.episodes == [0, 2, 4, 6] and found.env_steps == [0, 16, 32, 48]
  assert found.ppo['env_steps'] == [128 * n for n in range(16)]
  assert found.ppo['iqm'][-1] > found.ppo['iqm'][0] + 0.3
  assert found.equal_experience['env_steps'] == found.env_steps[2]
  assert set(found.improvement) == {'1', '2', '4', 'best'} and len(found.improvement['1']['iqm']) == 3
  assert set(found.controls) == {
    'told_goal', 'no_experience', 'identify', 'identify_once', 'shuffled_experience', 'operator_no_explore',
  }
  assert [len(found.controls[name]['iqm']) for name in ('told_goal', 'no_experience', 'identify')] == [1, 1, 4]
  assert None not in found.need.values() and np.isfinite(list(found.need.values())).all()
  # All begin with the same policies and episodes.
  curves = evaluation.curves['heldout']
  for name in ('shuffled_experience', 'identify', 'operator_1'):
    np.testing.assert_array_equal(curves[name].returns[0], curves['operator'].returns[0])


@pytest.mark.parametrize(('change', 'says'), [
  ({'ppo': dataclasses.replace(PPO, learning_rate=1e-3)}, 'settings='),
  ({'settings': dataclasses.replace(SETTINGS, ppo_tasks=3)}, 'num_tasks=4'),
  ({'settings': dataclasses.replace(SETTINGS, num_applications=2)}, 'num_applications='),
  ({'settings': dataclasses.replace(SETTINGS, reference_episodes=2)}, 'num_episodes='),
  ({'num_steps': 61}, 'num_steps=60'), ({'operator_params': 1.0}, 'operator_params='),
])
def test_other_settings_of_a_method_are_refused(evaluated, make_methods, operator_params, point, change, says):
  folder, _ = evaluated
  if 'operator_params' in change:
    change = {'operator_params': jax.tree.map(lambda x: x + change['operator_params'], operator_params)}
  methods, bounds = make_methods(folder, **change)
  with pytest.raises(IncompatibleError, match=says):
    evaluate(methods, point, **bounds, seed=0, num_tasks=NUM_TASKS, folder=folder)


def test_another_configuration_of_the_operator_is_refused(evaluated, make_methods, operator, point):
  folder, _ = evaluated
  other = dataclasses.replace(operator, config=dataclasses.replace(operator.config, steps_kept=5))
  methods, bounds = make_methods(folder, operator=other)
  with pytest.raises(IncompatibleError, match='operator='):
    evaluate(methods, point, **bounds, seed=0, num_tasks=NUM_TASKS, folder=folder)


def test_thorough_takes_the_better_of_both_sources(point, make_methods, tmp_path):
  settings = dataclasses.replace(SETTINGS, num_tasks=4, num_applications=1, thorough=True)
  methods, bounds = make_methods(tmp_path, settings=settings)
  methods = [method for method in methods if method.name in ('operator', 'ppo')]
  evaluation = evaluate(methods, point, **bounds, seed=0, num_tasks=4, folder=tmp_path)
  assert evaluation.reference == "the better of the task-conditioned source's final policy and PPO from scratch"
  for split in ('heldout', 'far'):
    curves = evaluation.curves[split]
    last = [curves[name].returns[-1] for name in ('told_everything', 'ppo')]
    np.testing.assert_array_equal(evaluation.bounds[split].reference, np.maximum(*last))
    assert (last[1] > last[0]).any(), 'PPO wins somewhere, or the maximum would not be seen'


def test_controls_know_what_they_are_told(point, operator, conditioned, tmp_path):
  shown = []
  play = make_play(point, operator.policy, num_episodes=2)

  def spy(params, tasks, rng_key):
    shown.append((params, tasks))
    return play(params, tasks, rng_key)

  tasks, key = sample_tasks(point, 0, 4, 'heldout'), jax.random.key(0)
  source, snapshot = conditioned
  everything, goal = (make(source, snapshot, spy, 2) for make in (controls.told_everything, controls.told_goal))
  randomised = domain_randomised_ppo(point, PPO, 2, HIDDEN_SIZES)
  nothing = controls.no_experience(randomised, spy, 2, folder=tmp_path, seed=0)
  for method in (everything, goal, nothing):
    method.run(tasks, key, lambda *_: None)
    np.testing.assert_array_equal(shown[-1][1].dynamics['gear'], tasks.dynamics['gear'])  # the body is the true one
  bias = [np.asarray(params['mlp/~/linear_0']['b']) for params, _ in shown]
  stock = source.params_of(snapshot, tasks.replace(dynamics={'gear': jnp.ones(4)}))
  np.testing.assert_array_equal(bias[1], stock['mlp/~/linear_0']['b'])
  assert (bias[0] != bias[1]).any(axis=1).all() and len(np.unique(bias[1], axis=0)) == 4
  assert len(np.unique(bias[2], axis=0)) == 1


def test_the_task_is_identified_from_one_random_episode(
  point, operator, operator_params, dataset, conditioned, tmp_path
):
  """The goal is in the rewards: estimates are better than the mean goal is. Goals of other rows would be worse."""
  identifier = Identifier(
    family=point, operator=operator, statistics=operator_params['statistics'], snapshot=conditioned[1],
    dataset=dataset, load_rounds=lambda: [], settings=FitSettings(num_steps=400, batch_size=32, learning_rate=3e-3),
    rewired_share=0.0, made_with={}, seed=0, folder=tmp_path,
  )
  network_params = identifier.train(lambda *_: None)
  tasks = jax.tree.map(lambda x: jnp.repeat(x, 8, axis=0), sample_tasks(point, 0, 6, 'train'))
  params = jax.vmap(operator.policy.init)(jax.random.split(jax.random.key(3), 48))
  play = make_play(point, operator.policy, num_episodes=2)
  memory = jax.vmap(lambda p, t: operator.remember(None, p, t))(
    params, with_episodes(play, 2, 1)(params, tasks, jax.random.key(4))
  )
  estimate = jax.vmap(identifier.estimate, in_axes=(None, 0))(network_params, memory)[:, 0]
  goal = np.asarray(tasks.goal[:, 0])
  assert np.mean(np.square(estimate - goal)) < 0.6 * np.var(goal)


def test_identify_goes_on_where_it_was_killed(point, make_methods, tmp_path):
  def run(folder, progress):
    methods, _ = make_methods(folder)
    method = next(method for method in methods if method.name == 'identify')
    return method.run(sample_tasks(point, 0, 4, 'heldout'), jax.random.key(0), progress)

  with pytest.raises(Killed):
    run(tmp_path / 'killed', kill_at(50))
  resumed, whole = (run(tmp_path / name, lambda *_: None) for name in ('killed', 'whole'))
  np.testing.assert_array_equal(resumed.returns, whole.returns)


def films_of(operator, operator_params, point, num_applications=2):
  task = take(sample_tasks(point, 0, 1, 'heldout'), 0)
  return task, report.record_improvement(
    point, operator, operator_params, task, operator.policy.init(jax.random.key(0)), jax.random.key(0),
    num_applications=num_applications, num_episodes=2, ask=asks.ask(steps='best'),
  )


def test_the_report_is_one_file_that_needs_no_network(evaluated, operator, operator_params, point, tmp_path):
  """Also of merged histories, whose speed of collecting is not known."""
  task, films = films_of(operator, operator_params, point)
  assert len(films) == 3 and all(1 <= len(film['lines']) <= 8 for film in films)
  results = summarise(
    [evaluated[1]], ask='best', wall_seconds={'total': 1.0}, versions={'python': '3'},
    collect={'env_steps_per_second': None, 'raw_env_steps_per_second': None},
  )
  path = tmp_path / 'report.html'
  panel = report.Panel(point, results, report.Shown(point.describe(task), films))
  report.write_report(path, panel, ['python -m <this> & that'])
  page = path.read_text()
  assert page.count('<svg') == 3 and 'python -m &lt;this&gt; &amp; that' in page and results.verdict in page
  assert not re.search(r'(src|href)="?(https?:)?//', page)
  assert point.describe(task) in page
  embedded = json.loads(re.search(r'const films = (\[.*?\]), view', page).group(1))
  assert embedded == films
  report.write_films(path, point, films, point.describe(task))
  assert '<svg' not in path.read_text() and 'const films' in path.read_text()
  # A family that is shown beside has its curve, the share of tasks found, and its exploring runs.
  run = {'goal': [1.0, 0.0], 'description': 'go', 'policies': [{'paths': [[[0.0, 0.0]]], 'return': 0, 'found': None}]}
  second = report.Panel(point, dataclasses.replace(results, family='point_sparse'), report.Shown('', [], [run]))
  report.write_report(path, panel, [], second)
  page = path.read_text()
  assert page.count('<svg') == 5 and 'id="second_exploration"' in page and 'id="exploration"' not in page
  assert json.loads(re.search(r'const runs = (\[.*?\]), view', page).group(1)) == [run]
  report.write_report(path, second, [])
  assert path.read_text().count('<svg') == 4 and 'id="exploration"' in path.read_text()


def test_exploring_runs_are_paths_and_say_when_the_goal_was_found(point):
  """By hand: two episodes of three steps on each of two tasks; the second episode of the second task finds the goal in
  its second step, and ends there."""
  family = make_family('point_goal_sparse_h20')
  tasks, size = sample_tasks(family, 0, 2, 'heldout'), (2, 2, 3)
  assert exploration.shows_places(family, take(tasks, 0)) and not exploration.shows_places(
    point, take(sample_tasks(point, 0, 1, 'heldout'), 0)
  )
  steps = np.stack([np.arange(12.0), -np.arange(12.0)], axis=-1).reshape(*size, 2)
  reward, valid = np.zeros(size), np.ones(size, bool)
  reward[1, 1, 1], valid[1, 1, 2] = 1.0, False
  trajectory = Trajectory(
    observation=steps, action=steps, reward=reward, next_observation=steps, outcome=steps, terminated=~valid,
    valid=valid, finite=np.ones(size[:2], bool),
  )
  shown = exploration.record_exploration(
    family, lambda params, memory, rng_key: params, lambda memory, params, found: None,
    lambda params, tasks, rng_key: trajectory, {}, tasks, jax.random.key(0), num_applications=1,
  )
  assert [len(run['policies']) for run in shown] == [2, 2]
  first, second = (run['policies'][-1] for run in shown)
  assert (first['found'], second['found'], second['return']) == (None, 5, 0.5)
  np.testing.assert_array_equal(first['paths'], steps[0])
  np.testing.assert_array_equal(second['paths'][1], [[9, -9], [10, -10], [10, -10]])
  np.testing.assert_allclose(shown[1]['goal'], np.asarray(tasks.goal[1]), atol=1e-4)


def test_figures_do_not_wait_for_a_damaged_log(evaluated, point, tmp_path, monkeypatch, capsys):
  """Only speeds are read from it."""
  monkeypatch.setattr(stages, 'load_conditioned', lambda *_: (None, None, 6))
  files.write_bytes(tmp_path / 'workers' / '0000-of-0001.json', b'{"shard_sec')
  stages.write_results(
    tmp_path, [stages.Judged(evaluated[1], {'source': 1}, 'histories')], family=point, histories=tmp_path,
    settings=SETTINGS, wall=tmp_path,
  )
  results = results_.read(tmp_path / 'results.json')
  assert results.heldout_tasks > 0
  assert results.identify_reads == 'histories' and set(results.collect.values()) == {None}
  assert '0000-of-0001.json' in capsys.readouterr().out


def test_controls_stand_beside_the_operator_at_the_terminal(point, tmp_path, capsys):
  found = summarise([judge(point, tmp_path, methods_by_hand())], ask='best', training_env_steps={'source': 7700})
  console.print_results(found)
  lines = capsys.readouterr().out.splitlines()
  assert re.search(r'operator +far tasks +another task', lines[2])
  assert re.match(r' +2 +20 +0\.900 \[0\.900, 0\.900\] +0\.900 +0\.100$', lines[5])
  assert any('told the goal only' in line and '0.950' in line for line in lines)
  assert any('experience 0.750, dynamics 0.050, second look 0.200' in line for line in lines)
  assert any(line.endswith('asked for k = best, after applications 1, 2, 3: 0.500, 0.900, 1.000') for line in lines)
  assert any('after 20 env steps: one application  0.700 [0.700, 0.700], two  0.900' in line for line in lines)
  assert any(line.endswith('environment steps of a task to 0.95: operator 30, ppo 800') for line in lines)
  assert found.verdict in '\n'.join(lines) and 'paid back after 10 new tasks' in lines[-2]


def test_learners_that_only_fill_up_a_shard_are_in_the_bill():
  """Five tasks in shards of four: eight learners. A shared source has one."""
  family, header = make_family('inverted_pendulum_balance'), {'hidden_sizes': [8], 'shard_size': 4}

  def learned(name):
    return bill.learned_env_steps(family, header, {'name': name, 'settings': {'num_updates': 3}, 'num_tasks': 5})

  for name, learners in (('independent_ppo', 8), ('task_conditioned_ppo', 1)):
    source = tuned.make_source(name, family, (8,), num_updates=3)
    assert learned(name) == 3 * source.env_steps_per_update * learners
  assert learned('unheard_of') is None


def test_films_begin_with_the_policy_that_is_given(operator, operator_params, point):
  assert films_of(operator, operator_params, point, 1)[1][0] == films_of(operator, operator_params, point, 2)[1][0]


def test_settings_on_disk_say_what_was_judged(evaluated):
  folder, _ = evaluated
  assert set(files.read_json(folder / 'settings.json')) >= {'seed', 'num_tasks', 'dynamics', 'family', 'episode_length'}
  ppo = files.read_json(folder / 'ppo' / 'settings.json')
  assert ppo['settings']['ppo']['learning_rate'] == PPO.learning_rate and ppo['num_updates'] == 15
