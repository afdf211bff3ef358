"""Domain randomisation: what differs from the stock robot, per task.

Physical constants (`MULTIPLIERS`) are multiplied, with one factor for the whole robot or one for each element. Factors
are log-uniform, so that halving and doubling are equally likely. Imperfections (`IMPERFECTIONS`) are amounts of noise
and delay. They are uniform, and 0 is the stock robot. A far draw puts one parameter, chosen at random, outside its
training range and leaves the others inside.

Brax's `spring` and `positional` do not simulate a link's mass m but m^(1 - spring_mass_scale), and likewise inertia
with spring_inertia_scale. At a scale of 1, as on the hopper, masses have no effect. Multipliers act on the simulated
constants instead; see `simulated_constants`. These backends have no joint damping, only the angular damping of their
joint constraints, which also acts about the joint's own axis; 'damping' multiplies that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.errors import UnknownNameError
from metaimprove.tasks.family import Range


def per_element(base: float, elements: int) -> Range:
  """base^U(-3, 3) for each element, as in rand_param_envs (Rakelly et al., arXiv:1903.08254); far up to base^±4."""
  return Range(low=base**-3.0, high=base**3.0, far_low=base**-4.0, far_high=base**4.0, elements=elements)


MULTIPLIERS = ('gear', 'damping', 'mass', 'inertia', 'friction', 'gravity', 'length')
"""Physical constants that a task can scale; which of them are real depends on robot and backend."""

IMPERFECTIONS = {
  'action_delay': Range(low=0.0, high=0.5, far_low=0.0, far_high=1.0, logarithmic=False),
  'action_noise': Range(low=0.0, high=0.1, far_low=0.0, far_high=0.3, logarithmic=False),
  'observation_noise': Range(low=0.0, high=0.02, far_low=0.0, far_high=0.1, logarithmic=False),
}
"""Imperfections of actuators and sensors, available on every family. The delay d is in environment steps: the motors
get d times the last action plus 1 - d times this one. The noises are standard deviations, of actions in [-1, 1] and of
observations in their own units."""

# What a multiplier scales, by backend: fields of the system, or of parts of it.
_BODIES = {'gear': ('actuator.gear',), 'gravity': ('gravity',), 'friction': ('geom_friction',)}
_FIELDS = {
  # 'inertia' includes the rotor inertia reflected to the joints (armature). On the reacher it is 10,000 times that of
  # the links, so that multiplying the links' alone would change nothing.
  'mjx': {
    'gear': ('actuator_gear',), 'damping': ('dof_damping',), 'mass': ('body_mass',),
    'inertia': ('body_inertia', 'dof_armature'), 'friction': ('geom_friction',), 'gravity': ('opt.gravity',),
    'length': ('body_ipos',),
  },
  'generalized': {
    **_BODIES, 'damping': ('dof.damping',), 'mass': ('link.inertia.mass',),
    'inertia': ('link.inertia.i', 'dof.armature'), 'length': ('link.inertia.transform.pos',),
  },
  'spring': {
    **_BODIES, 'damping': ('link.constraint_ang_damping',), 'mass': ('link.inertia.mass',),
    'inertia': ('link.inertia.i',), 'length': ('link.inertia.transform.pos',),
  },
}
_FIELDS['positional'] = _FIELDS['spring']

_IN_WORDS = {
  'gear': ('weak motors', 'strong motors'),
  'damping': ('loose joints', 'stiff joints'),
  'mass': ('light links', 'heavy links'),
  'inertia': ('little inertia', 'much inertia'),
  'friction': ('slippery ground', 'rough ground'),
  'gravity': ('weak gravity', 'strong gravity'),
  'length': ('a low centre of mass', 'a high centre of mass'),
}


def sample(rng_key: chex.PRNGKey, ranges: Mapping[str, Range], far: bool = False) -> dict[str, chex.Array]:
  """Draws each parameter, [] or [elements] float32: all in their training ranges, or one of them `far`."""
  if not ranges:
    return {}
  key_inside, key_outside, key_sign, key_which = jax.random.split(rng_key, 4)
  sizes = [max(r.elements, 1) for r in ranges.values()]

  def bounds(field):
    values = [np.log(getattr(r, field)) if r.logarithmic else getattr(r, field) for r in ranges.values()]
    return jnp.asarray(np.repeat(values, sizes), jnp.float32)

  low, high, far_low, far_high = (bounds(field) for field in ('low', 'high', 'far_low', 'far_high'))
  drawn = low + jax.random.uniform(key_inside, low.shape) * (high - low)
  if far:
    share = jax.random.uniform(key_outside, low.shape)
    above, below = high + share * (far_high - high), low - share * (low - far_low)
    goes_up = ((jax.random.rademacher(key_sign, low.shape) > 0) & (far_high > high)) | (far_low == low)
    which = jnp.repeat(jnp.arange(len(sizes)), np.asarray(sizes)) == jax.random.randint(key_which, (), 0, len(sizes))
    drawn = jnp.where(which, jnp.where(goes_up, above, below), drawn)
  parts = jnp.split(drawn, np.cumsum(sizes)[:-1])
  return {
    name: (jnp.exp(part) if r.logarithmic else part).reshape((r.elements,) if r.elements else ())
    for (name, r), part in zip(ranges.items(), parts)
  }


def stock(parameters: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
  """The stock robot's values of the same parameters."""
  return {name: jnp.full_like(value, name in MULTIPLIERS) for name, value in parameters.items()}


