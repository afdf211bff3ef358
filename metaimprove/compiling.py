"""Programs that run once, compiled for that."""

from collections.abc import Callable
from typing import Any

import jax


def jit_once(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
  """`jax.jit` for a program that runs once, such as one that draws first parameters. On a CPU, XLA takes longer to
  optimise it than it will ever run; there it is told not to: 2 s instead of 10 s for those of an operator."""
  unoptimised = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
  return jax.jit(function, compiler_options=unoptimised, **options)
