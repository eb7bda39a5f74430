"""A folder of masks in the formats of other programs: what is written where, and what the format cannot say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..data.masks import IGNORE, MaskFolder
from ..machine.errors import UserError
from ..machine.files import write_atomically, write_json
from .coco import coco_instances
from .cvat import cvat_archive
from .label_studio import label_studio_interface, label_studio_tasks
from .labelme import labelme_document
from .yolo import yolo_description, yolo_labels


class Masks(NamedTuple):
    """What is exported.

    Attributes:
        folder: the masks.
        class_names: c names, of the values 1..c.
        file_names: id -> file name of its picture.
    """

    folder: MaskFolder
    class_names: tuple[str, ...]
    file_names: Mapping[str, str]

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every file name and mask, with a progress bar."""
        for name, file in tqdm(self.file_names.items(), "export", unit="img"):
            yield file, self.read(name)

    def __len__(self) -> int:
        return len(self.file_names)

    def read(self, name: str) -> np.ndarray:
        """One mask, uint8 (H, W)."""
        return self.folder.read(name, classes=len(self.class_names))[0]


def write_each(names: Sequence[str], write: Callable[[str], None]) -> None:
    """Call `write` for every id, in threads and with a progress bar."""
    with ThreadPoolExecutor(4) as pool:
        for _ in tqdm(pool.map(write, names), "export", len(names), unit="img"):
            pass


def write_coco(masks: Masks, out: Path) -> str:
    """One JSON file of instances; what to tell the user."""
    document = coco_instances(masks, masks.class_names)
    write_json(out, document, indent=None)
    return f"{len(masks)} pictures with {len(document['annotations'])} regions are in {out}."


def write_labelme(masks: Masks, out: Path) -> str:
    """A JSON file for each picture, unless it is there: it may have been corrected; what to tell the user."""
    missing = [name for name in masks.file_names if not (out / f"{name}.json").exists()]

    def write(name: str) -> None:
        write_json(out / f"{name}.json", labelme_document(masks.file_names[name], masks.read(name), masks.class_names))

    write_each(missing, write)
    existing = len(masks) - len(missing)
    note = f" {existing} of them existed already and are unchanged." if existing else ""
    return f"{len(masks)} pictures are in {out}; put the files beside the pictures.{note}"


def write_yolo(masks: Masks, out: Path) -> str:
    """labels/ID.txt for each picture, and data.yaml; what to tell the user."""
    unsure = []

    def write(name: str) -> None:
        mask = masks.read(name)
        if (mask == IGNORE).any():
            unsure.append(name)
        label = Path(masks.file_names[name]).with_suffix(".txt")
        write_atomically(out / "labels" / label, yolo_labels(mask).encode(), durably=False)

    write_each(list(masks.file_names), write)
    write_atomically(out / "data.yaml", yolo_description(masks.class_names).encode(errors="backslashreplace"))
    return f"{len(masks)} pictures are in {out}; put the pictures into {out / 'images'}.{_unsure_note(unsure)}"


def write_label_studio(masks: Masks, out: Path) -> str:
    """A JSON file of tasks, and the interface beside it; what to tell the user."""
    write_json(out, label_studio_tasks(masks, masks.class_names, prefix="/data/local-files/?d="), indent=None)
    interface = out.with_suffix(".xml")
    write_atomically(interface, label_studio_interface(masks.class_names).encode(errors="xmlcharrefreplace"))
    return (
        f"{len(masks)} pictures are in {out}: import it into a project with the labelling interface {interface}, whose "
        "local storage holds the pictures."
    )


def write_cvat(masks: Masks, out: Path) -> str:
    """A zip archive; what to tell the user."""
    if bad := [name for name in masks.class_names if ":" in name or not name.isprintable()]:
        raise UserError(f"CVAT's list of labels cannot hold the class name {bad[0]!r}; give others with --classes.")
    unsure = []

    def pictures() -> Iterator[tuple[str, np.ndarray]]:
        for file, mask in masks:
            if (mask == IGNORE).any():
                unsure.append(file)
            yield Path(file).with_suffix("").as_posix(), mask

    write_atomically(out, cvat_archive(pictures(), masks.class_names))
    return f"{len(masks)} pictures are in {out}, annotations of the format Segmentation mask 1.1.{_unsure_note(unsure)}"


def _unsure_note(names: list[str]) -> str:
    if not names:
        return ""
    return f" {len(names)} of them have unsure pixels (255), which the format cannot say: they are background there."


WRITERS: Mapping[str, Callable[[Masks, Path], str]] = {
    "coco": write_coco,
    "labelme": write_labelme,
    "yolo": write_yolo,
    "label-studio": write_label_studio,
    "cvat": write_cvat,
}
