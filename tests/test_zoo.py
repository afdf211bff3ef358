"""Operators that come with the package: loaded by name, with a card, and as good as it says on held-out tasks."""

import jax
import numpy as np
import pytest

import metaimprove
from metaimprove import asks
from metaimprove.asks import explore
from metaimprove.errors import DamagedDataError, UnknownNameError
from metaimprove.evaluation import metrics
from metaimprove.iteration import iterate
from metaimprove.operators import zoo
from metaimprove.operators.apply import make_improve, make_remember
from metaimprove.operators.checkpoints import load_operator
from metaimprove.rollouts import make_play
from metaimprove.tasks.registry import make_family
from metaimprove.tasks.splits import sample_tasks
from metaimprove.types import mean_return

NUM_TASKS = 16


def test_names_and_cards():
  assert {'point_goal_sparse_h20', 'reacher_wiring'} <= set(zoo.zoo_names())
  for name in zoo.zoo_names():
    card = zoo.zoo_card(name)
    assert card['family'] == name and name in card['command'] and card['licence'] == 'Apache-2.0'
    assert {'told_goal', 'no_experience', 'identify', 'shuffled_experience'} <= set(card['controls'])
    assert len(card['episodes']) == len(card['normalised_return']['iqm']) == len(card['far']['iqm'])
    assert set(card['need']) == {'experience', 'dynamics', 'second_look'} and 'source' in card['training_env_steps']
  with pytest.raises(UnknownNameError, match='choose among: .*reacher_wiring'):
    metaimprove.zoo_card('no_such')
  with pytest.raises(DamagedDataError, match='There is no folder no_such.*there are: .*reacher_wiring'):
    load_operator('no_such')


def test_a_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert load_operator('reacher_wiring')[0].config.family == 'reacher_wiring'
  (tmp_path / 'reacher_wiring').mkdir()
  with pytest.raises(DamagedDataError, match='missing'):
    load_operator('reacher_wiring')


@pytest.mark.parametrize('name', zoo.zoo_names())
def test_it_is_as_good_as_its_card_says(name):
  """On 16 held-out tasks, whose bounds are in the card, within what so few tasks and other episodes leave open."""
  operator, operator_params = load_operator(name)
  card, config = zoo.zoo_card(name), operator.config
  num_applications = 10 if config.num_episodes == 1 else 4  # one episode after the other, where it must explore
  family = make_family(name, card['backend'])
  tasks = sample_tasks(family, card['seed'], NUM_TASKS, 'heldout')
  start = jax.vmap(operator.policy.init)(jax.random.split(jax.random.key(0), NUM_TASKS))
  improve = make_improve(
    operator, operator_params, asks.ask(steps='best'), explores=explore.NAME in config.asks
  )
  *_, last = iterate(
    improve, make_remember(operator), make_play(family, operator.policy, num_episodes=config.num_episodes), start,
    tasks, jax.random.key(1), num_applications=num_applications,
  )
  bounds = {bound: np.array(card['first_tasks'][bound][:NUM_TASKS]) for bound in ('initial', 'reference')}
  scores = metrics.normalise(np.asarray(mean_return(last.trajectory)), **bounds)
  expected = card['normalised_return']['mean'][num_applications]
  assert scores.mean() == pytest.approx(expected, abs=0.1) and expected > 0.9
