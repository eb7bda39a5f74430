"""Your own data: a folder of pictures with labels in any of the usual layouts."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..machine.errors import UserError
from .annotations.layouts import read_labels
from .annotations.regions import Truth
from .annotations.rows import MASKS, Labels, Report, Row, refuse
from .findings import Finding, Severity, listed, quoted, say, shown
from .formats import SUFFIXES, UNREAD, how_to_read
from .masks import MAX_CLASSES, check_size, pick_classes, read_mask, renumbering
from .pictures import picture_size, read_picture
from .records import Origin, Record
from .search import among, no_picture, unique_ids
from .walk import entry, outside, walk


class Folder:
    """Pictures with labels in one of eight layouts, and with masks where there are some.

    - `images/**` and `labels.csv`, which has the header `name,labels`. A name is a path below images/, with or without
      extension. Labels are split at the one separator of the whole file, `;`, `|`, `,` or the space, or are a list;
      an empty cell means none of the classes. Or a column for each class, with 0 and 1.
    - COCO: one JSON file, in `root`, in `annotations/` or beside the pictures; a picture has the categories of its
      annotations. Pictures are in `images/`, `root` or beside the file.
    - VOC: `Annotations/*.xml` or XML files beside the pictures; a picture has the names of its objects. Pictures are in
      `JPEGImages/`, `images/`, `root` or beside the files.
    - LabelMe: a JSON file for each picture, beside it or in `annotations/`; a picture has the labels of its shapes.
    - YOLO: a text file for each picture, in `labels/` or beside it, and `classes.txt` or `data.yaml`.
    - Label Studio: a JSON file of tasks; a picture has the labels and choices of its annotation.
    - CVAT: `SegmentationClass/**.png` and `labelmap.txt`; a picture has the classes of its mask.
    - One folder per class, in `root` or in `images/`.

    Pictures that the labels do not name are left out.

    A picture's mask is `root/masks/ID.png`. It holds 0 for background, 255 for ignored pixels, and from 1 on the
    *sorted classes of the folder*; with `classes` it is renumbered, and other classes become background. Where no
    picture has such a mask, the masks are those that the label files draw: by COCO's segmentations, polygons of
    LabelMe, YOLO and Label Studio, CVAT's colours. One that cannot be drawn is said and left out.

    Args:
        root: the folder.
        classes: the classes to keep, in this order; empty: all.
        enough: pixels of the longest side that are enough, see `read_picture`, where no masks are needed: there are
            none then. None: pictures as they are, and masks.

    Attributes:
        class_names: `classes`, or the sorted classes that occur in some picture.
        ids: the path below the folder of pictures (`CLASS/NAME` with one folder per class), without extension, which is
            kept where pictures differ in nothing else.

    Raises:
        UserError: the labels cannot be read, or name a picture that does not exist.
    """

    def __init__(self, root: str | Path, *, classes: Sequence[str] = (), enough: int | None = None):
        contents = look_into(root, refuse)
        if contents.origin is None:
            raise UserError(
                f"{shown(root)}: no labels: neither labels.csv, COCO, VOC, LabelMe, YOLO, Label Studio or CVAT nor one "
                "folder per class; write labels.csv with the header name,labels"
            )
        say(contents.remarks)
        all_names = contents.class_names
        self.class_names = pick_classes(classes, all_names, contents.origin)
        self.labels = contents.labels[:, [all_names.index(name) for name in self.class_names]]
        self.ids = contents.ids
        self._paths, self._enough, self._num_classes = contents.pictures, enough, len(all_names)
        self._masks = contents.masks if enough is None else [None] * len(contents.masks)
        self.has_masks = any(self._masks)
        if self.has_masks:
            self._renumber = renumbering(self.class_names, all_names)
        self._has_warned = False

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        image = read_picture(self._paths[index], enough=self._enough)
        return Record(self.ids[index], image, self.labels[index], self._mask(index, image.shape[:2]))

    def mask(self, index: int) -> np.ndarray | None:
        """The mask alone."""
        return None if self._masks[index] is None else self._mask(index, self.size(index))

    def masked(self) -> list[int]:
        """Indices of the pictures that have a mask, or regions to draw one from."""
        return [index for index, mask in enumerate(self._masks) if mask is not None]

    def _mask(self, index: int, size: tuple[int, int]) -> np.ndarray | None:
        match self._masks[index]:
            case None:
                return None
            case Path() as path:
                mask = read_mask(path, num_classes=self._num_classes)
                check_size(mask, size, path)
                return self._renumber[mask]
            case drawn:
                try:
                    return drawn.read(size, self.class_names)
                except UserError as error:  # its labels are as good as before
                    if not self._has_warned:
                        tqdm.write(f"warning: {error}: no mask of this picture; check-data lists all such pictures")
                    self._has_warned = True
                    return None

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) from the header."""
        return picture_size(self._paths[index], enough=self._enough)

    def origin(self, index: int) -> Origin:
        """The picture, and its mask if it has one."""
        picture = self._paths[index].absolute()
        match self._masks[index]:
            case None:
                return Origin(str(picture), (picture,), b"")
            case Path() as mask:
                return Origin(str(picture), (picture, mask.absolute()), b"")
            case drawn:
                return Origin(str(picture), (picture, *drawn.files), drawn.facts)


