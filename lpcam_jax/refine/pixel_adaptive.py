"""Pixel-adaptive refinement (PAR): each pixel becomes the mean of its neighbours, those that look like it above all.

    k(i, j) = -( |c_i - c_j| / (w s_i) )^2     mean over the channels of the colours c; s_i, of those of all neighbours
    l(i, j) = -( |p_i - p_j| / (w s) )^2       of the places p
    A = ( softmax_j k + v softmax_j l ) / (1 + v)          then  M <- A M,  t times

A pixel has eight neighbours at each of a few distances, so A is 48 numbers a pixel. That is local, where the CRF of
`crf` looks at all pairs of pixels; but it is plain shifts and sums, and at half the resolution takes half as long.

Source: Ru, Zhan, Yu and Du, Learning affinity from attention (AFA, CVPR 2022), section 3.4, where A is not divided.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

DILATIONS = (1, 2, 4, 8, 12, 24)
AROUND = tuple((down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across)


@partial(jax.jit, static_argnames=("dilations", "steps", "width", "places"))
def pixel_adaptive(
    image: jax.Array,
    maps: jax.Array,
    *,
    size: jax.Array | None = None,
    dilations: tuple[int, ...] = DILATIONS,
    steps: int = 10,
    width: float = 0.3,
    places: float = 0.01,
) -> jax.Array:
    """The maps, averaged over pixels that are near and of a similar colour: A^t M.

    Args:
        image: uint8 or float (H, W, 3), of any range.
        maps: float (H, W, n).
        size: int (2,), rows and columns of the picture, at most H and W; the rest is padding, which has no influence.
            None: all.
        dilations: distances of the neighbours, in pixels; beyond the picture's border its last pixel counts again.
        steps: t.
        width: w, in standard deviations of the neighbours; the smaller, the more a difference separates.
        places: v, the share of places beside that of colours.

    Returns:
        float32 (H, W, n), within the range of the maps; undefined in the padding. The computation needs at most
        0.65 KB per pixel with up to 16 maps, three arrays of 4 bytes for each pixel and neighbour.

    Source: AFA, PAR. For a batch of pictures use `jax.vmap`.
    """
    away = [(distance * down, distance * across) for distance in dilations for down, across in AROUND]
    size = jnp.array(maps.shape[:2]) if size is None else size
    # Channels first: an operation along a short last axis would take longer than everything else.
    centre, heat = (jnp.moveaxis(jnp.asarray(array, jnp.float32), -1, 0) for array in (image, maps))
    around = _neighbours(centre, away, size)
    mean = sum(around) / len(away)
    deviation = jnp.sqrt(sum((colour - mean) ** 2 for colour in around) / (len(away) - 1))
    # Once, and not again for each neighbour, as XLA would fuse it.
    scale = jax.lax.optimization_barrier(1 / (width * (deviation + 1e-8)))
    alike = [-sum(((colour - centre) * scale) ** 2) / len(centre) for colour in around]
    lengths = np.hypot(*np.array(away, np.float32).T)
    near = jax.nn.softmax(-((lengths / (width * lengths.std(ddof=1))) ** 2))
    weights = (jax.nn.softmax(jnp.stack(alike), axis=0) + places * near[:, None, None]) / (1 + places)

    def step(_, heat):
        return sum(weight[None] * other for weight, other in zip(weights, _neighbours(heat, away, size), strict=True))

    return jnp.moveaxis(jax.lax.fori_loop(0, steps, step, heat), 0, -1)


def _neighbours(maps: jax.Array, away: Sequence[tuple[int, int]], size: jax.Array) -> list[jax.Array]:
    """For each (rows, columns), the maps (n, H, W) moved so that each pixel holds the one that far away from it."""
    reach = max(max(abs(down), abs(across)) for down, across in away)
    height, width = maps.shape[1:]
    rows, columns = (
        jnp.clip(jnp.arange(-reach, length + reach), 0, valid - 1)
        for length, valid in zip((height, width), size, strict=True)
    )
    # Once around the picture; then every neighbour is a slice.
    wide = jnp.take(jnp.take(maps, rows, axis=1), columns, axis=2)
    return [
        wide[:, reach + down : reach + down + height, reach + across : reach + across + width] for down, across in away
    ]
