"""Masks as a COCO instances JSON: one annotation per connected region of a class."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import __version__
from ..data.annotations.run_lengths import encode
from .components import components
from .polygons import area, regions


def coco_instances(
    pictures: Iterable[tuple[str, np.ndarray]], class_names: Sequence[str], *, run_lengths: bool = False
) -> dict[str, Any]:
    """All masks as one document.

    Args:
        pictures: file name and mask, uint8 (H, W), of each: 0 background, n + 1 class n, 255 ignored.
        class_names: c names.
        run_lengths: describe regions by compressed run-length codes, in which a hole is a hole, instead of by polygons,
            in which it is joined to the outline by a slit (see `polygons`), and which more programs read. pycocotools
            reads both exactly.

    Returns:
        Plain JSON values as `pycocotools.coco.COCO` reads them: category ids are 1..c, the values of the masks; areas
        are in pixels.
    """
    images, annotations = [], []
    for number, (file_name, mask) in enumerate(pictures, start=1):
        height, width = mask.shape
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        for region in (_as_codes if run_lengths else _as_polygons)(mask):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **region, "iscrowd": 0})
    return {
        "info": {"description": f"connected regions of segmentation masks, lpcam_jax {__version__}"},
        "licenses": [],
        "categories": [{"id": n, "name": name} for n, name in enumerate(class_names, start=1)],
        "images": images,
        "annotations": annotations,
    }


def _as_polygons(mask: np.ndarray) -> Iterator[dict[str, Any]]:
    for value, polygon in regions(mask):
        left, top = polygon.min(axis=0).tolist()
        right, bottom = polygon.max(axis=0).tolist()
        yield {
            "category_id": value,
            "segmentation": [polygon.ravel().tolist()],
            "area": area(polygon),
            "bbox": [left, top, right - left, bottom - top],
        }


def _as_codes(mask: np.ndarray) -> Iterator[dict[str, Any]]:
    for value, (top, left), inside in components(mask):
        yield {
            "category_id": value,
            "segmentation": encode(inside, (top, left), mask.shape),
            "area": int(inside.sum()),
            "bbox": [left, top, inside.shape[1], inside.shape[0]],
        }
