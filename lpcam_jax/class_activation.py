"""Class activation maps: where the classifier sees a class (paper, Eq. 1).

A classifier that averages features and then applies bias-free weights can apply the weights first:

    logits_n = mean_x  w_n . f(x)         CAM_n(x) = ReLU(w_n . f(x))

`cam` is that map on the feature grid; `fuse` brings the maps of several picture scales to the picture;
`normalize` divides each by its maximum, so that one threshold serves all.

Layout: NHWC, `*b` any leading dimensions. `resize_*`, `fuse` and `normalize` follow the namespace of their
argument: NumPy in, NumPy out (pictures have hundreds of sizes, and JAX would compile for each), JAX in, JAX out (also
inside `jax.jit`).
"""

from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


@jax.jit
def cam(features: jax.Array, weights: jax.Array) -> jax.Array:
    """Class activation maps, CAM_n(x) = ReLU(w_n . f(x)).

    Args:
        features: float (*b, h, w, d), the classifier's last feature block f.
        weights: float (d, c), the bias-free head.

    Returns:
        float (*b, h, w, c), >= 0, in units of the logits.

    Source: paper Eq. 1; reference step "make_cam".
    """
    return jax.nn.relu(jnp.einsum("...d,dc->...c", features, weights, precision="highest"))


def normalize(maps: Array, *, epsilon: float = 1e-5) -> Array:
    """Divide each map by its own maximum: A_n / (max_x A_n(x) + epsilon).

    Args:
        maps: float (*b, h, w, c), >= 0.
        epsilon: added to the maximum.

    Returns:
        float (*b, h, w, c) in [0, 1]. A flat map does not localize anything: it gives zeros, never NaN.

    Source: reference step "make_cam"; step "make_lpcam" has no epsilon and gives NaN on an empty map.
    """
    xp = maps.__array_namespace__()
    # One axis after the other: over both at once, NumPy walks through the few channels of each pixel, 80 times as long.
    top, bottom = (
        extreme(extreme(maps, axis=-3, keepdims=True), axis=-2, keepdims=True) for extreme in (xp.max, xp.min)
    )
    flat = top - bottom <= 1e-6 * xp.abs(top)
    return xp.where(flat, xp.zeros_like(maps), maps / xp.where(flat, xp.ones_like(top), top + epsilon))


def fuse(maps: Sequence[Array], size: tuple[int, int], *, stride: int = 16) -> Array:
    """Mean over picture scales of the maps, each resized to the picture.

    Each map is resized bilinearly to the feature grid's extent, `stride` pixels per position, and cropped to the
    picture (top left), so that features stay where the convolutions saw them.

    Args:
        maps: one float (*b, h_s, w_s, c) for each scale s.
        size: (H, W) of the picture at scale 1.
        stride: pixels of the scale-1 picture per feature position.

    Returns:
        float (*b, H, W, c).

    Source: reference steps "make_cam" and "make_lpcam" (there a sum on some data sets: the same once normalized).
    """
    height, width = size
    extent = (stride * -(-height // stride), stride * -(-width // stride))
    total = resize_bilinear(maps[0], extent, crop=size)
    for scale_maps in maps[1:]:
        total = total + resize_bilinear(scale_maps, extent, crop=size)
    return total / len(maps)


def resize_bilinear(maps: Array, size: tuple[int, int], *, crop: tuple[int, int] | None = None) -> Array:
    """Bilinear resize with half-pixel centres and no antialiasing, as two matrix products.

    Args:
        maps: (*b, h, w, c).
        size: (H, W) to resize to.
        crop: (rows, columns) of the result to compute, from the top left; None: all.

    Returns:
        float (*b, H, W, c), or (*b, *crop, c); float32 if the maps are of whole numbers.

    Source: torch's `interpolate(mode="bilinear", align_corners=False)`, equal to 1e-6.
    """
    xp = maps.__array_namespace__()
    *batch, h, w, c = maps.shape
    rows, columns = size if crop is None else crop
    # Weights between 0 and 1 are nothing in the dtype of a picture of bytes.
    dtype = maps.dtype if jnp.issubdtype(maps.dtype, jnp.floating) else np.float32
    maps = xp.asarray(maps, dtype=dtype)
    across = xp.asarray(_bilinear_matrix(w, size[1])[:columns], dtype=dtype)
    down = xp.asarray(_bilinear_matrix(h, size[0])[:rows], dtype=dtype)
    product = np.matmul if xp is np else partial(jnp.matmul, precision="highest")
    wide = product(across, maps)
    tall = product(down, xp.reshape(wide, (*batch, h, columns * c)))
    return xp.reshape(tall, (*batch, rows, columns, c))


def resize_nearest(maps: Array, size: tuple[int, int]) -> Array:
    """Nearest-neighbour resize by torch's rule: row i of H is row floor(i h / H) of h.

    Args:
        maps: (*b, h, w, c), any dtype.
        size: (H, W) to resize to.

    Returns:
        (*b, H, W, c), values of `maps`. (`jax.image.resize` and PIL sample centres, floor((i + 1/2) h / H).)

    Source: torch's `interpolate(mode="nearest")`, which the reference splits features with.
    """
    h, w = maps.shape[-3:-1]
    rows = np.arange(size[0]) * h // size[0]
    columns = np.arange(size[1]) * w // size[1]
    return maps[..., rows, :, :][..., columns, :]


@lru_cache(maxsize=512)
def _bilinear_matrix(source: int, target: int) -> np.ndarray:
    """Interpolation weights, float32 (target, source): row i holds the two weights of output position i."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, source - 1)
    matrix = np.zeros((target, source), np.float32)
    np.add.at(matrix, (np.arange(target), low), 1 - (position - low))
    np.add.at(matrix, (np.arange(target), high), position - low)
    matrix.setflags(write=False)
    return matrix
