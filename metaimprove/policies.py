"""θ: a multilayer perceptron into a tanh-squashed normal with state-dependent scale, as Haiku parameters.

It is the same function as Brax's PPO policy network (swish activations, softplus scale plus 0.001), so parameters
convert exactly in both directions.
"""

import dataclasses
import functools
from collections.abc import Callable

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import quiet_brax  # noqa: F401  (before brax)
from brax.training.distribution import NormalTanhDistribution
from metaimprove.errors import IncompatibleError
from metaimprove.types import Params

HIDDEN_SIZES = (64, 64)
_LARGEST_RATIO = 1000.0
"""Of |mean| and deviation of an observation whose scaling is folded."""


@dataclasses.dataclass(frozen=True)
class Policy:
  """A family of policies of one shape.

  Attributes:
    init: (rng_key) -> params.
    apply: (params, observation [..., O]) -> logits [..., 2A]: location and raw scale before tanh.
    distribution: Brax's tanh-squashed normal over these logits.
    observation_size: O.
    action_size: A.
    hidden_sizes: widths of the hidden layers.
  """

  init: Callable[[chex.PRNGKey], Params]
  apply: Callable[[Params, chex.Array], chex.Array]
  distribution: NormalTanhDistribution
  observation_size: int
  action_size: int
  hidden_sizes: tuple[int, ...]

  def sample(
    self, params: Params, observation: chex.Array, rng_key: chex.PRNGKey
  ) -> tuple[chex.Array, chex.Array]:
    """An action [A] in [-1, 1] for an observation [O], and the pre-tanh action [A] it came from."""
    raw_action = self.distribution.sample_no_postprocessing(self.apply(params, observation), rng_key)
    return self.distribution.postprocess(raw_action), raw_action


def make_policy(observation_size: int, action_size: int, hidden_sizes: tuple[int, ...] = HIDDEN_SIZES) -> Policy:
  """The policies of one shape; layers are named `mlp/~/linear_0`, `mlp/~/linear_1`, ..."""
  distribution = NormalTanhDistribution(event_size=action_size)
  network = hk.without_apply_rng(hk.transform(
    lambda x: hk.nets.MLP(
      (*hidden_sizes, distribution.param_size), activation=jax.nn.swish,
      w_init=hk.initializers.VarianceScaling(1.0, 'fan_in', 'uniform'), name='mlp',
    )(x)
  ))
  return Policy(
    init=lambda rng_key: network.init(rng_key, jnp.zeros(observation_size)), apply=network.apply,
    distribution=distribution, observation_size=observation_size, action_size=action_size,
    hidden_sizes=tuple(hidden_sizes),
  )


def divergence(distribution: NormalTanhDistribution, target_logits: chex.Array, logits: chex.Array) -> chex.Array:
  """KL(target ‖ other) of two tanh-squashed normals, summed over actions: [..., 2A] and [..., 2A] to [...].

  Squashing is one-to-one, so this is the divergence of the normals beneath.
  """
  chex.assert_equal_shape([target_logits, logits])
  target, other = distribution.create_dist(target_logits), distribution.create_dist(logits)
  variance_ratio = jnp.square(target.scale / other.scale)
  distance = jnp.square((target.loc - other.loc) / other.scale)
  return 0.5 * jnp.sum(variance_ratio + distance - 1 - jnp.log(variance_ratio), axis=-1)


def raw_scale_of(scale: np.ndarray) -> np.ndarray:
  """The raw scale whose scale, softplus(raw) + 0.001, is `scale`; where there is none, one of hardly any spread."""
  rest = np.maximum(scale - 0.001, 1e-6)
  return rest + np.log(-np.expm1(-rest))


def apply_numpy(params: Params, observation: np.ndarray) -> np.ndarray:
  """`Policy.apply` without JAX, for policies [B, ...] at observations [B, ..., O]: logits [B, ..., 2A]."""
  hidden, names = observation, layer_names(params)
  for name in names:
    weights, bias = params[name]['w'], params[name]['b']
    shape = hidden.shape
    hidden = (hidden.reshape(len(weights), -1, shape[-1]) @ weights + bias[:, None]).reshape(*shape[:-1], -1)
    if name != names[-1]:
      with np.errstate(over='ignore'):
        hidden = hidden / (1 + np.exp(-hidden))
  return hidden


