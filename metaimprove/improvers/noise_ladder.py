"""Histories without reinforcement learning: from a policy of any quality, a ladder of ever less noise.

Brown et al. rank noise-injected policies to learn from them (D-REX, arXiv:1907.03976); Zisman et al. make them
learning histories (AD-eps, arXiv:2312.12275). There noise is a share of random actions; here every rung is a θ, an
ordinary policy like those of all other sources, on the way from an uninformed policy to the base.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from metaimprove import policies
from metaimprove.errors import IncompatibleError, UnknownNameError
from metaimprove.improvers.source import Learning, Source
from metaimprove.improvers.curves import rank_correlation, without_gaps
from metaimprove.rollouts import rollout
from metaimprove.tasks.family import TaskFamily
from metaimprove.types import Params, Task, mean_return

NAME = 'noise_ladder'

Base = Callable[[chex.PRNGKey, Task], Params]
"""(rng_key, task) -> θ at the top of the task's ladder."""

_STANDARD_ERRORS = 3.0


def _silent(policy, params, rng_key):
  last = policies.layer_names(params)[-1]
  return {**params, last: jax.tree.map(jnp.zeros_like, params[last])}


def _fresh(policy, params, rng_key):
  return policy.init(rng_key)


def _line(noise):
  return 1.0 - noise, noise


def _arc(noise):
  return jnp.cos(noise * jnp.pi / 2), jnp.sin(noise * jnp.pi / 2)


_KINDS = {'actions': (_silent, _line), 'parameters': (_fresh, _arc)}
"""The policy at the bottom: (policy, base, rng_key) -> θ; and (noise) -> how much of the base and of the bottom."""


def noise_ladder(
  family: TaskFamily, base: Base, *, kind: str, num_rungs: int, num_episodes: int,
  hidden_sizes: tuple[int, ...] = policies.HIDDEN_SIZES, name: str | None = None,
) -> Source:
  """The source; noise ε falls evenly from 1 to exactly 0.

  Args:
    family: the task family.
    base: gives the policy at the top, such as `one_of`.
    kind: 'actions': the last layer is multiplied by 1 - ε, and so are a policy's logits: its actions lose their purpose
      and spread as those of a fresh policy do. 'parameters': cos(ε π/2) base + sin(ε π/2) fresh, one fresh random
      policy a task. (A straight line there makes weights small half-way, and returns fall before they rise; Gaussian
      noise of each leaf's own size never loses all of the base.) Ladders of actions rise more evenly.
    num_rungs: at least 2; each takes one update, which plays it.
    num_episodes: that a rung's return is measured with.
    hidden_sizes: of the policies.
    name: `<kind>_noise_ladder` by default. Ladders of other bases are other sources: give them other names.

  Raises:
    UnknownNameError: for another kind.
    IncompatibleError: for a ladder of one rung.
  """
  if kind not in _KINDS:
    raise UnknownNameError(f'Kind of noise {kind!r} is unknown; choose one of: {", ".join(_KINDS)}.')
  if num_rungs < 2:
    raise IncompatibleError(f'A ladder needs at least two rungs, not num_rungs={num_rungs}.')
  policy = policies.make_policy(family.observation_size, family.action_size, hidden_sizes)
  bottom, shares = _KINDS[kind]

  def at(ladder, rung):
    # As many updates as rungs measure all of them; what the last one leads to is the base once more.
    of_base, of_bottom = shares(jnp.linspace(1.0, 0.0, num_rungs)[jnp.minimum(rung, num_rungs - 1)])
    params = jax.tree.map(lambda x, y: of_base * x + of_bottom * y, ladder['base'], ladder['bottom'])
    return {**ladder, 'rung': rung, 'params': params}

  def init(rng_key, task):
    key_base, key_bottom = jax.random.split(rng_key)
    params = base(key_base, task)
    return at({'base': params, 'bottom': bottom(policy, params, key_bottom)}, jnp.zeros((), jnp.int32))

  def update(state, task, rng_key):
    trajectory = rollout(family, policy, state['params'], task, rng_key, num_episodes=num_episodes)
    return at(state, state['rung'] + 1), mean_return(trajectory)

  return Source(
    name=name or f'{kind.removesuffix("s")}_{NAME}', init=init, update=update,
    snapshot=lambda state: state['params'], params=lambda snapshot, task: snapshot, num_updates=num_rungs,
    env_steps_per_update=num_episodes * family.episode_length,
    settings={
      'kind': kind, 'num_rungs': num_rungs, 'num_episodes': num_episodes, 'hidden_sizes': list(hidden_sizes),
    },
  )


def one_of(params: Params) -> Base:
  """The base that is one of P policies, leaves [P, ...], each with the same chance."""
  params = jax.tree.map(jnp.asarray, params)

  def base(rng_key, task):
    index = jax.random.randint(rng_key, (), 0, jax.tree.leaves(params)[0].shape[0])
    return jax.tree.map(lambda x: x[index], params)

  return base


def ladder_report(learning: Learning) -> dict[str, list[float] | float]:
  """How well a ladder's returns follow its rungs.

  Returns:
    `mean_return`: of each rung, over tasks; `share_rising`: of the steps between neighbouring rungs, those on which the
    mean return rises; `rank_correlation`: Spearman's of rung and return, the mean over tasks, 0 for a task on which all
    rungs have the same return.
  """
  returns = without_gaps(learning.returns)
  means = returns.mean(axis=1)
  return {
    'mean_return': means.tolist(),
    'share_rising': float(np.mean(np.diff(means) > 0)),
    'rank_correlation': rank_correlation(returns.T),
  }


def check_ladder(learning: Learning) -> None:
  """Checks that returns rise on average over tasks, at least two.

  Raises:
    IncompatibleError: if the mean return falls from a rung to the next, or does not rise from the first to the last, by
      three standard errors over tasks.
  """
  steps = np.diff(without_gaps(learning.returns), axis=0)
  if steps.shape[1] < 2:
    raise IncompatibleError('One task does not tell whether a ladder rises on average; take at least two.')
  falls = np.flatnonzero(steps.mean(axis=1) < -_STANDARD_ERRORS * scipy.stats.sem(steps, axis=1))
  if falls.size:
    raise IncompatibleError(
      f'With less noise the mean return falls by {-steps[falls[0]].mean():.3g} from rung {falls[0]} to the next: this '
      'is no history of improvement. Take the other kind of noise, fewer rungs or a better base.'
    )
  rise = steps.sum(axis=0)
  if rise.mean() <= _STANDARD_ERRORS * scipy.stats.sem(rise):
    raise IncompatibleError(
      f'Without noise the mean return is only {rise.mean():.3g} higher than with most noise, which may be chance: the '
      'base is hardly better than an uninformed policy. Take a better one, or more tasks.'
    )
