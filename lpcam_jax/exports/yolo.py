"""Masks as labels of YOLO's segmentation: one line of text per connected region of a class.

    labels/ID.txt    a line for each region: the number of its class, from 0, and the corners, x and y in parts of the
                     width and height
    data.yaml        where the pictures are, and the names of the classes

The format has no holes and no unsure pixels. A hole is joined to the outline by a slit (`polygons`); unsure pixels are
background.
"""

import json
import re
from collections.abc import Sequence

import numpy as np

from .polygons import regions

# What JSON may leave as it is and YAML may not: controls, ends of lines, half pairs, and what is no character.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


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
    names = "".join(f"  {n}: {_quoted(name)}\n" for n, name in enumerate(class_names))
    return f"path: .\ntrain: images\nval: images\nnames:\n{names}"


def _quoted(name: str) -> str:
    """A text as YAML reads it: JSON's escapes are YAML's, but not its pairs of them for a letter beyond 16 bits."""
    return _ESCAPED.sub(lambda letter: f"\\u{ord(letter[0]):04x}", json.dumps(name, ensure_ascii=False))
