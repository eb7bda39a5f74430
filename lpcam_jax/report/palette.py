"""The colours of classes, and masks as palette PNGs."""

import io

import numpy as np
from PIL import Image


def class_palette(n: int = 256) -> np.ndarray:
    """The colour map of PASCAL VOC, uint8 (n, 3), n in 1..256: 0 is black, 255 the pale grey of ignored pixels.

    Bits 0, 1, 2 of an index are the top bits of red, green, blue; its next three bits those below, and so on.
    """
    index = np.arange(n)[:, None]
    channel = np.arange(3)
    level = np.zeros((n, 3), int)
    for bit in range(8):
        level |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return level.astype(np.uint8)


def mask_png(mask: np.ndarray) -> bytes:
    """Encode uint8 (H, W) as a palette PNG: its indices are the values of the mask, its colours `class_palette`."""
    picture = Image.fromarray(mask)
    picture.putpalette(class_palette().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
