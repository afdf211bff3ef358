"""Experiment binaries. Importing this package sets, before JAX starts, what they all want of it.

- Compiled programs are kept between runs (JAX_COMPILATION_CACHE_DIR to place them elsewhere).
- XLA compiles for AVX2: with newer instruction sets it writes two harmless error lines for every program it reads back
  from the cache (jax issue 38445), and the small programs here are no faster for them.
- Each core is a device of its own; see `metaimprove.parallel`.
- XLA's C++ warnings are dropped, its errors are not.
"""

import os
import pathlib
import platform

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(pathlib.Path.home() / '.cache' / 'metaimprove' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
if 'xla_force_host_platform_device_count' not in os.environ.get('XLA_FLAGS', ''):
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  os.environ['XLA_FLAGS'] = (
    f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={cores}'.strip()
  )
if platform.machine() == 'x86_64' and 'xla_cpu_max_isa' not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_cpu_max_isa=AVX2'.strip()
