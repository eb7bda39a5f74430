"""A folder of pictures with labels in any of the usual layouts: one's own data."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..machine.errors import UserError
from .label_files import MASKS, Labels, Report, Row, listed, read_labels, refuse
from .masks import pick_classes, read_with_mask, renumbering
from .pictures import SUFFIXES, find_pictures, picture_size, read_picture, shown, unique_ids
from .records import Record


class Folder:
    """Pictures with labels in one of four layouts, and with masks where `root/masks/ID.png` exists.

    - `images/**` and `labels.csv`, which has the header `name,labels`. A name is a path below images/, with or without
      extension. Labels are split at `;` and `|` when the cell holds one of them (class names may then hold spaces:
      `traffic light;`), otherwise at spaces; an empty cell is a picture of none of the classes.
    - COCO: one JSON file, in `root`, `annotations/` or beside the pictures; a picture has the categories of its
      annotations. Pictures are in `images/`, `root` or beside the file.
    - VOC: `Annotations/*.xml` or XML files beside the pictures; a picture has the names of its objects. Pictures are in
      `JPEGImages/`, `images/`, `root` or beside the files.
    - A folder a class, in `root` or in `images/`.

    Pictures that the labels do not name are left out.

    class_names: the sorted classes that some picture has, or `classes` in the given order, other labels ignored
    ids:         the name below the folder of pictures, which of a folder a class is `CLASS/NAME`, without extension,
                 kept where two pictures differ in nothing else
    masks:       0 background, 255 ignored, 1.. the *sorted classes of the folder*; with `classes` they are renumbered,
                 other classes becoming background

    Raises UserError for labels that cannot be read or name what is not there.
    """

    def __init__(self, root: str | Path, *, classes: Sequence[str] = ()):
        found = look_into(root, refuse)
        if found.origin is None:
            raise UserError(
                f"{shown(root)}: no labels: neither labels.csv, COCO JSON, VOC XML nor a folder a class; "
                "write labels.csv with the header name,labels"
            )
        known = found.class_names
        self.class_names = pick_classes(classes, known, found.origin)
        self.labels = found.labels[:, [known.index(name) for name in self.class_names]]
        self.ids = found.ids
        self.has_masks = any(found.masks)
        self._paths, self._masks, self._known = found.pictures, found.masks, len(known)
        if self.has_masks:
            self._renumber = renumbering(self.class_names, known)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        path, mask_path = self._paths[index], self._masks[index]
        if mask_path is None:
            return Record(self.ids[index], read_picture(path), self.labels[index], None)
        image, mask = read_with_mask(path, mask_path, num_classes=self._known)
        return Record(self.ids[index], image, self.labels[index], self._renumber[mask])

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) from the header."""
        return picture_size(self._paths[index])


class Contents(NamedTuple):
    """What a folder holds, told without opening a picture.

    origin:      the file or folder that the labels were read from; None: there are no labels
    class_names: c names, sorted
    unused:      classes that are named but in no picture
    ids:         of the n pictures with labels, as their paths in `pictures` and `masks` (None: no mask)
    labels:      float32 (n, c)
    unlabelled:  pictures that the labels do not name
    spare_masks: files in masks/ that are no picture's mask
    """

    origin: Path | None
    class_names: tuple[str, ...]
    unused: list[str]
    ids: list[str]
    pictures: list[Path]
    masks: list[Path | None]
    labels: np.ndarray
    unlabelled: list[Path]
    spare_masks: list[Path]


