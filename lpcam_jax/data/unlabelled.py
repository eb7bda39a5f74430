"""Pictures alone: those that are mapped without labels or masks."""

import os
from collections.abc import Sequence
from pathlib import Path

from .annotations.rows import MASKS
from .findings import say
from .pictures import picture_size, read_picture
from .records import Origin, Record
from .search import among, find_pictures, unique_ids
from .walk import entry, outside, walk


def find_unlabelled(pattern: str | Path) -> list[Path]:
    """The pictures to map without labels: those of a file or a glob, or of a folder, in which masks are no pictures.

    Raises:
        UserError: there are none.
    """
    if not os.path.isdir(pattern) or (masks := entry(pattern, MASKS)) is None:
        return find_pictures(pattern)
    pictures, passed_over = among(outside(walk(pattern), masks), pattern)
    if not pictures:  # but masks: nobody else can mean them
        return find_pictures(pattern)
    say(passed_over)
    return pictures


class Pictures:
    """Pictures without labels or masks.

    Ids are the paths below the deepest common folder; see `unique_ids`.

    Args:
        paths: of the pictures; duplicates count once.
        class_names: c names.
    """

    labels = None
    has_masks = False

    def __init__(self, paths: Sequence[str | Path], class_names: Sequence[str]):
        given = {os.path.abspath(path): path for path in paths}
        folder = os.path.commonpath([os.path.dirname(path) for path in given]) if given else ""
        self.ids = unique_ids([Path(path).relative_to(folder).as_posix() for path in given])
        self._paths = list(given.values())
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        return Record(self.ids[index], read_picture(self._paths[index]), None, None)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) from the header."""
        return picture_size(self._paths[index])

    def origin(self, index: int) -> Origin:
        """The file."""
        path = Path(self._paths[index]).absolute()
        return Origin(str(path), (path,), b"")
