"""Pictures in memory as a source of records: what notebooks and other programs give to a loaded run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..machine.errors import UserError
from .pictures import read_picture
from .records import Record

Picture = str | Path | np.ndarray | Image.Image
"""A path, a PIL image, or uint8 (H, W, 3) RGB."""


class PicturesInMemory:
    """A RecordSource of pictures, all with the same labels or without labels.

    Args:
        pictures: the pictures.
        class_names: names of c classes.
        labels: float32 (c,), of every picture; None: no labels.

    Raises:
        UserError: a picture cannot be read or is invalid.
    """

    has_masks = False

    def __init__(self, pictures: Sequence[Picture], class_names: tuple[str, ...], labels: np.ndarray | None = None):
        self._images, self.class_names = [_image_of(picture) for picture in pictures], class_names
        self.ids = [f"picture {number}" for number in range(len(self._images))]
        self.labels = None if labels is None else np.tile(labels, (len(self._images), 1))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Record:
        return Record(self.ids[index], self._images[index], None if self.labels is None else self.labels[index], None)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of a picture."""
        return self._images[index].shape[:2]

    def titled(self, description: str) -> str | None:
        """The label of a progress bar; None, for no bar, if the pictures are few."""
        return None if len(self) <= 16 else description


def is_single(pictures: Picture | Sequence[Picture]) -> bool:
    """Whether the argument is one picture; an array with four axes is several."""
    return isinstance(pictures, str | Path | Image.Image) or getattr(pictures, "ndim", 4) != 4


def _image_of(picture: Picture) -> np.ndarray:
    """uint8 (H, W, 3)."""
    if isinstance(picture, str | Path):
        return read_picture(picture)
    if isinstance(picture, Image.Image):
        return _rgb(ImageOps.exif_transpose(picture))
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise UserError(
            f"a picture is {array.dtype} {array.shape}; give uint8 (H, W, 3) in RGB, a PIL image or a path."
        )
    return array


def _rgb(image: Image.Image) -> np.ndarray:
    """Convert to RGB as `read_picture` does, with transparent parts in white."""
    if image.mode.startswith("I") or image.mode in ("F", "LAB"):
        raise UserError(f"a PIL image of kind {image.mode} has no certain range; convert it to 8-bit RGB.")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))
