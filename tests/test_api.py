"""What users import: names, cost, quiet, and the lines in README."""

import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import metaimprove
from metaimprove.operators.operator import OperatorConfig, make_operator, statistics_structure

ROOT = pathlib.Path(__file__).parents[1]


def run_python(code):
  return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_every_public_name_is_there_and_documented():
  for name in metaimprove.__all__:
    value = getattr(metaimprove, name)
    assert name == 'BEST' or value.__doc__, name
  assert set(metaimprove.__all__) <= set(dir(metaimprove))
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


@pytest.mark.filterwarnings('ignore:Brax System')  # the notice of Brax to who calls it
def test_a_family_of_ones_own_in_readme(tmp_path, monkeypatch, capsys):
  """It runs through collect, train and evaluate; its goal and its dynamics matter; it is short."""
  code = code_in_readme()[1]
  for more, fewer in (('num_steps=200', 'num_steps=12'), ('num_updates=40', 'num_updates=12')):
    code = code.replace(more, fewer)
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(code, names)
  family, figures = names['family'], names['figures']
  assert len(code.strip().splitlines()) < 50
  assert set(family.ranges) == {'action_delay', 'action_noise'} and family.observation_size == 2
  assert len(figures['normalised_return']['iqm']) == 5 and 'slide at' in family.describe(
    family.sample(jax.random.key(0))
  )
  learning = np.asarray(names['dataset'].returns).mean(axis=0)
  assert learning[-1] > learning[0], 'the source improves'
  capsys.readouterr()


def test_the_lines_in_readme(tmp_path, monkeypatch, capsys):
  code = code_in_readme()[0]
  family = metaimprove.make_family('reacher_goal')
  operator = make_operator(OperatorConfig.of(family))
  statistics = jax.tree.map(lambda x: jax.numpy.ones(x.shape), statistics_structure(family.observation_size))
  metaimprove.save_operator(
    tmp_path / 'runs' / 'quickstart' / 'operator', operator, operator.init(jax.random.key(0), statistics)
  )
  monkeypatch.chdir(tmp_path)
  exec(code, {})
  returns = [float(line) for line in capsys.readouterr().out.split()]
  assert len(returns) == 4 and all(-250 < value < 0 for value in returns)
  assert len(code.strip().splitlines()) <= 16
