"""Masks as LabelMe JSON, to be corrected by hand: one polygon per connected region of a class."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from .polygons import regions

_VERSION = "5.0.0"  # LabelMe 5 writes this layout; some versions warn about files of another major version


def labelme_document(file_name: str, mask: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """One mask as one document.

    Args:
        file_name: of the picture; LabelMe looks for it beside the document, so its folders are dropped.
        mask: uint8 (H, W): 0 background, n + 1 class n, 255 ignored.
        class_names: c names.

    Returns:
        Plain JSON values. The lines run between the pixels; filled at pixel centres they reproduce the mask. (Pillow's
        `polygon`, with which LabelMe makes masks, paints the line too: one more pixel at the right and bottom.)
    """
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": [
            {
                "label": class_names[value - 1],
                "points": polygon.astype(float).tolist(),
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for value, polygon in regions(mask)
        ],
        "imagePath": PurePosixPath(file_name).name,
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }
