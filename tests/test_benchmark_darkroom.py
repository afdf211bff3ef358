"""The benchmark in the dark room, in a size in which nothing is learned."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmark_darkroom import HELD_OUT, TITLES, split_goals

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
  'num_learners': 1, 'history_length': 4, 'num_remembered': 2, 'num_steps': 2, 'batch_size': 2, 'width': 8,
  'num_episodes': 3, 'repeats': 1,
}


def test_held_out_goals_are_not_trained_on():
  trained, held_out = split_goals(0)
  assert len(held_out) == HELD_OUT and sorted([*trained, *held_out]) == list(range(81))
  assert not np.array_equal(split_goals(1)[1], held_out)


@pytest.mark.xdist_group('darkroom')
def test_rows_table_and_picture(tmp_path):
  places = {'folder': tmp_path, 'json': tmp_path / 'rows.json', 'picture': tmp_path / 'picture.png'}
  flags = [f'--{name}={value}' for name, value in {**places, **SMALL}.items()]
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.benchmark_darkroom', *flags], cwd=ROOT, capture_output=True, text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  rows = json.loads(places['json'].read_text())
  assert [(row['method'], row['episode']) for row in rows] == [(name, n) for name in TITLES for n in (1, 2, 3)]
  assert all(row['low'] <= row['mean_return'] <= row['high'] <= 20 and row['goals'] == HELD_OUT for row in rows)
  assert '--width=8' in rows[0]['command'] and str(tmp_path) not in rows[0]['command']
  assert places['picture'].stat().st_size > 1000
  assert f'| {rows[0]["episode"]} |' in done.stdout and TITLES['source'] in done.stdout
