"""The connected regions of a mask, class by class; pixels that share an edge are connected."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..seeds import IGNORE


class Component(NamedTuple):
    """A connected region.

    Attributes:
        value: of its pixels in the mask, n + 1 of class n.
        corner: y and x of its box's first pixel.
        inside: bool (h, w), its pixels in the box.
    """

    value: int
    corner: tuple[int, int]
    inside: np.ndarray


def numbered(mask: np.ndarray) -> np.ndarray:
    """The regions' numbers.

    Args:
        mask: uint8 (H, W): 0 background, n + 1 class n, 255 ignored.

    Returns:
        int32 (H, W): from 1, class by class and row by row; 0 for background and ignored pixels.
    """
    from scipy.ndimage import label  # which takes its time to load

    numbers, count = np.zeros(mask.shape, np.int32), 0
    for value in np.unique(mask).tolist():
        if value not in (0, IGNORE):
            inside = mask == value
            of_class, found = label(inside)
            numbers[inside] = of_class[inside] + count
            count += found
    return numbers


def components(mask: np.ndarray) -> Iterator[Component]:
    """The regions of a mask as in `numbered`, in the order of their numbers."""
    from scipy.ndimage import find_objects

    numbers = numbered(mask)
    for number, box in enumerate(find_objects(numbers), start=1):
        inside = numbers[box] == number
        corner = tuple(side.start for side in box)
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        yield Component(int(mask[box][y, x]), corner, inside)
