"""A folder of masks in the formats of other programs: what is written where, and what the format cannot say."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.findings import shown
from ..data.masks import MaskFolder, check_size, grey_png
from ..data.pictures import picture_size
from ..machine.errors import UserError, reason
from ..machine.files import write_atomically, write_json
from ..seeds import IGNORE
from .coco import coco_instances
from .cvat import cvat_archive
from .label_studio import label_studio_interface, label_studio_tasks
from .labelme import labelme_document
from .pairs import mask_targets, metadata
from .yolo import yolo_description, yolo_labels

# What a line of UTF-8 text cannot hold: controls, ends of lines, and the bytes of a name that is not UTF-8.
_UNLISTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Masks:
    """What is exported.

    Attributes:
        folder: the masks.
        class_names: c names, of the values 1..c.
        file_names: id -> file name of its picture.
        pictures: the folder of the pictures; None: it is not known.
        unsure: ids of masks with unsure pixels, of those that were read.
    """

    folder: MaskFolder
    class_names: tuple[str, ...]
    file_names: Mapping[str, str]
    pictures: Path | None = None
    unsure: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every file name and mask, with a progress bar."""
        for name, file in tqdm(self.file_names.items(), "export", unit="img"):
            yield file, self.read(name)

    def __len__(self) -> int:
        return len(self.file_names)

    def read(self, name: str) -> np.ndarray:
        """One mask, uint8 (H, W), of the size of its picture where that is known; raises UserError."""
        mask, _ = self.folder.read(name, classes=len(self.class_names))
        if self.pictures is not None:
            check_size(mask, picture_size(self.pictures / self.file_names[name]), self.folder.file(name))
        if (mask == IGNORE).any():
            self.unsure.add(name)
        return mask

    def unsure_note(self) -> str:
        """What to tell the user where a format has no unsure pixels."""
        if not self.unsure:
            return ""
        return (
            f" {len(self.unsure)} of them have unsure pixels (255), which the format cannot say: they are background "
            "there."
        )

    def stem(self, name: str) -> str:
        """The file name of a picture without its extension."""
        return Path(self.file_names[name]).with_suffix("").as_posix()

    def expect_stems(self) -> None:
        """Raise UserError where pictures differ in their extension alone: most formats name their files without it."""
        by_stem: dict[str, str] = {}
        for name, file in self.file_names.items():
            if (other := by_stem.setdefault(self.stem(name), file)) != file:
                raise UserError(
                    f"{shown(other)} and {shown(file)} differ in the extension alone, and the format names files "
                    "without it: rename one of the pictures, and its mask."
                )


def write_each(names: Sequence[str], write: Callable[[str], None]) -> None:
    """Call `write` for every id, in threads and with a progress bar."""
    with ThreadPoolExecutor(4) as pool:
        for _ in tqdm(pool.map(write, names), "export", len(names), unit="img"):
            pass


def _expect_new(file: Path) -> None:
    """UserError where the file exists: it may be somebody's own annotations, or have been corrected."""
    if os.path.lexists(file):
        raise UserError(f"{shown(file)} exists already; choose another --out, or delete it.")


def write_coco(masks: Masks, out: Path, *, regions: str) -> str:
    """One JSON file of instances, `regions` "polygons" or "rle"; what to tell the user."""
    _expect_new(out)
    document = coco_instances(masks, masks.class_names, run_lengths=regions == "rle")
    write_json(out, document, indent=None)
    return f"{len(masks)} pictures with {len(document['annotations'])} regions are in {out}.{masks.unsure_note()}"


def write_labelme(masks: Masks, out: Path) -> str:
    """A JSON file for each picture, unless it is there: it may have been corrected; what to tell the user."""
    missing, note = _not_there(masks, lambda name: out / f"{name}.json")

    def write(name: str) -> None:
        write_json(out / f"{name}.json", labelme_document(masks.file_names[name], masks.read(name), masks.class_names))

    write_each(missing, write)
    return f"{len(masks)} pictures are in {out}; put the files beside the pictures.{note}{masks.unsure_note()}"


def write_yolo(masks: Masks, out: Path) -> str:
    """labels/ID.txt for each picture, unless it is there, and data.yaml; what to tell the user."""
    masks.expect_stems()
    description, content = out / "data.yaml", yolo_description(masks.class_names).encode()
    if not (description.exists() and description.read_bytes() == content):
        _expect_new(description)

    def file(name: str) -> Path:
        return out / "labels" / f"{masks.stem(name)}.txt"

    missing, note = _not_there(masks, file)
    write_each(
        missing, lambda name: write_atomically(file(name), yolo_labels(masks.read(name)).encode(), durably=False)
    )
    write_atomically(description, content)
    return f"{len(masks)} pictures are in {out}; put the pictures into {out / 'images'}.{note}{masks.unsure_note()}"


