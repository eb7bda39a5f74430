"""Masks that label files draw: the regions of a picture, by polygons, codes or small pictures, each with its class.

A picture has such a mask where every object of its label file has a region. A box alone, or a point, is none, and then
the rest of the file is not the truth, either: its object would be background.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...machine.errors import UserError
from ...seeds import IGNORE
from ..pictures import Encoded, opened
from . import brush, run_lengths

_FAR = 1 << 16  # a corner further outside than this would take the memory of a picture of that size


class Truth(Protocol):
    """The mask of a picture, made of what is not a PNG of class indices.

    Attributes:
        where: what draws it, for messages, which begin with it.
        files: that are read for it, apart from the label file.
        facts: what else it is made of, as bytes that differ when it does.
    """

    where: str
    files: tuple[Path, ...]
    facts: bytes

    def read(self, size: tuple[int, int], class_names: Sequence[str]) -> np.ndarray:
        """The mask.

        Args:
            size: (H, W) of the picture.
            class_names: c names; other classes are background.

        Returns:
            uint8 (H, W): 0 background, n + 1 class n, 255 ignored.

        Raises:
            UserError: it cannot be drawn, or not on a picture of this size.
        """
        ...


class Shape(Protocol):
    """A region, as it is stored."""

    def inside(self, size: tuple[int, int]) -> np.ndarray:
        """Its pixels, bool (H, W), in a picture of a size (H, W); raises ValueError if it is damaged."""
        ...

    def content(self) -> bytes:
        """What it is made of."""
        ...


class Polygons(NamedTuple):
    """What lies in any of some polygons, as pycocotools fills them: a pixel is inside if its centre is.

    Attributes:
        corners: of each polygon float (k, 2): x and y.
        unit: what width and height are: 100, if corners are in percent of them; None: corners are in pixels.
    """

    corners: tuple[np.ndarray, ...]
    unit: float | None = None

    def inside(self, size: tuple[int, int]) -> np.ndarray:
        from pycocotools import mask as rle

        scale = 1 if self.unit is None else np.array(size[::-1]) / self.unit
        # Fewer than three corners enclose nothing, and pycocotools would read four numbers as a box.
        polygons = [corners * scale for corners in self.corners if len(corners) >= 3]
        if not polygons:
            return np.zeros(size, bool)
        if not all((np.abs(corners) < _FAR).all() for corners in polygons):
            raise ValueError("a corner lies far outside the picture")
        return rle.decode(rle.merge(rle.frPyObjects([one.ravel().tolist() for one in polygons], *size))).astype(bool)

    def content(self) -> bytes:
        return b"".join(one.tobytes() for one in self.corners)


class RunLengths(NamedTuple):
    """A run-length code of COCO; `size` and `counts` as in its JSON."""

    size: Any
    counts: Any

    def inside(self, size: tuple[int, int]) -> np.ndarray:
        if list(self.size) != list(size):
            raise ValueError(f"its code is for a picture of size {self.size}, height first")
        return run_lengths.decode(self.counts, size)

    def content(self) -> bytes:
        return repr((self.size, self.counts)).encode()


class Brush(NamedTuple):
    """A brush code of Label Studio, uint8 (n,)."""

    code: np.ndarray

    def inside(self, size: tuple[int, int]) -> np.ndarray:
        return brush.decode(self.code, size)

    def content(self) -> bytes:
        return self.code.tobytes()


class Stamp(NamedTuple):
    """A black-and-white picture, PNG in base64, and where its first pixel lies, x and y."""

    png: str
    corner: tuple[int, int]

    def inside(self, size: tuple[int, int]) -> np.ndarray:
        content = Encoded("its mask", base64.b64decode(self.png, validate=True))
        whole = np.zeros(size, bool)
        left, top = self.corner
        try:
            with opened(content) as image:
                right, bottom = left + image.width, top + image.height
                if min(left, top) < 0 or right > size[1] or bottom > size[0]:
                    raise UserError("its mask leads out of the picture")
                whole[top:bottom, left:right] = np.array(image.convert("L")) > 0
        except UserError as error:
            raise ValueError(str(error)) from None
        return whole

    def content(self) -> bytes:
        return f"{self.corner} {self.png}".encode()


class Damaged(NamedTuple):
    """A region that is none, and what is wrong with it."""

    reason: str

    def inside(self, size: tuple[int, int]) -> np.ndarray:
        raise ValueError(self.reason)

    def content(self) -> bytes:
        return self.reason.encode()


class Drawn:
    """The mask of a picture from the regions of its label file; later ones are painted over earlier ones.

    Args:
        where: the label file, and the place in it, for messages.
        regions: class and shape of each; class None: ignored pixels.
        size: (H, W) of the picture by the label file; None: it does not say.
    """

    files = ()

    def __init__(self, where: str, regions: Sequence[tuple[str | None, Shape]], size: tuple[int, int] | None = None):
        self.where, self.regions, self._size = where, tuple(regions), size

    @property
    def facts(self) -> bytes:
        """A digest of the regions."""
        digest = hashlib.sha256(repr(self._size).encode())
        for label, shape in self.regions:
            digest.update(repr((label, type(shape).__name__)).encode() + shape.content())
        return digest.digest()

    def read(self, size: tuple[int, int], class_names: Sequence[str]) -> np.ndarray:
        """As of `Truth`."""
        if self._size not in (None, tuple(size)):
            raise UserError(
                f"{self.where}: its regions are drawn on a picture of {self._size[1]}x{self._size[0]}, the picture is "
                f"{size[1]}x{size[0]} (width x height); export the labels again, of this picture"
            )
        values = {name: value for value, name in enumerate(class_names, start=1)}
        mask = np.zeros(size, np.uint8)
        for number, (label, shape) in enumerate(self.regions):
            try:
                mask[shape.inside(size)] = IGNORE if label is None else values.get(label, 0)
            except ValueError as error:
                raise UserError(
                    f"{self.where}: region {number} cannot be drawn ({error}); draw it again, and export again"
                ) from None
        return mask


def polygons(lists: Any, *, unit: float | None = None) -> Shape:
    """Polygons from JSON values.

    Args:
        lists: a list of polygons, each a flat list of numbers, x and y by turns, or a list of pairs.
        unit: as of `Polygons`.

    Returns:
        The shape; `Damaged` if these are no polygons.
    """
    try:
        corners = [np.array(one, float).reshape(-1, 2) for one in lists]
    except (ValueError, TypeError, OverflowError):
        return Damaged("its corners are not pairs of numbers")
    if not all(np.isfinite(one).all() for one in corners):
        return Damaged("its corners are not finite")
    return Polygons(tuple(corners), unit)


def coco_shape(segmentation: Any) -> Shape | None:
    """The region of an annotation of COCO: polygons, or a run-length code, compressed or not; None: there is none."""
    if isinstance(segmentation, list):
        return polygons(segmentation) if any(one != [] for one in segmentation) else None
    if isinstance(segmentation, dict):
        try:
            return RunLengths([int(side) for side in segmentation["size"]], segmentation["counts"])
        except (ValueError, TypeError, KeyError, OverflowError):
            return Damaged("its run-length code has no size and counts")
    return None if segmentation is None else Damaged("its segmentation is neither polygons nor a run-length code")
