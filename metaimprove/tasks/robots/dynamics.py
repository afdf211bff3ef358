"""Domain randomisation: what differs from the stock robot, per task.

Physical constants (`MULTIPLIERS`) are multiplied, with one factor for the whole robot or one for each element. Factors
are log-uniform, so that halving and doubling are equally likely. Constant outside forces (`FORCES`) act on the whole
robot. Imperfections (`IMPERFECTIONS`) are those of motors and sensors: wiring, broken motors, noise, delay. A far draw
puts one parameter, chosen at random, outside of what training tasks have, and leaves the others inside.

Brax's `spring` and `positional` do not simulate a link's mass m but m^(1 - spring_mass_scale), and likewise inertia
with spring_inertia_scale. At a scale of 1, as on the hopper, masses have no effect. Multipliers act on the simulated
constants instead; see `simulated_constants`. These backends have no joint damping, only the angular damping of their
joint constraints, which also acts about the joint's own axis; 'damping' multiplies that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.tasks.parameters import Choice, Parameter, Range
from metaimprove.tasks.robots import wiring


def per_element(base: float, elements: int) -> Range:
  """base^U(-3, 3) for each element, as in rand_param_envs (Rakelly et al., arXiv:1903.08254); far up to base^±4."""
  return Range(low=base**-3.0, high=base**3.0, far_low=base**-4.0, far_high=base**4.0, elements=elements)


MULTIPLIERS = ('gear', 'damping', 'mass', 'inertia', 'friction', 'gravity', 'length')
"""Physical constants that a task can scale; which of them are real depends on robot and backend."""

FORCES = {
  'slope': Range(low=-0.25, high=0.25, far_low=-0.35, far_high=0.35, logarithmic=False),
  'wind': Range(low=-2.5, high=2.5, far_low=-3.5, far_high=3.5, logarithmic=False),
}
"""Constant outside forces, available wherever gravity matters. Both turn or shift the vector of gravity, so that every
part of the robot is accelerated alike. The slope is the angle in rad by which the ground rises in the direction of x.
The wind is an acceleration in m/s² along x, or along x and y where it has two elements; a body is pushed in proportion
to its mass, whatever its size and speed."""


def broken_groups(num_motors: int, groups: Sequence[Sequence[int]], far_groups: Sequence[Sequence[int]] = ()) -> Choice:
  """No motor is broken, or all of one group of motors: [A] numbers, 1 for a motor that is broken.

  Args:
    num_motors: A.
    groups: of training, validation and held-out tasks, which also have robots without a broken motor.
    far_groups: of far tasks.
  """
  rows = lambda groups: tuple(tuple(float(motor in group) for motor in range(num_motors)) for group in groups)
  return Choice(values=rows([(), *groups]), far_values=rows(far_groups))


def one_broken_motor(num_motors: int) -> Choice:
  """No motor is broken, or one; the last one in far tasks, if there is more than one."""
  known = max(num_motors - 1, 1)
  return broken_groups(num_motors, [[m] for m in range(known)], [[m] for m in range(known, num_motors)])


IMPERFECTIONS: Mapping[str, Parameter | Callable[[int], Parameter]] = {
  'action_delay': Range(low=0.0, high=0.5, far_low=0.0, far_high=1.0, logarithmic=False),
  'action_noise': Range(low=0.0, high=0.1, far_low=0.0, far_high=0.3, logarithmic=False),
  'observation_noise': Range(low=0.0, high=0.02, far_low=0.0, far_high=0.1, logarithmic=False),
  'action_lag': Choice(values=(0.0, 2.0, 3.0, 4.0, 5.0), far_values=(6.0, 7.0)),
  'wiring': wiring.Wiring,
  'broken': one_broken_motor,
}
"""Imperfections of actuators and sensors, available on every family; those that depend on the number of motors A are
functions of it. The delay d is in environment steps: the motors get d times the last action plus 1 - d times this one.
The noises are standard deviations, of actions in [-1, 1] and of observations in their own units. With a lag of n whole
steps the motors get the action of n steps before, and 0 for the first n steps. The wiring is a matrix, see `wiring`. Of
[A] motors, those that are broken (1) get 0 for ever."""

# What a multiplier scales, by backend: fields of the system, or of parts of it; on mjx those of a MuJoCo model too.
_BODIES = {'gear': ('actuator.gear',), 'gravity': ('gravity',), 'friction': ('geom_friction',)}
FIELDS = {
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
FIELDS['positional'] = FIELDS['spring']

_IN_WORDS = {
  'gear': ('weak motors', 'strong motors'),
  'damping': ('loose joints', 'stiff joints'),
  'mass': ('light links', 'heavy links'),
  'inertia': ('little inertia', 'much inertia'),
  'friction': ('slippery ground', 'rough ground'),
  'gravity': ('weak gravity', 'strong gravity'),
  'length': ('a low centre of mass', 'a high centre of mass'),
}


def of_robot(
  parameters: Mapping[str, Parameter | Callable[[int], Parameter]], num_motors: int
) -> dict[str, Parameter]:
  """The parameters of a robot with so many motors.

  Raises:
    IncompatibleError: for a parameter of another number of motors.
  """
  made = {name: p(num_motors) if callable(p) else p for name, p in parameters.items()}
  for name, shape in {'wiring': (num_motors, num_motors), 'broken': (num_motors,), 'action_lag': ()}.items():
    if name in made and made[name].shape != shape:
      raise IncompatibleError(f'{name!r} has shape {made[name].shape}, and the robot needs {shape}.')
  if 'action_lag' in made and not isinstance(made['action_lag'], Choice):
    raise IncompatibleError("'action_lag' is a number of whole steps; draw it from a Choice of these.")
  return made


def sample(rng_key: chex.PRNGKey, ranges: Mapping[str, Parameter], far: bool = False) -> dict[str, chex.Array]:
  """Draws each parameter, float32 of its shape: all as in training tasks, or one of them `far`."""
  if not ranges:
    return {}
  key_inside, key_outside, key_sign, key_which = jax.random.split(rng_key, 4)
  ends = np.cumsum([p.num_uniform for p in ranges.values()])
  split = lambda numbers: dict(zip(ranges, jnp.split(numbers, ends[:-1])))
  uniform = split(jax.random.uniform(key_inside, (ends[-1],)))
  drawn = {name: p.inside(uniform[name]) for name, p in ranges.items()}
  can_be_far = [name for name, p in ranges.items() if p.has_far]
  if not far or not can_be_far:
    return drawn
  share = split(jax.random.uniform(key_outside, (ends[-1],)))
  sign = split(jax.random.rademacher(key_sign, (ends[-1],)))
  which = jax.random.randint(key_which, (), 0, len(can_be_far))
  far_drawn = {name: ranges[name].far(share[name], sign[name]) for name in can_be_far}
  chosen = {
    name: jnp.where(which == index, far_drawn[name], drawn[name]) for index, name in enumerate(can_be_far)
  }
  return {**drawn, **chosen}


def stock(parameters: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
  """The stock robot's values of the same parameters."""
  return {
    name: wiring.stock(value) if name == 'wiring' else jnp.full_like(value, name in MULTIPLIERS)
    for name, value in parameters.items()
  }


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
  """The system with its constants multiplied and outside forces. Stock values change no bit; imperfections are ignored.

  Args:
    system: the stock system, with `simulated_constants`.
    backend: of it.
    parameters: name -> [] or [elements].
  """
  changes = {}
  for name in (name for name in MULTIPLIERS if name in parameters):
    multiplier = parameters[name]
    for field in FIELDS[backend][name]:
      changes[field] = _scaled(changes.get(field, _get(system, field)), multiplier)
    if name == 'length':  # the distance from a body's joint to its centre; inertia grows with its square
      field = 'body_inertia' if backend == 'mjx' else 'link.inertia.i'
      changes[field] = _scaled(changes.get(field, _get(system, field)), multiplier**2)
    if name == 'mass' and backend == 'spring':
      # Joint springs of full stiffness make light links unstable, so their stiffness falls with the mass.
      for field in ('link.constraint_stiffness', 'link.constraint_vel_damping'):
        changes[field] = _scaled(_get(system, field), jnp.minimum(multiplier, 1.0))
  if any(name in parameters for name in FORCES):
    field, = FIELDS[backend]['gravity']
    changes[field] = _with_forces(changes.get(field, _get(system, field)), parameters)
  for field, value in changes.items():
    system = _replaced(system, field.split('.'), value)
  return system


