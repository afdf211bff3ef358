"""An operator that is asked for one thing after the other, each time with the same experience.

Its curve has a point for each ask, not for each amount of experience.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import chex
import jax
import numpy as np

from metaimprove import asks, files
from metaimprove.asks import Ask, goal
from metaimprove.asks.ask import batched
from metaimprove.errors import IncompatibleError
from metaimprove.iteration import iterate
from metaimprove.methods.method import Curve, Method, initial_policies
from metaimprove.methods.operator import other_tasks_of, words_of
from metaimprove.operators.apply import make_guided, make_improve, make_remember
from metaimprove.operators.memory import Memory, blank
from metaimprove.operators.operator import Operator
from metaimprove.rng import stream
from metaimprove.trees import batch_size, take
from metaimprove.types import Params, Play, Progress, Task, Trajectory, mean_return


class Judge(Protocol):
  """Figures [B] of the answers to one of the asks, by its index, from what they did [B, E, T, ...]."""

  def __call__(self, index: int, trajectory: Trajectory, /) -> chex.Array: ...


def asked_method(
  operator: Operator, operator_params: Any, play: Play, measure: tuple[Play, int], wanted: Sequence[Ask], *,
  num_applications: int, num_episodes: int, explores: bool = False, another_task: bool = False,
  goal_of: str | None = None, judge: Judge | None = None, judged_by: Any = None,
  guidance: Sequence[float] = (), **options: Any,
) -> Method:
  """An operator as a method that answers asks.

  Args:
    operator: see `Operator`.
    operator_params: its parameters.
    play: makes the experience, `num_episodes` episodes of each policy.
    measure: measures the answers; and its number of episodes.
    wanted: the asks, one after the other, each the same for all tasks, or for each task its own.
    num_applications: policies whose experience is remembered when it is asked: a random one, and those that it led to
      when asked for the best. 0: it is asked without any experience.
    num_episodes: of each of them.
    explores: whether it explores on the way; see `make_improve`.
    another_task: the control "another task's experience"; see `operator_method`.
    judge, judged_by: says what the figures of the answers to an ask are, by default their mean returns; and plain data
      that determine it.
    guidance: weights of `make_guided`, each another ask; then `wanted` holds two asks, a low one and a high one.
    goal_of: whose goal is added to each ask: 'own', 'another' task's, which is a control, or None.
    **options: further fields of `Method`: its name, its title.
  """
  if guidance and (len(wanted) != 2 or another_task or goal_of is not None):
    raise IncompatibleError('Guidance needs a low ask and a high one, with the own experience and no goal of a task.')

  def run(tasks: Task, rng_key: chex.PRNGKey, progress: Progress) -> Curve:
    last = _experienced(operator, operator_params, play, tasks, rng_key, num_applications, explores)
    others, returns = other_tasks_of(tasks), []
    goals = {'own': tasks.goal, 'another': np.asarray(tasks.goal)[others]}
    if guidance:
      answers = [make_guided(operator, operator_params, *wanted, weight) for weight in guidance]
    else:
      answers = [make_improve(
        operator, operator_params, ask if goal_of is None else with_goals(ask, goals[goal_of]),
        experience_of=others if another_task else None,
      ) for ask in wanted]
    for index, answer in enumerate(answers):
      policies = answer(*last, stream(rng_key, f'answer {index}'))
      trajectory = measure[0](policies, tasks, stream(rng_key, f'asked {index}'))
      returns.append(np.asarray(mean_return(trajectory) if judge is None else judge(index, trajectory)))
      progress(options['title'], index + 1, len(answers), {})
    used = np.full(len(answers), num_applications * num_episodes)
    return Curve(episodes=used, env_steps=used * operator.config.episode_length, returns=np.stack(returns))

  settings = {
    'operator': dataclasses.asdict(operator.config),
    'operator_params': files.checksum(files.tree_to_bytes(operator_params)),
    'wanted': [_words(ask) for ask in wanted], 'num_applications': num_applications, 'num_episodes': num_episodes,
    'num_measured': measure[1], 'explores': explores, 'another_task': another_task, 'goal_of': goal_of,
    'guidance': list(guidance), 'judged_by': judged_by,
  }
  return Method(run=run, settings=settings, **options)


def ask_once(
  operator: Operator, operator_params: Any, play: Play, wanted: Ask, tasks: Task, rng_key: chex.PRNGKey, *,
  num_applications: int = 0, explores: bool = False,
) -> Params:
  """The policies [B, ...] that answer one ask on tasks [B]; see `asked_method`."""
  known = _experienced(operator, operator_params, play, tasks, rng_key, num_applications, explores)
  return make_improve(operator, operator_params, wanted)(*known, stream(rng_key, 'answer'))


def _experienced(
  operator: Operator, operator_params: Any, play: Play, tasks: Task, rng_key: chex.PRNGKey, num_applications: int,
  explores: bool,
) -> tuple[Params, Memory]:
  """The policies [B, ...] that acted last, and what is remembered of all that acted; nothing for no applications."""
  remember, last = make_remember(operator), []

  def remember_and_keep(memory, params, trajectory):
    memory = remember(memory, params, trajectory)
    last[:] = params, memory
    return memory

  improve = make_improve(operator, operator_params, asks.ask(steps='best'), explores=explores)
  iterates = iterate(
    improve, remember_and_keep, play, initial_policies(operator.policy, batch_size(tasks), rng_key), tasks,
    stream(rng_key, 'episodes'), num_applications=num_applications,
  )
  *_, found = iterates
  if not num_applications:
    remember_and_keep(None, found.params, found.trajectory)
    last[1] = blank(jax.device_get(last[1]), np.ones(batch_size(tasks), bool))
  return last[0], last[1]


def _words(ask: Ask) -> Any:
  """An ask, or a batch of them, in words."""
  batch = np.shape(next(iter(ask.given.values())))
  return [words_of(take(ask, n)) for n in range(*batch)] if batch else words_of(ask)


def with_goals(ask: Ask, goals: chex.Array) -> Ask:
  """The asks [B] for what one ask wants, and each for its goal [B, G]."""
  given = {**batched(ask, len(goals)).given, goal.NAME: np.ones(len(goals), bool)}
  return Ask(values={**batched(ask, len(goals)).values, goal.NAME: np.asarray(goals)}, given=given)
