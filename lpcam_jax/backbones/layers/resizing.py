"""Bilinear resizing of the valid region, whose positions depend on the valid sizes alone."""

from fractions import Fraction

import jax
import jax.numpy as jnp

from .valid import Sizes, keep_valid


def resize_valid(x: jax.Array, sizes: Sizes, shape: tuple[int, int], target_sizes: Sizes) -> jax.Array:
    """Bilinear resize of each picture's valid region to a valid region of another size.

    Position i of N samples position (i + 1/2) n / N - 1/2 of n.

    Args:
        x: float (b, h, w, d).
        sizes: int32 (b, 2), its valid sizes n; None: all.
        shape: (H, W) of the returned canvas.
        target_sizes: int32 (b, 2), the valid sizes N there; None if and only if `sizes` is.

    Returns:
        (b, H, W, d), in the dtype of x, zero outside the valid region.

    Source: torch's `interpolate(size=N, mode="bilinear", align_corners=False)` of the picture alone.
    """
    old, new = all_if_none(sizes, x.shape[1:3]), all_if_none(target_sizes, shape)
    return keep_valid(_interpolate(x, old, shape, old, new), target_sizes)


def rescale(x: jax.Array, sizes: Sizes, scale: float) -> tuple[jax.Array, Sizes]:
    """Bilinear resize by a factor: position i samples position (i + 1/2) / scale - 1/2, whatever the size.

    Args:
        x: float (b, h, w, d).
        sizes: int32 (b, 2), valid sizes; None: all.
        scale: new over old length; a fraction of small integers, such as 0.75 or 4.

    Returns:
        (b, floor(scale h), floor(scale w), d), in the dtype of x, at least one row and column, zero outside the valid
        region; and its valid sizes.

    Source: torch's `interpolate(scale_factor=scale, mode="bilinear", align_corners=False)`, whose positions depend on
    the factor, not on the ratio of the sizes as with `recompute_scale_factor=True`.
    """
    new, old = Fraction(scale).limit_denominator(1000).as_integer_ratio()
    shape = tuple(max(length * new // old, 1) for length in x.shape[1:3])
    steps = (jnp.full((1, 2), count, jnp.int32) for count in (old, new))
    rescaled = _interpolate(x, all_if_none(sizes, x.shape[1:3]), shape, *steps)
    sizes = None if sizes is None else jnp.maximum(sizes * new // old, 1)
    return keep_valid(rescaled, sizes), sizes


def all_if_none(sizes: Sizes, shape: tuple[int, int]) -> jax.Array:
    """Valid sizes int32 (b, 2), or (1, 2) of whole canvases of this shape for None."""
    return jnp.asarray([shape], jnp.int32) if sizes is None else sizes


def _interpolate(x: jax.Array, sizes: jax.Array, shape: tuple[int, int], old: jax.Array, new: jax.Array) -> jax.Array:
    """Sample x at (i + 1/2) old / new - 1/2 along both axes, by two matrix products; old and new: int (b or 1, 2)."""
    _, h, w, _ = x.shape
    down = interpolation_matrix(h, shape[0], sizes[:, 0], old[:, 0], new[:, 0])
    across = interpolation_matrix(w, shape[1], sizes[:, 1], old[:, 1], new[:, 1])
    return along_both(x, down, across)


def along_both(x: jax.Array, down: jax.Array, across: jax.Array) -> jax.Array:
    """x (b, h, w, d), weighted by float32 (b or 1, H, h) and (b or 1, W, w): (b, H, W, d)."""
    b, h, w, d = x.shape
    tall = _product(down, x.reshape(b, h, w * d)).reshape(b, down.shape[1], w, d)
    return _product(across[:, None], tall)


def _product(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Product with a float32 matrix, in full precision, in the dtype of x."""
    return jnp.matmul(matrix, x.astype(jnp.float32), precision="highest").astype(x.dtype)


def interpolation_matrix(source: int, target: int, size: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    """Bilinear weights along one axis: row i holds those of the two neighbours of (i + 1/2) old / new - 1/2.

    Args:
        source: length of the canvas that is sampled.
        target: length of the canvas of samples.
        size: int (b,), valid length of the first; nothing beyond is sampled.
        old: int (b,), of old / new, the step between samples.
        new: int (b,).

    Returns:
        float32 (b, target, source). Positions are computed as integer multiples of 1 / (2 new): in float32 they would
        be off by 1e-5 of a large picture.
    """
    size, old, new = (values[:, None, None] for values in (size, old, new))
    i = jax.lax.broadcasted_iota(jnp.int32, (1, target, 1), 1)
    position = jnp.clip((2 * i + 1) * old - new, 0, 2 * new * (size - 1))
    low, steps = position // (2 * new), position % (2 * new)
    high_weight = steps.astype(jnp.float32) / (2 * new).astype(jnp.float32)
    j = jax.lax.broadcasted_iota(jnp.int32, (1, 1, source), 2)
    return jnp.where(j == low, 1 - high_weight, 0) + jnp.where(j == low + 1, high_weight, 0)
