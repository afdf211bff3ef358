"""Experiment binaries. Importing this package sets, before JAX starts, what they all want of it.

- Compiled programs are kept between runs (JAX_COMPILATION_CACHE_DIR to place them elsewhere).
- XLA compiles for AVX2: with newer instruction sets it writes two harmless error lines for every program it reads back
  from the cache (jax issue 38445), and the small programs here are no faster for them.
- XLA's fusion emitters are off on CPUs: simulators compile in half the time and run as fast (the pusher ten times).
- Each core is a device of its own; see `metaimprove.parallel`.
- XLA's C++ warnings are dropped, its errors are not. Nor does JAX say where a kept program could not be read
  because another process was just writing it: it compiles it then.
"""

import importlib.metadata
import os
import pathlib
import platform
import warnings

warnings.filterwarnings('ignore', message='Error reading persistent compilation cache entry')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(pathlib.Path.home() / '.cache' / 'metaimprove' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')


def _set_xla_flag(name: str, value: str | int) -> None:
  given = os.environ.get('XLA_FLAGS', '')
  if name not in given:
    os.environ['XLA_FLAGS'] = f'{given} --{name}={value}'.strip()


_set_xla_flag(
  'xla_force_host_platform_device_count',
  len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1,
)
if platform.machine() == 'x86_64':
  _set_xla_flag('xla_cpu_max_isa', 'AVX2')
if importlib.metadata.version('jaxlib').startswith('0.9.'):  # XLA ends a process over a flag that it does not know
  _set_xla_flag('xla_cpu_use_fusion_emitters', 'false')
