"""Masks: class indices in PNG files, single or in a folder, and the selection and renumbering of their classes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..machine.errors import UserError
from ..seeds import IGNORE
from .findings import choice, listed, shown
from .pictures import Encoded, opened, read_picture

MAX_CLASSES = 254  # that masks of 8 bits can number: 0 is the background
_PACKED_GREY = {"L;2": 85, "L;4": 17}
_MAX_IGNORED = 0.2  # share of ignored pixels above which a mask without a class is taken for black and white


def read_mask(path: str | Path | Encoded, *, num_classes: int | None = None) -> np.ndarray:
    """The indices of a palette or grey PNG as uint8 (H, W), never its colours.

    Args:
        path: the file.
        num_classes: if given, values must be 0..num_classes or 255 (ignored), and a mask without any class that ignores
            more than a fifth of its pixels is refused: most likely it is a black-and-white mask with 255 for objects.

    Returns:
        uint8 (H, W).

    Raises:
        UserError: the file is not such a mask.
    """
    with opened(path) as image:
        if image.format != "PNG":
            raise UserError(f"{shown(path)}: the mask is a {image.format} file; save it as a palette or 8-bit grey PNG")
        if image.mode not in ("P", "L", "1"):
            kind = "16-bit" if image.mode.startswith("I") else f"a colour picture ({image.mode})"
            raise UserError(f"{shown(path)}: the mask is {kind}; save the class indices as a palette or 8-bit grey PNG")
        mask = stored_values(image)
    if num_classes is not None:
        check_values(mask, num_classes, path)
    return mask


def stored_values(image: Image.Image) -> np.ndarray:
    """The values of an undecoded palette or grey picture as they are stored, uint8 (H, W)."""
    # Pillow stretches 2- and 4-bit grey to 0..255; the indices are what was stored.
    stretch = _PACKED_GREY.get(image.tile[0].args, 1)
    return np.array(image, np.uint8) // stretch


def grey_png(mask: np.ndarray) -> bytes:
    """Encode class indices, uint8 (H, W), as an 8-bit grey PNG, which no reader takes for colours."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def read_with_mask(
    path: str | Path | Encoded, mask_path: str | Path | Encoded, *, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read a picture and its mask, which must have the same size; raises UserError."""
    image, mask = read_picture(path), read_mask(mask_path, num_classes=num_classes)
    check_size(mask, image.shape[:2], mask_path)
    return image, mask


def expect_numbered(count: int, what: str, remedy: str) -> None:
    """Raise UserError if there are more classes than masks of 8 bits can number; to be called before any work.

    Args:
        count: of classes, without the background.
        what: needs the masks, in words.
        remedy: what to do.
    """
    if count > MAX_CLASSES:
        raise UserError(f"{what}: masks of 8 bits number {MAX_CLASSES} classes, and there are {count}; {remedy}.")


def check_size(mask: np.ndarray, size: tuple[int, int], path: str | Path | Encoded) -> None:
    """Raise UserError if a mask (H, W) does not have its picture's size (H, W)."""
    if mask.shape != size:
        raise UserError(
            f"{shown(path)}: the mask is {mask.shape[1]}x{mask.shape[0]}, its picture {size[1]}x{size[0]} "
            "(width x height); store a mask of the picture's size"
        )


def check_values(mask: np.ndarray, num_classes: int, path: str | Path | Encoded) -> None:
    """Raise UserError if a mask holds values that `read_mask` does not allow."""
    pixels = np.bincount(mask.ravel(), minlength=256)
    values = np.flatnonzero(pixels)
    if not pixels[1:IGNORE].any() and pixels[IGNORE] > _MAX_IGNORED * mask.size:
        raise UserError(
            f"{shown(path)}: the mask holds only {' and '.join(map(str, values))}, and 255 means ignored; "
            f"store objects as their class index, 1..{num_classes}"
        )
    wrong = values[(values > num_classes) & (values != IGNORE)]
    if wrong.size:
        omitted = f" and {wrong.size - 8} more" if wrong.size > 8 else ""
        raise UserError(
            f"{shown(path)}: the mask holds {', '.join(map(str, wrong[:8]))}{omitted}; "
            f"only 0..{num_classes} and 255 (ignored) are valid, renumber it"
        )


def pick_classes(wanted: Sequence[str], known: Sequence[str], where: str | Path) -> tuple[str, ...]:
    """`wanted`, or all of `known` if it is empty; raises UserError for a name that is unknown or given twice."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UserError(f"{shown(where)}: no class {listed(unknown)}; choose from {choice(known)}")
    if len(set(wanted)) < len(wanted):
        raise UserError(f"{shown(where)}: a class is named twice in {choice(wanted)}; name each once")
    return tuple(wanted or known)


def renumbering(wanted: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Lookup table, uint8 (256,), from the classes `known` to the classes `wanted`; 255 stays, others become 0.

    Raises:
        UserError: there are more classes than masks can number.
    """
    expect_numbered(len(known), "true masks", "remove the masks, or merge some of the classes")
    table = np.zeros(256, np.uint8)
    table[[known.index(name) + 1 for name in wanted]] = np.arange(1, len(wanted) + 1)
    table[IGNORE] = IGNORE
    return table


class MaskFolder:
    """A folder of masks, ID.png.

    Args:
        directory: the folder.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    @classmethod
    def checked(cls, directory: str | Path) -> "MaskFolder":
        """The folder, which must exist.

        Raises:
            UserError: it does not.
        """
        if not Path(directory).is_dir():
            raise UserError(f"{shown(directory)}: no such folder of masks; name one with ID.png files.")
        return cls(Path(directory))

    def file(self, name: str) -> Path:
        """The path of a picture's mask, ID.png whether or not it exists, or ID.PNG where only that does."""
        path = self.directory / f"{name}.png"
        return path if path.exists() or not (upper := path.with_name(f"{path.name[:-4]}.PNG")).exists() else upper

    def read(self, name: str, *, classes: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The mask of one picture.

        Args:
            name: its id.
            classes: number of classes c.

        Returns:
            uint8 (H, W), 0..c or 255, and its (H, W).

        Raises:
            UserError: the file cannot be read, or holds other values.
        """
        mask = read_mask(self.file(name))
        if len(wrong := np.unique(mask[(mask > classes) & (mask != IGNORE)])):
            raise UserError(
                f"{shown(self.file(name))} holds the value {wrong[0]}, but the data set has 0..{classes} and 255; "
                "number the classes from 1, as its masks do."
            )
        return mask, mask.shape
