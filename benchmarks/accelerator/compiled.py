"""Programs as they are measured: compiled ahead, with what compilers say of their flops, bytes and memory."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from lpcam_jax.machine import devices


class Compiled(NamedTuple):
    """A compiled program.

    Attributes:
        run: the program.
        flops: as they are written, whatever the device makes of them.
        bytes: that it moves at least: what the device's compiler counts, or its arguments and results.
        memory: most bytes at once.
    """

    run: Callable[..., Any]
    flops: float
    bytes: float
    memory: int


def compiled(function: Callable, *arguments: Any) -> Compiled:
    """Compile a jitted function for these arguments or their shapes."""
    program = function.lower(*arguments).compile()
    plan = program.memory_analysis()
    around = plan.argument_size_in_bytes + plan.output_size_in_bytes
    counted = (program.cost_analysis() or {}).get("bytes accessed", 0.0)
    memory = around + plan.temp_size_in_bytes - plan.alias_size_in_bytes  # without what is donated
    return Compiled(program, flops_of(function, *arguments), max(counted, around), memory)


def flops_of(function: Callable, *arguments: Any) -> float:
    """Flops of a jitted function, counted before it is compiled: a compiler may hide convolutions in its own calls."""
    here = SingleDeviceSharding(cpu())
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=here), arguments)
    return function.lower(*shapes).cost_analysis()["flops"]


@cache
def device() -> jax.Device:
    """The first device, which everything is measured on."""
    devices.start()
    return jax.local_devices()[0]


@cache
def cpu() -> jax.Device:
    """The processor beside it, which it is compared with."""
    device()
    return jax.local_devices(backend="cpu")[0]


def mesh_of(one: jax.Device) -> Mesh:
    """Of a device alone."""
    return Mesh(np.array([one]), ("data",))
