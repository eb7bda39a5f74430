"""Heat maps over photographs, and labelled panels that show everything known about a picture."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..seeds import IGNORE
from .names import shorten
from .palette import class_palette

# matplotlib's "inferno" at every fifteenth level: its lightness rises evenly, so it also works without colour.
_ANCHORS = bytes.fromhex(
    "000004 0a0722 1e0c45 380962 510e6c 69166e 801f6c 982766 b0315b"
    "c63d4d d94d3d e9612b f47918 fa9407 fcb014 f8cd37 f2ea69 fcffa4"
)
_CHANNELS = np.frombuffer(_ANCHORS, np.uint8).reshape(-1, 3).T
_LEVELS = [np.interp(np.arange(256), np.arange(0, 256, 15), channel) for channel in _CHANNELS]
_INFERNO = np.rint(np.stack(_LEVELS, axis=1)).astype(np.uint8)

_CELL = (240, 320)  # the largest width and height of a picture within a panel
_NARROWEST = 160  # leaves room for a caption over a slim picture
_MOST_CLASSES = 60  # rows of a panel; a JPEG has at most 65,500 rows of pixels
_GAP = 8
_CAPTION = 22
_INK = (32, 32, 32)


def heat_colors(map: np.ndarray) -> np.ndarray:
    """Colour a map, float (H, W) in [0, 1], as uint8 (H, W, 3): black, purple, orange, pale yellow."""
    return _INFERNO[np.rint(255 * np.clip(map, 0, 1)).astype(np.uint8)]


def heat_ramp(steps: int = 18) -> list[list[int]]:
    """Colours at even steps from 0 to 1, [red, green, blue] in 0..255, for pages that colour maps themselves."""
    return heat_colors(np.linspace(0, 1, steps)[None])[0].tolist()


def overlay(image: np.ndarray, map: np.ndarray, *, opacity: float = 0.6) -> np.ndarray:
    """Overlay a heat map on a photograph; the opacity falls with the heat, so cold areas show the photograph.

    Args:
        image: uint8 (H, W, 3).
        map: float (H, W) in [0, 1].
        opacity: of the hottest spots, in [0, 1].

    Returns:
        uint8 (H, W, 3).
    """
    alpha = opacity * np.sqrt(np.clip(map, 0, 1))[..., None]
    return _blend(image, heat_colors(map), alpha)


def panel(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    seed: np.ndarray | None,
    truth: np.ndarray | None = None,
    *,
    refined: np.ndarray | None = None,
    class_values: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw a labelled panel: photograph and masks, then the maps, one row per class, of at most 60 classes.

    Args:
        image: uint8 (H, W, 3).
        maps: method -> float (n, H, W) in [0, 1].
        class_names: the n classes of this picture.
        seed: uint8 (H, W), mask; None: there is none.
        truth: uint8 (H, W), mask; None: unknown.
        refined: uint8 (H, W), the refined seed; None: there is none.
        class_values: the n values of these classes in the masks, to show their colours beside the names; None: do not.

    Returns:
        uint8 (H', W', 3).
    """
    photo = _fitted(image)
    size = photo.shape[1::-1]
    rows = [[("picture", None, photo)]]
    if seed is not None:
        rows[0].append(("seed", None, _tinted(photo, seed)))
    if refined is not None:
        rows[0].append(("pseudo mask", None, _tinted(photo, refined)))
    if truth is not None:
        rows[0].append(("ground truth", None, _tinted(photo, truth)))
    for k, name in enumerate(class_names[:_MOST_CLASSES]):
        swatch = None if class_values is None else class_values[k]
        heats = {method: overlay(photo, _resize_bilinear(stack[k], size)) for method, stack in maps.items()}
        rows.append([(f"{method}: {name}", swatch, heat) for method, heat in heats.items()])
    if (more := len(class_names) - _MOST_CLASSES) > 0:
        rows.append([(f"and {more} more", None, np.zeros((0, 0, 3), np.uint8))])
    return _grid(rows, (max(size[0], _NARROWEST), size[1]))


