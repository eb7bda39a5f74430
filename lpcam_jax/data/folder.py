"""A folder of pictures with a table of labels: the layout for one's own data."""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .masks import pick_classes, read_with_mask, renumbering
from .pictures import find_pictures, picture_size, read_picture, shown, unique_ids
from .records import Record, relative_name


class _Row(NamedTuple):
    name: str
    labels: list[str]


class Folder:
    """`root/images/**` and `root/labels.csv`, with masks where `root/masks/ID.png` exists.

    labels.csv has the header `name,labels`. A name is a path below images/, with or without extension.
    Labels are split at `;` and `|` when the cell holds one of them (class names may then hold spaces:
    `traffic light;`), otherwise at spaces; an empty cell is a picture of none of the classes. Pictures
    without a line are left out.

    class_names: the sorted labels of the table, or `classes` in the given order, other labels ignored
    ids:         the name without extension, kept where two pictures differ in nothing else
    masks:       0 background, 255 ignored, 1.. the *sorted labels of the table*; with `classes` they are
                 renumbered, other classes becoming background

    Raises UserError for a table that cannot be read or names what is not there.
    """

    def __init__(self, root: str | Path, *, classes: Sequence[str] = ()):
        root = Path(root)
        if not root.is_dir():
            raise UserError(f"{shown(root)}: no such folder; name the folder that holds images/ and labels.csv")
        table = root / "labels.csv"
        rows = _read_table(table)
        listing = _Listing(root / "images")
        names = listing.resolve([row.name for row in rows], shown(table))

        known = sorted({label for row in rows for label in row.labels})
        if not known:
            raise UserError(f"{shown(table)}: no picture has a label; write class names in the column labels")
        self.class_names = pick_classes(classes, known, table)
        self.labels = np.array([[name in row.labels for name in self.class_names] for row in rows], np.float32)
        self.ids = [listing.ids[name] for name in names]
        self._paths = [listing.paths[name] for name in names]

        masks = root / "masks"
        drawn = set(glob("**/*.png", root_dir=masks, recursive=True))
        self._masks = [masks / f"{name}.png" if f"{name}.png" in drawn else None for name in self.ids]
        self.has_masks = any(self._masks)
        if drawn and not self.has_masks:
            example = shown(f"{self.ids[0]}.png")
            raise UserError(f"{shown(masks)}: none of its {len(drawn)} masks has a picture; name them {example}, ...")
        if drawn:
            if len(known) > 254:
                raise UserError(
                    f"{shown(masks)}: masks count to 254, labels.csv holds {len(known)} classes; merge some"
                )
            self._known = len(known)
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


class _Listing:
    """What images/ holds, listed once: paths and ids by name with extension."""

    def __init__(self, folder: Path):
        self._folder = folder
        found = find_pictures(folder)
        names = [path.relative_to(folder).as_posix() for path in found]
        self.paths = dict(zip(names, found, strict=True))
        self.ids = dict(zip(names, unique_ids(names), strict=True))
        self._by_stem = defaultdict(list)
        for name in names:
            self._by_stem[name.rpartition(".")[0]].append(name)

    def resolve(self, names: Sequence[str], where: str) -> list[str]:
        """The names with extension; UserError for missing, ambiguous and repeated ones."""
        found = {name: [name] if name in self.paths else self._by_stem.get(name, []) for name in names}
        missing = [name for name, matches in found.items() if not matches]
        if missing:
            more = ", ..." if len(missing) > 3 else ""
            raise UserError(
                f"{where}: {len(missing)} of {len(names)} pictures are not in {shown(self._folder)}: "
                f"{', '.join(map(shown, missing[:3]))}{more}; add them or take their lines out"
            )
        for name, matches in found.items():
            if len(matches) > 1:
                raise UserError(
                    f"{where}: {shown(name)} can be {' or '.join(map(shown, matches))}; write the extension"
                )
        resolved = [found[name][0] for name in names]
        seen: set[str] = set()
        for name in resolved:
            if name in seen:
                raise UserError(f"{where}: {shown(name)} has two lines; keep one with all its labels")
            seen.add(name)
        return resolved


def _read_table(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = [cell.strip() for cell in next(lines, [])]
            if header != ["name", "labels"]:
                raise UserError(f"{shown(path)}: the first line is {','.join(header)!r}; it must be 'name,labels'")
            rows = [_parse(cells, f"{shown(path)}, line {lines.line_num}") for cells in lines if any(cells)]
    except FileNotFoundError:
        raise UserError(f"{shown(path)}: no such file; write one with the header name,labels") from None
    except UnicodeDecodeError:
        raise UserError(f"{shown(path)}: not UTF-8 text; save it as CSV in UTF-8") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{shown(path)}: cannot be read as CSV ({error}); save it as CSV in UTF-8") from error
    if not rows:
        raise UserError(f"{shown(path)}: no picture after the header; write one line a picture: name,labels")
    return rows


def _parse(cells: list[str], where: str) -> _Row:
    if len(cells) != 2:
        raise UserError(f"{where}: fields: {len(cells)} instead of 2; separate labels by spaces, ; or |")
    name, cell = cells[0].strip(), cells[1]
    if not name:
        raise UserError(f"{where}: no name; write name,labels")
    labels = re.split(r"[;|]", cell) if re.search(r"[;|]", cell) else cell.split()
    return _Row(relative_name(name, where), [label.strip() for label in labels if label.strip()])
