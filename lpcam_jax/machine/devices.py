"""The devices: one mesh over all of them, and how programs are compiled for them.

Batches are sharded over the mesh, parameters are replicated; `jax.jit` does the rest. No other module of the package
looks at the available devices.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from queue import LifoQueue
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from . import processes
from .errors import UserError, first_line

_UNABLE = "Unable to initialize backend"
_FULL, _OF_GPUS = "RESOURCE_EXHAUSTED|out.of.memory", "cuda|cudnn|cublas|nvidia|driver|rocm|dnn library"

# Disables a fusion library that jaxlib's CPU backend uses by default. Without it the forward pass of a network is up to
# 1.7 times faster (but a training step 1.5 times slower, and the LPCAM kernel half as fast).
_FORWARD_ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}


def start() -> None:
    """Open the devices, before any work is done for them; programs that are compiled are kept.

    Raises:
        UserError: there are none, or not those that $JAX_PLATFORMS names.
    """
    remember_compilations()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that one of those that are named is there
        raise UserError(_no_devices(error)) from None
    processes.gather(np.zeros(0))  # CPUs connect now that all are here: at any other time they wait half a minute


def complaint(error: Exception) -> str | None:
    """What to say of an error that the machine is to blame for, in one line; None: it is not, but a bug.

    Args:
        error: of any kind.
    """
    text, of_jax = str(error), isinstance(error, jax.errors.JaxRuntimeError)
    if isinstance(error, MemoryError) or (of_jax and re.search(_FULL, text, re.IGNORECASE)):
        return (
            f"the memory is full ({first_line(error)}); train with a smaller --training.batch-size or "
            "--training.crop, infer with a smaller --inference.batch-pixels, or end other programs that use it. The "
            "same command goes on where it was."
        )
    if of_jax and re.search(_OF_GPUS, text, re.IGNORECASE):
        return (
            f"the GPU cannot be used ({first_line(error)}); let its driver and the installed jax fit each other, as "
            "https://docs.jax.dev/en/latest/installation.html says, or set JAX_PLATFORMS=cpu. The same command goes on "
            "where it was."
        )
    if isinstance(error, RuntimeError) and text.startswith(_UNABLE):
        return _no_devices(error)
    return None


def _no_devices(error: Exception) -> str:
    reason = re.sub(r" \((set|you may need).*", "", first_line(error).removeprefix(_UNABLE).lstrip())
    reason = "none is visible" if isinstance(error, AssertionError) else reason
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return (
            f"JAX_PLATFORMS={platforms}: no such device can be used ({reason}); unset it to take what is there, set it "
            'to cpu, or install the driver and, for NVIDIA, pip install "jax[cuda13]".'
        )
    return f"JAX cannot open the devices ({reason}); mend the driver, or set JAX_PLATFORMS=cpu."


def remember_compilations() -> None:
    """Cache compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or by default in ~/.cache/lpcam_jax."""
    if not jax.config.jax_compilation_cache_dir:
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(root / "lpcam_jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)  # compiling a ResNet-50 takes 0.6


def mesh() -> Mesh:
    """All devices along one axis, "data"."""
    return Mesh(np.array(jax.devices()), ("data",))


def local_mesh() -> Mesh:
    """The devices of this process along the axis "data"; with a single process, the same as `mesh`."""
    return Mesh(np.array(jax.local_devices()), ("data",))


def shard(batch: Any, devices: Mesh) -> Any:
    """Put a batch on the devices, split along its first axis.

    Args:
        batch: Tree of host arrays. With several processes, each passes the part for its own devices.
        devices: The mesh; its size divides the first axis of the whole batch.

    Returns:
        The same tree of sharded arrays.
    """
    sharding = NamedSharding(devices, PartitionSpec("data"))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def split_over(tree: Any, devices: Mesh) -> Any:
    """Put host arrays on the devices, split along their first axis; every process passes the whole arrays."""
    return jax.tree.map(lambda leaf: _placed(leaf, NamedSharding(devices, PartitionSpec("data"))), tree)


def replicate(tree: Any, devices: Mesh) -> Any:
    """Put a copy of the arrays on every device; every process passes the whole arrays.

    Args:
        tree: Tree of host arrays, or of arrays that are replicated over any devices.
        devices: The mesh.

    Returns:
        The same tree of replicated arrays.
    """
    everywhere = NamedSharding(devices, PartitionSpec())
    if everywhere.is_fully_addressable and all(
        leaf.is_fully_addressable for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)
    ):
        return jax.device_put(tree, everywhere)
    return jax.tree.map(lambda leaf: _placed(np.asarray(leaf), everywhere), tree)


def _placed(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def map_shards(function: Callable, devices: Mesh) -> Callable:
    """Jit a function that each device applies to its own part of the arguments.

    Args:
        function: Maps arrays to arrays; for all of them the first axis is the one that is split.
        devices: The mesh.

    Returns:
        The jitted function. Its results are gathered and replicated on all devices.
    """
    split = PartitionSpec("data")
    # Without collectives and derivatives, there is nothing for `check_vma` to find.
    on_shards = jax.shard_map(function, mesh=devices, in_specs=split, out_specs=split, check_vma=False)
    return jax.jit(on_shards, out_shardings=NamedSharding(devices, PartitionSpec()))


def abstract_on(tree: Any, devices: Mesh) -> Any:
    """Shapes and types of the arrays, with the sharding that restores them onto every device."""
    everywhere = NamedSharding(devices, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree)


def convolves_by_products() -> bool:
    """Whether to write convolutions as matrix products, which is faster on CPUs; GPUs and TPUs have units for them."""
    return traces_for_cpus()


def traces_for_cpus() -> bool:
    """Whether what is traced is to run on CPUs, which are fast at other things than GPUs and TPUs."""
    return jax.default_backend() == "cpu" and not _portable.get()


@contextmanager
def finishing(*, scatters: bool = False) -> Iterator[None]:
    """Within, a thread finishes a picture on one of the devices (`inference.canvas`, the CRF, the walk).

    Two threads do so at a time on each GPU or TPU core, which keeps it busy and bounds its memory, and the first ones
    are preferred, because each compiles for itself; on CPUs all threads may.

    Args:
        scatters: whether most of the work is sums at scattered places, as in the CRF's lattice. TPUs add them one after
            the other, so the CPUs of their machine do this.
    """
    backend = jax.default_backend()
    if backend == "cpu":
        yield
    elif scatters and backend == "tpu" and (cpus := _cpus()):
        with jax.default_device(cpus[0]):
            yield
    else:
        device = _idle().get()
        try:
            with jax.default_device(device):
                yield
        finally:
            _idle().put(device)


@cache
def _idle() -> LifoQueue:
    """The devices of this process, each twice; those that are in use are not there."""
    devices = LifoQueue()
    for device in reversed(jax.local_devices()):
        devices.put(device)
        devices.put(device)
    return devices


@cache
def _cpus() -> list[jax.Device]:
    """The CPUs of a machine with other devices; none where $JAX_PLATFORMS leaves them out."""
    try:
        return jax.local_devices(backend="cpu")
    except RuntimeError:
        return []


_portable = ContextVar("portable", default=False)


@contextmanager
def portable() -> Iterator[None]:
    """Trace networks in a form for any backend instead of the fastest one for this backend, for exports."""
    before = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(before)


def jit_forward(function: Callable, **options: Any) -> Callable:
    """Jit a network's forward pass, with the compiler options that are fastest on this backend.

    Args:
        function: The forward pass.
        **options: Further options of `jax.jit`.

    Returns:
        The jitted function.
    """
    return jax.jit(function, compiler_options=_forward_options(), **options)


@cache
def _forward_options() -> dict[str, str] | None:
    if jax.default_backend() != "cpu":
        return None
    try:  # other versions of jaxlib may not have the option, and then do not need it
        jax.jit(partial(jax.lax.add, 1), compiler_options=_FORWARD_ON_CPU)(1)
    except jax.errors.JaxRuntimeError:
        return None
    return _FORWARD_ON_CPU