class Contents(NamedTuple):
    """The contents of a folder, found without opening a picture.

    Attributes:
        origin: the file or folder that the labels were read from; None: there are no labels.
        class_names: c names, sorted.
        unused: classes that are named but in no picture.
        ids: ids of the n pictures with labels.
        pictures: their n paths.
        masks: their n masks, PNGs of class indices or what their labels draw; None: no mask.
        labels: float32 (n, c).
        unlabelled: pictures that the labels do not name.
        spare_masks: files in masks/ that are no picture's mask.
        remarks: what is odd about the files and their names.
    """

    origin: Path | None
    class_names: tuple[str, ...]
    unused: list[str]
    ids: list[str]
    pictures: list[Path]
    masks: list[Path | Truth | None]
    labels: np.ndarray
    unlabelled: list[Path]
    spare_masks: list[Path]
    remarks: list[Finding]


def look_into(root: str | Path, report: Report) -> Contents:
    """List what a folder holds; defects go to `report` and are left out.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        what = "a file, not a folder (an archive has to be unpacked)" if root.is_file() else "no such folder"
        raise UserError(f"{shown(root)}: {what}; name the folder that holds the pictures and their labels")
    labels = read_labels(root, report)
    masks_folder = entry(root, MASKS) or root / MASKS
    listing = _Listing(labels.pictures, masks_folder, report)
    rows = listing.resolve(labels, report)
    names = [row.name for row in rows]
    # From all rows, including those that are left out, because the masks are numbered by them.
    known = sorted({label for row in labels.rows for label in row.labels})
    if rows and not known:
        report(f"{shown(labels.origin)}: no picture has a label; write the classes of the pictures into it")
    masks, spare = _find_masks(masks_folder, [listing.ids[name] for name in names], listing.ids.values(), report)
    if any(masks) and len(known) > MAX_CLASSES:
        report(
            f"{shown(masks_folder)}: masks count to {MAX_CLASSES}, {shown(labels.origin)} has {len(known)} classes; "
            "merge some"
        )
    if not any(masks) and len(known) <= MAX_CLASSES:
        masks = _drawn(rows)
    return Contents(
        origin=labels.origin,
        class_names=tuple(known),
        unused=labels.unused,
        ids=[listing.ids[name] for name in names],
        pictures=[listing.paths[name] for name in names],
        masks=masks,
        labels=_multi_hot(rows, known),
        unlabelled=[listing.paths[name] for name in sorted(listing.paths.keys() - set(names))],
        spare_masks=spare,
        remarks=[*labels.remarks, *listing.remarks],
    )


class _Listing:
    """The pictures of a folder: paths and ids by name with extension."""

    def __init__(self, folder: Path, masks: Path, report: Report):
        self._folder = folder
        found = outside(walk(folder), masks)
        paths, self.remarks = among(found, folder)
        self._files = found.files
        if not paths:
            report(no_picture(folder, self.remarks))
        names = [path.relative_to(folder).as_posix() for path in paths]
        self.paths = dict(zip(names, paths, strict=True))
        self.ids = dict(zip(names, unique_ids(names), strict=True))
        self._by_stem = defaultdict(list)
        for name in names:
            self._by_stem[name.rpartition(".")[0]].append(name)

    def resolve(self, labels: Labels, report: Report) -> list[Row]:
        """The rows with the pictures' full names; missing, ambiguous and repeated names are reported."""
        where = shown(labels.origin)
        candidates = {
            row.name: [row.name] if row.name in self.paths else self._by_stem.get(row.name, []) for row in labels.rows
        }
        missing = [name for name, matches in candidates.items() if not matches]
        if missing and self.paths:
            self._report_missing(missing, len(labels.rows), where, report)
        for name, matches in candidates.items():
            if len(matches) > 1:
                report(f"{where}: {listed([name])} can be {listed(matches, ' or ')}; write the extension")
        resolved: dict[str, Row] = {}
        swapped = []
        for row in labels.rows:
            if len(matches := candidates[row.name]) != 1:
                continue
            (name,) = matches
            own = [row.own] if row.own in self.paths else self._by_stem.get(row.own, [])
            if own and name not in own:
                swapped.append(f"{listed([row.own])} ({listed([name])})")
            if name in resolved:
                report(f"{where}: {listed([name])} occurs twice; keep one row, with all its labels")
            else:
                resolved[name] = row._replace(name=name)
        if swapped:
            what = "label files with the name of one picture and the inside of another"
            fix = "what is written inside counts: correct it, or rename the files"
            self.remarks.append(Finding(Severity.WARNING, what, tuple(swapped), fix))
        return list(resolved.values())

    def _report_missing(self, names: Sequence[str], count: int, where: str, report: Report) -> None:
        alike = {same_elsewhere(name): name for name in [*self._by_stem, *self.paths]}
        spelled = [(name, alike[same_elsewhere(name)]) for name in names if same_elsewhere(name) in alike]
        others = {path.relative_to(self._folder).as_posix() for path in self._files} - self.paths.keys()
        others |= {name.rpartition(".")[0] for name in others if Path(name).suffix.lower() in UNREAD}
        unread = [name for name in names if name in others]
        missing = [name for name in names if same_elsewhere(name) not in alike and name not in others]
        if unread:
            stems = {*unread, *(Path(name).name for name in unread)}
            kinds = {path.suffix.lower() for path in self._files if {path.name, path.stem} & stems}
            report(
                f"{where}: {len(unread)} of {count} pictures are in formats that are not read: {listed(unread)}; "
                f"{how_to_read(kinds)}"
            )
        if missing:
            report(
                f"{where}: {len(missing)} of {count} pictures are not in {shown(self._folder)}: {listed(missing)}; add "
                "them or remove them from the labels"
            )
        if spelled:
            pairs = ", ".join(f"{quoted(name)} for {quoted(other)}" for name, other in spelled[:3])
            report(
                f"{where}: names of {len(spelled)} of {count} pictures differ from the files' in case or Unicode form: "
                f"{pairs}{', ...' if len(spelled) > 3 else ''}; spell them like the files"
            )