def _with_forces(gravity: chex.Array, parameters: Mapping[str, chex.Array]) -> chex.Array:
  """Gravity [3] on a slope, and in the wind."""
  if 'slope' in parameters:
    sine, cosine = jnp.sin(parameters['slope']), jnp.cos(parameters['slope'])
    x, y, z = gravity
    gravity = jnp.stack([x * cosine + z * sine, y, z * cosine - x * sine])
  if 'wind' in parameters:
    wind = jnp.ravel(parameters['wind'])
    gravity = gravity.at[:len(wind)].add(wind)
  return gravity


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
  return tuple(FIELDS[backend])


def check_known(names: Sequence[str], real: Sequence[str], what: str) -> None:
  """Raises `UnknownNameError` for a parameter that does nothing in `what`, and lists those that work."""
  possible = (*real, *(FORCES if 'gravity' in real else ()), *IMPERFECTIONS)
  wrong = [name for name in names if name not in possible]
  if wrong:
    known = wrong[0] in (*MULTIPLIERS, *FORCES)
    raise UnknownNameError(
      f'Dynamics parameter {wrong[0]!r} {"does nothing, or is not offered, on" if known else "is unknown to"} {what}; '
      f'choose among: {", ".join(possible)}.'
    )


def default_parameter(name: str) -> Parameter | Callable[[int], Parameter]:
  """What a parameter is drawn from where a family does not say otherwise; see `of_robot`."""
  return {**FORCES, **IMPERFECTIONS}.get(name, Range())


