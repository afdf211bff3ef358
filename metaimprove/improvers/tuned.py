"""PPO settings per family, stored as the families' defaults: some tuned once on training tasks, some taken over."""

import dataclasses

from metaimprove import policies
from metaimprove.errors import UnknownNameError
from metaimprove.improvers import evolution, independent_ppo, task_conditioned_ppo
from metaimprove.improvers.ppo import PPOSettings
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily

SOURCES = (task_conditioned_ppo.NAME, independent_ppo.NAME, evolution.NAME)
EVOLUTION_UPDATES = 150


@dataclasses.dataclass(frozen=True)
class Tuned:
  """Settings and number of updates of both PPO sources on a family, whatever its backend."""

  conditioned: PPOSettings
  conditioned_updates: int
  independent: PPOSettings
  independent_updates: int


# Large rewards or values drown the policy's part of the gradient when it is clipped as a whole, hence the scaling.
_RUNNER = PPOSettings(
  num_envs=128, unroll_length=20, num_epochs=8, num_minibatches=16, learning_rate=1e-3, discounting=0.97,
  reward_scaling=0.05,
)

_LONE_RUNNER = dataclasses.replace(_RUNNER, num_envs=8, num_minibatches=4)

_SHORT_RUN = Tuned(
  conditioned=_RUNNER, conditioned_updates=80, independent=_LONE_RUNNER, independent_updates=250,
)

_HOPPING = dataclasses.replace(_SHORT_RUN, conditioned=dataclasses.replace(_RUNNER, num_envs=256))

_PENDULUM = Tuned(
  conditioned=PPOSettings(learning_rate=1e-3, discounting=0.97), conditioned_updates=100,
  independent=PPOSettings(num_envs=16, learning_rate=1e-3, discounting=0.97, num_minibatches=4, num_epochs=8),
  independent_updates=100,
)

_REACHER = Tuned(
  conditioned=PPOSettings(learning_rate=2e-3), conditioned_updates=120,
  independent=PPOSettings(num_envs=8, learning_rate=2e-3, num_minibatches=4, num_epochs=8),
  independent_updates=100,
)

_TUNED = {
  'reacher_goal': _REACHER,
  'half_cheetah_vel': Tuned(
    conditioned=dataclasses.replace(_RUNNER, learning_rate_half_life=150), conditioned_updates=500,
    independent=_LONE_RUNNER, independent_updates=250,
  ),
  'half_cheetah_dir': _SHORT_RUN,
  'ant_dir': _SHORT_RUN,
  'hopper_rand_params': _HOPPING,
  'inverted_pendulum_balance': _PENDULUM,
  # Taken over from the family above that is most like it, not tuned.
  'reacher_goal_sparse': _REACHER,
  'ant_goal': _SHORT_RUN,
  'humanoid_dir': _SHORT_RUN,
  'walker_rand_params': _HOPPING,
  'pusher_goal': _PENDULUM,
  'inverted_pendulum_swingup': _PENDULUM,
}


def tuned_families() -> tuple[str, ...]:
  """The families that have tuned settings."""
  return tuple(_TUNED)


def settings_for(family: TaskFamily) -> Tuned:
  """The tuned settings of a family; raises `UnknownNameError` for one that has none."""
  if family.name not in _TUNED:
    raise UnknownNameError(f'There are no tuned PPO settings for {family.name!r}, only for: {", ".join(_TUNED)}.')
  return _TUNED[family.name]


def make_source(
  name: str, family: TaskFamily, hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, num_updates: int | None = None,
  patience: int | None = None,
) -> Source:
  """A source with its tuned settings.

  Args:
    name: one of `SOURCES`.
    family: the task family.
    hidden_sizes: of its policies.
    num_updates: other than tuned.
    patience: of learners that have each their own task; see `Source`.

  Raises:
    UnknownNameError: for another name, or a family without tuned settings.
  """
  tuned = settings_for(family)
  if name == task_conditioned_ppo.NAME:
    updates = num_updates or tuned.conditioned_updates
    return task_conditioned_ppo.task_conditioned_ppo(family, tuned.conditioned, updates, hidden_sizes)
  if name == independent_ppo.NAME:
    updates = num_updates or tuned.independent_updates
    return independent_ppo.independent_ppo(family, tuned.independent, updates, hidden_sizes, patience)
  if name == evolution.NAME:
    return evolution.evolution(
      family, evolution.EvolutionSettings(), num_updates or EVOLUTION_UPDATES, hidden_sizes, patience
    )
  raise UnknownNameError(f'Source of improvement {name!r} is unknown; choose among: {", ".join(SOURCES)}.')
