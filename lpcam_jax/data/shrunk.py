"""Pictures as networks are trained on them: none larger than objects are known at."""

import numpy as np

from .augment import resize_bicubic, resize_mask, shrunk_size
from .records import Origin, Record, RecordSource


class Shrunk:
    """The records of a source, with pictures and masks of a bounded size.

    Args:
        source: the records.
        longest: pixels of the longest side; larger pictures are shrunk to it, in proportion. None: as they are.
    """

    def __init__(self, source: RecordSource, longest: int | None):
        self._source, self._longest = source, longest
        self.class_names, self.ids, self.labels = source.class_names, source.ids, source.labels
        self.has_masks = source.has_masks

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        size = shrunk_size(record.image.shape[:2], self._longest)
        if size == record.image.shape[:2]:
            return record
        mask = None if record.mask is None else resize_mask(np.uint8(record.mask), size)
        return record._replace(image=resize_bicubic(record.image, size), mask=mask)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) from the header."""
        return shrunk_size(self._source.size(index), self._longest)

    def origin(self, index: int) -> Origin:
        """What the picture is made from."""
        return self._source.origin(index)
