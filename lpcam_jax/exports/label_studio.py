"""Masks as tasks of Label Studio with predictions to correct: a polygon or brush per connected region of a class."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from .. import __version__
from ..data.annotations.brush import encode
from .components import components
from .polygons import regions


def label_studio_tasks(
    pictures: Iterable[tuple[str, np.ndarray]], class_names: Sequence[str], *, prefix: str, brushes: bool = False
) -> list[dict[str, Any]]:
    """The tasks of a project.

    Args:
        pictures: file name and mask, uint8 (H, W), of each: 0 background, n + 1 class n, 255 ignored.
        class_names: c names.
        prefix: what stands before a file name in the picture's address.
        brushes: regions as if painted with a brush, instead of polygons.

    Returns:
        Plain JSON values, to be imported into a project with the interface of `label_studio_interface`. Corners are in
        percent of width and height. Polygons have no holes there: these are joined to the outline by a slit.
    """
    tool = "brushlabels" if brushes else "polygonlabels"
    tasks = []
    for file_name, mask in pictures:
        height, width = mask.shape
        result = [
            {
                "id": f"region{number}",
                "type": tool,
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {**shape, tool: [class_names[value - 1]]},
            }
            for number, (value, shape) in enumerate((_as_brushes if brushes else _as_polygons)(mask))
        ]
        predictions = [{"model_version": f"lpcam_jax {__version__}", "result": result}]
        tasks.append({"data": {"image": prefix + quote(os.fsencode(file_name))}, "predictions": predictions})
    return tasks


def label_studio_interface(class_names: Sequence[str], *, brushes: bool = False) -> str:
    """The labelling interface of a project: polygons or brushes of these classes on a picture, as XML."""
    tool = "BrushLabels" if brushes else "PolygonLabels"
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in class_names)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <{tool} name="label" toName="image">\n{labels}  </{tool}>\n</View>\n'
    )


def _as_polygons(mask: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    for value, polygon in regions(mask):
        yield value, {"points": (100 * polygon / mask.shape[::-1]).tolist(), "closed": True}


def _as_brushes(mask: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    for value, (top, left), inside in components(mask):
        whole = np.zeros(mask.shape, bool)
        whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        yield value, {"format": "rle", "rle": encode(whole)}
