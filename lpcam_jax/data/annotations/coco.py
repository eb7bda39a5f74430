"""COCO: one JSON file with the pictures, the categories, and the annotations, of which some may have regions.

    {"images": [{"id": 1, "file_name": "IMG_0012.jpg", "width": 640, "height": 480}],
     "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[x, y, ...]]}],
     "categories": [{"id": 1, "name": "cat"}]}

A picture has the categories of its annotations. It has a mask where all of them have a region: polygons, or a
run-length code. Crowds are ignored pixels there.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from reprlib import repr  # short, however long or deep the value is
from typing import Any

from ..findings import shown
from ..walk import entry
from .regions import Drawn, Shape, coco_shape
from .rows import Labels, Report, Row, checked_name, files_in, is_text, picture_folders, where_most_are

MAX_JSON = 1 << 30  # bytes
_NAMES = ("annotations.json", "_annotations.coco.json")


def json_files(root: Path) -> list[Path]:
    """The JSON files that may hold the labels of all pictures: those with a usual name, else all."""
    folders = [root, entry(root, "annotations"), *picture_folders(root)]
    files = [file for folder in folders if folder for file in files_in(folder, ".json")]
    return list(filter(is_named_as_coco, files)) or files


def is_named_as_coco(file: Path) -> bool:
    """Whether the name alone says that it is COCO's."""
    return file.name.casefold() in _NAMES


def load_json(path: Path, program: str, report: Report) -> Any:
    """The values of a JSON file; None, and a report, if it cannot be read.

    Args:
        path: the file.
        program: whose format it is, for the report.
        report: takes defects.
    """
    where = shown(path)
    try:
        if (size := path.stat().st_size) > MAX_JSON:
            report(f"{where}: {size >> 20} MB of labels, more than {MAX_JSON >> 20}; split the data set")
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        report(f"{where}: cannot be read as JSON ({error}); export it again as {program} JSON")
        return None


def read_coco(root: Path, path: Path, report: Report) -> Labels:
    """Read the file."""
    where = shown(path)
    tables = _load(path, report)
    # None: present but unusable, which has been reported.
    names: dict[int | str, str | None] = {}
    files: dict[int | str, str | None] = {}
    sizes: dict[int | str, tuple[int, int] | None] = {}
    for place, item in _entries(tables, "categories", where):
        if _is_new(item, "category", names, place, report):
            names[item["id"]] = _text(item, "name", place, report)
    for place, item in _entries(tables, "images", where):
        if _is_new(item, "picture", files, place, report):
            name = _text(item, "file_name", place, report)
            files[item["id"]] = name and checked_name(name, place, report)
            sides = item.get("height"), item.get("width")
            sizes[item["id"]] = sides if all(type(side) is int and side > 0 for side in sides) else None
    labels = defaultdict(set)
    crowds, regions = (defaultdict[int | str, list[tuple[str | None, Shape | None]]](list) for _ in range(2))
    for place, item in _entries(tables, "annotations", where):
        picture, category = item.get("image_id"), item.get("category_id")
        if not _is_id(picture) or picture not in files:
            report(f"{place}: no picture has the image_id {repr(picture)}; add it or remove the annotation")
        elif not _is_id(category) or category not in names:
            report(f"{place}: no category has the category_id {repr(category)}; add it to the categories")
        elif names[category]:
            labels[picture].add(names[category])
            shape = coco_shape(item.pop("segmentation", None))
            if item.get("iscrowd"):
                crowds[picture].append((None, shape))
            else:
                regions[picture].append((names[category], shape))
    if tables and not files:
        report(f"{where}: no picture in images; export it again")
    rows = [
        Row(name, sorted(labels[number]), drawn=_drawn(f"{where}, {name}", crowds[number] + regions[number], size))
        for (number, name), size in zip(files.items(), sizes.values(), strict=True)
        if name
    ]
    unused = sorted({name for name in names.values() if name}.difference(*labels.values()))
    return Labels(path, where_most_are(rows, [*picture_folders(root), root, path.parent]), rows, unused)


def _drawn(where: str, regions: list[tuple[str | None, Shape | None]], size: tuple[int, int] | None) -> Drawn | None:
    return None if any(shape is None for _, shape in regions) else Drawn(where, regions, size)


def _load(path: Path, report: Report) -> dict[str, Any]:
    if (values := load_json(path, "COCO", report)) is None:
        return {}
    for key in ("images", "annotations", "categories"):
        table = values.get(key) if isinstance(values, dict) else None
        if not isinstance(table, list) or not all(isinstance(item, dict) for item in table):
            studio = " (of Label Studio as JSON, not JSON-MIN)" if isinstance(values, list) else ""
            report(
                f"{shown(path)}: not COCO, it has no list of {key}; export it again{studio}, or move it away if it "
                "holds no labels"
            )
            return {}
    return values


def _entries(tables: dict[str, Any], key: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, item in enumerate(tables.get(key, ())):
        yield f"{where}, {key}[{number}]", item


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)


def _is_new(item: dict[str, Any], kind: str, ids: Collection[int | str], place: str, report: Report) -> bool:
    number = item.get("id")
    if not _is_id(number):
        report(f"{place}: the id {repr(number)} is not a number; give each {kind} its own")
    elif number in ids:
        report(f"{place}: the id {repr(number)} occurs twice; give each {kind} its own")
    else:
        return True
    return False


def _text(item: dict[str, Any], key: str, place: str, report: Report) -> str | None:
    text = item.get(key)
    if is_text(text):
        return text.strip()
    report(f"{place}: {repr(text)} is not a {key}; export it again")
    return None
