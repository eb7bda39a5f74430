"""Few compiled shapes for pictures of any size.

Pictures are padded right and bottom to multiples of 128 pixels, and the number of maps, or of labels beside the
background, to a power of two, without any influence on what is computed of them.
"""

import numpy as np

PIXELS = 128


def canvas_of(size: tuple[int, int], multiple: int = PIXELS) -> tuple[int, int]:
    """The canvas of a picture (H, W), or of a grid: both rounded up to multiples."""
    return tuple(-(-length // multiple) * multiple for length in size)


def padded(array: np.ndarray, canvas: tuple[int, int], *, labels: int | None = None) -> np.ndarray:
    """Pad with zeros right and bottom up to the canvas, and up to this many labels.

    Args:
        array: (H, W, ...); with labels (H, W, n).
        canvas: (H', W'), at least as large.
        labels: m >= n; None: the other axes stay as they are.

    Returns:
        (H', W', ...), or (H', W', m).
    """
    shape = (*canvas, *array.shape[2:]) if labels is None else (*canvas, labels)
    return np.pad(array, [(0, whole - length) for whole, length in zip(shape, array.shape, strict=True)])


def power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()
