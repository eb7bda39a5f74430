"""The labels of a folder of pictures, in any of eight layouts, which is detected.

    labels.csv                    name,labels, or a column for each class (`table`)
    annotations.json              COCO: images, annotations, categories (`coco`)
    *.json                        Label Studio: a list of tasks (`label_studio`)
    Annotations/*.xml             VOC: filename, object/name
    images/*.json                 LabelMe: imagePath, shapes/label (`labelme`)
    labels/*.txt  classes.txt     YOLO: the number of a class at the start of each line (`yolo`)
    SegmentationClass/*.png       CVAT: masks in the colours of labelmap.txt (`cvat`)
    cat/*.jpg  dog/*.jpg          one folder per class

Label files and folders are found in upper and lower case. Every defect is passed, as one line, to `report`. `refuse`
raises the first one; a function that collects the lines gets all of them, and whatever is defective is left out.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from reprlib import repr  # short, however long or deep the value is
from xml.etree import ElementTree

from tqdm import tqdm

from ..findings import listed, shown
from ..pictures import among
from ..walk import entry, walk
from .coco import is_named_as_coco, json_files, read_coco
from .cvat import cvat_files, read_cvat
from .label_studio import is_label_studio, read_label_studio
from .labelme import labelme_files, read_labelme
from .rows import (
    MASKS,
    PICTURE_FOLDERS,
    Labels,
    Report,
    Row,
    checked_name,
    default_pictures,
    files_in,
    picture_folders,
    refuse,
    where_most_are,
)
from .table import read_table
from .yolo import read_yolo, yolo_files

__all__ = ["LAYOUTS", "MASKS", "PICTURE_FOLDERS", "Labels", "Report", "Row", "read_labels", "refuse"]

LAYOUTS = ("labels.csv", "COCO", "VOC", "LabelMe", "YOLO", "Label Studio", "CVAT", "one folder per class")
_MAX_XML = 1 << 23  # bytes
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def read_labels(root: Path, report: Report) -> Labels:
    """Read the labels of a data set.

    labels.csv takes precedence; folders are taken for classes only if there is no label file. Two kinds of label files
    are a defect, because nothing says which is right.
    """
    if table := entry(root, "labels.csv"):
        rows, unused, remarks = read_table(table, report)
        return Labels(table, entry(root, "images") or root / "images", rows, unused, remarks)
    coco, (xml_folder, voc), (json_folder, labelme), yolo = (
        find(root) for find in (json_files, _voc_files, labelme_files, yolo_files)
    )
    if labelme and not any(map(is_named_as_coco, coco)):
        coco = [file for file in coco if file.parent != json_folder]
    elif coco:
        labelme = []
    if len(coco) > 1:
        report(
            f"{shown(root)}: {len(coco)} JSON files could be its labels ({listed(coco)}); keep one, "
            "or name it annotations.json"
        )
        return Labels(root, default_pictures(root), [], [])
    found: dict[Path, Callable[[], Labels]] = {}
    if coco:
        read = read_coco
        if is_label_studio(coco[0]):
            read, voc = read_label_studio, [file for file in voc if file.stem != coco[0].stem]  # its interface
        found[coco[0]] = lambda: read(root, coco[0], report)
    if voc:
        found[xml_folder / "*.xml"] = lambda: _read_voc(root, xml_folder, voc, report)
    elif masks := cvat_files(root):  # beside XML files they are of the same objects
        found[masks.folder / "*.png"] = lambda: read_cvat(root, masks, report)
    if labelme:
        found[json_folder / "*.json"] = lambda: read_labelme(root, json_folder, labelme, report)
    if yolo.files:
        found[yolo.folder / "*.txt"] = lambda: read_yolo(root, yolo, report)
    match list(found):
        case []:
            return _read_class_folders(root, report)
        case [one]:
            return found[one]()
        case [one, other, *_]:
            report(f"{shown(root)}: labels twice, in {shown(one)} and in {shown(other)}; keep one of them")
            return Labels(root, default_pictures(root), [], [])


# VOC


def _voc_files(root: Path) -> tuple[Path, list[Path]]:
    """The folder of the annotations, and their files (maybe none)."""
    for folder in (entry(root, "Annotations"), *picture_folders(root)):
        if folder and (files := files_in(folder, ".xml", deep=True)):
            return folder, files
    return root, files_in(root, ".xml")


def _read_voc(root: Path, folder: Path, files: Sequence[Path], report: Report) -> Labels:
    bar = tqdm(files, "reading labels", unit="file", delay=2, disable=None, leave=False)
    rows = [row for file in bar if (row := _read_annotation(file, file.parent.relative_to(folder), report))]
    return Labels(folder, where_most_are(rows, [*reversed(picture_folders(root)), root, folder]), rows, [])


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
    name = checked_name(name if "/" in name else (folder / name).as_posix(), where, report)
    own = (folder / path.name[:-4]).as_posix()
    return Row(name, sorted({label for label in labels if label}), own) if name else None


# One folder per class


def _read_class_folders(root: Path, report: Report) -> Labels:
    pictures = default_pictures(root)
    found = walk(pictures)
    if pictures in found.closed:
        report(f"{shown(pictures)}: cannot be read; check its permissions")
        return Labels(pictures, pictures, [], [])
    masks = entry(root, MASKS)
    of_class = defaultdict(list)
    for path in among(found, pictures).pictures:
        folder, *inside = path.relative_to(pictures).parts
        if inside and pictures / folder != masks:
            of_class[folder].append(Row(path.relative_to(pictures).as_posix(), [folder]))
    if not of_class:
        return Labels(None, pictures, [], [])
    # The classes take turns, so that the first pictures, to which a limit or slice restricts a run, show all of them.
    turns = [turn for folder in sorted(of_class) for turn in enumerate(of_class[folder])]
    rows = [row for _, row in sorted(turns, key=itemgetter(0))]
    # Folders without a picture, unless that is because they lead to results of this program or to other folders.
    leading = {path.relative_to(pictures).parts[0] for path in [*found.own, *found.again]}
    unused = [
        path.name
        for path in sorted(pictures.iterdir())
        if path.is_dir()
        and not path.name.startswith(".")
        and path != masks
        and path.name not in leading | set(of_class)
    ]
    folders = sorted([*of_class, *unused])
    is_outer = len(folders) == 1 and all(row.name.count("/") > 1 for row in rows)
    if is_outer or {name.lower() for name in folders} <= _PARTS:
        report(
            f"{shown(pictures)}: its folders ({listed(folders)}) are data sets, not classes; name one of them: "
            f"{shown(pictures / folders[0])}"
        )
        return Labels(pictures, pictures, [], [])
    return Labels(pictures, pictures, rows, unused)
