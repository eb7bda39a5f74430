"""The layers that the gallery overlays in the browser: the photograph, and maps and masks to tint it with.

Thresholds and colours are applied in the browser. So a heat map is stored as a grey picture, and a seed as its classes'
colours with the height of the winning map as opacity: thresholding the opacity thresholds the map.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..seeds import IGNORE

# Okabe and Ito's colours, which colour-blind readers can tell apart; VOC's own are too dark to tint with.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
_RGB = np.array([tuple(bytes.fromhex(color[1:])) for color in COLORS], np.uint8)
_GREY = (200, 200, 200)  # of ignored pixels

_PHOTO = 640  # long sides in pixels; the browser enlarges smoothly
_MAP = 256


def picture_colors(classes: Sequence[int]) -> list[int]:
    """A colour for each class of one picture: its own if that is free, otherwise the next free one.

    Args:
        classes: numbers of the classes, from 0, in any order.

    Returns:
        An index of COLORS for each class; all different for up to seven classes.
    """
    taken: dict[int, int] = {}
    for n in sorted(classes):
        free = [k % len(COLORS) for k in range(n, n + len(COLORS)) if k % len(COLORS) not in taken.values()]
        taken[n] = free[0] if free else n % len(COLORS)
    return [taken[n] for n in classes]


def photo_layer(image: np.ndarray) -> bytes:
    """Encode the photograph, uint8 (H, W, 3), as a JPEG whose long side has at most 640 pixels."""
    picture = Image.fromarray(image)
    picture = picture.resize(_size(image.shape[:2], _PHOTO), Image.Resampling.LANCZOS)
    return _encoded(picture, "JPEG", quality=85)


def map_layer(maps: np.ndarray) -> bytes:
    """Encode heat maps, float (n, H, W) in [0, 1], n > 0, as one grey PNG, stacked vertically.

    The long side of each map has at most 256 pixels.
    """
    return _encoded(Image.fromarray(np.rint(255 * np.concatenate(_small(maps))).astype(np.uint8)), "PNG")


def seed_layer(maps: np.ndarray, colors: Sequence[int]) -> bytes:
    """Encode the seed at every threshold as an RGBA PNG whose long side has at most 256 pixels.

    Args:
        maps: float (n, H, W) in [0, 1], of n > 0 classes.
        colors: their colours, indices of COLORS.

    Returns:
        The PNG: at each pixel the colour of the highest map, and its height as opacity.
    """
    small = _small(maps)
    heights = np.rint(255 * small.max(axis=0)).astype(np.uint8)
    winners = _RGB[np.asarray(colors)[small.argmax(axis=0)]]
    return _encoded(Image.fromarray(np.dstack([winners, heights])), "PNG")


def mask_layer(mask: np.ndarray, classes: Sequence[int], colors: Sequence[int]) -> bytes:
    """Encode a mask as a palette PNG with a transparent background.

    Args:
        mask: uint8 (H, W), 0 background, n + 1 class n, 255 ignored.
        classes: numbers of its classes, from 0.
        colors: their colours, indices of COLORS.

    Returns:
        The PNG.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[np.asarray(classes, int) + 1] = _RGB[np.asarray(colors, int)]
    palette[IGNORE] = _GREY
    picture = Image.fromarray(mask).resize(_size(mask.shape, _PHOTO), Image.Resampling.NEAREST)
    picture.putpalette(palette.tobytes())
    return _encoded(picture, "PNG", transparency=0)


def _small(maps: np.ndarray) -> np.ndarray:
    """Shrink maps to a long side of at most 256 pixels, clipped to [0, 1]."""
    size = _size(maps.shape[1:], _MAP)
    pictures = [Image.fromarray(heat.astype(np.float32)) for heat in maps]
    return np.clip([np.asarray(picture.resize(size, Image.Resampling.BILINEAR)) for picture in pictures], 0, 1)


def _size(shape: Sequence[int], long_side: int) -> tuple[int, int]:
    """(width, height) that shrinks an array (H, W) to at most this long side; never enlarges."""
    scale = min(long_side / max(shape), 1)
    return max(round(scale * shape[1]), 1), max(round(scale * shape[0]), 1)


def _encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
