"""Data sets laid out like the VOC devkit: a folder of pictures, a folder of masks, and lists of ids."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..machine.errors import UserError
from .findings import listed, shown
from .formats import SUFFIXES
from .masks import check_size, pick_classes, read_mask, read_with_mask, renumbering
from .pictures import picture_size
from .records import Origin, Record, relative_name
from .walk import walk

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


class VOCLayout:
    """`images/ID.jpg`, `masks/ID.png` and a list with an id at the start of each line, all below `root`.

    Pictures may have another extension, such as .JPG or .jpeg.

    The constructor reads every mask once, for the labels.

    Args:
        root: the folder, such as the original's VOCdevkit/VOC2012.
        ids_file: the list, relative to root.
        images: the folder of pictures, relative to root.
        masks: the folder of masks, relative to root.
        classes: those of VOC_CLASSES to keep, in this order: masks are renumbered to 1..c, other classes become
            background; empty: all twenty.
        present: a class is in a picture if the mask holds at least this many of its pixels.

    Raises:
        UserError: something is missing, or a mask cannot be read.
    """

    has_masks = True

    def __init__(
        self,
        root: str | Path,
        ids_file: str | Path,
        *,
        images: str = "JPEGImages",
        masks: str = "SegmentationClass",
        classes: Sequence[str] = (),
        present: int = 1,
    ):
        self.class_names = pick_classes(classes, VOC_CLASSES, "the VOC layout")
        self._renumber = renumbering(self.class_names, VOC_CLASSES)
        self.ids = _read_ids(Path(root), Path(root, ids_file))
        self._images = _files(Path(root, images), self.ids, ".jpg", sorted(SUFFIXES))
        self._masks = _files(Path(root, masks), self.ids, ".png", [".png"])
        _check_present(self._images, "pictures", Path(root, ids_file))
        _check_present(self._masks, "masks", Path(root, ids_file))
        self.labels = (self._count_pixels() >= present).astype(np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        image, mask = read_with_mask(self._images[index], self._masks[index], num_classes=len(VOC_CLASSES))
        return Record(self.ids[index], image, self.labels[index], self._renumber[mask])

    def mask(self, index: int) -> np.ndarray:
        """The mask alone."""
        mask = read_mask(self._masks[index], num_classes=len(VOC_CLASSES))
        check_size(mask, self.size(index), self._masks[index])
        return self._renumber[mask]

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) from the header."""
        return picture_size(self._images[index])

    def origin(self, index: int) -> Origin:
        """The picture and its mask."""
        files = (self._images[index].absolute(), self._masks[index].absolute())
        return Origin(str(files[0]), files, b"")

    def _count_pixels(self) -> np.ndarray:
        """Pixels of each class in each mask, int (n, c)."""
        c = len(self.class_names)

        def count(path: Path) -> np.ndarray:
            mask = self._renumber[read_mask(path, num_classes=len(VOC_CLASSES))]
            return np.bincount(mask.ravel(), minlength=256)[1 : c + 1]

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            counts = pool.map(count, self._masks)
            bar = tqdm(counts, "reading masks", len(self), unit="mask", delay=2, disable=None, leave=False)
            return np.stack(list(bar))


def _read_ids(root: Path, path: Path) -> list[str]:
    if not root.is_dir():
        raise UserError(f"{shown(root)}: no such folder; name the folder that holds the pictures and the lists of ids")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{shown(path)}: no such list of ids; name a text file below {shown(root)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(path)}: cannot be read as a list of ids ({error}); save it as UTF-8 text") from error
    ids = [relative_name(line.split()[0], shown(path)) for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{shown(path)}: the list is empty; write one id per line")
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise UserError(f"{shown(path)}: {shown(name)} is listed {count} times; list it once")
    return ids


def _files(folder: Path, ids: Sequence[str], usual: str, suffixes: Sequence[str]) -> list[Path]:
    """The file of each id: with the usual suffix or, where there is none, with one of the others, in any case."""
    paths = [folder / f"{name}{usual}" for name in ids]
    if all(map(os.path.isfile, paths)):
        return paths
    of_stem: dict[str, Path] = {}
    for path in walk(folder).files if folder.is_dir() else []:
        if path.suffix.lower() in suffixes:
            of_stem.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return [path if os.path.isfile(path) else of_stem.get(name, path) for name, path in zip(ids, paths, strict=True)]


def _check_present(paths: Sequence[Path], what: str, ids_file: Path) -> None:
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(paths)} listed {what} are missing: {listed(missing, most=1000)}; "
            f"add them or remove their ids from {shown(ids_file)}"
        )
