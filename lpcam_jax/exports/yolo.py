"""Masks as labels of YOLO's segmentation: one line of text per connected region of a class.

    labels/ID.txt    a line for each region: the number of its class, from 0, and the corners, x and y in parts of the
                     width and height
    data.yaml        where the pictures are, and the names of the classes

The format has no holes and no unsure pixels. A hole is joined to the outline by a slit (`polygons`); unsure pixels are
background.
"""

import json
from collections.abc import Sequence

import numpy as np

from .polygons import regions


def yolo_labels(mask: np.ndarray) -> str:
    """The label file of one mask.

    Args:
        mask: uint8 (H, W): 0 background, n + 1 class n, 255 ignored.

    Returns:
        A line for each region, n x_1 y_1 x_2 y_2 ..., coordinates in [0, 1] with seven digits: times width and height
        and rounded, they are the corners of pixels again.
    """
    size = mask.shape[::-1]
    lines = []
    for value, polygon in regions(mask):
        numbers = " ".join(f"{number:.7g}" for number in (polygon / size).ravel())
        lines.append(f"{value - 1} {numbers}\n")
    return "".join(lines)


def yolo_description(class_names: Sequence[str]) -> str:
    """The data.yaml of class names, for pictures in images/ beside labels/; all of them train, none is held out."""
    names = "".join(f"  {n}: {json.dumps(name)}\n" for n, name in enumerate(class_names))
    return f"path: .\ntrain: images\nval: images\nnames:\n{names}"
