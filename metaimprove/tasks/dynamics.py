"""Domain randomisation: multipliers of a robot's physical constants, per task.

Every parameter is drawn log-uniformly, so that halving and doubling are equally likely. 'far' draws put one parameter,
chosen at random, outside the training range and leave the others inside.
"""

from collections.abc import Mapping, Sequence

import chex
import jax
import jax.numpy as jnp

from metaimprove.errors import UnknownNameError

TRAIN_RANGE = (1 / 2, 2.0)
"""Multipliers of training and held-out tasks."""
FAR_RANGE = (1 / 3, 3.0)
"""The multiplier that is out of range on a far task lies in this range, but not in `TRAIN_RANGE`."""

# What a multiplier acts on in an MJX system. 'inertia' takes the rotor inertia reflected to the joints (armature) along
# with the links' own: on the reacher the former is 10,000 times the latter, which alone would be an illusion of
# randomisation.
_MJX_FIELDS = {
  'gear': ('actuator_gear',),
  'damping': ('dof_damping',),
  'mass': ('body_mass',),
  'inertia': ('body_inertia', 'dof_armature'),
}

_IN_WORDS = {
  'gear': ('weak motors', 'strong motors'),
  'damping': ('loose joints', 'stiff joints'),
  'mass': ('light links', 'heavy links'),
  'inertia': ('little inertia', 'much inertia'),
}


def sample(rng_key: chex.PRNGKey, names: Sequence[str], far: bool = False) -> dict[str, chex.Array]:
  """Draws one multiplier, [] float32, for each name; see the module's docstring for the ranges."""
  key_inside, key_outside, key_sign, key_which = jax.random.split(rng_key, 4)
  shape = (len(names),)
  low, high = jnp.log(jnp.asarray(TRAIN_RANGE))
  log_multiplier = jax.random.uniform(key_inside, shape, minval=low, maxval=high)
  if far:
    distance = jax.random.uniform(key_outside, shape, minval=high, maxval=jnp.log(FAR_RANGE[1]))
    outside = distance * jax.random.rademacher(key_sign, shape)
    which = jnp.arange(len(names)) == jax.random.randint(key_which, (), 0, len(names))
    log_multiplier = jnp.where(which, outside, log_multiplier)
  return dict(zip(names, jnp.exp(log_multiplier)))


def apply(system, multipliers: Mapping[str, chex.Array]):
  """The system with its constants multiplied. A multiplier of 1 changes no bit."""
  changes = {}
  for name, multiplier in multipliers.items():
    if name not in _MJX_FIELDS:
      raise UnknownNameError(f'Dynamics parameter {name!r} is unknown; choose among: {", ".join(sorted(_MJX_FIELDS))}.')
    for field in _MJX_FIELDS[name]:
      changes[field] = getattr(system, field) * multiplier
  return system.replace(**changes)


def privileged(multipliers: Mapping[str, chex.Array]) -> chex.Array:
  """[number of multipliers] float32: base-2 logarithms in the order of the names, within [-1, 1] in training."""
  return jnp.stack([jnp.log2(multipliers[name]) for name in sorted(multipliers)])


def describe(multipliers: Mapping[str, chex.Array]) -> str:
  """The dynamics in words: whatever is off the stock robot by more than a quarter."""
  phrases = []
  for name, multiplier in multipliers.items():
    multiplier = float(multiplier)
    if not 0.8 <= multiplier <= 1.25:
      phrases.append(f'{_IN_WORDS[name][multiplier > 1]} (x{multiplier:.2f})')
  return 'with ' + ', '.join(phrases) if phrases else 'on a nearly stock robot'
