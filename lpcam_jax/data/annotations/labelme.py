"""LabelMe: one JSON file for each picture. A picture has the labels of its shapes.

    {"imagePath": "IMG_0012.jpg", "imageHeight": 480, "imageWidth": 640,
     "shapes": [{"label": "cat", "shape_type": "polygon", "points": [[x, y], ...]}, ...], "flags": {}}

Where no picture has a shape, its flags that are true are its labels. A picture has a mask where all its shapes are
polygons or masks; a shape labelled __ignore__ marks ignored pixels there.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from reprlib import repr  # short, however long or deep the value is
from typing import Any

from tqdm import tqdm

from ..findings import Finding, Severity, shown
from ..walk import entry
from .regions import Damaged, Drawn, Shape, Stamp, polygons
from .rows import Labels, Report, Row, checked_name, files_in, is_text, picture_folders, where_most_are

_MAX_BYTES = 1 << 28  # a picture may be in it
_HEAD = 1 << 16
_IGNORED, _BACKGROUND = "__ignore__", "_background_"


def labelme_files(root: Path) -> tuple[Path, list[Path]]:
    """The folder of the files, and them (maybe none)."""
    folders = [entry(root, name) for name in ("annotations", "labels", "json")]
    for folder in (*picture_folders(root), *folders):
        if folder and (files := files_in(folder, ".json", deep=True)) and any(map(_is_labelme, files)):
            return folder, files
    files = files_in(root, ".json")
    return root, files if any(map(_is_labelme, files)) else []


def read_labelme(root: Path, folder: Path, files: Sequence[Path], report: Report) -> Labels:
    """Read the files below a folder."""
    bar = tqdm(files, "reading labels", unit="file", delay=2, disable=None, leave=False)
    found = [one for file in bar if (one := _read(file, file.parent.relative_to(folder), report))]
    has_shapes = any(row.labels for row, _ in found)
    rows = [row if has_shapes else row._replace(labels=flags) for row, flags in found]
    passed_over = tuple(row.name for row, flags in found if has_shapes and flags and not row.labels)
    remarks = []
    if passed_over:
        what = f"{shown(folder)}: {len(passed_over)} of {len(found)} pictures have flags and no shape"
        fix = "read as none of the classes, since others have shapes; where flags are the labels, remove all shapes"
        remarks.append(Finding(Severity.NOTE, what, passed_over, fix))
    return Labels(folder, where_most_are(rows, [*picture_folders(root), root, folder]), rows, [], remarks)


def _is_labelme(path: Path) -> bool:
    """Whether a file begins as LabelMe's do."""
    try:
        with path.open("rb") as file:
            return re.search(rb'"shapes"\s*:\s*\[', file.read(_HEAD)) is not None
    except OSError:
        return False


def _read(path: Path, folder: Path, report: Report) -> tuple[Row, list[str]] | None:
    """The labels of a picture, and its flags."""
    where = shown(path)
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise ValueError(f"it has {size >> 20} MB")
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        report(f"{where}: cannot be read as LabelMe JSON ({error}); save it again")
        return None
    shapes = values.get("shapes") if isinstance(values, dict) else None
    if not isinstance(shapes, list):
        report(f"{where}: not LabelMe, it has no list of shapes; move it away")
        return None
    labels = [shape.get("label") if isinstance(shape, dict) else None for shape in shapes]
    if not all(map(is_text, labels)):
        report(f"{where}: a shape has no label; write its class")
    own = (folder / path.name[:-5]).as_posix()
    name = values.get("imagePath")
    if not is_text(name):
        report(f"{where}: {repr(name)} is not an imagePath; write the name of its picture")
        return None
    # It leads from this file to the picture, wherever that was: what counts is its last part.
    name = checked_name((folder / PureWindowsPath(name).name).as_posix(), where, report)
    flags = values.get("flags")
    flags = [key for key, value in flags.items() if value is True] if isinstance(flags, dict) else []
    labels = {label.strip() for label in labels if is_text(label)} - {_IGNORED, _BACKGROUND}
    drawn = _drawn(where, shapes, values)
    flags = sorted(flag.strip() for flag in flags if is_text(flag))
    return (Row(name, sorted(labels), own, drawn), flags) if name else None


def _drawn(where: str, shapes: Sequence[Any], values: dict[str, Any]) -> Drawn | None:
    """The mask; None: a shape is of a kind that has no inside, or no class."""
    regions: list[tuple[str | None, Shape]] = []
    for one in shapes:
        if not isinstance(one, dict) or not is_text(label := one.get("label")) or not (shape := _shape(one)):
            return None
        regions.append((None if label.strip() == _IGNORED else label.strip(), shape))
    sides = values.get("imageHeight"), values.get("imageWidth")
    return Drawn(where, regions, sides if all(type(side) is int and side > 0 for side in sides) else None)


def _shape(shape: dict[str, Any]) -> Shape | None:
    match shape.get("shape_type", "polygon"):
        case "polygon":
            return polygons([shape.get("points")])
        case "mask":
            try:
                (left, top), _ = shape["points"]
                return Stamp(str(shape["mask"]), (int(left), int(top)))
            except (ValueError, TypeError, KeyError, OverflowError):
                return Damaged("its mask has no points")
    return None
