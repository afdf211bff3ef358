"""Imports point one way, and functions can be held in mind."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = (
  'errors', 'types', 'episodes', 'trees', 'rng', 'files', 'quiet_brax', 'compiling', 'parallel', 'policies', 'language',
  'asks', 'tasks', 'rollouts', 'improvers', 'histories', 'iteration', 'operators', 'training', 'methods', 'evaluation',
  'adapters',
)
LONGEST = 80


def modules():
  """(path, its layer, its syntax tree) of each module of the package."""
  for path in sorted((ROOT / 'metaimprove').rglob('*.py')):
    layer = path.relative_to(ROOT / 'metaimprove').parts[0].removesuffix('.py')
    yield path, layer, ast.parse(path.read_text())


def imported_layers(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and node.module == 'metaimprove':
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('metaimprove.'):
      yield node.module.split('.')[1]
    elif isinstance(node, ast.Import):
      yield from (alias.name.split('.')[1] for alias in node.names if alias.name.startswith('metaimprove.'))


def test_imports_point_one_way():
  for path, layer, tree in modules():
    if layer != '__init__':
      for imported in imported_layers(tree):
        assert LAYERS.index(imported) <= LAYERS.index(layer), f'{path} imports {imported}'
  assert {layer for _, layer, _ in modules()} == {*LAYERS, '__init__'}


def test_no_function_is_too_long():
  functions = [
    (node.end_lineno - node.lineno + 1, path, node.name)
    for path, _, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
  ]
  assert len(functions) > 300 and max(functions)[0] <= LONGEST, max(functions)
