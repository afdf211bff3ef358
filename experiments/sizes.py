"""How large the main job is on each family: what suits it on two cores."""

from collections.abc import Mapping
from typing import Any

from metaimprove.evaluation.results import is_sparse
from metaimprove.operators.zoo import zoo_names

# One episode at a time: how an operator explores is seen best where it can turn after every episode.
_ONE_BY_ONE = {'num_episodes': 1}
# An hour and a half instead of three.
_EXPENSIVE = {'num_tasks': 256, 'heldout_tasks': 64, 'ppo_tasks': 4}
_EXPENSIVE_ROBOTS = ('half_cheetah', 'ant', 'humanoid')

# A few minutes on the point robot; less than one where an operator comes with the package.
_SMALL = {'controls': False, 'ppo_tasks': 4}
_TRAINED_SHORTLY = {'num_tasks': 512, 'num_steps': 1200, 'num_updates': 60}
_NOT_TRAINED = {'num_tasks': 8}


def sizes_of(family: str, small: bool = False) -> Mapping[str, Any]:
  """Fields of a `jobs.Job` that are other than its defaults on a family; `small` where it is shown beside another one
  and must not take long: the operator that comes with the package is judged, where there is one."""
  sizes = {}
  if is_sparse(family) or family.startswith('point'):
    sizes |= _ONE_BY_ONE
  if family.startswith(_EXPENSIVE_ROBOTS):
    sizes |= _EXPENSIVE
  if not small:
    return sizes
  return {**sizes, **_SMALL, **({'zoo': family, **_NOT_TRAINED} if family in zoo_names() else _TRAINED_SHORTLY)}
