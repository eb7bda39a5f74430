"""Masks: class indices in PNG files, alone or in a folder, and their classes chosen and renumbered."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..machine.errors import UserError
from .pictures import Encoded, opened, read_picture, shown

IGNORE = 255

_PACKED_GREY = {"L;2": 85, "L;4": 17}
_DOUBTFUL = 0.2  # share of ignored pixels above which a mask without a class is taken for a drawing


def read_mask(path: str | Path | Encoded, *, num_classes: int | None = None) -> np.ndarray:
    """The indices of a palette or grey PNG as uint8 (H, W), never its colours.

    With `num_classes`, values must be 0..num_classes or 255 (ignored), and a mask of no class that ignores more than a
    fifth of its pixels is refused: it is a black-and-white drawing more often than a picture of much doubt. Raises
    UserError.
    """
    with opened(path) as image:
        if image.format != "PNG":
            raise UserError(f"{shown(path)}: the mask is a {image.format} file; save it as a palette or 8-bit grey PNG")
        if image.mode not in ("P", "L", "1"):
            kind = "16-bit" if image.mode.startswith("I") else f"a colour picture ({image.mode})"
            raise UserError(f"{shown(path)}: the mask is {kind}; save the class indices as a palette or 8-bit grey PNG")
        # Pillow stretches 2- and 4-bit grey to 0..255; the indices are what was stored.
        stretch = _PACKED_GREY.get(image.tile[0].args, 1)
        mask = np.array(image, np.uint8) // stretch
    if num_classes is not None:
        check_values(mask, num_classes, path)
    return mask


def read_with_mask(
    path: str | Path | Encoded, mask_path: str | Path | Encoded, *, num_classes: int, upright: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """`read_picture` and the `read_mask` of the same size that belongs to it; raises UserError."""
    image, mask = read_picture(path, upright=upright), read_mask(mask_path, num_classes=num_classes)
    check_size(mask, image.shape[:2], mask_path)
    return image, mask


def check_size(mask: np.ndarray, size: tuple[int, int], path: str | Path | Encoded) -> None:
    """UserError when a mask (H, W) is not of its picture's size (H, W)."""
    if mask.shape != size:
        raise UserError(
            f"{shown(path)}: the mask is {mask.shape[1]}x{mask.shape[0]}, its picture {size[1]}x{size[0]} "
            "(width x height); store a mask of the picture's size"
        )


def check_values(mask: np.ndarray, num_classes: int, path: str | Path | Encoded) -> None:
    """UserError when a mask holds other values than `read_mask` allows."""
    pixels = np.bincount(mask.ravel(), minlength=256)
    values = np.flatnonzero(pixels)
    if not pixels[1:IGNORE].any() and pixels[IGNORE] > _DOUBTFUL * mask.size:
        raise UserError(
            f"{shown(path)}: the mask holds {' and '.join(map(str, values))} only, and 255 means ignored; "
            f"store objects as their class index, 1..{num_classes}"
        )
    wrong = values[(values > num_classes) & (values != IGNORE)]
    if wrong.size:
        more = f" and {wrong.size - 8} more" if wrong.size > 8 else ""
        raise UserError(
            f"{shown(path)}: the mask holds {', '.join(map(str, wrong[:8]))}{more}; "
            f"only 0..{num_classes} and 255 (ignored) have a meaning, renumber it"
        )


def pick_classes(wanted: Sequence[str], known: Sequence[str], where: str | Path) -> tuple[str, ...]:
    """`wanted`, or all of `known` when empty; UserError for a name that is unknown or given twice."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UserError(f"{shown(where)}: no class {_listed(unknown)}; choose from {_listed(known)}")
    if len(set(wanted)) < len(wanted):
        raise UserError(f"{shown(where)}: a class is chosen twice in {_listed(wanted)}; name each once")
    return tuple(wanted or known)


def renumbering(wanted: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """uint8 (256,): index with a mask over `known` to get the one over `wanted`; 255 stays, others are 0."""
    table = np.zeros(256, np.uint8)
    table[[known.index(name) + 1 for name in wanted]] = np.arange(1, len(wanted) + 1)
    table[IGNORE] = IGNORE
    return table


class MaskFolder:
    """Masks as PNG files.

    Args:
        directory: of the files.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    @classmethod
    def checked(cls, directory: str | Path) -> "MaskFolder":
        """The folder, which must be there; UserError."""
        if not Path(directory).is_dir():
            raise UserError(f"{shown(directory)}: no such folder of masks; name one with ID.png files.")
        return cls(Path(directory))

    def file(self, name: str) -> Path:
        """Where the mask of a picture is, or would be."""
        return self.directory / f"{name}.png"

    def read(self, name: str, *, classes: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The mask of one picture.

        Args:
            name: its id.
            classes: c, how many there are.

        Returns:
            uint8 (H, W), 0..c or 255, and its (H, W).

        Raises:
            UserError: the file cannot be read, or holds something else.
        """
        mask = read_mask(self.file(name))
        if len(wrong := np.unique(mask[(mask > classes) & (mask != IGNORE)])):
            raise UserError(
                f"{shown(self.file(name))} holds the value {wrong[0]}, the data set has 0..{classes} and 255; "
                "number the classes from 1, as its masks do."
            )
        return mask, mask.shape


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names))
