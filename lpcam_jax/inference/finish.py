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
from .canvas import ScaleMaps, Size, cropped, fused, inside, stack_scales


def by_maximum(heat: jax.Array, *, epsilon: float | jax.Array) -> jax.Array:
    """`class_activation.normalize` of a single map, float (h, w)."""
    return normalize(heat[..., None], epsilon=epsilon)[..., 0]


def finished_maps(
    maps: Sequence[np.ndarray],
    size: Size,
    *,
    epsilon: float,
    extent: Size | None = None,
    scaled: Callable[..., jax.Array] = by_maximum,
) -> np.ndarray:
    """Fuse the maps of all scales at the size of the picture, and scale each map.

    Args:
        maps: float (h_s, w_s, n) for each scale s.
        size: (H, W) of the picture.
        epsilon: added to the divisor of the sum over scales.
        extent: pixels that the grids cover, where positions have a size in pixels (`grid_extent`); None: the picture.
        scaled: a single map float (h, w), and `epsilon` -> the same in [0, 1]. A program is compiled for each function.

    Returns:
        float16 (n, H, W) in [0, 1].
    """
    scales, options = stack_scales(maps, size), {"canvas": canvas_of(size), "scaled": scaled}
    covered = np.array(extent or size, np.int32)
    # One map at a time, because a program is compiled for each shape; they are all dispatched before the first is done.
    with finishing():
        count = scales.maps.shape[1]
        finished = [_finished_map(scales.only(n), covered, epsilon / len(maps), **options) for n in range(count)]
        return np.stack([cropped(one, size) for one in finished]) if finished else np.zeros((0, *size), np.float16)


@partial(jax.jit, static_argnames=("canvas", "scaled"))
def _finished_map(
    scales: ScaleMaps, extent: jax.Array, epsilon: jax.Array, *, canvas: Size, scaled: Callable[..., jax.Array]
) -> jax.Array:
    """A single map: float16 (*canvas)."""
    [heat] = fused(scales, extent, canvas=canvas)
    heat = jnp.where(inside(scales, canvas), heat, heat[0, 0])  # the padding has no influence on the extremes
    return scaled(heat, epsilon=epsilon).astype(jnp.float16)
