"""Masks as an archive of CVAT's format "Segmentation mask 1.1", which is that of VOC.

    labelmap.txt                            name and colour of every class
    ImageSets/Segmentation/default.txt      names of the pictures
    SegmentationClass/ID.png                the mask in the colours of the classes
    SegmentationObject/ID.png               every connected region in a colour of its own

The format has no unsure pixels; they are background.
"""

import io
import zipfile
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from ..report.palette import class_palette
from ..seeds import IGNORE
from .components import numbered

# Of the files in it, so that the same masks give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def cvat_archive(pictures: Iterable[tuple[str, np.ndarray]], class_names: Sequence[str]) -> bytes:
    """The archive.

    Args:
        pictures: name, without a suffix, and mask, uint8 (H, W), of each: 0 background, n + 1 class n, 255 ignored.
        class_names: c names, without a colon.

    Returns:
        A zip file; the same masks give the same bytes.
    """
    palette, names, content = class_palette(), [], io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)

        for name, mask in pictures:
            names.append(name)
            sure = np.where(mask == IGNORE, 0, mask)
            add(f"SegmentationClass/{name}.png", _png(palette[sure]))
            add(f"SegmentationObject/{name}.png", _png(_object_colors(numbered(sure))))
        colors = [f"{name}:{','.join(map(str, palette[n]))}::\n" for n, name in enumerate(["background", *class_names])]
        add("labelmap.txt", ("# label:color_rgb:parts:actions\n" + "".join(colors)).encode())
        add("ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in names).encode())
    return content.getvalue()


def _object_colors(numbers: np.ndarray) -> np.ndarray:
    """Numbers of objects as colours, uint8 (H, W, 3), by VOC's rule: bits of the number, from the colours' highest."""
    colors = np.zeros((*numbers.shape, 3), np.uint8)
    left = numbers.copy()
    for shift in range(7, -1, -1):
        for channel in range(3):
            colors[..., channel] |= (((left >> channel) & 1) << shift).astype(np.uint8)
        left >>= 3
    return colors


def _png(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()
