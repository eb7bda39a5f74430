"""The machine: one mesh over all devices, and how programs are compiled for them.

Batches are sharded over the mesh, parameters are on every device; `jax.jit` does the rest. Nothing else in the package
asks which devices there are.
"""

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# A fusion library that jaxlib's CPU backend uses by default. Without it the forward pass of a network is up to
# 1.7 times faster (but a training step 1.5 times slower, and the LPCAM kernel half as fast).
_FORWARD_ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}


def remember_compilations() -> None:
    """Keep compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or else in ~/.cache/lpcam_jax."""
    if not jax.config.jax_compilation_cache_dir:
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(root / "lpcam_jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def mesh() -> Mesh:
    """All devices in one line, the axis "data"."""
    return Mesh(np.array(jax.devices()), ("data",))


def shard(batch: Any, devices: Mesh) -> Any:
    """Put a host batch on the devices, its first axis split over them (which must divide it)."""
    sharding = NamedSharding(devices, PartitionSpec("data"))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def replicate(tree: Any, devices: Mesh) -> Any:
    """Put arrays on every device."""
    return jax.device_put(tree, NamedSharding(devices, PartitionSpec()))


def abstract_on(tree: Any, devices: Mesh) -> Any:
    """Shapes and types of arrays that are to be restored onto every device."""
    everywhere = NamedSharding(devices, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree)


def convolves_by_products() -> bool:
    """Whether convolutions are best written as matrix products: on CPUs; GPUs and TPUs have units for convolutions."""
    return jax.default_backend() == "cpu"


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
