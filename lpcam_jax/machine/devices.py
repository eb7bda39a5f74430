"""The machine: one mesh over all devices, and how programs are compiled for them.

Batches are sharded over the mesh, parameters are on every device; `jax.jit` does the rest. Nothing else in the package
asks which devices there are.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Bytes of features that are clustered at a time on one device.
_CLUSTERED_AT_A_TIME = 2**30

# A fusion library that jaxlib's CPU backend uses by default. Without it the forward pass of a network is up to
# 1.7 times faster (but a training step 1.5 times slower, and the LPCAM kernel half as fast).
_FORWARD_ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}


def remember_compilations() -> None:
    """Keep compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or else in ~/.cache/lpcam_jax."""
    if not jax.config.jax_compilation_cache_dir:
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(root / "lpcam_jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)  # a ResNet-50 is compiled in 0.6


def mesh() -> Mesh:
    """All devices in one line, the axis "data"."""
    return Mesh(np.array(jax.devices()), ("data",))


def local_mesh() -> Mesh:
    """The devices of this process alone: those of the mesh, when there is one process."""
    return Mesh(np.array(jax.local_devices()), ("data",))


def shard(batch: Any, devices: Mesh) -> Any:
    """Put a host batch on the devices, its first axis split over them (which must divide it).

    Of several processes each gives the part of its own devices.
    """
    sharding = NamedSharding(devices, PartitionSpec("data"))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def split_over(tree: Any, devices: Mesh) -> Any:
    """Put host arrays on the devices, their first axis split over them; every process has the whole arrays."""
    return jax.tree.map(lambda leaf: _placed(leaf, NamedSharding(devices, PartitionSpec("data"))), tree)


def replicate(tree: Any, devices: Mesh) -> Any:
    """Put arrays on every device; every process has the whole arrays, on the host or on all of other devices."""
    everywhere = NamedSharding(devices, PartitionSpec())
    if everywhere.is_fully_addressable and all(
        leaf.is_fully_addressable for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)
    ):
        return jax.device_put(tree, everywhere)
    return jax.tree.map(lambda leaf: _placed(np.asarray(leaf), everywhere), tree)


def _placed(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def map_shards(function: Callable, devices: Mesh) -> Callable:
    """`function` jitted, on each device for its part of the arguments; the results are on every device, whole."""
    split = PartitionSpec("data")
    # Nothing crosses devices and nothing is differentiated: there is no variance to check.
    on_shards = jax.shard_map(function, mesh=devices, in_specs=split, out_specs=split, check_vma=False)
    return jax.jit(on_shards, out_shardings=NamedSharding(devices, PartitionSpec()))


def classes_at_once(devices: Mesh, nbytes: int) -> int:
    """How many classes are clustered at a time, with so many bytes of features each: the same number on every device.

    On a CPU one a device: classes side by side are a batched product, which is there half as fast.
    """
    on_one = 1 if jax.default_backend() == "cpu" else max(_CLUSTERED_AT_A_TIME // nbytes, 1)
    return on_one * devices.size


def abstract_on(tree: Any, devices: Mesh) -> Any:
    """Shapes and types of arrays that are to be restored onto every device."""
    everywhere = NamedSharding(devices, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree)


def convolves_by_products() -> bool:
    """Whether convolutions are best written as matrix products: on CPUs; GPUs and TPUs have units for convolutions."""
    return jax.default_backend() == "cpu" and not _portable.get()


_portable = ContextVar("portable", default=False)


@contextmanager
def portable() -> Iterator[None]:
    """Within, networks are traced in a form for any backend, not in the fastest of this one: to be exported."""
    before = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(before)


def jit_forward(function: Callable, **options: Any) -> Callable:
    """`jax.jit` for a network's forward pass, with the compiler options that are fastest on this backend."""
    return jax.jit(function, compiler_options=_forward_options(), **options)


@cache
def _forward_options() -> dict[str, str] | None:
    if jax.default_backend() != "cpu":
        return None
    try:  # another version of jaxlib may not know the option: then it has no need of it
        jax.jit(partial(jax.lax.add, 1), compiler_options=_FORWARD_ON_CPU)(1)
    except jax.errors.JaxRuntimeError:
        return None
    return _FORWARD_ON_CPU