def mask_panel(
    image: np.ndarray,
    mask: np.ndarray,
    truth: np.ndarray | None,
    class_names: Sequence[str],
    *,
    caption: str = "segmentation",
) -> np.ndarray:
    """Draw a labelled panel: photograph, mask, truth, and a legend of the mask's classes.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W), 0 background, n + 1 class n, 255 ignored.
        truth: uint8 (H, W), likewise; None: unknown.
        class_names: names of all classes.
        caption: of the mask.

    Returns:
        uint8 (H', W', 3).
    """
    photo = _fitted(image)
    row = [("picture", None, photo), (caption, None, _tinted(photo, mask))]
    if truth is not None:
        row.append(("ground truth", None, _tinted(photo, truth)))
    values = [value for value in np.flatnonzero(np.bincount(mask.reshape(-1), minlength=256)[:IGNORE]) if value]
    names = [(class_names[value - 1], int(value), np.zeros((0, 0, 3), np.uint8)) for value in values]
    legend = [names[start : start + len(row)] for start in range(0, len(names), len(row))]
    size = photo.shape[1::-1]
    return _grid([row, *legend], (max(size[0], _NARROWEST), size[1]))


def strip_panel(strips: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Draw pictures below each other, each with a caption above it.

    Args:
        strips: caption and picture, uint8 (H, W, 3), of at least one.

    Returns:
        uint8 (H', W', 3).
    """
    sizes = [strip.shape[1::-1] for _, strip in strips]
    return _grid([[(caption, None, strip)] for caption, strip in strips], tuple(map(max, zip(*sizes, strict=True))))


def png(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as PNG at the fastest compression level, which costs a few percent in size."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def jpeg(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as JPEG: of photographs a quarter of the size of PNG, in a tenth of its time."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90, subsampling=0)  # full colour keeps captions crisp
    return buffer.getvalue()


def _fitted(image: np.ndarray) -> np.ndarray:
    """Resize the photograph to fit a cell."""
    height, width = image.shape[:2]
    scale = min(_CELL[0] / width, _CELL[1] / height)
    size = max(round(scale * width), 1), max(round(scale * height), 1)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _blend(image: np.ndarray, colors: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    return np.rint((1 - alpha) * image + alpha * colors).astype(np.uint8)


def _resize_bilinear(map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(map.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def _tinted(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Tint the regions of a mask with their colours, outlined in white because VOC's colours can be dark."""
    values = np.asarray(Image.fromarray(mask).resize(photo.shape[1::-1], Image.Resampling.NEAREST))
    tinted = _blend(photo, class_palette()[values], np.where(values == 0, 0.55, 0.65)[..., None])
    edge = np.zeros(values.shape, bool)
    edge[:, 1:] |= values[:, 1:] != values[:, :-1]
    edge[1:] |= values[1:] != values[:-1]
    tinted[edge] = 255
    return tinted


@cache
def _font() -> ImageFont.ImageFont:
    """Pillow's own has nothing but ASCII; matplotlib's has the letters of Europe, Arabic and Hebrew."""
    fonts = Path(find_spec("matplotlib").origin).parent / "mpl-data" / "fonts" / "ttf"
    try:
        return ImageFont.truetype(fonts / "DejaVuSans.ttf", 13)
    except OSError:  # packaged otherwise
        return ImageFont.load_default(size=14)


def _grid(rows: list[list[tuple[str, int | None, np.ndarray]]], cell_size: tuple[int, int]) -> np.ndarray:
    """Lay out cells on white, each below its caption and, if it has one, the swatch of its mask value.

    A row of empty pictures is only as high as its captions.
    """
    font = _font()
    width = _GAP + (cell_size[0] + _GAP) * max(map(len, rows))
    heights = [_CAPTION + (cell_size[1] + _GAP if any(cell.size for *_, cell in row) else 0) for row in rows]
    canvas = Image.new("RGB", (width, _GAP + sum(heights)), "white")
    draw, y = ImageDraw.Draw(canvas), _GAP
    for row, height in zip(rows, heights, strict=True):
        for c, (caption, swatch, cell) in enumerate(row):
            x, room = _GAP + c * (cell_size[0] + _GAP), cell_size[0]
            if cell.size:
                canvas.paste(Image.fromarray(cell), (x, y + _CAPTION))
            if swatch is not None:
                draw.rectangle((x, y + 3, x + 11, y + 14), fill=tuple(class_palette()[swatch].tolist()))
                x, room = x + 18, room - 18
            text = shorten(caption, lambda text, room=room: font.getlength(text) <= room)
            draw.text((x, y), text, fill=_INK, font=font)
        y += height
    return np.asarray(canvas)
