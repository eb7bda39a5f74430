"""LPCAM-A of a picture: its evidence spreads along features that the forward pass has made anyway (`refine.affinity`).

The features are those of the two stages before the last, of the first scale, both of the picture and of its mirror
image. The evidence is that of all scales. A picture of 500 x 375 pixels has 47 x 63 positions at stride 8.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ...backbones.base import Backbone
from ...backbones.layers.resizing import rescale
from ...backbones.layers.valid import keep_valid
from ...clustering import unit
from ...inference.canvas import ScaleMaps, cropped, fused, inside, stack_scales
from ...inference.forward import mirrored_back
from ...inference.plan import Outputs
from ...machine.devices import finishing
from ...machine.padding import canvas_of, power_of_two
from ...refine.affinity import coarser, spread

# Positions are rounded up to multiples of this, so that few programs are compiled.
_POSITIONS = 256
# Part of a map's maximum that is added to it: evidence of 0 becomes 0.23, and the threshold of 0.3 is near the best.
_LIFT = 0.3


def guide(backbone: Backbone, stages: Sequence[jax.Array], extents: jax.Array, pictures: jax.Array) -> Outputs:
    """What evidence spreads along, on the grid of the finer of the two stages before the last.

    Args:
        backbone: the backbone.
        stages: its outputs for pictures, each followed by that of its mirror image.
        extents: int32 (2 b, 2), valid sizes of these.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.

    Returns:
        "features" float16 (b, h', w', d), unit vectors of each stage side by side; "colours" float16 (b, h', w', 3), in
        [0, 1], means of the pixels of each position; "features_grid" and "colours_grid", int32 (b, 2), their valid
        size; "reach" int32 (b, 2), positions in the extent of the last stage, which evidence has.
    """
    extents, strides = extents[::2], backbone.strides
    grids = backbone.grids(extents)
    chosen = range(len(stages))[-3:-1] or range(len(stages))
    fine = chosen[0]
    shape, grid = stages[fine].shape[1:3], grids[fine]
    parts = []
    for stage in chosen:
        straight, mirrored = mirrored_back(stages[stage].astype(jnp.float32), grids[stage])
        part, _ = rescale(unit(straight + mirrored), grids[stage], strides[stage] // strides[fine])
        parts.append(unit(part[:, : shape[0], : shape[1]]))
    return {
        "features": keep_valid(jnp.concatenate(parts, axis=-1), grid).astype(jnp.float16),
        "colours": _block_means(pictures, extents, strides[fine], shape).astype(jnp.float16),
        "features_grid": grid,
        "colours_grid": grid,
        "reach": grids[-1] * (strides[-1] // strides[fine]),
    }


def _block_means(pictures: jax.Array, sizes: jax.Array, stride: int, shape: tuple[int, int]) -> jax.Array:
    """Mean colours in [0, 1] of the valid pixels of every position: float32 (b, *shape, 3)."""
    b, h, w, _ = pictures.shape
    room = [(0, 0), *((0, max(stride * n - length, 0)) for n, length in zip(shape, (h, w), strict=True)), (0, 0)]
    blocks = jnp.pad(keep_valid(pictures, sizes), room)[:, : stride * shape[0], : stride * shape[1]]
    sums = blocks.reshape(b, shape[0], stride, shape[1], stride, 3).astype(jnp.float32).sum(axis=(2, 4))
    rows, columns = (
        jnp.clip(sizes[:, axis, None] - stride * jnp.arange(shape[axis])[None], 1, stride) for axis in (0, 1)
    )
    return sums / (255 * rows[:, :, None, None] * columns[:, None, :, None])


def spread_over_picture(
    evidence: Sequence[np.ndarray], first: Outputs, size: tuple[int, int], **options: float
) -> np.ndarray:
    """LPCAM-A of a picture.

        e = spread(mean over scales of the evidence)          max(0, e / max_x e + lift) / (1 + lift)

    The border of an object is about where the evidence changes its sign; lifted, maps have the threshold there that is
    usual for others.

    Args:
        evidence: float (h_s, w_s, n) for each scale s, on the grid of the last stage.
        first: the outputs of the first scale, with those of `guide`.
        size: (H, W) of the picture.
        options: of `spread`: steps, power, deviation and share, where they are not its defaults.

    Returns:
        float16 (n, H, W), in [0, 1]; zero for a class that has no evidence left.
    """
    n = evidence[0].shape[-1]
    if not n:
        return np.zeros((0, *size), np.float16)
    shape, more = first["features"].shape[:2], power_of_two(n) - n
    with finishing():
        # Classes that are not there have no evidence against the others; with them, few programs are compiled.
        scales = stack_scales([np.pad(one, [(0, 0), (0, 0), (0, more)]) for one in evidence], shape)
        mean = cropped(_mean_on_guide(scales, first["reach"], canvas=canvas_of(shape, 32)), shape)
        (features, k), (colours, _), (grid, _) = (
            coarser(one) for one in (first["features"], first["colours"], np.moveaxis(mean, 0, -1))
        )
        heat = _spread(features, colours, grid, **options)
        finished = stack_scales([heat], size)
        canvas, extent = canvas_of(size), _extent(shape, heat.shape[:2], k, size)
        maps = [_finished(finished.only(one), extent, canvas=canvas) for one in range(n)]
        return np.stack([cropped(one, size) for one in maps])


def _spread(features: np.ndarray, colours: np.ndarray, grid: np.ndarray, **options: float) -> np.ndarray:
    """`spread` of grids (h, w, ...), in a program of few shapes."""
    h, w, _ = grid.shape
    room = -(h * w) % _POSITIONS

    def flat(values):
        return np.pad(np.asarray(values, np.float32).reshape(h * w, -1), [(0, room), (0, 0)])

    valid = np.arange(h * w + room) < h * w
    heat = spread(flat(grid), flat(features), flat(colours), valid=valid, **options)
    return np.asarray(heat)[: h * w].reshape(grid.shape)


def _extent(shape: tuple[int, int], left: tuple[int, int], k: int, size: tuple[int, int]) -> np.ndarray:
    """Pixels that the grid of `left` positions spans, each of which is k of `shape`, which span the picture."""
    return np.array([round(k * rest * pixels / whole) for rest, whole, pixels in zip(left, shape, size, strict=True)])


@partial(jax.jit, static_argnames=("canvas",))
def _mean_on_guide(scales: ScaleMaps, reach: jax.Array, *, canvas: tuple[int, int]) -> jax.Array:
    return fused(scales, reach, canvas=canvas)


@partial(jax.jit, static_argnames=("canvas",))
def _finished(scales: ScaleMaps, extent: jax.Array, *, canvas: tuple[int, int]) -> jax.Array:
    """One map at the size of the picture, lifted, normalized: float16 (*canvas)."""
    [heat] = fused(scales, extent, canvas=canvas)
    top = jnp.where(inside(scales, canvas), heat, 0).max()
    lifted = jnp.maximum(heat / jnp.where(top > 0, top, 1) + _LIFT, 0) / (1 + _LIFT)
    return jnp.where(top > 0, lifted, 0).astype(jnp.float16)
