"""Pictures and masks at other sizes, as PIL and OpenCV compute them: uint8 in, uint8 out; and so whole records."""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from .records import Origin, Record, RecordSource, census_of_masks, origin_of

Size = tuple[int, int]


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) times a scale, rounded half to even as NumPy rounds, at least one pixel."""
    return max(int(np.round(size[0] * scale)), 1), max(int(np.round(size[1] * scale)), 1)


def shrunk_size(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """(H, W) in proportion, with no side longer than this; None: as it is."""
    return size if longest is None or max(size) <= longest else scaled_size(size, longest / max(size))


def fitted_size(size: tuple[int, int], fit: tuple[int, int], *, scale: float = 1.0) -> tuple[int, int]:
    """The size of a picture that is enlarged or shrunk, in proportion, until it fits.

    Args:
        size: (H, W) of the picture.
        fit: the longest that its short side may be, and its long side.
        scale: factor on both, which are then rounded down.

    Returns:
        Rows and columns, rounded half up, at least one pixel each; one of the sides is as long as it may be.

    Source: mmcv's `imrescale`.
    """
    short, long = (int(length * scale) for length in fit)
    factor = min(short / min(size), long / max(size))
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)


def resize_bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic resize as PIL does it: antialiased when shrinking, rounded to uint8.

    Args:
        image: uint8 (H, W, 3).
        size: (rows, columns) of the result.

    Returns:
        uint8 (rows, columns, 3).
    """
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_bilinear_uint8(
    image: np.ndarray, size: tuple[int, int], *, window: tuple[slice, slice] = (slice(None), slice(None))
) -> np.ndarray:
    """Bilinear resize without antialiasing: row i of H samples row (i + 1/2) h / H - 1/2 of h.

    Args:
        image: uint8 (h, w, 3).
        size: (H, W) of the result.
        window: the rows and columns of it that are needed, and alone computed.

    Returns:
        uint8 (H, W, 3), rounded; or its window.

    Source: OpenCV's `resize(..., INTER_LINEAR)`, which rounds weights to 1/2048: the results differ by at most one
    grey level.
    """
    for axis, length in enumerate(size):
        shown = np.arange(length)[window[axis]]
        position = np.clip((shown + 0.5) * image.shape[axis] / length - 0.5, 0, image.shape[axis] - 1)
        low = position.astype(int)
        high = np.minimum(low + 1, image.shape[axis] - 1)
        weight = np.float32(position - low).reshape([-1 if other == axis else 1 for other in range(3)])
        lower = image.take(low, axis).astype(np.float32)
        image = lower + (image.take(high, axis) - lower) * weight
    return np.rint(image).astype(np.uint8)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbour resize of labels: uint8 (H, W), (rows, columns) -> uint8 (rows, columns)."""
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


class Resized:
    """The records of a source, with pictures (bicubic) and masks (nearest) of another size.

    Args:
        source: the records.
        size_of: (H, W) of a picture -> its new size; one that stays is not touched.
    """

    def __init__(self, source: RecordSource, size_of: Callable[[Size], Size]):
        self._source, self._size_of = source, size_of
        self.class_names, self.ids, self.labels = source.class_names, source.ids, source.labels
        self.has_masks = source.has_masks

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        size = self._size_of(record.image.shape[:2])
        if size == record.image.shape[:2]:
            return record
        mask = None if record.mask is None else resize_mask(record.mask, size)
        return record._replace(image=resize_bicubic(record.image, size), mask=mask)

    def size(self, index: int) -> Size:
        """(H, W) from the header."""
        return self._size_of(self._source.size(index))

    def origin(self, index: int) -> Origin:
        """What the picture is made from."""
        return origin_of(self._source, index)

    def census_of_masks(self) -> str | None:
        """Of the source."""
        return census_of_masks(self._source)


def shrunk(source: RecordSource, longest: int | None) -> Resized:
    """The records of a source, with no side of more than so many pixels (`Data.longest`); None: as they are."""
    return Resized(source, partial(shrunk_size, longest=longest))
