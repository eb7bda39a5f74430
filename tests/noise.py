"""Pictures of random pixels in many sizes, which need no file."""

import numpy as np

from lpcam_jax.data.records import Record
from lpcam_jax.machine.errors import UserError

SIZES = ((96, 64), (37, 50), (64, 90), (5, 7), (33, 33), (80, 17))


class Noise:
    """Some of the pictures, in this order; labels where they are given."""

    has_masks = False
    class_names = tuple("abc")

    def __init__(self, order=(0, 1, 2, 3, 4, 5), *, labels=None, unreadable=(), bad_header=()):
        self.order, self.labels = list(order), labels
        self.unreadable, self.bad_header = unreadable, bad_header
        self.ids = [str(number) for number in self.order]

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        number = self.order[index]
        if number in self.unreadable:
            raise UserError(f"{number}.jpg: damaged picture; get it again")
        image = np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3), dtype=np.uint8)
        return Record(self.ids[index], image, None if self.labels is None else self.labels[index], None)

    def size(self, index):
        if self.order[index] in self.bad_header:
            raise UserError(f"{self.order[index]}.jpg: the file is empty; take it out")
        return SIZES[self.order[index]]


class Mirrored(Noise):
    """The mirror images of the pictures."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        return record._replace(image=record.image[:, ::-1])


def found_in(results) -> tuple[dict, list[str]]:
    """(What became of each picture by its id; the lines of those that cannot be read) of (index, record, result)."""
    found, errors = {}, []
    for _, record, result in results:
        if isinstance(record, UserError):
            assert result is None
            errors.append(str(record))
            continue
        assert record.id not in found
        found[record.id] = result
    return found, errors
