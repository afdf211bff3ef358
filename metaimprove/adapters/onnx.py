"""A policy as an ONNX file, with a contract in JSON beside it: what its numbers are, for who connects it to a robot."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from metaimprove import files
from metaimprove.adapters.extras import required
from metaimprove.adapters.numpy_policy import NumpyPolicy
from metaimprove.errors import IncompatibleError

_OPSET, _IR_VERSION = 17, 8
"""Old enough for runtimes on robots."""


def save_onnx(
  path: files.Path, policy: NumpyPolicy, *, observation_names: Sequence[str] | None = None,
  action_names: Sequence[str] | None = None, observation_units: Sequence[str] | None = None,
  action_units: Sequence[str] | None = None, rate_hz: float | None = None,
) -> None:
  """Writes PATH, and the contract as PATH with the ending '.json'.

  The graph takes 'observation' [batch, N] float32, as the environment gives it, and gives 'action' [batch, A], the most
  likely action in the environment's range: all scaling is inside.

  Args:
    path: ends in '.onnx'.
    policy: to be written.
    observation_names, action_names: of each number, in its order; 'observation_0', ... by default.
    observation_units, action_units: of each number; unknown by default.
    rate_hz: how often it is to be asked for an action; unknown by default.

  Raises:
    IncompatibleError: for another ending, and names or units that are not as many as the numbers.
    ImportError: if onnx is not installed.
  """
  path = pathlib.Path(path)
  if path.suffix != '.onnx':
    raise IncompatibleError(f"{path} must end in '.onnx'; the contract is written beside it.")
  sizes = {'observation': policy.spaces.observation_size, 'action': len(policy.spaces.action_low)}
  given = {
    ('observation', 'names'): observation_names, ('observation', 'units'): observation_units,
    ('action', 'names'): action_names, ('action', 'units'): action_units,
  }
  for (kind, what), values in given.items():
    if values is not None and len(values) != sizes[kind]:
      raise IncompatibleError(f'{kind}_{what} has {len(values)} entries; this policy has {sizes[kind]} {kind}s.')
  contract: dict[str, Any] = {
    kind: {
      'shape': ['batch', size], 'type': 'float32',
      'names': list(given[kind, 'names'] or [f'{kind}_{i}' for i in range(size)]),
      'units': None if given[kind, 'units'] is None else list(given[kind, 'units']),
    }
    for kind, size in sizes.items()
  }
  for name, bound in (('low', policy.spaces.action_low), ('high', policy.spaces.action_high)):
    contract['action'][name] = [float(value) for value in bound]
  model = required('onnx').helper.make_model(
    _graph(policy, sizes), ir_version=_IR_VERSION, producer_name='metaimprove',
    opset_imports=[required('onnx').helper.make_opsetid('', _OPSET)],
  )
  required('onnx').checker.check_model(model, full_check=True)
  files.write_bytes(path, model.SerializeToString())
  files.write_json(path.with_suffix('.json'), {**contract, 'deterministic': True, 'rate_hz': rate_hz})


def _graph(policy: NumpyPolicy, sizes: dict[str, int]) -> Any:
  """Gemm, Sigmoid and Mul for each hidden layer; of the last one only the locations; Tanh and the range of actions."""
  helper, numpy_helper = required('onnx').helper, required('onnx.numpy_helper', 'onnx')
  layers, middle, half_range = policy.forward_policy
  size = sizes['action']
  layers = [*layers[:-1], (layers[-1][0][:, :size], layers[-1][1][:size])]
  nodes, constants, hidden = [], {}, 'observation'
  for index, (weights, bias) in enumerate(layers):
    constants[f'weights_{index}'], constants[f'bias_{index}'] = weights, bias
    nodes.append(helper.make_node('Gemm', [hidden, f'weights_{index}', f'bias_{index}'], [f'linear_{index}']))
    hidden = f'linear_{index}'
    if index + 1 < len(layers):
      nodes.append(helper.make_node('Sigmoid', [hidden], [f'gate_{index}']))
      nodes.append(helper.make_node('Mul', [hidden, f'gate_{index}'], [f'hidden_{index}']))
      hidden = f'hidden_{index}'
  constants['half_range'], constants['middle'] = half_range, middle
  nodes.append(helper.make_node('Tanh', [hidden], ['squashed']))
  nodes.append(helper.make_node('Mul', ['squashed', 'half_range'], ['scaled']))
  nodes.append(helper.make_node('Add', ['scaled', 'middle'], ['action']))
  value = lambda name: helper.make_tensor_value_info(name, required('onnx').TensorProto.FLOAT, ['batch', sizes[name]])
  return helper.make_graph(
    nodes, 'policy', [value('observation')], [value('action')],
    [numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name) for name, array in constants.items()],
  )
