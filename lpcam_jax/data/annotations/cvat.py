"""CVAT's format "Segmentation mask 1.1": masks in the colours of the classes, which are the labels, too.

    SegmentationClass/IMG_0012.png   a colour for each class, of the picture's size
    labelmap.txt                     a line for each class: name:red,green,blue:parts:actions

A picture has the classes of the colours in its mask. `background` is none, and `ignored` marks ignored pixels: they
are black and VOC's pale grey where the file does not say. In an 8-bit grey PNG, values are the numbers of the classes
in the file, 0 the background and 255 ignored.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ...machine.errors import UserError
from ...seeds import IGNORE
from ..findings import listed, shown
from ..masks import stored_values
from ..pictures import opened
from ..walk import entry
from .rows import Labels, Report, Row, default_pictures, files_in, picture_folders

_MAX_BYTES = 1 << 20
_VOC_IGNORED = (224, 224, 192)
_BACKGROUND, _IGNORED = "background", "ignored"


class CVATFiles(NamedTuple):
    """A data set in CVAT's layout.

    Attributes:
        folder: of the masks.
        files: the masks.
        labelmap: the file of the colours.
    """

    folder: Path
    files: list[Path]
    labelmap: Path


class ColouredMask:
    """A mask in the colours of its classes.

    Args:
        path: the PNG.
        colours: class -> its colour, in the order of their numbers; the background is the first.
    """

    def __init__(self, path: Path, colours: dict[str, tuple[int, int, int]]):
        self.where, self.files = shown(path), (path.absolute(),)
        self._path, self._numbered = path, len(colours)
        # Without a colour of its own, what is ignored comes last, and has no number.
        self._colours = {**colours, _IGNORED: colours.get(_IGNORED, _VOC_IGNORED)}

    @property
    def facts(self) -> bytes:
        """The colours."""
        return repr(self._colours).encode()

    def classes(self) -> set[str]:
        """Those that have a pixel; raises UserError."""
        names = list(self._colours)
        return {names[number] for number in np.unique(self._numbers()).tolist()} - {_BACKGROUND, _IGNORED}

    def read(self, size: tuple[int, int], class_names: Sequence[str]) -> np.ndarray:
        """As of `regions.Truth`."""
        numbers = self._numbers()
        if numbers.shape != tuple(size):
            raise UserError(
                f"{self.where}: the mask is {numbers.shape[1]}x{numbers.shape[0]}, its picture {size[1]}x{size[0]} "
                "(width x height); store a mask of the picture's size"
            )
        values = {_IGNORED: IGNORE, **{name: value for value, name in enumerate(class_names, start=1)}}
        return np.array([values.get(name, 0) for name in self._colours], np.uint8)[numbers]

    def _numbers(self) -> np.ndarray:
        """Each pixel's place in the list of the colours, int (H, W)."""
        with opened(self._path) as image:
            if image.mode in ("L", "1"):
                numbers = stored_values(image).astype(int)
                ignored = numbers == IGNORE
                if (largest := numbers.max(where=~ignored, initial=0)) >= self._numbered:
                    raise UserError(
                        f"{self.where}: the number {largest} is of no class; add it to labelmap.txt, or store colours"
                    )
                return np.where(ignored, list(self._colours).index(_IGNORED), numbers)
            colours = np.asarray(image.convert("RGB")).astype(np.int32) @ (1 << 16, 1 << 8, 1)
        known = np.array(list(self._colours.values())) @ (1 << 16, 1 << 8, 1)
        order = np.argsort(known, kind="stable")
        places = np.searchsorted(known[order], colours).clip(max=len(known) - 1)
        numbers = order[places]
        if len(unknown := colours[known[numbers] != colours]):
            red, green, blue = unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255
            raise UserError(f"{self.where}: the colour {red},{green},{blue} is of no class; add it to labelmap.txt")
        return numbers


def cvat_files(root: Path) -> CVATFiles | None:
    """The masks and their colours, if there are."""
    folder, labelmap = entry(root, "SegmentationClass"), entry(root, "labelmap.txt")
    if folder and labelmap and (files := files_in(folder, ".png", deep=True)):
        return CVATFiles(folder, files, labelmap)
    return None


def read_cvat(root: Path, found: CVATFiles, report: Report) -> Labels:
    """Read the files; every mask is opened, for its labels."""
    if not picture_folders(root):
        report(f"{shown(root)}: its masks have no pictures beside them; put them into {shown(root / 'images')}")
        return Labels(found.folder, root, [], [])
    pictures = default_pictures(root)
    if (colours := _colours(found.labelmap, report)) is None:
        return Labels(found.folder, pictures, [], [])

    def read(path: Path) -> Row | str:
        mask, name = ColouredMask(path, colours), path.relative_to(found.folder).as_posix()[:-4]
        try:
            return Row(name, sorted(mask.classes()), name, mask)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(read, found.files)
        bar = tqdm(results, "reading masks", len(found.files), unit="mask", delay=2, disable=None, leave=False)
        rows = []
        for result in bar:
            rows.append(result) if isinstance(result, Row) else report(result)
    unused = {name for name in colours if name not in (_BACKGROUND, _IGNORED)}.difference(*(row.labels for row in rows))
    return Labels(found.folder, pictures, rows, sorted(unused))


def _colours(path: Path, report: Report) -> dict[str, tuple[int, int, int]] | None:
    """The colour of each class; None, and a report, if the file cannot be read."""
    where = shown(path)
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise ValueError(f"it has {size >> 20} MB")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        report(f"{where}: cannot be read as the colours of classes ({error}); export it again")
        return None
    colours: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = rest.partition(":")[0].split(",")
        name = name.strip()
        if not name or len(values) != 3 or not all(v.strip().isdecimal() and int(v) < 256 for v in values):
            report(f"{where}, line {number}: {listed([line])!r} is no class; write: name:red,green,blue::")
            return None
        colour = tuple(int(value) for value in values)
        if name in colours or colour in colours.values():
            report(f"{where}, line {number}: the name or the colour of {listed([name])} occurs twice; change one")
            return None
        colours[name] = colour
    black = colours.pop(_BACKGROUND, (0, 0, 0))
    return {_BACKGROUND: black, **colours}
