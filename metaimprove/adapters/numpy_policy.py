"""A policy that acts without JAX, and goes to other libraries and to robots."""

import dataclasses
import functools
import io
import pathlib
from typing import Any

import jax
import numpy as np

from metaimprove import files, policies
from metaimprove.adapters import forward
from metaimprove.adapters.spaces import Spaces
from metaimprove.errors import IncompatibleError
from metaimprove.types import Params


@dataclasses.dataclass(frozen=True, eq=False)
class NumpyPolicy:
  """A policy that acts in an environment, in numpy.

  Attributes:
    params: θ, as in `Policy`, leaves numpy arrays; of the operator's observations and actions.
    spaces: what these are in the environment.
  """

  params: Params
  spaces: Spaces

  @classmethod
  def of(cls, params: Params, spaces: Spaces | None = None) -> 'NumpyPolicy':
    """From parameters of ours, or of Brax's PPO: its policy's, or the tuple (normaliser, policy, value).

    Args:
      params: θ.
      spaces: those of the operator by default.

    Raises:
      IncompatibleError: if they are parameters of no such policy, or are not finite.
    """
    params = jax.tree.map(np.asarray, haiku_params(params))
    sizes = _layer_sizes(params)
    spaces = spaces or Spaces.of(sizes[0], sizes[-1] // 2)
    if (len(spaces.observation_indices), len(spaces.action_low)) != (sizes[0], sizes[-1] // 2):
      raise IncompatibleError(
        f'This policy has {sizes[0]} observations and {sizes[-1] // 2} actions; the spaces have '
        f'{len(spaces.observation_indices)} and {len(spaces.action_low)}.'
      )
    return cls(params=params, spaces=spaces)

  def __call__(self, observation: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Actions [..., A] of the environment for its observations [..., N]: drawn, or without `rng` the most likely."""
    return forward.act(self.forward_policy, np.asarray(observation, np.float32), rng)

  @property
  def layer_sizes(self) -> tuple[int, ...]:
    """(O, hidden sizes..., 2A)."""
    return tuple(_layer_sizes(self.params))

  @functools.cached_property
  def forward_policy(self) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """What `forward.act` takes: layers of which the first one takes the environment's observation, and the
    range of its actions."""
    layers = [(self.params[name]['w'], self.params[name]['b']) for name in policies.layer_names(self.params)]
    spaces, (weights, bias) = self.spaces, layers[0]
    folded = np.zeros((spaces.observation_size, weights.shape[1]), np.float32)
    np.add.at(folded, spaces.observation_indices, weights * spaces.observation_scale[:, None])
    layers[0] = folded, bias + spaces.observation_offset @ weights
    low, high = spaces.action_low, spaces.action_high
    middle, half_range = (high + low) / 2, (high - low) / 2
    while (outside := (middle + half_range > high) | (middle - half_range < low)).any():  # by rounding
      half_range = np.where(outside, np.nextafter(half_range, np.float32(0)), half_range)
    return layers, middle, half_range

  def save(self, path: files.Path) -> None:
    """Writes θ and spaces as safetensors, for `load_policy`."""
    files.save_tree(path, {'params': self.params, 'spaces': dataclasses.asdict(self.spaces)})

  def to_brax(self) -> Params:
    """θ as parameters of Brax's PPO policy network, of the operator's observations and without a normaliser."""
    return policies.to_brax(self.params)

  def to_numpy(self, folder: files.Path) -> None:
    """Writes `policy.npz` and `forward.py`, which act with numpy alone:

      from forward import act, load
      policy = load('policy.npz')
      action = act(policy, observation)
    """
    layers, middle, half_range = self.forward_policy
    arrays = {f'{kind}_{i}': array for i, layer in enumerate(layers) for kind, array in zip(('weights', 'bias'), layer)}
    content = io.BytesIO()
    np.savez(content, **arrays, middle=middle, half_range=half_range)
    files.write_bytes(pathlib.Path(folder) / 'forward.py', pathlib.Path(forward.__file__).read_bytes())
    files.write_bytes(pathlib.Path(folder) / 'policy.npz', content.getvalue())

  def to_onnx(self, path: files.Path, **contract: Any) -> None:
    """Writes the most likely action as an ONNX graph, and what its numbers are beside it; see `onnx.save_onnx`."""
    from metaimprove.adapters.onnx import save_onnx  # it needs the extra

    save_onnx(path, self, **contract)


def load_policy(path: files.Path) -> NumpyPolicy:
  """What `NumpyPolicy.save` wrote.

  Raises:
    DamagedDataError: if the file is missing or damaged.
    IncompatibleError: if it holds no policy.
  """
  params, spaces = {}, {}
  for name, array in files.load_arrays(path).items():
    kind, *rest = name.split('::')
    if kind == 'params' and len(rest) == 2:
      params.setdefault(rest[0], {})[rest[1]] = array
    else:
      spaces[rest[-1] if rest else name] = array
  if set(spaces) != {field.name for field in dataclasses.fields(Spaces)}:
    raise IncompatibleError(f'{path} holds no policy that `NumpyPolicy.save` wrote.')
  size = int(spaces.pop('observation_size'))
  return NumpyPolicy.of(params, Spaces.of(size, len(spaces['action_low']), **spaces))


def haiku_params(params: Any) -> Params:
  """θ of parameters of ours or of Brax's PPO, whose normaliser is folded; raises `IncompatibleError` for others."""
  if isinstance(params, (tuple, list)) and len(params) in (2, 3):
    normaliser, params = params[:2]
    mean, std = (np.asarray(getattr(normaliser, name), np.float32) for name in ('mean', 'std'))
    return policies.fold(haiku_params(params), mean, std)
  try:
    return policies.from_brax(params) if 'params' in params else {name: dict(params[name]) for name in params}
  except (KeyError, TypeError, AttributeError):
    raise IncompatibleError(
      "These are no parameters of a policy: they are a tree {'mlp/~/linear_0': {'w', 'b'}, ...}, as of `Policy.init`, "
      "or those of Brax's PPO."
    ) from None


def _layer_sizes(params: Params) -> list[int]:
  """(O, hidden sizes..., 2A); raises `IncompatibleError` if layers do not fit together or are not finite."""
  try:
    layers = [(params[name]['w'], params[name]['b']) for name in policies.layer_names(params)]
    sizes = [layers[0][0].shape[0], *(weights.shape[1] for weights, _ in layers)]
    fits = all(
      weights.shape == (inputs, outputs) and bias.shape == (outputs,)
      for (weights, bias), inputs, outputs in zip(layers, sizes[:-1], sizes[1:])
    )
  except (KeyError, IndexError, ValueError, AttributeError):
    fits = False
  if not fits or sizes[-1] % 2:
    raise IncompatibleError('The layers of this policy do not fit together; give all parameters of one policy.')
  if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
    raise IncompatibleError('This policy has parameters that are infinite or undefined; give one that is finite.')
  return sizes
