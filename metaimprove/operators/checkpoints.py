"""An operator as a folder of data: `config.json` and `operator.safetensors`. No code runs when one is loaded."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.operators import zoo
from metaimprove.operators.config import OperatorConfig
from metaimprove.operators.operator import Operator, make_operator
from metaimprove.operators.reading import statistics_structure
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params

FORMAT_VERSION = 3
_CONFIG, _PARAMS = 'config.json', 'operator.safetensors'
_LATER = {'goal_size'}
"""Fields that came later than the first operators of this version, for which their defaults hold."""


def save_operator(folder: files.Path, operator: Operator, operator_params: Params) -> None:
  """Writes an operator; the configuration last, so that a folder that has one is complete."""
  folder = pathlib.Path(folder)
  content = files.tree_to_bytes(operator_params)
  files.write_bytes(folder / _PARAMS, content)
  files.write_json(folder / _CONFIG, {
    'format_version': FORMAT_VERSION, 'sha256': files.checksum(content),
    'operator': dataclasses.asdict(operator.config),
  })


def is_saved(folder: files.Path) -> bool:
  """Whether a folder holds a whole operator; its configuration is written last."""
  return (pathlib.Path(folder) / _CONFIG).exists()


def load_operator(folder: files.Path, family: TaskFamily | None = None) -> tuple[Operator, Params]:
  """Loads an operator. Nothing that is read is believed: sizes are bounded before anything is traced.

  Args:
    folder: that `save_operator` wrote, here or elsewhere; or the name of an operator that comes with the package, see
      `zoo`.
    family: what it is to be used on; checked if given.

  Returns:
    The operator and its parameters.

  Raises:
    DamagedDataError: if a file is missing or altered, or parameters are not finite.
    IncompatibleError: if it is of another format version, or does not fit the family; if the configuration is of no
      operator.
  """
  if isinstance(folder, str) and folder in zoo.zoo_names() and not pathlib.Path(folder).exists():
    folder = zoo.zoo_folder(folder)
  folder = pathlib.Path(folder)
  config, digest = _read_config(folder / _CONFIG)
  content = files.read_bytes(folder / _PARAMS)
  if files.checksum(content) != digest:
    raise DamagedDataError(f'{folder / _PARAMS} is damaged; copy the whole folder of the operator again.')
  if family is not None:
    check_fits(config, family)
  operator = make_operator(config)
  zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape), tree)
  like = jax.eval_shape(
    lambda: operator.init(jax.random.key(0), zeros(statistics_structure(config.observation_size)))
  )
  operator_params = files.tree_from_bytes(content, like, folder / _PARAMS)
  _check_params(operator_params, folder / _PARAMS)
  return operator, jax.tree.map(jnp.asarray, operator_params)


def _read_config(path: pathlib.Path) -> tuple[OperatorConfig, str]:
  """The configuration, and the checksum of the parameters."""
  if not path.parent.exists():
    raise DamagedDataError(
      f'There is no folder {path.parent}, and no operator of that name comes with the package; there are: '
      f'{", ".join(zoo.zoo_names())}.'
    )
  stored = files.read_json(path)
  if not isinstance(stored, dict):
    raise DamagedDataError(f'{path} does not describe an operator; copy the whole folder of the operator again.')
  if stored.get('format_version') != FORMAT_VERSION:
    raise IncompatibleError(
      f'{path} has operator format version {str(stored.get("format_version"))[:20]}, and this metaimprove reads '
      f'{FORMAT_VERSION}; train the operator again, or install the version that wrote it.'
    )
  fields = {field.name for field in dataclasses.fields(OperatorConfig)}
  values, digest = stored.get('operator'), stored.get('sha256')
  if not isinstance(values, dict) or set(values) | _LATER != fields or not isinstance(digest, str):
    raise DamagedDataError(f'{path} does not describe an operator; copy the whole folder of the operator again.')
  return OperatorConfig(**values), digest


def _check_params(operator_params: Mapping[str, Any], path: pathlib.Path) -> None:
  for name, leaf in zip(files.leaf_names(operator_params), jax.tree.leaves(operator_params)):
    if leaf.dtype != np.float32:
      raise IncompatibleError(f'{path}: array {name!r} is {leaf.dtype}, not float32; save the operator again.')
    if not np.isfinite(leaf).all():
      raise DamagedDataError(f'{path}: array {name!r} is not finite; train the operator again.')
  for name, leaf in operator_params['statistics'].items():
    if name.endswith('_std') and (leaf <= 0).any():
      raise DamagedDataError(f'{path}: a standard deviation in {name!r} is not positive; train the operator again.')


def check_fits(config: OperatorConfig, family: TaskFamily) -> None:
  """Raises `IncompatibleError` if an operator was not made for a family."""
  wanted = {
    'family': family.name, 'backend': family.backend, 'observation_size': family.observation_size,
    'action_size': family.action_size, 'episode_length': family.episode_length,
  }
  for name, value in wanted.items():
    if getattr(config, name) != value:
      raise IncompatibleError(
        f'This operator is for {name}={getattr(config, name)!r}, and {family.name} ({family.backend}) has '
        f'{name}={value!r}; load one that was trained on {family.name}.'
      )