def _not_there(masks: Masks, file: Callable[[str], Path]) -> tuple[list[str], str]:
    """The ids whose files are not there, and a note about the others, which may have been corrected by hand."""
    missing = [name for name in masks.file_names if not os.path.exists(file(name))]
    existing = len(masks) - len(missing)
    return missing, f" {existing} of them existed already and are unchanged." if existing else ""


def write_label_studio(masks: Masks, out: Path, *, regions: str) -> str:
    """A JSON file of tasks, `regions` "polygons" or "rle", and the interface beside it; what to tell the user."""
    _expect_new(out)
    brushes = regions == "rle"
    tasks = label_studio_tasks(masks, masks.class_names, prefix="/data/local-files/?d=", brushes=brushes)
    write_json(out, tasks, indent=None)
    interface = out.with_suffix(".xml")
    content = label_studio_interface(masks.class_names, brushes=brushes)
    write_atomically(interface, content.encode(errors="xmlcharrefreplace"))
    return (
        f"{len(masks)} pictures are in {out}: import it into a project with the labelling interface {interface}, whose "
        f"local storage holds the pictures.{masks.unsure_note()}"
    )


def write_cvat(masks: Masks, out: Path) -> str:
    """A zip archive; what to tell the user."""
    taken = ("background", "ignored")  # which CVAT's list has for itself
    if bad := [name for name in masks.class_names if ":" in name or not name.isprintable() or name in taken]:
        raise UserError(f"CVAT's list of labels cannot hold the class name {bad[0]!r}; give others with --classes.")
    if bad := list(filter(_UNLISTED.search, masks.file_names.values())):
        raise UserError(
            f"CVAT's list of pictures cannot hold the file name {shown(bad[0])}; rename the picture, and its mask."
        )
    masks.expect_stems()
    pictures = ((Path(file).with_suffix("").as_posix(), mask) for file, mask in masks)
    write_atomically(out, cvat_archive(pictures, masks.class_names))
    return f"{len(masks)} pictures are in {out}, annotations of the format Segmentation mask 1.1.{masks.unsure_note()}"


def write_fiftyone(masks: Masks, out: Path) -> str:
    """data/FILE and labels/ID.png for each picture, and mask_targets.json; what to tell the user."""
    _write_pairs(masks, out / "data", out / "labels")
    write_json(out / "mask_targets.json", {**mask_targets(masks.class_names), str(IGNORE): "ignored"})
    return f"{len(masks)} pictures are in {out}, an ImageSegmentationDirectory of FiftyOne."


def write_imagefolder(masks: Masks, out: Path) -> str:
    """images/FILE, masks/ID.png and metadata.jsonl in train/, and id2label.json; what to tell the user."""
    train = out / "train"  # the name of the split; without it, names such as test_1.jpg would be taken for splits
    labels = _write_pairs(masks, train / "images", train / "masks")
    files = ((file, masks.stem(name), labels[name]) for name, file in masks.file_names.items())
    write_atomically(train / "metadata.jsonl", metadata(files).encode(errors="backslashreplace"))
    write_json(out / "id2label.json", mask_targets(masks.class_names))
    return f'{len(masks)} pictures are in {out}: datasets.load_dataset("imagefolder", data_dir="{out}").'


def _write_pairs(masks: Masks, pictures: Path, labels: Path) -> dict[str, list[str]]:
    """Copies of the pictures, and their masks in grey; the classes in each mask, by id."""
    masks.expect_stems()
    present: dict[str, list[str]] = {}

    def write(name: str) -> None:
        mask, file = masks.read(name), masks.file_names[name]
        try:
            picture = (masks.pictures / file).read_bytes()
        except OSError as error:
            raise UserError(f"{shown(masks.pictures / file)}: cannot be read: {reason(error)}") from None
        write_atomically(pictures / file, picture, durably=False)
        write_atomically(labels / f"{masks.stem(name)}.png", grey_png(mask), durably=False)
        values = np.unique(mask[(mask != 0) & (mask != IGNORE)]).tolist()
        present[name] = [masks.class_names[value - 1] for value in values]

    write_each(list(masks.file_names), write)
    return present


WRITERS: Mapping[str, Callable[..., str]] = {
    "coco": write_coco,
    "labelme": write_labelme,
    "yolo": write_yolo,
    "label-studio": write_label_studio,
    "cvat": write_cvat,
    "fiftyone": write_fiftyone,
    "imagefolder": write_imagefolder,
}
