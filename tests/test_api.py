"""What users import: names, cost, quiet, and the lines in README."""

import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import metaimprove

ROOT = pathlib.Path(__file__).parents[1]
TRAINED_OPERATOR = ROOT / 'tests' / 'data' / 'reacher_operator'


def run_python(code):
  return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_every_public_name_is_there_and_documented():
  for name in metaimprove.__all__:
    assert getattr(metaimprove, name).__doc__, name
  assert len(metaimprove.__all__) > 60 and set(metaimprove.__all__) <= set(dir(metaimprove))
  with pytest.raises(AttributeError, match='no_such_thing'):
    metaimprove.no_such_thing  # noqa: B018


def test_importing_loads_nothing_heavy():
  done = run_python('import sys, metaimprove; print(sorted({"jax", "haiku", "brax"} & set(sys.modules)))')
  assert done.stdout.strip() == '[]', done.stderr


def test_brax_is_loaded_without_its_chatter():
  done = run_python("import metaimprove; metaimprove.make_family('reacher_goal')")
  assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def code_in_readme():
  return re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)


def test_five_lines_in_readme():
  names = {'observation': np.zeros(2), 'reward': 0.0, 'terminated': True, 'truncated': False}
  exec(code_in_readme()[0], names)
  assert names['agent'].num_applications == 1 and names['action'].shape == (2,)


@pytest.mark.filterwarnings('ignore:Brax System')  # the notice of Brax to who calls it
def test_a_family_of_ones_own_in_readme(capsys):
  """Its goal and its dynamics are there; a step rewards it for the goal."""
  names = {}
  exec(code_in_readme()[2], names)
  family = names['family']
  assert 'slide at' in capsys.readouterr().out
  assert set(family.ranges) == {'action_delay', 'action_noise'} and family.observation_size == 2
  task = family.sample(jax.random.key(0))
  after = family.step(task, family.reset(task, jax.random.key(1)), np.ones(1, np.float32))
  np.testing.assert_allclose(after.reward, -abs(after.observation[1] - task.goal[0]), rtol=1e-5)


def test_the_lines_in_readme(tmp_path, monkeypatch, capsys):
  """With the trained operator of the test data: what they print rises, as README says it does."""
  code = code_in_readme()[1]
  (tmp_path / 'runs' / 'quickstart').mkdir(parents=True)
  shutil.copytree(TRAINED_OPERATOR, tmp_path / 'runs' / 'quickstart' / 'operator')
  monkeypatch.chdir(tmp_path)
  exec(code, {})
  returns = [float(line) for line in capsys.readouterr().out.split()]
  assert len(returns) == 5 and max(returns[1:]) > returns[0] + 20
  assert len(code.strip().splitlines()) <= 16
