"""The one interface between data sets and everything else: a source of records.

Training, clustering, inference and scoring know `RecordSource` only. A data set that offers it works
everywhere; raggedness (sizes, missing masks) is described, never hidden.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np

from ..machine.errors import UserError


class Record(NamedTuple):
    """One picture with what is known of it.

    id:     name without extension, `/` between folders; unique in its source; names the output files
    image:  uint8 (H, W, 3), RGB
    labels: float32 (c,), 1 where the class is in the picture; None when nothing is known
    mask:   uint8 (H, W), 0 background, 1..c the classes in the order of `class_names`, 255 ignored;
            None when there is none. Scoring reads it, and the training of a segmentation network.
    """

    id: str
    image: np.ndarray
    labels: np.ndarray | None
    mask: np.ndarray | None


class RecordSource(Protocol):
    """A finite, random-access data set.

    class_names: c names
    ids:         n ids, in the order of the records
    labels:      float32 (n, c), known without opening a picture; None for pictures without labels
    has_masks:   whether records carry masks
    """

    class_names: tuple[str, ...]
    ids: Sequence[str]
    labels: np.ndarray | None
    has_masks: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Decode one record; raises UserError naming the file when it cannot be read."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of a picture as `__getitem__` would return it, from the file's header alone."""
        ...


class Subset:
    """Some records of a source, in the given order."""

    def __init__(self, source: RecordSource, indices: Sequence[int]):
        self._source = source
        self._indices = [int(i) for i in indices]
        self.class_names = source.class_names
        self.ids = [source.ids[i] for i in self._indices]
        self.labels = None if source.labels is None else source.labels[self._indices]
        self.has_masks = source.has_masks

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[self._indices[index]]

    def size(self, index: int) -> tuple[int, int]:
        return self._source.size(self._indices[index])


def relative_name(name: str, where: str) -> str:
    """`name`, found in `where`, as a normalised path below a folder; UserError when it leads out of it."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: {name!r} leads out of the data set; names are relative and without '..'")
    return path.as_posix()


def hold_out(count: int, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split range(count) into (kept, held out) indices, seeded; both sorted, at least one kept."""
    order = np.random.default_rng(seed).permutation(count)
    held = min(round(count * fraction), count - 1)
    return np.sort(order[held:]), np.sort(order[:held])
