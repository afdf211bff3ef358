"""Improvement histories as Minari datasets, and back as logs."""

import minari
import numpy as np
import pytest

from metaimprove.adapters.minari import export_minari, import_minari
from metaimprove.errors import IncompatibleError
from metaimprove.improvers.demonstrations import ImitationSettings, logged_demonstrations


@pytest.fixture
def exported(dataset, tmp_path, monkeypatch):
  """Two histories, first and last level."""
  monkeypatch.setenv('MINARI_DATASETS_PATH', str(tmp_path))
  last = dataset.num_checkpoints - 1
  made = export_minari(dataset, 'point/histories-v0', histories=[2, 0], levels=[0, last], description='of the tests')
  return made, last


def test_what_is_exported_is_what_is_stored(dataset, exported):
  """Read again by Minari from the disk: every number, and where each episode belongs."""
  made, last = exported
  again = minari.load_dataset('point/histories-v0')
  assert again.total_episodes == made.total_episodes == 8
  about = list(again.storage.get_episode_metadata(range(8)))
  assert [int(one['history']) for one in about] == [2, 2, 2, 2, 0, 0, 0, 0]
  assert [int(one['level']) for one in about] == [0, 0, last, last] * 2
  for number, (episode, one) in enumerate(zip(again.iterate_episodes(), about)):
    history, level = np.array([one['history']]), np.array([one['level']])
    _, trajectory = dataset.read(history, level)
    length = len(episode.rewards)
    assert trajectory.valid[0, number % 2].sum() == length
    np.testing.assert_array_equal(episode.rewards, trajectory.reward[0, number % 2, :length])
    np.testing.assert_array_equal(episode.observations[:-1], trajectory.observation[0, number % 2, :length])
    np.testing.assert_array_equal(episode.observations[1:], trajectory.next_observation[0, number % 2, :length])
    np.testing.assert_array_equal(episode.terminations, trajectory.terminated[0, number % 2, :length])
    assert episode.truncations.sum() + episode.terminations.sum() == 1
    np.testing.assert_allclose(one['mean_return'], dataset.returns[history[0], level[0]])
    assert int(one['best_level']) == dataset.best[history[0]]


def test_what_can_not_be_read_back(dataset, exported):
  """An empty dataset, and two whose tasks have the same numbers."""
  with pytest.raises(IncompatibleError, match='no episodes'):
    import_minari(exported[0].filter_episodes(lambda episode: False))
  made = exported[0]
  about = list(made.storage.get_episode_metadata(range(8)))
  made.storage.update_episode_metadata([{'goal': about[0]['goal'] + 1}], [1])
  with pytest.raises(IncompatibleError, match='are of two tasks'):
    import_minari(made)


def test_it_is_read_back_as_a_log_to_learn_from(dataset, exported, point):
  tasks, episodes = import_minari(exported[0])
  assert [len(of_task) for of_task in episodes] == [4, 4]
  expected = dataset.read_tasks(np.array([2, 0]))
  np.testing.assert_array_equal(tasks.goal, expected.goal)
  for name, value in expected.dynamics.items():
    np.testing.assert_array_equal(tasks.dynamics[name], value)
  source = logged_demonstrations(point, tasks, episodes, ImitationSettings(), 2)
  returns = [np.mean([episode.rewards.sum() for episode in of_task]) for of_task in episodes]
  np.testing.assert_allclose(source.data.mean_return, returns, rtol=1e-5)


@pytest.mark.parametrize('changes, message', [
  ({'histories': [99]}, 'There are histories 0 to'), ({'levels': []}, 'There are levels 0 to'),
  ({'dataset_id': 'point/histories-v0'}, 'has a dataset .* already'), ({'dataset_id': '!'}, 'Minari does not take'),
])
def test_what_can_not_be_exported(dataset, exported, changes, message):
  told = []
  with pytest.raises(IncompatibleError, match=message):
    export_minari(
      dataset, **{'dataset_id': 'point/other-v0', 'histories': [0], **changes}, progress=lambda *_: told.append(1)
    )
  assert not told or '!' in changes.values()  # all but what Minari alone knows is refused before anything is read


@pytest.mark.filterwarnings('ignore::UserWarning')  # of Minari: no author, no environment, ...
def test_a_dataset_that_does_not_tell_its_tasks(exported):
  buffer = minari.data_collector.EpisodeBuffer(
    observations=np.zeros((2, 1), np.float32), actions=np.zeros((1, 1), np.float32), rewards=[0.0],
    terminations=[False], truncations=[True], infos={},
  )
  other = minari.create_dataset_from_buffers(
    'point/bare-v0', [buffer], observation_space=exported[0].observation_space, action_space=exported[0].action_space
  )
  with pytest.raises(IncompatibleError, match='does not tell its task'):
    import_minari(other)
