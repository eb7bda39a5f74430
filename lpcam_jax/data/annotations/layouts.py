"""The labels of a folder of pictures, in any of eight layouts, which is detected.

    labels.csv                    name,labels, or a column for each class (`table`)
    annotations.json              COCO: images, annotations, categories (`coco`)
    *.json                        Label Studio: a list of tasks (`label_studio`)
    Annotations/*.xml             VOC: filename, object/name (`voc`)
    images/*.json                 LabelMe: imagePath, shapes/label (`labelme`)
    labels/*.txt  classes.txt     YOLO: the number of a class at the start of each line (`yolo`)
    SegmentationClass/*.png       CVAT: masks in the colours of labelmap.txt (`cvat`)
    cat/*.jpg  dog/*.jpg          one folder per class (`class_folders`)

Label files and folders are found in upper and lower case. Every defect is passed, as one line, to `report`. `refuse`
raises the first one; a function that collects the lines gets all of them, and whatever is defective is left out.
"""

from collections.abc import Callable
from pathlib import Path

from ..findings import listed, shown
from ..walk import entry
from .class_folders import read_class_folders
from .coco import is_named_as_coco, json_files, read_coco
from .cvat import cvat_files, read_cvat
from .label_studio import is_label_studio, read_label_studio
from .labelme import labelme_files, read_labelme
from .rows import Labels, Report, default_pictures
from .table import read_table
from .voc import read_voc, voc_files
from .yolo import read_yolo, yolo_files

LAYOUTS = ("labels.csv", "COCO", "VOC", "LabelMe", "YOLO", "Label Studio", "CVAT", "one folder per class")


def read_labels(root: Path, report: Report) -> Labels:
    """Read the labels of a data set.

    labels.csv takes precedence; folders are taken for classes only if there is no label file. Two kinds of label files
    are a defect, because nothing says which is right.
    """
    if table := entry(root, "labels.csv"):
        rows, unused, remarks = read_table(table, report)
        return Labels(table, entry(root, "images") or root / "images", rows, unused, remarks)
    coco, (xml_folder, voc), (json_folder, labelme), yolo = (
        find(root) for find in (json_files, voc_files, labelme_files, yolo_files)
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
        found[xml_folder / "*.xml"] = lambda: read_voc(root, xml_folder, voc, report)
    elif masks := cvat_files(root):  # beside XML files they are of the same objects
        found[masks.folder / "*.png"] = lambda: read_cvat(root, masks, report)
    if labelme:
        found[json_folder / "*.json"] = lambda: read_labelme(root, json_folder, labelme, report)
    if yolo.files:
        found[yolo.folder / "*.txt"] = lambda: read_yolo(root, yolo, report)
    match list(found):
        case []:
            return read_class_folders(root, report)
        case [one]:
            return found[one]()
        case [one, other, *_]:
            report(f"{shown(root)}: labels twice, in {shown(one)} and in {shown(other)}; keep one of them")
            return Labels(root, default_pictures(root), [], [])
