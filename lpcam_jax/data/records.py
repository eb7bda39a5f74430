"""The interface between data sets and everything else: a source of records.

Training, clustering, inference and scoring depend on `RecordSource` only, so any data set that implements it works
everywhere. Raggedness (sizes, missing masks) is described, never hidden.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np

from ..machine.errors import UserError


class Record(NamedTuple):
    """A picture with its annotations.

    Attributes:
        id: name without extension, `/` between folders; unique in its source; names the output files.
        image: uint8 (H, W, 3), RGB.
        labels: float32 (c,), 1 where the class is in the picture; None if unknown.
        mask: uint8 (H, W), 0 background, 1..c the classes in the order of `class_names`, 255 ignored; None if there is
            none. Used by scoring and by the training of segmentation networks.
    """

    id: str
    image: np.ndarray
    labels: np.ndarray | None
    mask: np.ndarray | None


class Origin(NamedTuple):
    """What a record is made from, to tell whether it has changed.

    Attributes:
        place: where it is, in words: the path of the picture, or the name of its data set.
        files: that are read for it.
        facts: everything else that it depends on, such as its labels.
    """

    place: str
    files: tuple[Path, ...]
    facts: bytes


class RecordSource(Protocol):
    """A finite, random-access data set.

    Attributes:
        class_names: c names.
        ids: n ids, in the order of the records.
        labels: float32 (n, c), known without opening a picture; None for pictures without labels.
        has_masks: whether records carry masks.
    """

    class_names: tuple[str, ...]
    ids: Sequence[str]
    labels: np.ndarray | None
    has_masks: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Decode one record; raises UserError, which names the file, if it cannot be read."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of a picture as `__getitem__` would return it, from the file's header alone."""
        ...

    def origin(self, index: int) -> Origin:
        """What a record is made from; nothing is read."""
        ...


def true_mask(source: RecordSource, index: int) -> np.ndarray | None:
    """`source[index].mask`, without decoding the picture where the source has a method `mask` for that.

    Args:
        source: the pictures.
        index: of one of them.

    Raises:
        UserError: it cannot be read.
    """
    return source.mask(index) if hasattr(source, "mask") else source[index].mask


def masked(source: RecordSource) -> list[int]:
    """Indices of the records that have a mask, by the source's method `masked` where only some have; nothing is read.

    Args:
        source: the pictures.
    """
    if hasattr(source, "masked"):
        return source.masked()
    return list(range(len(source))) if source.has_masks else []


def origin_of(source: RecordSource, index: int) -> Origin:
    """What a record is made from, its labels included; of a source that does not say it, its name and labels."""
    labels = b"" if source.labels is None else np.asarray(source.labels[index], np.float32).tobytes()
    origin = _without_labels(source, index)
    return origin._replace(facts=origin.facts + labels)


def _without_labels(source: RecordSource, index: int) -> Origin:
    return source.origin(index) if hasattr(source, "origin") else Origin(source.ids[index], (), b"")


def census(source: RecordSource) -> str:
    """16 hex digits that tell a set of pictures and labels from others: of names and labels, not of the pixels."""
    digest = hashlib.sha256("\0".join(source.ids).encode(errors="surrogateescape"))
    if source.labels is not None:
        digest.update(np.ascontiguousarray(source.labels, np.float32).tobytes())
    return digest.hexdigest()[:16]


def census_of_masks(source: RecordSource) -> str | None:
    """16 hex digits that tell the masks of a folder from those of another; None: the source has its own masks."""
    return source.census_of_masks() if hasattr(source, "census_of_masks") else None


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

    def mask(self, index: int) -> np.ndarray | None:
        """The mask alone."""
        return true_mask(self._source, self._indices[index])

    def masked(self) -> list[int]:
        """Indices of the records that have a mask."""
        of_source = {*masked(self._source)}
        return [position for position, index in enumerate(self._indices) if index in of_source]

    def origin(self, index: int) -> Origin:
        """What a record is made from."""
        return _without_labels(self._source, self._indices[index])


def relative_name(name: str, where: str) -> str:
    """`name`, read from `where`, as a normalized path below a folder; raises UserError if it leads outside."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: {name[:200]!r} leads out of the data set; use a relative name without '..'")
    return path.as_posix()


def hold_out(count: int, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split range(count) at random into sorted (kept, held out) indices; at least one is kept."""
    order = np.random.default_rng(seed).permutation(count)
    held = min(round(count * fraction), count - 1)
    return np.sort(order[held:]), np.sort(order[:held])
