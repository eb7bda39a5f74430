"""The heat maps of one picture, for any system."""

from typing import NamedTuple

import numpy as np


class PictureMaps(NamedTuple):
    """The heat maps of a picture, fused over scales.

    Attributes:
        classes: int (n,), the mapped classes.
        maps: float (n, H, W), stored as float16, normalized, in [0, 1], by method; seeds are cut from the last.
        probabilities: float32 (c,), of all classes, at the first scale; None: the network does not classify.
    """

    classes: np.ndarray
    maps: dict[str, np.ndarray]
    probabilities: np.ndarray | None = None
