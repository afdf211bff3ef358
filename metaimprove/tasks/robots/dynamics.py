"""Domain randomisation: what differs from the stock robot, per task.

Physical constants (`MULTIPLIERS`) are multiplied, one factor for all of a robot or one for each element, drawn
log-uniformly, so that halving and doubling are equally likely. Imperfections (`IMPERFECTIONS`) are amounts of noise and
delay, drawn uniformly; 0 is the stock robot. 'far' draws put one parameter, chosen at random, outside its training
range and leave the others inside.

Brax's `spring` and `positional` do not simulate a link's mass m but m^(1 - spring_mass_scale), and likewise inertia
(`spring_inertia_scale`; at 1, as on the hopper, no mass does anything at all). Multipliers there act on what is
simulated; see `simulated_constants`. These backends have no joint damping either, only the angular damping of their
joint constraints, about the joint's own axis too: 'damping' acts on that.
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
"""Of actuators and sensors, on every family: the delay is in environment steps (the command is held, so a delay d of a
step means d parts of the last action and 1 - d of this one), the noises are standard deviations, of actions in [-1, 1]
and of observations in their own units."""

# What a multiplier scales, by backend: fields of the system, or of parts of it.
_BODIES = {'gear': ('actuator.gear',), 'gravity': ('gravity',), 'friction': ('geom_friction',)}
_FIELDS = {
  # 'inertia' takes the rotor inertia reflected to the joints (armature) along with the links' own: on the reacher the
  # former is 10,000 times the latter, which alone would be an illusion of randomisation.
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
  """Draws each parameter, [] or [elements] float32."""
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
  """The same parameters where they are the stock robot's."""
  return {name: jnp.full_like(value, name in MULTIPLIERS) for name, value in parameters.items()}


def simulated_constants(system, backend: str):
  """The system with masses and inertias replaced by those that its backend computes with, and no scale left to apply.

  It moves as the stock one does, but for the rounding of a power, and a multiplier means what it says.
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


def apply(system, backend: str, parameters: Mapping[str, chex.Array]):
  """The system with its constants multiplied; a multiplier of 1 changes no bit, imperfections are left to the family.

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
    if name == 'length':  # of a body about its joint: inertia about the centre grows with its square
      field = 'body_inertia' if backend == 'mjx' else 'link.inertia.i'
      changes[field] = _scaled(changes.get(field, _get(system, field)), multiplier**2)
    if name == 'mass' and backend == 'spring':
      # The springs that hold its joints together would shake a light robot apart: they give with its mass.
      for field in ('link.constraint_stiffness', 'link.constraint_vel_damping'):
        changes[field] = _scaled(_get(system, field), jnp.minimum(multiplier, 1.0))
  for field, value in changes.items():
    system = _replaced(system, field.split('.'), value)
  return system


def _get(system, field: str):
  for part in field.split('.'):
    system = getattr(system, part)
  return system


def _replaced(node: Any, path: Sequence[str], value):
  if len(path) > 1:
    value = _replaced(getattr(node, path[0]), path[1:], value)
  return node.replace(**{path[0]: value})


def _scaled(value, multiplier):
  """Per element where there are several; a field that also counts the world (MJX's body 0) leaves that alone."""
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


def privileged(parameters: Mapping[str, chex.Array], ranges: Mapping[str, Range]) -> chex.Array:
  """[number of elements] float32, within [-1, 1] in training: where each lies in its range, names in order."""
  def place(name):
    r, value = ranges[name], jnp.ravel(parameters[name])
    low, high, value = (jnp.log(x) for x in (r.low, r.high, value)) if r.logarithmic else (r.low, r.high, value)
    return (2 * value - low - high) / (high - low)

  return jnp.concatenate([jnp.zeros(0), *(place(name) for name in sorted(parameters))])


def describe(parameters: Mapping[str, chex.Array]) -> str:
  """The dynamics in words: whatever is off the stock robot by more than a quarter, and every imperfection."""
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