def look_into(root: str | Path, report: Report) -> Contents:
    """What a folder holds; what is wrong with it goes to `report`, and is left out.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{shown(root)}: no such folder; name the folder that holds the pictures and their labels")
    labels = read_labels(root, report)
    listing = _Listing(labels.pictures, root / MASKS, report)
    rows = listing.resolve(labels, report)
    names = [row.name for row in rows]
    # Of all rows, also of those that are left out: the masks are numbered by them.
    known = sorted({label for row in labels.rows for label in row.labels})
    if rows and not known:
        report(f"{shown(labels.origin)}: no picture has a label; write the classes of the pictures into it")
    masks, spare = _find_masks(root / MASKS, [listing.ids[name] for name in names], listing.ids.values(), report)
    if any(masks) and len(known) > 254:
        report(
            f"{shown(root / MASKS)}: masks count to 254, {shown(labels.origin)} has {len(known)} classes; merge some"
        )
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
    )


class _Listing:
    """The pictures of a folder, listed once: paths and ids by name with extension."""

    def __init__(self, folder: Path, masks: Path, report: Report):
        self._folder = folder
        try:
            found = [path for path in find_pictures(folder) if masks not in path.parents]
        except UserError as error:
            report(str(error))
            found = []
        names = [path.relative_to(folder).as_posix() for path in found]
        self.paths = dict(zip(names, found, strict=True))
        self.ids = dict(zip(names, unique_ids(names), strict=True))
        self._by_stem = defaultdict(list)
        for name in names:
            self._by_stem[name.rpartition(".")[0]].append(name)

    def resolve(self, labels: Labels, report: Report) -> list[Row]:
        """The rows under the pictures' full names; missing, ambiguous and repeated ones are reported."""
        where = shown(labels.origin)
        found = {
            row.name: [row.name] if row.name in self.paths else self._by_stem.get(row.name, []) for row in labels.rows
        }
        missing = [name for name, matches in found.items() if not matches]
        if missing and self.paths:
            self._report_missing(missing, len(labels.rows), where, report)
        for name, matches in found.items():
            if len(matches) > 1:
                report(f"{where}: {shown(name)} can be {' or '.join(map(shown, matches))}; write the extension")
        resolved: dict[str, Row] = {}
        for row in labels.rows:
            if len(matches := found[row.name]) != 1:
                continue
            (name,) = matches
            if name in resolved:
                report(f"{where}: {shown(name)} is there twice; keep it once, with all its labels")
            else:
                resolved[name] = Row(name, row.labels)
        return list(resolved.values())

    def _report_missing(self, names: Sequence[str], count: int, where: str, report: Report) -> None:
        alike = {same_elsewhere(name): name for name in [*self._by_stem, *self.paths]}
        spelled = [(name, alike[same_elsewhere(name)]) for name in names if same_elsewhere(name) in alike]
        missing = [name for name in names if same_elsewhere(name) not in alike]
        if missing:
            report(
                f"{where}: {len(missing)} of {count} pictures are not in {shown(self._folder)}: {listed(missing)}; add "
                "them or take them out of the labels"
            )
        if spelled:
            pairs = ", ".join(f"{name!a} for {other!a}" for name, other in spelled[:3])
            report(
                f"{where}: names of {len(spelled)} of {count} pictures differ from the files' in case or Unicode form: "
                f"{pairs}{', ...' if len(spelled) > 3 else ''}; write them like the files"
            )


def _multi_hot(rows: Sequence[Row], known: Sequence[str]) -> np.ndarray:
    """float32 (n, c)."""
    columns = {name: column for column, name in enumerate(known)}
    labels = np.zeros((len(rows), len(known)), np.float32)
    for hot, row in zip(labels, rows, strict=True):
        hot[[columns[name] for name in row.labels]] = 1
    return labels


def same_elsewhere(name: str) -> str:
    """What is left of a name on a system that knows neither case nor the two Unicode forms of a letter."""
    return unicodedata.normalize("NFC", name).casefold()


def _find_masks(
    folder: Path, ids: Sequence[str], all_ids: Sequence[str], report: Report
) -> tuple[list[Path | None], list[Path]]:
    """The masks of the pictures with these ids, and the files that are the mask of none at all."""
    files = glob("**", root_dir=folder, recursive=True)
    drawn = {name for name in files if Path(name).suffix.lower() in SUFFIXES}
    masks = [folder / f"{name}.png" if f"{name}.png" in drawn else None for name in ids]
    if drawn and ids and not any(masks):
        example = shown(f"{ids[0]}.png")
        report(f"{shown(folder)}: none of its {len(drawn)} masks has a picture; name them {example}, ...")
    return masks, [folder / name for name in sorted(drawn - {f"{name}.png" for name in all_ids})]
