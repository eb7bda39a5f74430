"""Endless training batches: shuffled, augmented, decoded by threads ahead of the device.

Batch number `step` is a function of (source, seed, step) alone, so a resumed run sees what it would have seen.
"""

from collections.abc import Callable, Iterator

import grain
import numpy as np
from absl import flags

from ..config import AMNTraining, IRNTraining, SegmentationTraining, Training
from .augment import (
    random_crop,
    random_long_side,
    random_mirror,
    random_scale,
    random_window,
    resize_bicubic,
    resize_mask,
    scaled_size,
)
from .masks import IGNORE
from .records import Record, RecordSource

Batch = dict[str, np.ndarray]
Augmentation = Callable[[Record, np.random.Generator], Batch]


def training_batches(
    source: RecordSource,
    augmented: Augmentation,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches from step `start` on, without end; each epoch in a new order, its incomplete batch dropped.

    Args:
        source: n >= 1 records; fewer than a batch are repeated within it.
        augmented: what becomes of a record, as named arrays of always the same shape.
        batch_size: b.
        seed: of order and augmentation.
        start: first step.
        part: (i, p), the i-th of p equal parts of every batch; p divides b. Only its records are read.

    Returns:
        Iterator of the named arrays with a leading axis b / p.

    Raises:
        UserError: from a record that cannot be read, naming its file.
    """
    # grain reads absl's command line flags, which no program but an absl one has parsed.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    order = grain.MapDataset.source(source).seed(seed).shuffle()
    if len(source) < batch_size:
        order = order.repeat(-(-batch_size // len(source)))
    index, parts = part
    whole = order.random_map(augmented).slice(slice(0, len(order) // batch_size * batch_size))
    batches = whole.batch(batch_size // parts, drop_remainder=True).slice(slice(index, None, parts)).repeat(None)
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4 * batch_size)
    return iter(batches.slice(slice(start, None)).to_iter_dataset(options))


def labelled_crops(training: Training) -> Augmentation:
    """Record -> image uint8 (crop, crop, 3); box int32 (4,), top, left, bottom, right; labels float32 (c,)."""

    def augmented(record: Record, rng: np.random.Generator) -> Batch:
        image = random_long_side(rng, record.image, low=training.long_side[0], high=training.long_side[1])
        canvas, box = random_crop(rng, random_mirror(rng, image), crop=training.crop)
        return {"image": canvas, "box": box, "labels": record.labels}

    return augmented


def masked_crops(training: SegmentationTraining) -> Augmentation:
    """Record -> image uint8 (crop, crop, 3); box int32 (4,), top, left, bottom, right; mask uint8 (crop, crop).

    Where a record has no mask, no pixel has a label.
    """

    def augmented(record: Record, rng: np.random.Generator) -> Batch:
        mask = np.full(record.image.shape[:2], IGNORE, np.uint8) if record.mask is None else record.mask
        image, mask = random_scale(rng, record.image, mask, scales=training.scales)
        canvas, labels, box = random_window(rng, image, mask, crop=training.crop)
        if rng.random() < 0.5:  # the window, not only the picture in it: as the recipe does, the padding moves along
            canvas, labels = canvas[:, ::-1], labels[:, ::-1]
            box = np.int32([box[0], training.crop - box[3], box[2], training.crop - box[1]])
        return {"image": canvas, "box": box, "mask": labels}

    return augmented


def sure_crops(training: IRNTraining | AMNTraining, *, grid: int) -> Augmentation:
    """Record -> image uint8 (crop, crop, 3); box int32 (4,), top, left, bottom, right; mask uint8 (grid, grid); and
    labels float32 (c,), if the record has them.

    The mask is that of the pixels in the middle of each position of the network's grid; it has no label (255) beyond
    the picture.

    Source: IRN's step "train_irn"; AMN's training.
    """

    def augmented(record: Record, rng: np.random.Generator) -> Batch:
        size = scaled_size(record.mask.shape, rng.uniform(*training.scale_range))
        both = np.dstack([resize_bicubic(record.image, size), resize_mask(record.mask, size)])
        canvas, box = random_crop(rng, random_mirror(rng, both), crop=training.crop)
        beyond = np.ones(canvas.shape[:2], bool)
        beyond[box[0] : box[2], box[1] : box[3]] = False
        mask = np.where(beyond, np.uint8(IGNORE), canvas[..., 3])
        batch = {"image": canvas[..., :3], "box": box, "mask": resize_mask(mask, (grid, grid))}
        return batch if record.labels is None else {**batch, "labels": record.labels}

    return augmented
