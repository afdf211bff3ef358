"""What acting costs: milliseconds of a step of many agents at once, beside those of the policies an operator emits."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from metaimprove.evaluation.comparison import Cost

_LEAST, _MOST, _SECONDS = 5, 200, 20.0
"""Repetitions, and how long to go on with them."""
_KIB = 1024


def acting_costs(steps: Mapping[Any, tuple[Callable[..., Any], tuple[Any, ...]]], plain: str) -> dict[Any, Cost]:
  """The costs of steps, measured in turn, so that what else the machine does falls on all alike.

  Args:
    steps: name -> a function that `jax.jit` can compile, and its arguments.
    plain: the name of the one that the others are set beside.
  """
  compiled = {name: jax.jit(step).lower(*arguments).compile() for name, (step, arguments) in steps.items()}
  seconds = {name: [] for name in steps}
  started = time.perf_counter()
  for repetition in range(1 + _MOST):
    if repetition > _LEAST and time.perf_counter() - started > _SECONDS:
      break
    for name, (_, arguments) in steps.items():
      began = time.perf_counter()
      jax.block_until_ready(compiled[name](*arguments))
      if repetition:  # the first time is not typical
        seconds[name].append(time.perf_counter() - began)
  medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
  return {
    name: Cost(
      act_ms=round(value, 4), act_ratio=round(value / medians[plain], 3), act_kib=_memory(compiled[name])
    ) for name, value in medians.items()
  }


def _memory(compiled: Any) -> float:
  """KiB that a compiled step has for its arguments, its results and what is between."""
  sizes = compiled.memory_analysis()
  every = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
  return round(every / _KIB, 1)
