"""Training batches: which records, in which order, and what lies on their canvases."""

import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from lpcam_jax.data.pipeline import training_batches
from lpcam_jax.data.records import Record
from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.threads import cores
from lpcam_jax.systems.deeplab.config import DeepLabTraining
from lpcam_jax.systems.deeplab.training import masked_crops
from lpcam_jax.systems.lpcam.config import LPCAMTraining
from lpcam_jax.systems.lpcam.training import labelled_crops
from lpcam_jax.systems.sure_labels import sure_crops


class Numbered:
    """n records of several sizes; labels name the record, pixels say the record, row and column (all from 1).

    Of masks, if any, a pixel says all three.
    """

    def __init__(self, count: int, *, unreadable: int | None = None, has_masks: bool = False):
        self.has_masks = has_masks
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
        return Record(self.ids[index], image, self.labels[index], mask_of(image) if self.has_masks else None)

    def size(self, index: int) -> tuple[int, int]:
        return ((24, 10), (8, 24), (24, 24))[index % 3]


def mask_of(image: np.ndarray) -> np.ndarray:
    """One number below 255 for each record, row and column."""
    return (image @ np.array([97, 31, 7]) % 251).astype(np.uint8)


AS_IT_IS = LPCAMTraining(batch_size=4, crop=16, long_side=(24, 24))  # the long side of every record: no resize


def batches_of(source, training: LPCAMTraining, **options):
    return training_batches(source, labelled_crops(training), batch_size=training.batch_size, **options)


def batches(count: int, number: int, *, training: LPCAMTraining = AS_IT_IS, seed: int = 0, start: int = 0) -> list:
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
    training = LPCAMTraining(batch_size=4, crop=64, long_side=(20, 40))
    boxes = np.concatenate([batch["box"] for batch in batches(12, 30, training=training)])
    long_sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert (long_sides.min(), long_sides.max()) == (20, 40)


def test_unreadable_record_is_named():
    with pytest.raises(UserError, match=r"3\.jpg: damaged picture"):
        list(islice(batches_of(Numbered(8, unreadable=3), AS_IT_IS, seed=0), 2))


# Pictures with masks.


def masked_batches(source, training: DeepLabTraining, number: int, **options) -> list:
    found = training_batches(source, masked_crops(training), batch_size=4, **{"seed": 0, **options})
    return list(islice(found, number))


def test_form_of_batches_with_masks():
    for batch in masked_batches(Numbered(6, has_masks=True), DeepLabTraining(crop=16), 3):
        assert set(batch) == {"image", "box", "mask"}
        assert (batch["image"].shape, batch["image"].dtype) == ((4, 16, 16, 3), np.uint8)
        assert (batch["box"].shape, batch["box"].dtype) == ((4, 4), np.int32)
        assert (batch["mask"].shape, batch["mask"].dtype) == ((4, 16, 16), np.uint8)


def test_mask_and_picture_are_of_the_same_window_and_the_padding_is_mirrored_along():
    seen = set()
    for batch in masked_batches(Numbered(12, has_masks=True), DeepLabTraining(crop=16, scales=(1.0,)), 12):
        for canvas, mask, (top, left, bottom, right) in zip(batch["image"], batch["mask"], batch["box"], strict=True):
            record = int(canvas[top, left, 0]) - 1
            height, width = (min(length, 16) for length in Numbered(12).size(record))
            assert (top, bottom, right - left) == (0, height, width)
            window = canvas[:bottom, left:right].astype(int)
            assert (window[..., 0] == record + 1).all()
            assert (np.diff(window[..., 1], axis=0) == 1).all()
            step = int(window[0, 1, 2] - window[0, 0, 2])
            assert (np.diff(window[..., 2], axis=1) == step).all()
            assert left == {1: 0, -1: 16 - width}[step]
            seen.add((step, (height, width)))
            np.testing.assert_array_equal(mask[:bottom, left:right], mask_of(canvas[:bottom, left:right]))
            canvas[:bottom, left:right], mask[:bottom, left:right] = 0, 255
            assert not canvas.any()
            assert (mask == 255).all()
    assert seen == {(step, size) for step in (1, -1) for size in ((16, 10), (8, 16), (16, 16))}


def test_pictures_with_masks_have_the_sizes_of_the_scales():
    training = DeepLabTraining(crop=64, scales=(0.3, 1.0, 2.5))
    sizes = set()
    for batch in masked_batches(Numbered(12, has_masks=True), training, 30):
        sizes |= {(bottom - top, right - left) for top, left, bottom, right in batch["box"].tolist()}
    originals = ((24, 10), (8, 24), (24, 24))
    assert sizes == {(int(scale * h), int(scale * w)) for scale in training.scales for h, w in originals}


def test_a_picture_without_a_mask_has_no_label():
    for batch in masked_batches(Numbered(6), DeepLabTraining(crop=16), 3):
        assert batch["image"].any()
        assert (batch["mask"] == 255).all()


def test_a_later_start_continues_the_very_same_masks():
    source, training = Numbered(9, has_masks=True), DeepLabTraining(crop=16)
    expected, resumed, other = (
        masked_batches(source, training, 6, **options) for options in ({}, {"start": 3}, {"seed": 1})
    )
    for one, same_one, other_one in zip(expected[3:], resumed[:3], other[3:], strict=True):
        assert all(np.array_equal(one[name], same_one[name]) for name in ("image", "box", "mask"))
        assert not np.array_equal(one["mask"], other_one["mask"])


