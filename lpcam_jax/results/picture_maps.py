"""The heat maps of one picture, of any system."""

from typing import NamedTuple

import numpy as np


class PictureMaps(NamedTuple):
    """What is known of a picture after all its scales.

    Attributes:
        classes: int (n,), the classes that are mapped.
        maps: by method float32 (H, W, n), normalized, in [0, 1]; seeds are cut from the last.
        probabilities: float32 (c,), of all classes, at the first scale; None: the network does not classify.
    """

    classes: np.ndarray
    maps: dict[str, np.ndarray]
    probabilities: np.ndarray | None = None
