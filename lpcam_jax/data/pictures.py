"""Picture files to arrays: the only module that opens them.

Every file is decoded to upright 8-bit RGB (in `masks.py`, to class indices), and every problem with a file is reported
as one line that names it.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from tqdm import tqdm

from ..machine.errors import UserError, reason
from .findings import shown
from .formats import FORMATS

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class Encoded(NamedTuple):
    """A picture file in memory, with a name for messages; accepted wherever a path is."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def read_picture(path: str | Path | Encoded, *, upright: bool = True, enough: int | None = None) -> np.ndarray:
    """Read the first frame as RGB; transparent parts become white, and 16-bit values keep their high byte.

    Values of 10, 12 or 14 bits stored in 16 without scaling come out nearly black. The file does not say how many bits
    are used, so they are not rescaled; a note warns about it.

    Args:
        path: the file.
        upright: apply the EXIF orientation; not for the benchmarks, whose masks match the pixels as stored.
        enough: pixels of the longest side that are enough: a JPEG of twice as many or more is decoded at a half, a
            quarter or an eighth of its sides, in a fraction of the time, but never to fewer than these; None: as it is.

    Returns:
        uint8 (H, W, 3).

    Raises:
        UserError: the file is not a readable picture.
    """
    with opened(path) as image:
        _decode_less(image, enough)
        turn = _UPRIGHT.get(_orientation(image)) if upright else None
        image = _to_rgb(image, path)
        return np.array(image if turn is None else image.transpose(turn))


def picture_size(path: str | Path | Encoded, *, upright: bool = True, enough: int | None = None) -> tuple[int, int]:
    """(H, W) of what `read_picture` returns, from the header alone; raises the same UserError."""
    with opened(path) as image:
        _decode_less(image, enough)
        width, height = image.size
        return (width, height) if upright and _orientation(image) >= 5 else (height, width)


def oddities(path: str | Path | Encoded) -> list[tuple[str, str]]:
    """Unusual properties of a picture and how each is handled, from the header alone; raises UserError."""
    with opened(path) as image:
        return [
            oddity
            for oddity, holds in (
                (("rotated by EXIF", "read upright"), _orientation(image) > 1),
                (("in CMYK", "read as RGB"), image.mode == "CMYK"),
                (("of 16 bits", "the high byte of each value is read"), ";16" in f"{image.mode} {image.tile}"),
                (("of several frames", "the first is read"), getattr(image, "is_animated", False)),
                (("with transparency", "transparent parts become white"), image.has_transparency_data),
            )
            if holds
        ]


@contextmanager
def opened(path: str | Path | Encoded) -> Iterator[Image.Image]:
    """Open a picture file, undecoded, for a `with` block; any exception in it is raised as UserError."""
    # A permanent filter, for Pillow alone: `catch_warnings` around each read would not be thread-safe.
    if _QUIET not in warnings.filters[:1]:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        file = io.BytesIO(path.content) if isinstance(path, Encoded) else path
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # decoders can raise nearly anything on damaged files
        raise UserError(f"{shown(path)}: {_complaint(error, path)}") from error


_dark: dict[str, int] = {}  # pictures of 16 bits whose values are all small, and their largest
_noting = Lock()


def _note_if_dark(largest: int, path: str | Path | Encoded) -> None:
    """Say that a 16-bit picture is read nearly black: at the first one, the tenth, the hundredth, and so on.

    Args:
        largest: of its values.
        path: its file.
    """
    if not 0 < largest < 1 << 14:
        return
    with _noting:
        known = str(path) in _dark
        _dark[str(path)] = largest
        count, most = len(_dark), max(_dark.values())
    if known or str(count).strip("0") != "1":
        return
    bits = most.bit_length()
    which = shown(path) if count == 1 else f"{count} pictures, such as {shown(path)},"
    tqdm.write(
        f"note: {which} of 16 bits: no value is above {most} of 65535, which is read nearly black; if the values have "
        f"{bits} bits, multiply them by {1 << (16 - bits)} and save the pictures again."
    )


def _complaint(error: Exception, path: str | Path | Encoded) -> str:
    match error:
        case FileNotFoundError():
            return "no such file; check the name"
        case PermissionError():
            return "no permission to read it; change the permissions of the file"
        case OSError(strerror=str(why)):
            return f"cannot be read ({why}); check the path and the disk"
        case UnidentifiedImageError() if not (
            len(path.content) if isinstance(path, Encoded) else os.path.getsize(path)
        ):
            return "the file is empty; replace or remove it"
        case UnidentifiedImageError():
            return f"not a picture in a supported format ({', '.join(FORMATS)}); convert or remove it"
        case Image.DecompressionBombError():
            return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels; scale it down"
        case _:
            return f"damaged picture ({reason(error)}); replace or remove it"


def _decode_less(image: Image.Image, enough: int | None) -> None:
    """Of a JPEG's blocks of 8x8 only the low frequencies, see `read_picture`."""
    if enough is not None and image.format in ("JPEG", "MPO"):
        image.draft(None, tuple(max(length * enough // max(image.size), 1) for length in image.size))


def _orientation(image: Image.Image) -> int:
    if image.format in ("TIFF", "HEIF", "JXL"):  # which are decoded upright
        return 1
    try:
        # Not image.getexif(): for a PNG, it decodes every pixel to find a tag behind them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF says nothing about the pixels
        return 1
    return value if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image, path: str | Path | Encoded) -> Image.Image:
    stored = f"{image.mode} {image.tile}"  # the tile is gone once it is decoded
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        values = np.asarray(image)
        if ";12" in stored:  # a TIFF that says so
            values = np.left_shift(values, 4)
        _note_if_dark(int(values.max()), path)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if ";16" in stored and image.mode in ("RGB", "RGBA", "L", "LA"):  # Pillow has dropped the low byte
        colours = np.asarray(image).reshape(image.height, image.width, -1)[..., : 3 if image.mode[0] == "R" else 1]
        _note_if_dark(int(colours.max()) << 8 | 255, path)
    if image.mode in ("I", "F", "LAB"):
        raise UserError(f"{shown(path)}: pixels of mode {image.mode} have no defined range; save it as 8-bit RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")