BY_BATCH = DeepLabTraining(crop=64, scales=(0.5, 2.5), scaling="batch")


def scales_of(batch) -> set[float]:
    """By how much the pictures of a batch are enlarged, to a pixel of their long sides, which are 24."""
    return {int((box[2:] - box[:2]).max()) / 24 for box in batch["box"]}


def test_one_scale_is_drawn_for_a_batch():
    source = Numbered(11, has_masks=True)
    found = [scales_of(batch) for batch in masked_batches(source, BY_BATCH, 40, shared=True)]
    assert all(len(scales) == 1 for scales in found)
    scales = [scales.pop() for scales in found]
    assert len(set(scales)) > 20
    assert 0.45 < min(scales) < 0.8
    assert 2.2 < max(scales) <= 2.5


@pytest.mark.parametrize("count", [11, 3])
def test_a_later_start_and_parts_have_the_same_scales(count):
    source = Numbered(count, has_masks=True)
    whole = masked_batches(source, BY_BATCH, 7, shared=True)
    resumed = masked_batches(source, BY_BATCH, 2, shared=True, start=5)
    options = {"batch_size": 4, "seed": 0, "shared": True}
    batches_of_part = [
        islice(training_batches(source, masked_crops(BY_BATCH), part=(part, 2), **options), 7) for part in range(2)
    ]
    halves = [
        {name: np.concatenate([first[name], second[name]]) for name in first}
        for first, second in zip(*batches_of_part, strict=True)
    ]
    for found, expected in ((resumed, whole[5:]), (halves, whole)):
        for one, other in zip(found, expected, strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in other)
    assert scales_of(whole[5]) != scales_of(whole[6])


def test_what_pads_a_picture_may_be_background():
    source = Numbered(6, has_masks=True)
    ignored, background = (
        masked_batches(source, DeepLabTraining(crop=32, scales=(1.0,), padding=padding), 3)
        for padding in ("ignored", "background")
    )
    for one, other in zip(ignored, background, strict=True):
        assert (one["mask"] == 255).any()
        np.testing.assert_array_equal(np.where(one["mask"] == 255, 0, one["mask"]), other["mask"])


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("count", [11, 3])
def test_the_parts_of_several_processes_are_the_batches_of_one(count, parts):
    whole = batches(count, 7)
    shares = [list(islice(batches_of(Numbered(count), AS_IT_IS, seed=0, part=(i, parts)), 7)) for i in range(parts)]
    for number, batch in enumerate(whole):
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([share[number][name] for share in shares]), values)


def test_pairs_have_the_label_of_every_fourth_pixel_and_none_beyond_the_picture():
    augmented = sure_crops(20, (1.0, 1.0), grid=5)
    rng, source = np.random.default_rng(0), Numbered(3, has_masks=True)
    mirrored = set()
    for record in [source[index % 3] for index in range(30)]:
        batch = augmented(record, rng)
        image, box, mask = batch["image"], batch["box"], batch["mask"]
        assert (image.shape, mask.shape) == ((20, 20, 3), (5, 5))
        inside = np.zeros((20, 20), bool)
        inside[box[0] : box[2], box[1] : box[3]] = True
        assert not image[~inside].any()
        # A pixel names its place, so a mask that moved otherwise than its picture would not fit.
        np.testing.assert_array_equal(mask, np.where(inside, mask_of(image), 255)[2::4, 2::4])
        columns = image[box[0], box[1] : box[3], 2].astype(int)
        mirrored.add(int(np.sign(np.diff(columns)[0])))
        assert len(set(np.diff(columns))) == 1
    assert mirrored == {-1, 1}


def test_pairs_are_resized_between_the_two_scales():
    augmented = sure_crops(64, (0.5, 1.5), grid=16)
    rng, record = np.random.default_rng(0), Numbered(3, has_masks=True)[2]
    boxes = np.array([augmented(record, rng)["box"] for _ in range(40)])
    sides = boxes[:, 2] - boxes[:, 0]
    assert sides.min() >= 12
    assert sides.max() <= 36
    assert len(set(sides)) > 10


def test_a_source_that_is_in_the_order_of_training_stays_in_it():
    ordered = list(islice(batches_of(Numbered(12), AS_IT_IS, seed=0, shuffled=False), 3))
    assert [records_of(batch) for batch in ordered] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    continued = next(batches_of(Numbered(12), AS_IT_IS, seed=0, shuffled=False, start=2))
    assert same(continued, ordered[2])
    parts = [next(batches_of(Numbered(12), AS_IT_IS, seed=0, shuffled=False, part=(i, 2))) for i in range(2)]
    assert [records_of(batch) for batch in parts] == [[0, 1], [2, 3]]


class Counted(Numbered):
    """Records that tell how often one was read."""

    reads = 0

    def __getitem__(self, index: int) -> Record:
        self.reads += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("batch_size", [2, 64])
def test_what_is_read_ahead_are_a_few_batches_however_large_they_are(batch_size):
    source = Counted(2 * batch_size)
    feed = batches_of(source, replace(AS_IT_IS, batch_size=batch_size), seed=0)
    next(feed)
    time.sleep(0.2)  # for what is read ahead too far
    feed.close()
    assert source.reads <= batch_size * (max(cores(), 4) + 3)
    assert next(feed, None) is None
