"""The settings of the sources for each family.

PPO from scratch on the reacher was chosen on validation tasks, by `experiments.choose_ppo`. The conditioned sources of
the point, the walker, the swing-up and the sparse robots were chosen on validation tasks too. Other PPO settings were
tuned on training tasks, before there were validation tasks, or are those of a similar family. None was chosen on
held-out tasks.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from metaimprove import policies
from metaimprove.errors import UnknownNameError
from metaimprove.improvers import (
  domain_randomised_ppo, evolution, independent_ppo, noise_ladder, task_conditioned_ppo
)
from metaimprove.improvers.noise_ladder import Base
from metaimprove.improvers.ppo import PPOSettings
from metaimprove.improvers.source import Source
from metaimprove.tasks.family import TaskFamily

EVOLUTION_UPDATES = 150
EXPLORERS, EXPLORER_UPDATES = 5, 200

LADDERS: Mapping[str, str] = {'action_noise_ladder': 'actions', 'parameter_noise_ladder': 'parameters'}
"""The ladders and their kinds of noise."""
LADDER_RUNGS = 24
LADDER_EPISODES = 4
LADDER_CHECK_TASKS = 32
"""On so many tasks it is checked that the returns of a ladder rise."""

SOURCES = (task_conditioned_ppo.NAME, domain_randomised_ppo.NAME, independent_ppo.NAME, evolution.NAME, *LADDERS)


@dataclasses.dataclass(frozen=True)
class Tuned:
  """Settings and number of updates of the PPO sources on a family, whatever its backend.

  Attributes:
    shared, shared_updates: of the learners that serve all tasks, told the task or not.
    independent, independent_updates: of the learners that have each their own task.
  """

  shared: PPOSettings
  shared_updates: int
  independent: PPOSettings
  independent_updates: int


# Large rewards or values drown the policy's part of the gradient when it is clipped as a whole, hence the scaling.
_RUNNER = PPOSettings(
  num_envs=128, unroll_length=20, num_epochs=8, num_minibatches=16, learning_rate=1e-3, discounting=0.97,
  reward_scaling=0.05,
)

_LONE_RUNNER = dataclasses.replace(_RUNNER, num_envs=8, num_minibatches=4)

_SHORT_RUN = Tuned(shared=_RUNNER, shared_updates=80, independent=_LONE_RUNNER, independent_updates=250)

_LONG_RUN = Tuned(
  shared=dataclasses.replace(_RUNNER, learning_rate_half_life=150), shared_updates=500,
  independent=dataclasses.replace(_LONE_RUNNER, learning_rate_half_life=150), independent_updates=250,
)

_SPARSE_RUN = Tuned(
  shared=dataclasses.replace(_RUNNER, num_envs=256, unroll_length=16, learning_rate_half_life=75), shared_updates=150,
  independent=dataclasses.replace(_LONE_RUNNER, num_envs=16, unroll_length=16, entropy_cost=1e-2),
  independent_updates=250,
)

_SPARSE_WALK = Tuned(
  shared=dataclasses.replace(_RUNNER, discounting=0.98, learning_rate_half_life=75), shared_updates=150,
  independent=dataclasses.replace(_LONE_RUNNER, entropy_cost=1e-2), independent_updates=250,
)

_HOPPING = dataclasses.replace(_SHORT_RUN, shared=dataclasses.replace(_RUNNER, num_envs=256))

_PENDULUM = Tuned(
  shared=PPOSettings(learning_rate=1e-3, discounting=0.97), shared_updates=100,
  independent=PPOSettings(num_envs=16, learning_rate=1e-3, discounting=0.97, num_minibatches=4, num_epochs=8),
  independent_updates=100,
)

_SWINGUP = Tuned(
  shared=PPOSettings(
    learning_rate=1e-3, learning_rate_half_life=100, discounting=0.98, entropy_cost=3e-3, num_minibatches=16,
  ),
  shared_updates=150,
  independent=PPOSettings(
    num_envs=16, learning_rate=1e-3, discounting=0.98, entropy_cost=3e-3, num_minibatches=4, num_epochs=8,
  ),
  independent_updates=300,
)

# The return of the walker stops rising after 50 updates.
_WALKING = dataclasses.replace(
  _HOPPING, shared=dataclasses.replace(
    _HOPPING.shared, num_epochs=4, discounting=0.99, learning_rate_half_life=100,
  ), shared_updates=60,
)

_REACHER = Tuned(
  shared=PPOSettings(learning_rate=2e-3), shared_updates=120,
  # Of 2, 4, 8 and 16 environments, 4 take the fewest steps to 95% of the way on validation tasks; see choose_ppo.
  independent=PPOSettings(num_envs=4, learning_rate=2e-3, num_minibatches=4, num_epochs=8),
  independent_updates=200,
)

# A short discount is enough to run straight to the goal, and without entropy bonus the policy ends on small noise.
_POINT = Tuned(
  shared=PPOSettings(
    unroll_length=20, learning_rate=2e-3, discounting=0.9, entropy_cost=0.0, reward_scaling=1.0,
    learning_rate_half_life=30,
  ),
  shared_updates=60,
  independent=PPOSettings(
    num_envs=16, unroll_length=20, learning_rate=2e-3, num_minibatches=4, num_epochs=8, entropy_cost=1e-2,
    reward_scaling=1.0,
  ),
  independent_updates=200,
)

_POINT_WIND = dataclasses.replace(
  _POINT, shared=dataclasses.replace(_POINT.shared, unroll_length=25),
  independent=dataclasses.replace(_POINT.independent, unroll_length=25),
)

_TUNED = {
  'reacher_goal': _REACHER,
  'point_goal_sparse_h20': _POINT,
  'point_goal_sparse_h60': _POINT,
  'point_wind': _POINT_WIND,
  'half_cheetah_vel': _LONG_RUN,
  'half_cheetah_vel_sparse': _SPARSE_RUN,
  'ant_goal_sparse': _SPARSE_WALK,
  'half_cheetah_dir': _SHORT_RUN,
  'ant_dir': _SHORT_RUN,
  'hopper_rand_params': _HOPPING,
  'walker_rand_params': _WALKING,
  'inverted_pendulum_balance': _PENDULUM,
  'inverted_pendulum_swingup': _SWINGUP,
  # Taken over from the family above that is most like it, not tuned.
  'reacher_goal_sparse': _REACHER,
  'reacher_wiring': _REACHER,
  'reacher_lag': _REACHER,
  'half_cheetah_vel_wiring': _LONG_RUN,
  'half_cheetah_vel_broken': _LONG_RUN,
  'half_cheetah_vel_wind': _LONG_RUN,
  'ant_dir_broken': _SHORT_RUN,
  'ant_goal': _SHORT_RUN,
  'humanoid_dir': _SHORT_RUN,
  'pusher_goal': _PENDULUM,
}


def tuned_families() -> tuple[str, ...]:
  """The families that have tuned settings."""
  return tuple(_TUNED)


def settings_for(family: TaskFamily) -> Tuned:
  """The tuned settings of a family; raises `UnknownNameError` for one that has none."""
  if family.name not in _TUNED:
    raise UnknownNameError(f'There are no tuned PPO settings for {family.name!r}, only for: {", ".join(_TUNED)}.')
  return _TUNED[family.name]


def explorer_settings(family: TaskFamily) -> PPOSettings:
  """The settings of PPO for explorers of a family, see `explorers`: as of the learner that serves all tasks, but a late
  find counts nearly as much as an early one, and actions stay spread for long."""
  return dataclasses.replace(
    settings_for(family).shared, learning_rate=2e-3, learning_rate_half_life=60, discounting=0.99, entropy_cost=5e-3,
    reward_scaling=1.0,
  )


def make_source(
  name: str, family: TaskFamily, hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, num_updates: int | None = None,
  patience: int | None = None, base: Base | None = None,
) -> Source:
  """A source with its tuned settings.

  Args:
    name: one of `SOURCES`.
    family: the task family.
    hidden_sizes: of its policies.
    num_updates: other than tuned; not for ladders, which have as many as rungs.
    patience: of learners that have each their own task; see `Source`.
    base: the policies that ladders lead up to; only they need it.

  Raises:
    UnknownNameError: for another name, or a family without tuned settings.
  """
  if name in LADDERS:
    return noise_ladder.noise_ladder(
      family, base, kind=LADDERS[name], num_rungs=LADDER_RUNGS, num_episodes=LADDER_EPISODES,
      hidden_sizes=hidden_sizes, name=name,
    )
  if name == evolution.NAME:
    return evolution.evolution(
      family, evolution.EvolutionSettings(), num_updates or EVOLUTION_UPDATES, hidden_sizes, patience
    )
  if name == independent_ppo.NAME:
    tuned = settings_for(family)
    updates = num_updates or tuned.independent_updates
    return independent_ppo.independent_ppo(family, tuned.independent, updates, hidden_sizes, patience)
  shared = {
    task_conditioned_ppo.NAME: task_conditioned_ppo.task_conditioned_ppo,
    domain_randomised_ppo.NAME: domain_randomised_ppo.domain_randomised_ppo,
  }
  if name not in shared:
    raise UnknownNameError(f'Source of improvement {name!r} is unknown; choose among: {", ".join(SOURCES)}.')
  tuned = settings_for(family)
  return shared[name](family, tuned.shared, num_updates or tuned.shared_updates, hidden_sizes)


def settings_of(family: TaskFamily, stored: Mapping[str, Any]) -> dict[str, Any] | None:
  """The settings of `make_source`'s source of the same name, as they are read back from JSON.

  Args:
    family: the task family.
    stored: 'name' and 'settings' of a source in the header of a dataset. Number of updates, patience and
      hidden sizes are taken from there.

  Returns:
    Equal to `stored['settings']` if `make_source` made that source; None for an unknown name.
  """
  name, settings = stored['name'], stored['settings']
  if name not in SOURCES:
    return None
  source = make_source(
    name, family, tuple(settings.get('hidden_sizes', ())), num_updates=settings.get('num_updates'),
    patience=settings.get('patience'),
  )
  return json.loads(json.dumps(dict(source.settings)))
