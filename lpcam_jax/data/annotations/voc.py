"""VOC: an XML file for each picture, with the names of its objects.

Annotations/IMG_0012.xml   <annotation> <filename>IMG_0012.jpg</filename> <object> <name>cat</name> ...
"""

from collections.abc import Sequence
from pathlib import Path
from reprlib import repr  # short, however long or deep the value is
from xml.etree import ElementTree

from tqdm import tqdm

from ..findings import shown
from ..walk import entry
from .rows import Labels, Report, Row, checked_name, files_in, picture_folders, where_most_are

_MAX_BYTES = 1 << 23


def voc_files(root: Path) -> tuple[Path, list[Path]]:
    """The folder of the annotations, and their files (maybe none)."""
    for folder in (entry(root, "Annotations"), *picture_folders(root)):
        if folder and (files := files_in(folder, ".xml", deep=True)):
            return folder, files
    return root, files_in(root, ".xml")


def read_voc(root: Path, folder: Path, files: Sequence[Path], report: Report) -> Labels:
    """Read the files."""
    bar = tqdm(files, "reading labels", unit="file", delay=2, disable=None, leave=False)
    rows = [row for file in bar if (row := _read(file, file.parent.relative_to(folder), report))]
    return Labels(folder, where_most_are(rows, [*reversed(picture_folders(root)), root, folder]), rows, [])


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a DOCTYPE: it can declare entities that explode or read other files, and annotations need none."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE")


def _read(path: Path, folder: Path, report: Report) -> Row | None:
    where = shown(path)
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
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
    name = checked_name(name if "/" in name else (folder / name).as_posix(), where, report)
    own = (folder / path.name[:-4]).as_posix()
    return Row(name, sorted({label for label in labels if label}), own) if name else None
