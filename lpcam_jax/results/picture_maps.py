"""The heat maps of one picture, for any system."""

from typing import NamedTuple

import numpy as np

from ..data.records import Record


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


def mapped_classes(record: Record, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The classes to map: the picture's labels; without labels, the classes with at least this probability, or else
    the most probable one.

    Args:
        record: the picture.
        probabilities: float (c,).
        threshold: in [0, 1].

    Returns:
        int (n,), ascending; empty for a picture labelled as having no class.
    """
    if record.labels is not None:
        return np.flatnonzero(record.labels)
    predicted = np.flatnonzero(probabilities >= threshold)
    return predicted if len(predicted) else np.array([int(np.argmax(probabilities))])
