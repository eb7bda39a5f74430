"""The records of a data set at another size, such as no larger than networks know objects."""

from collections.abc import Callable
from functools import partial

from .augment import resize_bicubic, resize_mask, shrunk_size
from .records import Origin, Record, RecordSource, origin_of

Size = tuple[int, int]


class Resized:
    """The records of a source, with pictures (bicubic) and masks (nearest) of another size.

    Args:
        source: the records.
        size_of: (H, W) of a picture -> its new size; one that stays is not touched.
    """

    def __init__(self, source: RecordSource, size_of: Callable[[Size], Size]):
        self._source, self._size_of = source, size_of
        self.class_names, self.ids, self.labels = source.class_names, source.ids, source.labels
        self.has_masks = source.has_masks

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        size = self._size_of(record.image.shape[:2])
        if size == record.image.shape[:2]:
            return record
        mask = None if record.mask is None else resize_mask(record.mask, size)
        return record._replace(image=resize_bicubic(record.image, size), mask=mask)

    def size(self, index: int) -> Size:
        """(H, W) from the header."""
        return self._size_of(self._source.size(index))

    def origin(self, index: int) -> Origin:
        """What the picture is made from."""
        return origin_of(self._source, index)


def shrunk(source: RecordSource, longest: int | None) -> Resized:
    """The records of a source, with no side of more than so many pixels (`Data.longest`); None: as they are."""
    return Resized(source, partial(shrunk_size, longest=longest))
