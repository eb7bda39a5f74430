"""Labels as they come out of label files of any kind: a row for each picture."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...machine.errors import UserError
from ..findings import Finding
from ..records import relative_name
from ..walk import entry, walk
from .regions import Truth

Report = Callable[[str], None]

PICTURE_FOLDERS = ("images", "JPEGImages")
MASKS = "masks"
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


class Row(NamedTuple):
    """What a label file says of a picture.

    Attributes:
        name: of the picture, relative to the folder of the pictures, with or without extension.
        labels: its classes.
        own: where the picture has a label file of its own, the name of that one, likewise; else "".
        drawn: the mask that the label file draws; None: it draws none.
    """

    name: str
    labels: list[str]
    own: str = ""
    drawn: Truth | None = None


class Labels(NamedTuple):
    """The contents of the label files.

    Attributes:
        origin: the file or folder that was read; None: there are no labels.
        pictures: the folder that names are relative to.
        rows: one for each picture.
        unused: classes that are named but in no picture: they are not classes of the data set.
        remarks: what is odd about the files.
    """

    origin: Path | None
    pictures: Path
    rows: list[Row]
    unused: list[str]
    remarks: Sequence[Finding] = ()


def is_split(name: str) -> bool:
    """Whether a folder is named as a part of a data set is, not as a class: train, val2017, test_images, ..."""
    return re.sub(r"[\d_\-. ]+|ima?ge?s?$|^ima?ge?s?", "", name.casefold()) in _SPLITS


def is_text(value: Any) -> bool:
    """Whether a JSON value is a name: JSON can hold lone surrogates, which no file name contains and no file takes."""
    return isinstance(value, str) and bool(value.strip()) and not re.search(r"[\ud800-\udfff]", value)


def refuse(defect: str) -> None:
    """Report a defect by raising it as UserError."""
    raise UserError(defect)


def checked_name(name: str, where: str, report: Report) -> str | None:
    """A picture's name, read from `where`, as a path below a folder; None, and a report, if it leads outside."""
    try:
        return relative_name(name, where)
    except UserError as error:
        report(str(error))
        return None


def picture_folders(root: Path) -> list[Path]:
    """The folders in `root` that are named as one of pictures, `images` before `JPEGImages`."""
    found = (entry(root, name) for name in PICTURE_FOLDERS)
    return [path for path in found if path is not None and path.is_dir()]


def default_pictures(root: Path) -> Path:
    """Where the pictures are unless labels say otherwise."""
    return next(iter(picture_folders(root)), root)


def where_most_are(rows: Sequence[Row], folders: Sequence[Path]) -> Path:
    """The folder that holds most of the pictures; ties go to the first."""
    existing = [folder for folder in folders if folder.is_dir()]
    return max(existing, key=lambda folder: sum(os.path.isfile(folder / row.name) for row in rows))


def files_in(folder: Path, suffix: str, *, deep: bool = False) -> list[Path]:
    """Files with a suffix in any case, hidden ones excepted; `deep`: in subfolders, too."""
    if deep:
        return [path for path in walk(folder).files if path.suffix.lower() == suffix] if folder.is_dir() else []
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() == suffix and not path.name.startswith(".")]
    except OSError:
        return []
    return sorted(path for path in paths if not path.is_dir())
