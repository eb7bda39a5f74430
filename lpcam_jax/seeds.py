"""Seed masks: the picture's classes compete at every pixel, against a constant background.

    seed(x) = argmax( threshold, A_1(x), ..., A_c(x) )         over the classes in the picture

Masks hold 0 for background, n + 1 for class n, and 255 for unsure. The functions follow the namespace of the maps:
NumPy in, NumPy out; JAX in (also inside `jax.jit`), JAX out. `largest_component` and `with_class_values` are NumPy's.
"""

import jax
import numpy as np

Array = jax.Array | np.ndarray

IGNORE = 255  # of a mask: unsure, neither scored nor learned from


def seed_mask(maps: Array, labels: Array, *, background: float = 0.3) -> Array:
    """The best class where its map is above the threshold, background elsewhere.

    Args:
        maps: float (*b, H, W, c), normalized maps in [0, 1]; of no class (c = 0), all is background.
        labels: (*b, c), non-zero for the classes in the picture; other classes never win.
        background: the threshold; a tie is background.

    Returns:
        int32 (*b, H, W), 0 for background, n + 1 for class n.

    Source: reference step "eval_cam".
    """
    xp = maps.__array_namespace__()
    if not maps.shape[-1]:
        return xp.zeros(maps.shape[:-1], xp.int32)
    competing = xp.where((labels != 0)[..., None, None, :], maps, -xp.inf)
    return xp.where(competing.max(axis=-1) > background, competing.argmax(axis=-1) + 1, 0).astype(xp.int32)


def with_class_values(labels: Array, classes: Array) -> np.ndarray:
    """The labels of a picture's own maps as values of a mask: 0 stays background, k + 1 becomes the k-th class's value.

    Args:
        labels: int (*b, H, W), 0, the number of a map plus 1, or 255: unsure.
        classes: int (n,), the class of each map.

    Returns:
        uint8 (*b, H, W), 0, n + 1 for class n, or 255.

    Raises:
        ValueError: a class is above 253, and has no value in a mask of 8 bits.
    """
    if len(classes) and max(classes) + 1 >= IGNORE:
        raise ValueError(f"class {max(classes)} has no value in a mask of 8 bits; 253 is the last that has one")
    values = np.full(256, IGNORE, np.uint8)
    values[: 1 + len(classes)] = [0, *(np.asarray(classes) + 1)]
    return values[labels]


def confident_labels(maps: Array, labels: Array, *, foreground: float = 0.45, background: float = 0.25) -> Array:
    """Labels only where two thresholds agree; between them the pixel is unsure.

    Args:
        maps: float (*b, H, W, c), normalized maps in [0, 1].
        labels: (*b, c), non-zero for the classes in the picture.
        foreground: above this, a pixel has its class.
        background: up to this, it is background.

    Returns:
        int32 (*b, H, W): n + 1, 0, or 255 (unsure).

    Source: reference step "cam_to_ir_label" without its CRF.
    """
    sure = seed_mask(maps, labels, background=foreground)
    return ir_labels(sure, seed_mask(maps, labels, background=background))


def ir_labels(sure: Array, possible: Array) -> Array:
    """The classes of one mask and the background of another; all other pixels are unsure.

    Args:
        sure: int (*b, H, W), a mask at a high threshold, possibly after a CRF: its classes are kept.
        possible: int (*b, H, W), a mask at a low threshold: pixels that are background in both are background.

    Returns:
        int32 (*b, H, W): n + 1, 0, or 255 (unsure).

    Source: reference step "cam_to_ir_label".
    """
    xp = sure.__array_namespace__()
    return xp.where(sure > 0, sure, xp.where(possible > 0, IGNORE, 0)).astype(xp.int32)


def otsu_threshold(maps: Array) -> Array:
    """Otsu's threshold of each map, which best separates its low values from its high ones.

    Of all splits of the n sorted values v_1 .. v_n into the k lowest and the others, with means m_0 and m_1, the one
    with the largest variance between the two:

        argmax_k  k (n - k) (m_1 - m_0)^2            threshold = v_k

    It is exact: values are not binned into a histogram.

    Args:
        maps: float (*b, H, W, c).

    Returns:
        float (*b, c); `maps > threshold[..., None, None, :]` selects the high values. For a flat map it is the map's
        value, which no pixel exceeds.

    Source: Otsu, A threshold selection method from gray-level histograms (1979).
    """
    xp = maps.__array_namespace__()
    *batch, h, w, c = maps.shape
    values = xp.sort(xp.reshape(maps, (*batch, h * w, c)), axis=-2)
    following = xp.concatenate([values[..., 1:, :], xp.full_like(values[..., :1, :], xp.inf)], axis=-2)
    # In double precision under NumPy, because its cumulative sums are sequential, over as many values as pixels.
    centred = values.astype(np.float64 if xp is np else np.float32)
    centred = centred - centred.mean(axis=-2, keepdims=True)
    k = xp.cumsum(xp.ones_like(centred), axis=-2)
    # For a mean of 0, k (n - k) (m_1 - m_0)^2 is (sum of the k lowest)^2 / (k (n - k)), up to a constant.
    between = xp.square(xp.cumsum(centred, axis=-2)) / xp.maximum(k * (h * w - k), 1)
    between = xp.where(following > values, xp.where(k < h * w, between, 0), -1)
    return xp.take_along_axis(values, between.argmax(axis=-2, keepdims=True), axis=-2)[..., 0, :]


def percentile_threshold(maps: Array, percent: float) -> Array:
    """The value of each map that `percent` of its pixels do not exceed.

    Args:
        maps: float (*b, H, W, c).
        percent: in [0, 100]; with 80, the brightest fifth is above.

    Returns:
        float (*b, c); interpolated linearly between two values, like NumPy's `percentile`.
    """
    xp = maps.__array_namespace__()
    return xp.percentile(maps, percent, axis=(-3, -2)).astype(maps.dtype)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 8-connected component of each mask; ties go to the first in reading order.

    Localization is scored with the bounding box of this component, because a few stray pixels would spoil the box of
    the whole mask.

    Args:
        mask: bool (*b, H, W), NumPy's.

    Returns:
        bool (*b, H, W).

    Source: Zhou et al., Learning deep features for discriminative localization (2016), section 3.2.
    """
    from scipy.ndimage import label  # imported here because it is slow to load, and only this function needs it

    result = np.zeros_like(mask)
    for index in np.ndindex(mask.shape[:-2]):
        components, count = label(mask[index], structure=np.ones((3, 3)))
        if count:
            result[index] = components == 1 + np.argmax(np.bincount(components.reshape(-1))[1:])
    return result


def bounding_boxes(mask: Array) -> Array:
    """The smallest box around the true pixels of each mask.

    Args:
        mask: bool (*b, H, W), such as `maps[..., n] > threshold`.

    Returns:
        int32 (*b, 4): top, left, bottom, right, the last two exclusive; all 0 for an empty mask.
    """

    xp = mask.__array_namespace__()

    def extent(line):
        length = line.shape[-1]
        first = xp.argmax(line, axis=-1)
        last = length - xp.argmax(xp.flip(line, axis=-1), axis=-1)
        nonempty = line.any(axis=-1)
        return xp.where(nonempty, first, 0), xp.where(nonempty, last, 0)

    top, bottom = extent(mask.any(axis=-1))
    left, right = extent(mask.any(axis=-2))
    return xp.stack([top, left, bottom, right], axis=-1).astype(xp.int32)
