"""YOLO: one text file for each picture, and the names of the classes once.

    labels/IMG_0012.txt   a line for each object: the number of its class, from 0, and at least four more numbers
    classes.txt           the names, one a line; or data.yaml, its `names`

A picture with an empty file has none of the classes; one without a file has no labels. A picture has a mask where
every line is a polygon: three or more corners, x and y in parts of width and height. Poses (`kpt_shape` in data.yaml)
and turned boxes (YOLO-OBB) are none.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ...machine.errors import reason
from ..findings import listed, shown
from ..search import search
from ..walk import entry
from .regions import Drawn, Shape, polygons
from .rows import Labels, Report, Row, default_pictures, files_in, is_split

_MAX_BYTES = 1 << 24
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_OBJECT = re.compile(rf"\s*(\d+)(?:\.0*)?(?:\s+{_NUMBER}){{4,}}\s*")
_LISTS = ("classes.txt", "obj.names", "classes.names", "predefined_classes.txt")
_DOCUMENTS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")


class YOLOFiles(NamedTuple):
    """The label files of a data set in YOLO's layout.

    Attributes:
        folder: the folder of the label files.
        pictures: the folder of the pictures.
        files: the label files, one per picture; may be empty.
    """

    folder: Path
    pictures: Path
    files: list[Path]


def yolo_files(root: Path) -> YOLOFiles:
    """The text files of pictures: in `labels/`, or beside the pictures."""
    pictures = default_pictures(root)
    for folder in (entry(root, "labels"), pictures):
        if folder is None or not folder.is_dir():
            continue
        deep = folder != root  # folders in root may be classes
        files = [file for file in files_in(folder, ".txt", deep=deep) if file.name.casefold() not in _LISTS]
        if not any(map(_has_object, files)):
            continue
        names = {path.relative_to(pictures).with_suffix("").as_posix() for path in search(pictures).pictures}
        files = [file for file in files if _stem(file, folder) in names or _has_object(file)]
        return YOLOFiles(folder, pictures, files)
    return YOLOFiles(root, pictures, [])


def read_yolo(root: Path, found: YOLOFiles, report: Report) -> Labels:
    """Read the files."""
    descriptions = _descriptions(root, found)
    names = _class_names(root, found, descriptions, report)
    if names is None:
        return Labels(found.folder, found.pictures, [], [])
    bar = tqdm(found.files, "reading labels", unit="file", delay=2, disable=None, leave=False)
    rows = [row for file in bar if (row := _read(file, _stem(file, found.folder), names, report))]
    if any(map(_is_of_poses, descriptions)) or _are_turned_boxes(rows):
        rows = [row._replace(drawn=None) for row in rows]
    unused = {name for name in names if name}.difference(*(row.labels for row in rows))
    return Labels(found.folder, found.pictures, rows, sorted(unused))


def _stem(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()[:-4]


def _lines(path: Path) -> list[str]:
    """Raises ValueError, OSError."""
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"it has {size >> 20} MB")
    return path.read_text(encoding="utf-8-sig").splitlines()


def _has_object(path: Path) -> bool:
    """Whether the first line of a file that is not empty is that of an object: captions are no labels."""
    try:
        first = next((line for line in _lines(path) if line.strip()), "")
    except (OSError, ValueError):
        return False
    return _OBJECT.fullmatch(first) is not None


def _read(path: Path, name: str, names: Sequence[str], report: Report) -> Row | None:
    where, regions = shown(path), []
    try:
        lines = _lines(path)
    except (OSError, ValueError) as error:
        report(f"{where}: cannot be read as YOLO text ({error}); export it again")
        return None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not (match := _OBJECT.fullmatch(line)):
            report(f"{where}, line {number}: {listed([line])!r} is no object of YOLO; write: class x y width height")
        elif len(match[1]) > 6 or int(match[1]) >= len(names) or not names[int(match[1])]:
            report(f"{where}, line {number}: no class has the number {listed([match[1]])}; add its name to the classes")
        else:
            regions.append((names[int(match[1])], _polygon(line)))
    drawn = Drawn(where, regions) if all(shape for _, shape in regions) else None
    return Row(name, sorted({label for label, _ in regions}), name, drawn)


def _polygon(line: str) -> Shape | None:
    """The region of an object; None: it is a box, with or without a confidence, or something else."""
    numbers = np.array(line.split()[1:], float)
    is_polygon = len(numbers) >= 6 and len(numbers) % 2 == 0 and ((numbers >= 0) & (numbers <= 1)).all()
    return polygons([numbers], unit=1) if is_polygon else None


def _are_turned_boxes(rows: Sequence[Row]) -> bool:
    """Whether these are labels of YOLO-OBB, which are written like polygons of four corners.

    Then all regions have four corners, and most are parallelograms, but for rounding, a picture's edge or a hand that
    drew them; and not all of those stand upright, as those of polygons around single pixels do.
    """
    shapes = [shape.corners[0] for row in rows if row.drawn for _, shape in row.drawn.regions]
    if not shapes or any(len(corners) != 4 for corners in shapes):
        return False
    corners = np.stack(shapes)
    gap = np.linalg.norm(corners[:, 0] - corners[:, 1] + corners[:, 2] - corners[:, 3], axis=-1)
    sides = np.abs(corners - np.roll(corners, 1, axis=1))  # (n, 4, 2)
    is_box = gap <= 0.05 * np.linalg.norm(sides, axis=-1).max(-1)
    is_turned = (sides.min(-1) > 0.05 * sides.max(-1)).any(-1)
    return bool(is_box.mean() > 0.5 and (is_box & is_turned).any())


# The names of the classes


def _descriptions(root: Path, found: YOLOFiles) -> list[Path]:
    """The files that may hold the names."""
    folders = [root, found.folder, found.pictures, *filter(None, [entry(root, "labels")])]
    if is_split(root.resolve().name):  # one export for all parts
        folders.append(root.resolve().parent)
    files = [file for folder in folders for name in (*_LISTS, *_DOCUMENTS) if (file := entry(folder, name))]
    return list(dict.fromkeys(files))


def _class_names(root: Path, found: YOLOFiles, files: Sequence[Path], report: Report) -> list[str] | None:
    """The names, "" for numbers without one; None, and a report: there are none, or they cannot be read."""
    if not files:
        report(
            f"{shown(found.folder)}: YOLO text files and no names of the classes; write them into "
            f"{shown(root / 'classes.txt')}, one a line, in the order of their numbers"
        )
        return None
    read: dict[Path, list[str]] = {}
    for file in files:
        try:
            lines = _lines(file)
            names = _names_of_yaml("\n".join(lines)) if file.name.casefold() in _DOCUMENTS else lines
        except (OSError, ValueError) as error:
            report(f"{shown(file)}: cannot be read as names of classes ({reason(error)}); mend it")
            return None
        read[file] = [name.strip() for name in names]
        while read[file] and not read[file][-1]:
            read[file].pop()
    first, *others = read
    for other in others:
        if read[other] != read[first]:
            report(f"{shown(first)}: other classes than in {shown(other)}; keep one of them")
            return None
    if twice := sorted({name for name in read[first] if name and read[first].count(name) > 1}):
        report(f"{shown(first)}: {listed(twice)} occurs twice; give each class its own name")
        return None
    return read[first]


def _is_of_poses(file: Path) -> bool:
    return re.search(r"^kpt_shape\s*:", "\n".join(_lines(file)), re.MULTILINE) is not None


def _names_of_yaml(text: str) -> list[str]:
    """The `names` of a data.yaml, a list or a mapping from numbers; raises ValueError."""
    import yaml  # which flax brings along

    try:
        values: Any = yaml.safe_load(text)
    except Exception as error:  # of many kinds: values that are not of the type they are said to be, nesting too deep
        raise ValueError(str(error)) from error
    names = values.get("names") if isinstance(values, dict) else None
    if isinstance(names, dict) and all(type(key) is int and 0 <= key < 100_000 for key in names):
        names = [names.get(number, "") for number in range(max(names, default=-1) + 1)]
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise ValueError("it has no list of names")
    return [str(name) for name in names]
