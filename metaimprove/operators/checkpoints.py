"""An operator as a folder of data: `config.json` and `operator.safetensors`. No code runs when one is loaded."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from metaimprove import files
from metaimprove.errors import DamagedDataError, IncompatibleError
from metaimprove.operators.operator import Operator, OperatorConfig, make_operator, statistics_structure
from metaimprove.tasks.family import TaskFamily

FORMAT_VERSION = 1
_CONFIG, _PARAMS = 'config.json', 'operator.safetensors'


def save_operator(folder: files.Path, operator: Operator, operator_params: Any) -> None:
  """Writes an operator; the configuration last, so that a folder that has one is complete."""
  folder = pathlib.Path(folder)
  content = files.tree_to_bytes(operator_params)
  files.write_bytes(folder / _PARAMS, content)
  files.write_json(folder / _CONFIG, {
    'format_version': FORMAT_VERSION, 'sha256': files.checksum(content),
    'operator': dataclasses.asdict(operator.config),
  })


def load_operator(folder: files.Path, family: TaskFamily | None = None) -> tuple[Operator, Any]:
  """Loads an operator.

  Args:
    folder: that `save_operator` wrote, here or elsewhere.
    family: what it is to be used on; checked if given.

  Returns:
    The operator and its parameters.

  Raises:
    DamagedDataError: if a file is missing or altered.
    IncompatibleError: if it is of another format version, or does not fit the family.
  """
  folder = pathlib.Path(folder)
  stored = files.read_json(folder / _CONFIG)
  if stored.get('format_version') != FORMAT_VERSION:
    raise IncompatibleError(
      f'{folder} has operator format version {stored.get("format_version")}, and this metaimprove reads '
      f'{FORMAT_VERSION}; train the operator again, or install the version that wrote it.'
    )
  try:
    config = OperatorConfig(**{**stored['operator'], 'hidden_sizes': tuple(stored['operator']['hidden_sizes'])})
  except (KeyError, TypeError) as error:
    raise DamagedDataError(f'{folder / _CONFIG} does not describe an operator ({error}); get a fresh copy.') from None
  if family is not None:
    check_fits(config, family)
  operator = make_operator(config)
  like = jax.eval_shape(
    lambda: operator.init(
      jax.random.key(0), jax.tree.map(lambda x: jnp.zeros(x.shape), statistics_structure(config.observation_size))
    )
  )
  try:
    content = (folder / _PARAMS).read_bytes()
  except FileNotFoundError:
    raise DamagedDataError(f'{folder / _PARAMS} is missing; copy the whole folder of the operator.') from None
  if files.checksum(content) != stored.get('sha256'):
    raise DamagedDataError(f'{folder / _PARAMS} is damaged; copy the operator again.')
  return operator, jax.tree.map(jnp.asarray, files.tree_from_bytes(content, like, folder / _PARAMS))


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
