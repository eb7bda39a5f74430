"""What chips can do at most: flops and bytes a second, from their makers' sheets or, of others, measured here."""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

Peaks = dict[str, float]
"""Flops a second of products in "bfloat16"; of a "float32" network by JAX's default, which is TF32 on NVIDIA GPUs and
bfloat16 on TPUs; of products in full precision, "highest", without tensor cores or in six passes; "bytes" a second."""


def _gpu(bfloat16: float, tf32: float, float32: float, bandwidth: float) -> Peaks:
    return {"bfloat16": bfloat16, "float32": tf32, "highest": float32, "bytes": bandwidth}


def _tpu(bfloat16: float, bandwidth: float) -> Peaks:
    return {"bfloat16": bfloat16, "float32": bfloat16, "highest": bfloat16 / 6, "bytes": bandwidth}


# Without sparsity.
CHIPS: dict[str, Peaks] = {
    "H100": _gpu(989e12, 494e12, 67e12, 3.35e12),
    "H100 PCIe": _gpu(756e12, 378e12, 51e12, 2.0e12),
    "H100 NVL": _gpu(835e12, 417e12, 60e12, 3.9e12),
    "H200": _gpu(989e12, 494e12, 67e12, 4.8e12),
    "A100 80 GB": _gpu(312e12, 156e12, 19.5e12, 2.04e12),
    "A100 80 GB PCIe": _gpu(312e12, 156e12, 19.5e12, 1.94e12),
    "A100 40 GB": _gpu(312e12, 156e12, 19.5e12, 1.56e12),
    "v4": _tpu(275e12, 1228e9),
    "v5e": _tpu(197e12, 819e9),
    "v5p": _tpu(459e12, 2765e9),
}
# What JAX calls them (`device_kind`).
KINDS = {
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 PCIe": "H100 PCIe",
    "NVIDIA H100 NVL": "H100 NVL",
    "NVIDIA H200": "H200",
    "NVIDIA A100-SXM4-80GB": "A100 80 GB",
    "NVIDIA A100 80GB PCIe": "A100 80 GB PCIe",
    "NVIDIA A100-SXM4-40GB": "A100 40 GB",
    "NVIDIA A100-PCIE-40GB": "A100 40 GB",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
}


def roofline(flops: float, nbytes: float, chip: Peaks, precision: str) -> float:
    """Seconds that the chip needs at least."""
    return max(flops / chip[precision], nbytes / chip["bytes"])


def measured(*, side: int, nbytes: int) -> Peaks:
    """The peaks of the default device, by products of this side and by a copy of so many bytes."""
    wide, narrow = jnp.ones((side, side)), jnp.ones((side, side), jnp.bfloat16)
    product = 2 * side**3
    return {
        "bfloat16": product / least_time(jax.jit(jnp.matmul), narrow, narrow),
        "float32": product / least_time(jax.jit(jnp.matmul), wide, wide),
        "highest": product / least_time(jax.jit(partial(jnp.matmul, precision="highest")), wide, wide),
        "bytes": 2 * nbytes / least_time(jax.jit(jnp.negative), jnp.ones(nbytes // 4)),  # read and written
    }


def least_time(function: Callable, *arguments: jax.Array) -> float:
    """Seconds of the best of five runs."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)
