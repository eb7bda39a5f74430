"""Training batches: which records, in which order, and what lies on their canvases."""

from itertools import islice

import numpy as np
import pytest

from lpcam_jax.config import Training
from lpcam_jax.data.pipeline import labelled_crops, training_batches
from lpcam_jax.data.records import Record
from lpcam_jax.errors import UserError


class Numbered:
    """n records of several sizes; labels name the record, pixels say the record, row and column (all from 1)."""

    has_masks = False

    def __init__(self, count: int, *, unreadable: int | None = None):
        self.class_names = tuple(f"class {i}" for i in range(count))
        self.ids = [str(i) for i in range(count)]
        self.labels = np.eye(count, dtype=np.float32)
        self._unreadable = unreadable

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        if index == self._unreadable:
            raise UserError(f"{index}.jpg: damaged picture; get it again")
        rows, columns = np.mgrid[1 : 1 + self.size(index)[0], 1 : 1 + self.size(index)[1]]
        image = np.stack([np.full_like(rows, index + 1), rows, columns], axis=-1).astype(np.uint8)
        return Record(self.ids[index], image, self.labels[index], None)

    def size(self, index: int) -> tuple[int, int]:
        return ((24, 10), (8, 24), (24, 24))[index % 3]


AS_IT_IS = Training(batch_size=4, crop=16, long_side=(24, 24))  # the long side of every record: no resize


def batches_of(source, training: Training, **options):
    return training_batches(source, labelled_crops(training), batch_size=training.batch_size, **options)


def batches(count: int, number: int, *, training: Training = AS_IT_IS, seed: int = 0, start: int = 0) -> list:
    return list(islice(batches_of(Numbered(count), training, seed=seed, start=start), number))


def records_of(batch) -> list[int]:
    return batch["labels"].argmax(axis=1).tolist()


def same(a, b) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in ("image", "box", "labels"))


def test_form():
    for batch in batches(6, 3):
        assert set(batch) == {"image", "box", "labels"}
        assert (batch["image"].shape, batch["image"].dtype) == ((4, 16, 16, 3), np.uint8)
        assert (batch["box"].shape, batch["box"].dtype) == ((4, 4), np.int32)
        assert (batch["labels"].shape, batch["labels"].dtype) == ((4, 6), np.float32)


@pytest.mark.parametrize("start", [1, 2, 5])
def test_a_later_start_continues_the_very_same_batches(start):
    expected = batches(9, 8)[start:]
    resumed = batches(9, 8 - start, start=start)
    assert all(map(same, resumed, expected))
    assert len(resumed) == len(expected)


def test_the_seed_alone_decides():
    first, again, other = batches(8, 4), batches(8, 4), batches(8, 4, seed=1)
    assert all(map(same, first, again))
    assert not any(map(same, first, other))
    assert [records_of(batch) for batch in first] != [records_of(batch) for batch in other]


def test_every_record_comes_once_an_epoch_in_a_new_order_and_another_crop():
    found = batches(12, 9)
    epochs = [[record for batch in found[i : i + 3] for record in records_of(batch)] for i in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 3
    assert len(set(map(tuple, epochs))) == 3
    crops = {}
    for batch in found:
        for record, image in zip(records_of(batch), batch["image"], strict=True):
            crops.setdefault(record, set()).add(image.tobytes())
    assert all(len(seen) > 1 for seen in crops.values())


def test_the_incomplete_batch_is_dropped():
    found = batches(11, 6)
    for epoch in (found[:2], found[2:4], found[4:]):
        assert len(set(records_of(epoch[0]) + records_of(epoch[1]))) == 8


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_records_than_a_batch_are_repeated_within_it(count):
    for batch in batches(count, 3):
        assert set(records_of(batch)) == set(range(count))


def test_canvas_holds_a_window_of_the_labelled_picture_and_zeros_around_it():
    turned = set()
    for batch in batches(12, 12):
        for record, canvas, (top, left, bottom, right) in zip(
            records_of(batch), batch["image"], batch["box"], strict=True
        ):
            height, width = Numbered(12).size(record)
            assert (bottom - top, right - left) == (min(height, 16), min(width, 16))
            window = canvas[top:bottom, left:right].astype(int)
            assert (window[..., 0] == record + 1).all()
            assert (np.diff(window[..., 1], axis=0) == 1).all()
            steps = set(np.diff(window[..., 2], axis=1).ravel().tolist())
            assert steps in ({1}, {-1})
            turned |= steps
            canvas[top:bottom, left:right] = 0
            assert not canvas.any()
    assert turned == {1, -1}


def test_long_side_is_within_its_range():
    training = Training(batch_size=4, crop=64, long_side=(20, 40))
    boxes = np.concatenate([batch["box"] for batch in batches(12, 30, training=training)])
    long_sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert (long_sides.min(), long_sides.max()) == (20, 40)


def test_unreadable_record_is_named():
    with pytest.raises(UserError, match=r"3\.jpg: damaged picture"):
        list(islice(batches_of(Numbered(8, unreadable=3), AS_IT_IS, seed=0), 2))
