"""Batches spread over all local devices.

On a CPU a simulator's many small operations hardly use more than one core; a device a core (`--xla_force_host_platform_
device_count`, which the experiment binaries set) doubles the speed of two. On an accelerator host it uses them all.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def vmap(function, in_axes=0):
  """`jax.vmap` over leading axes whose batch is split over the local devices, each running its part by itself.

  A batch that the devices do not divide is left to one. The result does not depend on the number of devices, but for
  rounding. Not to be nested in itself.

  Args:
    function: as for `jax.vmap`; its results are batched along the leading axis.
    in_axes: 0 or None for each argument.
  """
  devices = jax.local_devices()

  def batched(*arguments):
    axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
    mapped = jax.vmap(function, in_axes=axes)
    size = next(jax.tree.leaves(x)[0].shape[0] for x, axis in zip(arguments, axes) if axis == 0)
    if len(devices) == 1 or size % len(devices):
      return mapped(*arguments)
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec('devices') for axis in axes)
    mesh = Mesh(np.array(devices), ('devices',))
    split = jax.shard_map(mapped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec('devices'), check_vma=False)
    return split(*arguments)

  return batched


def replicated(tree):
  """The tree with a copy on each local device: what goes into and comes out of a program that uses them all, so that
  its second call finds the placement of the first and is not compiled again."""
  return jax.device_put(tree, replicated_sharding())


def replicated_sharding() -> NamedSharding:
  return NamedSharding(Mesh(np.array(jax.local_devices()), ('devices',)), PartitionSpec())
