"""Masks as tasks of Label Studio with predictions to correct: one polygon per connected region of a class."""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from .. import __version__
from .polygons import regions


def label_studio_tasks(
    pictures: Iterable[tuple[str, np.ndarray]], class_names: Sequence[str], *, prefix: str
) -> list[dict[str, Any]]:
    """The tasks of a project.

    Args:
        pictures: file name and mask, uint8 (H, W), of each: 0 background, n + 1 class n, 255 ignored.
        class_names: c names.
        prefix: what stands before a file name in the picture's address.

    Returns:
        Plain JSON values, to be imported into a project with the interface of `label_studio_interface`. Corners are in
        percent of width and height. Polygons have no holes there: these are joined to the outline by a slit.
    """
    tasks = []
    for file_name, mask in pictures:
        height, width = mask.shape
        result = [
            {
                "id": f"region{number}",
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "points": (100 * polygon / (width, height)).tolist(),
                    "closed": True,
                    "polygonlabels": [class_names[value - 1]],
                },
            }
            for number, (value, polygon) in enumerate(regions(mask))
        ]
        predictions = [{"model_version": f"lpcam_jax {__version__}", "result": result}]
        tasks.append({"data": {"image": prefix + quote(file_name)}, "predictions": predictions})
    return tasks


def label_studio_interface(class_names: Sequence[str]) -> str:
    """The labelling interface of a project: polygons of these classes on a picture, as XML."""
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in class_names)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <PolygonLabels name="label" toName="image">\n{labels}  </PolygonLabels>\n</View>\n'
    )