def widened(params: Params, by: np.ndarray) -> Params:
  """Policies [B, ...] (numpy) with `by` [B] added to all raw scales: their actions are spread wider."""
  last = layer_names(params)[-1]
  bias = params[last]['b']
  added = np.where(np.arange(bias.shape[1]) < bias.shape[1] // 2, 0, by[:, None]).astype(bias.dtype)
  return {**params, last: {**params[last], 'b': bias + added}}


def layer_names(params: Params) -> list[str]:
  """Names of the layers from input to output."""
  return sorted(params, key=lambda name: int(name.rsplit('_', 1)[1]))


def foldable_deviation(mean: chex.Array, std: chex.Array) -> chex.Array:
  """[O] `std`, or a thousandth of |mean| where it is smaller: the deviation to normalise by if it is to be folded.

  A folded layer multiplies the observation itself, not its difference from the mean. In float32 that costs the digits
  in which observation and mean agree, about 6e-8 |mean| / std of each input: logits are off by 1e-4 at a ratio of
  1,000, and by 0.1 at 1,000,000.
  """
  return jnp.maximum(std, jnp.abs(mean) / _LARGEST_RATIO)


def fold(params: Params, mean: chex.Array, std: chex.Array, privileged: chex.Array | None = None) -> Params:
  """Folds what stands before the network into its first layer.

  A learner computes network(concatenate([(observation - mean) / std, privileged])); the result of this function
  computes the same from the observation alone, up to rounding.

  Args:
    params: of a policy over O + D inputs.
    mean: [O] observation mean.
    std: [O] observation standard deviation, of `foldable_deviation`.
    privileged: [D] what the learner knows of the task, or None where D is 0.

  Returns:
    Parameters of a policy over O inputs.

  Raises:
    IncompatibleError: if `std` is smaller than `foldable_deviation` allows, so that the result would be another policy;
      not noticed while JAX traces.
  """
  traced = isinstance(mean, jax.core.Tracer) or isinstance(std, jax.core.Tracer)
  with jax.ensure_compile_time_eval():  # numbers may be known inside of a function that is traced
    too_small = not traced and bool(np.any(np.asarray(std) * 1.01 < np.asarray(foldable_deviation(mean, std))))
  if too_small:
    raise IncompatibleError(
      f'An observation varies by less than 1/{_LARGEST_RATIO:,.0f} of its mean, too little to fold its scaling into '
      'float32 weights; normalise by policies.foldable_deviation.'
    )
  first = layer_names(params)[0]
  weights, bias = params[first]['w'], params[first]['b']
  size = mean.shape[0]
  folded_weights = weights[:size] / std[:, None]
  folded_bias = bias - mean @ folded_weights
  if privileged is not None:
    chex.assert_shape(privileged, (weights.shape[0] - size,))
    folded_bias = folded_bias + privileged @ weights[size:]
  return {**params, first: {'w': folded_weights, 'b': folded_bias}}


def rewire(params: Params, wiring: chex.Array) -> Params:
  """The policy for a robot with another wiring that does what the given policy does on the stock robot.

  Motors that get `wiring @ action` get the given policy's action: the location is multiplied by the transpose of the
  wiring, and each raw scale goes with its location. For a signed permutation this is exact.

  Args:
    params: of a policy with A actions.
    wiring: [A, A], as in `tasks.robots.wiring`.

  Returns:
    Parameters of the same shape.
  """
  last = layer_names(params)[-1]
  layer = params[last]
  chex.assert_shape(wiring, (layer['b'].shape[0] // 2,) * 2)
  multiply = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

  def changed(x):  # [..., 2A]: locations, then raw scales
    location, raw_scale = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([multiply(location, wiring), multiply(raw_scale, jnp.abs(wiring))], axis=-1)

  return {**params, last: jax.tree.map(changed, layer)}


def to_brax(params: Params) -> Params:
  """The same policy as parameters of Brax's PPO policy network (without its normaliser)."""
  return {'params': {
    f'hidden_{i}': {'kernel': params[name]['w'], 'bias': params[name]['b']}
    for i, name in enumerate(layer_names(params))
  }}


def from_brax(params: Params) -> Params:
  """The inverse of `to_brax`."""
  layers = params['params']
  return {
    f'mlp/~/linear_{i}': {'w': layers[f'hidden_{i}']['kernel'], 'b': layers[f'hidden_{i}']['bias']}
    for i in range(len(layers))
  }
