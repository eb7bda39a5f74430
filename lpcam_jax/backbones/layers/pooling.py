"""Pools over windows of the valid region."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ...machine.devices import convolves_by_products
from .resizing import all_if_none, along_both
from .valid import Sizes

PoolPadding = Literal["symmetric", "ceil", "symmetric_ceil"]


def pooled_sizes(sizes: Sizes, padding: PoolPadding) -> Sizes:
    """Valid sizes after `max_pool`."""
    if sizes is None:
        return None
    return {"symmetric": -(-sizes // 2), "ceil": jnp.maximum(sizes // 2, 1), "symmetric_ceil": sizes // 2 + 1}[padding]


def max_pool(x: jax.Array, sizes: Sizes, *, padding: PoolPadding) -> tuple[jax.Array, Sizes]:
    """3x3 max pool of stride 2 over non-negative, `keep_valid` maps.

    Args:
        x: (b, h, w, d), >= 0 and zero outside the valid region: then zero padding equals torch's minus infinity.
        sizes: int32 (b, 2), or None.
        padding: "symmetric": one on each side (n -> ceil(n / 2)). "ceil": only at the right and bottom
            (n -> floor(n / 2), but 1 -> 1; like Caffe's pool without padding, and torch's with
            `padding=0, ceil_mode=True`, both of which reduce 1 to nothing). "symmetric_ceil": one on each side, and at
            the right and bottom as much as a last window that starts inside needs (n -> floor(n / 2) + 1, like torch's
            with `padding=1, ceil_mode=True`).

    Returns:
        pooled (b, h', w', d) and its valid sizes.
    """
    pads = {
        "symmetric": lambda length: (1, 1),
        "ceil": lambda length: (0, max(3 - length, 1)),
        "symmetric_ceil": lambda length: (1, 2),
    }[padding]
    margins = [pads(length) for length in x.shape[1:3]]
    if convolves_by_products():  # there, XLA's gradient of a pool is ten times as slow
        pooled = _max_of_three(_max_of_three(x, 1, margins[0]), 2, margins[1])
    else:
        pooled = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=margins)
    return pooled, pooled_sizes(sizes, padding)


def _max_of_three(x: jax.Array, axis: int, margins: tuple[int, int]) -> jax.Array:
    """Zero-padded max over three positions along an axis, with stride 2; computed from pairs, without a window."""
    length, (before, after) = x.shape[axis], margins
    count = (length + before + after - 3) // 2 + 1
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, max(2 * count + 2 - before - length, 0))
    x = jax.lax.slice_in_dim(jnp.pad(x, padding), 0, 2 * count + 2, axis=axis)
    pairs = x.reshape(*x.shape[:axis], count + 1, 2, *x.shape[axis + 1 :])
    first, second = (jax.lax.index_in_dim(pairs, place, axis + 1, keepdims=False) for place in range(2))
    of_pairs = jax.lax.slice_in_dim(jnp.maximum(first, second), 0, count, axis=axis)
    return jnp.maximum(of_pairs, jax.lax.slice_in_dim(first, 1, count + 1, axis=axis))


def adaptive_pool(x: jax.Array, sizes: Sizes, bins: int) -> jax.Array:
    """Means over bins x bins windows that cover each picture's valid region.

    Window i of k, along a side of n positions, is from floor(i n / k) up to ceil((i + 1) n / k), exclusive.

    Args:
        x: float (b, h, w, d), finite everywhere.
        sizes: int32 (b, 2), valid sizes n; None: all.
        bins: k, rows and columns of windows.

    Returns:
        (b, bins, bins, d), in the dtype of x.

    Source: torch's `adaptive_avg_pool2d(bins)` of the picture alone.
    """
    valid = all_if_none(sizes, x.shape[1:3])
    return along_both(x, *(_means(length, bins, valid[:, axis]) for axis, length in enumerate(x.shape[1:3])))


def _means(source: int, bins: int, size: jax.Array) -> jax.Array:
    """The weights of `adaptive_pool` along an axis of valid length int (b,): float32 (b, bins, source)."""
    size = size[:, None, None]
    i = jax.lax.broadcasted_iota(jnp.int32, (1, bins, 1), 1)
    j = jax.lax.broadcasted_iota(jnp.int32, (1, 1, source), 2)
    start, stop = i * size // bins, -(-(i + 1) * size // bins)
    return jnp.where((j >= start) & (j < stop), 1 / (stop - start).astype(jnp.float32), 0)
