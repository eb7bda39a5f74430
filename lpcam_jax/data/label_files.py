"""The labels of a folder of pictures, in any of four layouts, which is detected.

    labels.csv                    name,labels
    annotations.json              COCO: images, annotations, categories
    Annotations/*.xml             VOC: filename, object/name
    cat/*.jpg  dog/*.jpg          one folder per class

Every defect is passed, as one line, to `report`. `refuse` raises the first one; a function that collects the lines
gets all of them, and whatever is defective is left out.
"""

import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from reprlib import repr  # short, however long or deep the value is
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tqdm import tqdm

from ..machine.errors import UserError
from .pictures import find_pictures, shown
from .records import relative_name

Report = Callable[[str], None]

PICTURE_FOLDERS = ("images", "JPEGImages")
MASKS = "masks"

_MAX_JSON, _MAX_XML = 1 << 30, 1 << 23  # bytes
_COCO_NAMES = ("annotations.json", "_annotations.coco.json")
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


class Row(NamedTuple):
    """A picture's name, relative to the folder of the pictures, with or without extension; and its classes."""

    name: str
    labels: list[str]


class Labels(NamedTuple):
    """The contents of the label files.

    Attributes:
        origin: the file or folder that was read; None: there are no labels.
        pictures: the folder that names are relative to.
        rows: one for each picture.
        unused: classes that are named but in no picture: they are not classes of the data set.
    """

    origin: Path | None
    pictures: Path
    rows: list[Row]
    unused: list[str]


def refuse(defect: str) -> None:
    """Report a defect by raising it as UserError."""
    raise UserError(defect)


def read_labels(root: Path, report: Report) -> Labels:
    """Read the labels of a data set.

    labels.csv takes precedence; folders are taken for classes only if there is no label file. Two kinds of label files
    are a defect, because nothing says which is right.
    """
    table = root / "labels.csv"
    if table.exists():
        return Labels(table, root / "images", _read_table(table, report), [])
    json_files, (folder, xml_files) = _coco_files(root), _voc_files(root)
    if not json_files and not xml_files:
        return _read_class_folders(root, report)
    if len(json_files) > 1:
        report(
            f"{shown(root)}: {len(json_files)} JSON files could be its labels ({listed(json_files)}); keep one, "
            "or name it annotations.json"
        )
    elif json_files and xml_files:
        report(
            f"{shown(root)}: labels twice, in {shown(json_files[0])} and in {shown(folder / '*.xml')}; keep one of them"
        )
    elif json_files:
        return _read_coco(root, json_files[0], report)
    else:
        return _read_voc(root, folder, xml_files, report)
    return Labels(root, _default_pictures(root), [], [])


# labels.csv


def _read_table(path: Path, report: Report) -> list[Row]:
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = [cell.strip() for cell in next(lines, [])]
            if header != ["name", "labels"]:
                report(f"{shown(path)}: the first line is {','.join(header)!r}; it must be 'name,labels'")
                return []
            for cells in filter(any, lines):
                row = _row_of(cells, f"{shown(path)}, line {lines.line_num}", report)
                rows += [row] if row else []
    except UnicodeDecodeError:
        report(f"{shown(path)}: not UTF-8 text; save it as CSV in UTF-8")
        return []
    except (OSError, csv.Error) as error:
        report(f"{shown(path)}: cannot be read as CSV ({error}); save it as CSV in UTF-8")
        return []
    if not rows:
        report(f"{shown(path)}: no picture after the header; write one line per picture: name,labels")
    return rows


def _row_of(cells: Sequence[str], where: str, report: Report) -> Row | None:
    if len(cells) != 2:
        report(f"{where}: fields: {len(cells)} instead of 2; separate labels by spaces, ; or |")
        return None
    name, cell = cells[0].strip(), cells[1]
    if not name:
        report(f"{where}: no name; write name,labels")
        return None
    labels = re.split(r"[;|]", cell) if re.search(r"[;|]", cell) else cell.split()
    name = _checked(name, where, report)
    return Row(name, [label.strip() for label in labels if label.strip()]) if name else None


# COCO


def _coco_files(root: Path) -> list[Path]:
    """The JSON files that may hold the labels: those with a usual name, else all."""
    files = [file for folder in ("", "annotations", "images") for file in _files(root / folder, ".json")]
    return [file for file in files if file.name in _COCO_NAMES] or files


def _read_coco(root: Path, path: Path, report: Report) -> Labels:
    where = shown(path)
    tables = _load_coco(path, report)
    # None: present but unusable, which has been reported.
    names: dict[int | str, str | None] = {}
    files: dict[int | str, str | None] = {}
    for place, entry in _entries(tables, "categories", where):
        if _is_new(entry, "category", names, place, report):
            names[entry["id"]] = _text(entry, "name", place, report)
    for place, entry in _entries(tables, "images", where):
        if _is_new(entry, "picture", files, place, report):
            name = _text(entry, "file_name", place, report)
            files[entry["id"]] = name and _checked(name, place, report)
    labels = defaultdict(set)
    for place, entry in _entries(tables, "annotations", where):
        picture, category = entry.get("image_id"), entry.get("category_id")
        if not _is_id(picture) or picture not in files:
            report(f"{place}: no picture has the image_id {repr(picture)}; add it or remove the annotation")
        elif not _is_id(category) or category not in names:
            report(f"{place}: no category has the category_id {repr(category)}; add it to the categories")
        elif names[category]:
            labels[picture].add(names[category])
    if tables and not files:
        report(f"{where}: no picture in images; export it again")
    rows = [Row(name, sorted(labels[number])) for number, name in files.items() if name]
    unused = sorted({name for name in names.values() if name}.difference(*labels.values()))
    return Labels(path, _where_most_are(rows, [root / "images", root, path.parent]), rows, unused)


