"""The maps of a picture, of all scales: fused at its size and scaled to [0, 1].

On the device, in programs of few shapes (`canvas`), one map at a time.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..class_activation import normalize
from ..machine.devices import finishing
from ..machine.padding import canvas_of
from .canvas import ScaleMaps, cropped, fused, inside, stack_scales


def by_maximum(heat: jax.Array, *, epsilon: float | jax.Array) -> jax.Array:
    """`class_activation.normalize` of a single map, float (h, w)."""
    return normalize(heat[..., None], epsilon=epsilon)[..., 0]


def finished_maps(
    maps: Sequence[np.ndarray],
    size: tuple[int, int],
    *,
    epsilon: float,
    stride: int = 1,
    scaled: Callable[..., jax.Array] = by_maximum,
) -> np.ndarray:
    """Fuse the maps of all scales at the size of the picture, and scale each map.

    Args:
        maps: float (h_s, w_s, n) for each scale s.
        size: (H, W) of the picture.
        epsilon: added to the divisor of the sum over scales.
        stride: pixels per position, where grids have an extent of their own (`class_activation.fuse`); 1: a grid covers
            the picture.
        scaled: a single map float (h, w), and `epsilon` -> the same in [0, 1]. A program is compiled for each function.

    Returns:
        float16 (n, H, W) in [0, 1].
    """
    scales, options = stack_scales(maps, size), {"canvas": canvas_of(size), "stride": stride, "scaled": scaled}
    # One map at a time, because a program is compiled for each shape; they are all dispatched before the first is done.
    with finishing():
        finished = [_finished_map(scales.only(n), epsilon / len(maps), **options) for n in range(scales.maps.shape[1])]
        return np.stack([cropped(one, size) for one in finished]) if finished else np.zeros((0, *size), np.float16)


@partial(jax.jit, static_argnames=("canvas", "stride", "scaled"))
def _finished_map(
    scales: ScaleMaps, epsilon: jax.Array, *, canvas: tuple[int, int], stride: int, scaled: Callable[..., jax.Array]
) -> jax.Array:
    """A single map: float16 (*canvas)."""
    [heat] = fused(scales, stride * -(-scales.size // stride), canvas=canvas)
    heat = jnp.where(inside(scales, canvas), heat, heat[0, 0])  # the padding has no influence on the extremes
    return scaled(heat, epsilon=epsilon).astype(jnp.float16)