def simulated_constants(system: Any, backend: str) -> Any:
  """The system with masses and inertias replaced by those that its backend computes with, and with scales of 0.

  It moves like the stock one up to rounding, and a multiplier of a mass multiplies the simulated mass.
  """
  if backend not in ('spring', 'positional'):
    return system
  inertia = system.link.inertia
  diagonal = jnp.eye(3, dtype=bool)
  powers = jnp.where(diagonal, jnp.where(diagonal, inertia.i, 1.0) ** (1 - system.spring_inertia_scale), 0.0)
  inertia = inertia.replace(mass=inertia.mass ** (1 - system.spring_mass_scale), i=powers)
  return system.replace(
    link=system.link.replace(inertia=inertia), spring_mass_scale=jnp.zeros_like(system.spring_mass_scale),
    spring_inertia_scale=jnp.zeros_like(system.spring_inertia_scale),
  )


def apply(system: Any, backend: str, parameters: Mapping[str, chex.Array]) -> Any:
  """The system with its constants multiplied. A multiplier of 1 changes no bit; imperfections are ignored.

  Args:
    system: the stock system, with `simulated_constants`.
    backend: of it.
    parameters: name -> [] or [elements].
  """
  changes = {}
  for name in (name for name in MULTIPLIERS if name in parameters):
    multiplier = parameters[name]
    for field in _FIELDS[backend][name]:
      changes[field] = _scaled(changes.get(field, _get(system, field)), multiplier)
    if name == 'length':  # the distance from a body's joint to its centre; inertia grows with its square
      field = 'body_inertia' if backend == 'mjx' else 'link.inertia.i'
      changes[field] = _scaled(changes.get(field, _get(system, field)), multiplier**2)
    if name == 'mass' and backend == 'spring':
      # Joint springs of full stiffness make light links unstable, so their stiffness falls with the mass.
      for field in ('link.constraint_stiffness', 'link.constraint_vel_damping'):
        changes[field] = _scaled(_get(system, field), jnp.minimum(multiplier, 1.0))
  for field, value in changes.items():
    system = _replaced(system, field.split('.'), value)
  return system


def _get(system: Any, field: str) -> chex.Array:
  for part in field.split('.'):
    system = getattr(system, part)
  return system


def _replaced(node: Any, path: Sequence[str], value: Any) -> Any:
  if len(path) > 1:
    value = _replaced(getattr(node, path[0]), path[1:], value)
  return node.replace(**{path[0]: value})


def _scaled(value: chex.Array, multiplier: chex.Array) -> chex.Array:
  """The value times one multiplier, or times one for each element. MJX's body 0, the world, is left alone."""
  multiplier = jnp.asarray(multiplier)
  if multiplier.ndim == 0:
    return value * multiplier
  missing = value.shape[0] - multiplier.shape[0]
  multiplier = jnp.concatenate([jnp.ones(missing, multiplier.dtype), multiplier])
  return value * multiplier.reshape(-1, *[1] * (value.ndim - 1))


def multipliers_of(backend: str) -> tuple[str, ...]:
  """The multipliers that a backend has fields for."""
  return tuple(_FIELDS[backend])


def check_known(names: Sequence[str], real: Sequence[str], what: str) -> None:
  """Raises `UnknownNameError` for a parameter that does nothing in `what`, and lists those that work."""
  possible = (*real, *IMPERFECTIONS)
  wrong = [name for name in names if name not in possible]
  if wrong:
    known = wrong[0] in MULTIPLIERS
    raise UnknownNameError(
      f'Dynamics parameter {wrong[0]!r} {"does nothing, or is not offered, on" if known else "is unknown to"} {what}; '
      f'choose among: {", ".join(possible)}.'
    )


def _relative(value: chex.Array, r: Range) -> chex.Array:
  """Values relative to the training range, which is [-1, 1]: on a logarithmic scale where the range is."""
  low, high, value = (jnp.log(x) for x in (r.low, r.high, value)) if r.logarithmic else (r.low, r.high, value)
  return (2 * value - low - high) / (high - low)


def privileged(parameters: Mapping[str, chex.Array], ranges: Mapping[str, Range]) -> chex.Array:
  """[number of elements] float32: all parameters relative to their ranges, in alphabetical order of the names."""
  relative = (_relative(jnp.ravel(parameters[name]), ranges[name]) for name in sorted(parameters))
  return jnp.concatenate([jnp.zeros(0), *relative])


def outside(parameters: Mapping[str, chex.Array], ranges: Mapping[str, Range]) -> dict[str, np.ndarray]:
  """name -> [B] bool, whether a parameter lies outside its training range in any element, by more than rounding."""
  relative = {name: np.asarray(_relative(jnp.asarray(parameters[name]), r)) for name, r in ranges.items()}
  return {name: (np.abs(x.reshape(len(x), -1)) > 1 + 1e-5).any(axis=1) for name, x in relative.items()}


def describe(parameters: Mapping[str, chex.Array]) -> str:
  """The dynamics in words: parameters more than a quarter off the stock robot's, and all imperfections."""
  phrases = []
  for name, value in parameters.items():
    value = np.ravel(value)
    if name in _IN_WORDS:
      middle = float(np.exp(np.log(value).mean()))
      if len(value) > 1:
        phrases.append(f'{name} of its parts x{value.min():.2f} to x{value.max():.2f}')
      elif not 0.8 <= middle <= 1.25:
        phrases.append(f'{_IN_WORDS[name][middle > 1]} (x{middle:.2f})')
    elif name == 'action_delay':
      phrases.append(f'actuators {value[0]:.2f} steps late')
    else:
      phrases.append(f'{name.replace("_", " ")} of {value[0]:.3f}')
  return 'with ' + ', '.join(phrases) if phrases else 'on a nearly stock robot'