def _load_coco(path: Path, report: Report) -> dict[str, Any]:
    where = shown(path)
    try:
        if (size := path.stat().st_size) > _MAX_JSON:
            report(f"{where}: {size >> 20} MB of labels, more than {_MAX_JSON >> 20}; split the data set")
            return {}
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        report(f"{where}: cannot be read as JSON ({error}); export it again as COCO JSON")
        return {}
    for key in ("images", "annotations", "categories"):
        table = values.get(key) if isinstance(values, dict) else None
        if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
            report(
                f"{where}: not COCO, it has no list of {key}; export it again, or move it away if it holds no labels"
            )
            return {}
    return values


def _entries(tables: dict[str, Any], key: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, entry in enumerate(tables.get(key, ())):
        yield f"{where}, {key}[{number}]", entry


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)


def _is_new(entry: dict[str, Any], kind: str, ids: Collection[int | str], place: str, report: Report) -> bool:
    number = entry.get("id")
    if not _is_id(number):
        report(f"{place}: the id {repr(number)} is not a number; give each {kind} its own")
    elif number in ids:
        report(f"{place}: the id {repr(number)} occurs twice; give each {kind} its own")
    else:
        return True
    return False


def _text(entry: dict[str, Any], key: str, place: str, report: Report) -> str | None:
    text = entry.get(key)
    # JSON can hold lone surrogates, which no file name contains and which cannot be encoded.
    if isinstance(text, str) and text.strip() and not re.search(r"[\ud800-\udfff]", text):
        return text.strip()
    report(f"{place}: {repr(text)} is not a {key}; export it again")
    return None


# VOC


def _voc_files(root: Path) -> tuple[Path, list[Path]]:
    """The folder of the annotations, and their files (maybe none)."""
    for name in ("Annotations", "annotations", *PICTURE_FOLDERS):
        files = [file for file in (root / name).rglob("*.xml") if not file.name.startswith(".")]
        if files:
            return root / name, sorted(files)
    return root, _files(root, ".xml")


def _read_voc(root: Path, folder: Path, files: Sequence[Path], report: Report) -> Labels:
    bar = tqdm(files, "reading labels", unit="file", delay=2, disable=None, leave=False)
    rows = [row for file in bar if (row := _read_annotation(file, file.parent.relative_to(folder), report))]
    return Labels(folder, _where_most_are(rows, [root / "JPEGImages", root / "images", root, folder]), rows, [])


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a DOCTYPE: it can declare entities that explode or read other files, and annotations need none."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE")


def _read_annotation(path: Path, folder: Path, report: Report) -> Row | None:
    where = shown(path)
    try:
        if (size := path.stat().st_size) > _MAX_XML:
            raise ValueError(f"it has {size >> 20} MB")
        root = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_WithoutDoctype()))
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        report(f"{where}: cannot be read as a VOC annotation ({error}); export it again")
        return None
    if root.tag != "annotation":
        report(f"{where}: holds {repr(root.tag)}, not a VOC annotation; move it away")
        return None
    name = (root.findtext("filename") or "").strip()
    if not name:
        report(f"{where}: no filename; write the name of its picture")
        return None
    labels = [(element.findtext("name") or "").strip() for element in root.iterfind("object")]
    if not all(labels):
        report(f"{where}: an object has no name; write its class")
    # A bare name is relative to the annotation's own folder: Annotations/cat/1.xml belongs to cat/1.jpg.
    name = _checked(name if "/" in name else (folder / name).as_posix(), where, report)
    return Row(name, sorted({label for label in labels if label})) if name else None


# One folder per class


def _read_class_folders(root: Path, report: Report) -> Labels:
    pictures = _default_pictures(root)
    try:
        folders = sorted(path.name for path in pictures.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        report(f"{shown(pictures)}: cannot be read ({error.strerror}); check its permissions")
        return Labels(pictures, pictures, [], [])
    folders = [name for name in folders if (pictures, name) != (root, MASKS)]
    turns, unused = [], []
    for folder in folders:
        try:
            paths = find_pictures(pictures / folder)
        except UserError:  # it has none
            unused.append(folder)
        else:
            turns += [(turn, Row(path.relative_to(pictures).as_posix(), [folder])) for turn, path in enumerate(paths)]
    if not turns:
        return Labels(None, pictures, [], [])
    # The classes take turns, so that the first pictures, to which a limit or slice restricts a run, show all of them.
    rows = [row for _, row in sorted(turns, key=itemgetter(0))]
    is_outer = len(folders) == 1 and all(row.name.count("/") > 1 for row in rows)
    if is_outer or {name.lower() for name in folders} <= _PARTS:
        report(
            f"{shown(pictures)}: its folders ({listed(folders)}) are data sets, not classes; name one of them: "
            f"{shown(pictures / folders[0])}"
        )
        return Labels(pictures, pictures, [], [])
    return Labels(pictures, pictures, rows, unused)


# Places and names


def _default_pictures(root: Path) -> Path:
    return next((root / name for name in PICTURE_FOLDERS if (root / name).is_dir()), root)


def _where_most_are(rows: Sequence[Row], folders: Sequence[Path]) -> Path:
    """The folder that holds most of the pictures; ties go to the first."""
    existing = [folder for folder in folders if folder.is_dir()]
    return max(existing, key=lambda folder: sum(os.path.isfile(folder / row.name) for row in rows))


def _files(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == suffix and not path.name.startswith("."))
    except OSError:
        return []


def _checked(name: str, where: str, report: Report) -> str | None:
    try:
        return relative_name(name, where)
    except UserError as error:
        report(str(error))
        return None


def listed(names: Sequence[str | Path]) -> str:
    """The first three names, for a message."""
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