def privileged(parameters: Mapping[str, chex.Array], ranges: Mapping[str, Parameter]) -> chex.Array:
  """[number of elements] float32: all parameters relative to their ranges, in alphabetical order of the names, but the
  entries of the wiring last."""
  names = sorted(parameters, key=lambda name: (name == 'wiring', name))
  return jnp.concatenate([jnp.zeros(0), *(ranges[name].relative(parameters[name]) for name in names)])


def outside(parameters: Mapping[str, chex.Array], ranges: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
  """name -> [B] bool, whether a parameter is one that training tasks do not have."""
  return {name: np.asarray(jax.vmap(p.is_outside)(jnp.asarray(parameters[name]))) for name, p in ranges.items()}


def describe(parameters: Mapping[str, chex.Array]) -> str:
  """The dynamics in words: multipliers more than a quarter off the stock robot's, and all else that is not stock."""
  phrases = (_phrase(name, np.asarray(value)) for name, value in parameters.items())
  said = ', '.join(phrase for phrase in phrases if phrase)
  return f'with {said}' if said else 'on a nearly stock robot'


def _phrase(name: str, value: np.ndarray) -> str:
  """One parameter in words; none where it is nearly stock."""
  if name in _IN_WORDS:
    middle = float(np.exp(np.log(value).mean()))
    if value.ndim:
      return f'{name} of its parts x{value.min():.2f} to x{value.max():.2f}'
    return '' if 0.8 <= middle <= 1.25 else f'{_IN_WORDS[name][middle > 1]} (x{middle:.2f})'
  if name == 'wiring':
    return wiring.in_words(value)
  if name == 'broken':
    broken = ', '.join(str(1 + motor) for motor in np.flatnonzero(value))
    return f'broken motors: {broken}' if broken else 'no broken motor'
  if name == 'slope':
    return f'the ground {"rising" if value > 0 else "falling"} by {abs(np.degrees(value)):.0f}° ahead'
  if name == 'wind':
    return 'wind of ' + ' and '.join(f'{x:+.2f} along {axis}' for x, axis in zip(value.ravel(), 'xyz'))
  if name == 'action_lag':
    return f'actions {value:.0f} steps late'
  if name == 'action_delay':
    return f'actuators {value:.2f} steps late'
  return f'{name.replace("_", " ")} of {value:.3f}'
