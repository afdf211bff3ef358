"""Batches spread over all local devices.

On a CPU a simulator's many small operations hardly use more than one core; a device a core (`--xla_force_host_platform_
device_count`, which the experiment binaries set) doubles the speed of two. On an accelerator host it uses them all.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metaimprove.trees import batch_size, take


def vmap(function: Callable[..., Any], in_axes: int | tuple[int | None, ...] = 0) -> Callable[..., Any]:
  """`jax.vmap` over leading axes whose batch is `split` over the local devices.

  Args:
    function: as for `jax.vmap`; its results are batched along the leading axis.
    in_axes: 0 or None for each argument.
  """
  return split(jax.vmap(function, in_axes=in_axes), in_axes)


def split(function: Callable[..., Any], in_axes: int | tuple[int | None, ...] = 0) -> Callable[..., Any]:
  """A function of batches whose rows are split over the local devices, each running its part by itself.

  A batch that the devices do not divide is filled up with copies, which are cut off again. The result does not depend
  on the number of devices, but for rounding. Not to be nested in itself.

  Args:
    function: of batches, each row by itself; its results are batched along the leading axis.
    in_axes: 0 for each argument that is a batch, None for others.
  """
  devices = jax.local_devices()

  def batched(*arguments):
    axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
    size = next(batch_size(x) for x, axis in zip(arguments, axes) if axis == 0 and jax.tree.leaves(x))
    if len(devices) == 1 or size == 1:
      return function(*arguments)
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec('devices') for axis in axes)
    parts = jax.shard_map(
      function, mesh=_mesh(devices), in_specs=specs, out_specs=PartitionSpec('devices'), check_vma=False
    )
    rows = np.arange(-(-size // len(devices)) * len(devices)) % size
    if len(rows) == size:
      return parts(*arguments)
    filled = [x if axis is None else take(x, rows) for x, axis in zip(arguments, axes)]
    return take(parts(*filled), slice(size))

  return batched


def spread(tree: Any) -> Any:
  """The tree [B, ...] with its rows split over the local devices, as `vmap` gives its results, or with a copy on each
  where they do not divide B. A program that is given only such trees is compiled once: another placement is another
  program."""
  devices = jax.local_devices()
  if not jax.tree.leaves(tree):
    return tree
  if batch_size(tree) % len(devices):
    return replicated(tree)
  return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec('devices')))


def replicated(tree: Any) -> Any:
  """The tree with a copy on each local device: what goes into and comes out of a program that uses them all, so that
  its second call finds the placement of the first and is not compiled again."""
  return jax.device_put(tree, replicated_sharding())


def replicated_sharding(devices: Sequence[jax.Device] | None = None) -> NamedSharding:
  """A copy on each of the devices, the local ones by default."""
  return NamedSharding(_mesh(devices or jax.local_devices()), PartitionSpec())


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
  return Mesh(np.array(devices), ('devices',))


def devices_for_batch(size: int) -> list[jax.Device]:
  """Devices that share a batch evenly: as many of each process as divide the share of one."""
  num = math.gcd(size // jax.process_count(), jax.local_device_count())
  return [
    device for process in range(jax.process_count())
    for device in [d for d in jax.devices() if d.process_index == process][:num]
  ]


def spread_batch(tree: Any, devices: Sequence[jax.Device]) -> Any:
  """A batch over `devices` of all processes, from the share [B / processes, ...] that this process has read."""
  sharding = NamedSharding(_mesh(devices), PartitionSpec('devices'))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)
