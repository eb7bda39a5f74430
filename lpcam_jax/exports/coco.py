"""Masks as a COCO instances JSON: one annotation per connected region of a class."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .. import __version__
from .polygons import area, regions


def coco_instances(pictures: Iterable[tuple[str, np.ndarray]], class_names: Sequence[str]) -> dict[str, Any]:
    """All masks as one document.

    Args:
        pictures: file name and mask, uint8 (H, W), of each: 0 background, n + 1 class n, 255 ignored.
        class_names: c names.

    Returns:
        Plain JSON values as `pycocotools.coco.COCO` reads them: category ids are 1..c, the values of the masks; areas
        are in pixels. Regions with holes are polygons too (see `polygons`): pycocotools rasterizes them exactly, and
        more programs read them than run-length codes.
    """
    images, annotations = [], []
    for number, (file_name, mask) in enumerate(pictures, start=1):
        height, width = mask.shape
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        for value, polygon in regions(mask):
            left, top = polygon.min(axis=0).tolist()
            right, bottom = polygon.max(axis=0).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": value,
                    "segmentation": [polygon.ravel().tolist()],
                    "area": area(polygon),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": f"connected regions of segmentation masks, lpcam_jax {__version__}"},
        "licenses": [],
        "categories": [{"id": n, "name": name} for n, name in enumerate(class_names, start=1)],
        "images": images,
        "annotations": annotations,
    }
