"""The positions of a vision transformer, resized to the grid of each picture.

A network has learned them for the one grid that it was trained on. For a grid of n positions along an axis instead of
N, position i is sampled from them at (i + 1/2) N / n - 1/2 with Keys' cubic kernel k_a, along both axes:

    sum_j w_ij P_j,        w_ij = k_a((i + 1/2) N / n - 1/2 - j)

The weights depend on the picture's own size n, never on its canvas, and are computed where it is: so one program serves
all pictures of a shape.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from .layers.valid import Sizes

Resize = Literal["antialiased", "bicubic", "offset"]
_OF_TORCH, _OF_PILLOW = -0.75, -0.5  # a; torch has Pillow's where it is antialiased


def resize_positions(positions: jax.Array, sizes: Sizes, shape: tuple[int, int], *, resize: Resize) -> jax.Array:
    """Positions for grids of several sizes.

    Args:
        positions: float (N, N, d), those of the grid that the network was trained on.
        sizes: int32 (b, 2), valid rows and columns of the grids; None: all.
        shape: (h, w) of the canvas that they are on.
        resize: "bicubic": as above, where what is beyond the first and the last position repeats them. "antialiased":
            the kernel is stretched by N / n where the grid shrinks, and the weights that are left at the borders are
            divided by their sum. "offset": bicubic, with n + 0.1 in place of n, but on a grid of N by N.

    Returns:
        float32 (b or 1, h, w, d), zero outside the grids; on a grid of N by N they are the positions themselves.

    Source: torch's `interpolate(mode="bicubic")`. It is antialiased in timm, open_clip and DINOv2 with registers, not
    in transformers; DINO and DINOv2 give the factor (n + 0.1) / N instead of the size.
    """
    sizes = jnp.asarray([shape], jnp.int32) if sizes is None else sizes
    own = (sizes == jnp.asarray([positions.shape[:2]])).all(axis=1, keepdims=True)
    down, across = (
        _weights(positions.shape[axis], shape[axis], sizes[:, axis : axis + 1], own, resize=resize) for axis in range(2)
    )
    tall = jnp.einsum("bim,mnd->bind", down, positions, precision="highest")
    return jnp.einsum("bjn,bind->bijd", across, tall, precision="highest")


def _weights(source: int, target: int, size: jax.Array, own: jax.Array, *, resize: Resize) -> jax.Array:
    """w, float32 (b, target, source), for n = size int32 (b, 1); zero for i >= n.

    own: bool (b, 1), whether the grid is the one of the source along both axes.
    """
    size, own = size[..., None], own[..., None]
    old, new = source, size
    if resize == "offset":
        old, new = jnp.where(own, source, 10 * source), jnp.where(own, size, 10 * size + 1)
    i = jax.lax.broadcasted_iota(jnp.int32, (1, target, 1), 1)
    margin = 0 if resize == "antialiased" else 2
    j = jax.lax.broadcasted_iota(jnp.int32, (1, 1, source + 2 * margin), 2) - margin
    # As integers, in units of 1 / (2 new): in float32 they would be off by 1e-6.
    distance = ((2 * jnp.minimum(i, size - 1) + 1) * old - (2 * j + 1) * new) / (2 * new)
    if resize == "antialiased":
        weights = _cubic(distance / jnp.maximum(old / new, 1), _OF_PILLOW)
        weights = weights / weights.sum(axis=-1, keepdims=True)
    else:
        weights = _cubic(distance, _OF_TORCH)
        first, inside, last = jnp.split(weights, [margin, margin + source], axis=-1)
        weights = inside.at[..., 0].add(first.sum(-1)).at[..., -1].add(last.sum(-1))
    return jnp.where(i < size, weights, 0)


def _cubic(x: jax.Array, a: float) -> jax.Array:
    """Keys' kernel: 1 at 0, and 0 at every other integer and beyond 2."""
    x = jnp.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))
