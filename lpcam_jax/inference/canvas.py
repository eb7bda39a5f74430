"""The outputs of all scales of a picture, brought to the size of the picture on the device.

Pictures have hundreds of sizes, and a program is compiled for each shape. So a picture and its grids lie in the top
left corners of canvases of few sizes, and what is sampled depends on the valid sizes alone, as in `backbones.layers`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..backbones.layers.resizing import interpolation_matrix
from ..data.resizing import shrunk_size
from ..machine.padding import PIXELS

_POSITIONS = 32  # multiple of positions of a grid that canvases are rounded up to

Size = tuple[int, int]


class ScaleMaps(NamedTuple):
    """Maps of a picture at several scales; padded, so that they are one array.

    Attributes:
        maps: float32 (s, k, h, w), zero outside the valid region.
        grids: int32 (s, 2), valid rows and columns of each scale.
        size: int32 (2,), rows and columns of the picture.
    """

    maps: np.ndarray
    grids: np.ndarray
    size: np.ndarray

    def only(self, n: int) -> "ScaleMaps":
        """Map number n alone."""
        return self._replace(maps=self.maps[:, n : n + 1])


def grid_extent(size: Size, *, stride: int, longest: int | None = None) -> Size:
    """Pixels of a picture that its feature grid covers: beyond its border, where its positions do not divide it.

        stride ceil(s / stride) S / s,    s of the S pixels of a side: those of the picture that the network sees

    Args:
        size: (H, W) of the picture.
        stride: pixels per position of the picture that the network sees at scale 1.
        longest: pixels of that picture's longest side, `Data.longest`; None: any, it is not shrunk.

    Returns:
        Rows and columns.
    """
    rows, columns = (
        round(stride * -(-seen // stride) * whole / seen)
        for seen, whole in zip(shrunk_size(size, longest), size, strict=True)
    )
    return rows, columns


def stack_scales(maps: Sequence[np.ndarray], size: Size) -> ScaleMaps:
    """Stack the maps of all scales.

    Args:
        maps: float (h_s, w_s, k) for each scale s.
        size: (H, W) of the picture.

    Returns:
        ScaleMaps, with h and w rounded up to multiples of 32.
    """
    grids = np.array([one.shape[:2] for one in maps], np.int32)
    shape = -(-grids.max(axis=0) // _POSITIONS) * _POSITIONS
    padded = np.zeros((len(maps), maps[0].shape[2], *shape), np.float32)
    for canvas, one in zip(padded, maps, strict=True):
        canvas[:, : one.shape[0], : one.shape[1]] = np.moveaxis(one, -1, 0)
    return ScaleMaps(padded, grids, np.array(size, np.int32))


def fused(scales: ScaleMaps, extent: jax.Array, *, canvas: Size) -> jax.Array:
    """The mean over scales of the maps, each resized bilinearly.

    Args:
        scales: the maps.
        extent: int32 (2,), the size to which the valid region of each scale is resized: that of the picture or, where
            positions of the grid have a size in pixels, that of the grid.
        canvas: of the picture.

    Returns:
        float32 (k, *canvas), to be cropped to the picture; undefined outside.

    Source: `class_activation.fuse`, equal to 1e-6.
    """
    down, across = _matrices(scales, extent, canvas)
    wide = jnp.einsum("skhw,sxw->skhx", scales.maps, across, precision="highest")
    return jnp.einsum("syh,skhx->kyx", down, wide, precision="highest") / len(scales.maps)


class Band(NamedTuple):
    """Some rows of a picture, of which the maps at scale s are rows[s] @ wide[s]; they are not in memory yet.

    Attributes:
        rows: float32 (s, y, h), the weights of each scale's rows.
        wide: float32 (s, k, h, W), the maps of each scale, resized along the other axis.
    """

    rows: jax.Array
    wide: jax.Array

    def of_scale(self, n: int) -> jax.Array:
        """The maps at scale n, float32 (k, y, W)."""
        return jnp.einsum("yh,khx->kyx", self.rows[n], self.wide[n], precision="highest")

    def fused(self) -> jax.Array:
        """Their mean over scales, as of `canvas.fused`, float32 (k, y, W)."""
        return jnp.einsum("syh,skhx->kyx", *self, precision="highest") / len(self.rows)


def in_bands(function: Callable[[Band], jax.Array], scales: ScaleMaps, extent: jax.Array, *, canvas: Size) -> jax.Array:
    """Apply a function to the maps at the size of the picture, with those of 128 rows in memory at a time.

    Args:
        function: of a band -> (m, y, W), of the same rows.
        scales: the maps.
        extent: as of `fused`.
        canvas: of the picture, as of `canvas_of`.

    Returns:
        (m, *canvas).
    """
    down, across = _matrices(scales, extent, canvas)
    wide = jnp.einsum("skhw,sxw->skhx", scales.maps, across, precision="highest")
    bands = jnp.moveaxis(down.reshape(len(down), -1, PIXELS, down.shape[-1]), 1, 0)
    found = jax.lax.map(lambda rows: function(Band(rows, wide)), bands)
    return jnp.moveaxis(found, 0, 1).reshape(found.shape[1], *canvas)


def inside(scales: ScaleMaps, canvas: Size) -> jax.Array:
    """Which positions of the canvas belong to the picture: bool (*canvas)."""
    rows, columns = (jnp.arange(length) < valid for length, valid in zip(canvas, scales.size, strict=True))
    return rows[:, None] & columns[None]


def cropped(maps: jax.Array, size: Size) -> np.ndarray:
    """The part (..., H, W) of maps (..., H', W') on a canvas that belongs to the picture, on the host."""
    return np.asarray(maps)[..., : size[0], : size[1]]


def _matrices(scales: ScaleMaps, extent: jax.Array, canvas: Size) -> tuple[jax.Array, jax.Array]:
    """The weights of rows float32 (s, H', h), and of columns (s, W', w)."""
    extents = jnp.broadcast_to(extent, scales.grids.shape)
    return tuple(
        interpolation_matrix(source, target, scales.grids[:, axis], scales.grids[:, axis], extents[:, axis])
        for axis, (source, target) in enumerate(zip(scales.maps.shape[2:], canvas, strict=True))
    )