def _multi_hot(rows: Sequence[Row], class_names: Sequence[str]) -> np.ndarray:
    """Labels as float32 (n, c)."""
    columns = {name: column for column, name in enumerate(class_names)}
    labels = np.zeros((len(rows), len(class_names)), np.float32)
    for hot, row in zip(labels, rows, strict=True):
        hot[[columns[name] for name in row.labels]] = 1
    return labels


def same_elsewhere(name: str) -> str:
    """The name as a file system sees it that ignores case and the Unicode form of letters."""
    return unicodedata.normalize("NFC", name).casefold()


def _drawn(rows: Sequence[Row]) -> list[Truth | None]:
    """The masks that label files draw; none at all where no class has a region: then they are of labels alone."""
    if not any(row.labels and row.drawn for row in rows):
        return [None] * len(rows)
    return [row.drawn for row in rows]


def _find_masks(
    folder: Path, ids: Sequence[str], all_ids: Sequence[str], report: Report
) -> tuple[list[Path | None], list[Path]]:
    """The masks of the pictures with these ids, and the files that are no picture's mask."""
    files = [path.relative_to(folder).as_posix() for path in walk(folder).files] if folder.is_dir() else []
    drawn = {name for name in files if Path(name).suffix.lower() in SUFFIXES}
    of_id = {name[:-4]: name for name in sorted(drawn, reverse=True) if name.lower().endswith(".png")}
    of_id |= {name[:-4]: name for name in drawn if name.endswith(".png")}
    masks = [folder / of_id[name] if name in of_id else None for name in ids]
    if drawn and ids and not any(masks):
        example = listed([f"{ids[0]}.png"])
        report(f"{shown(folder)}: none of its {len(drawn)} masks has a picture; name them {example}, ...")
    return masks, [folder / name for name in sorted(drawn - {of_id[name] for name in all_ids if name in of_id})]
