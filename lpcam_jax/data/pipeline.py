"""Endless training batches: shuffled, augmented, decoded by threads ahead of the device.

Batch number `step` is a function of (source, seed, step) alone, so a resumed run sees what it would have seen.
"""

from collections.abc import Iterator
from typing import TypedDict

import grain
import numpy as np
from absl import flags

from ..config import Training
from .augment import random_crop, random_long_side, random_mirror
from .records import Record, RecordSource


class Batch(TypedDict):
    """image uint8 (b, crop, crop, 3); box int32 (b, 4), top, left, bottom, right; labels float32 (b, c)."""

    image: np.ndarray
    box: np.ndarray
    labels: np.ndarray


def training_batches(source: RecordSource, training: Training, *, seed: int, start: int = 0) -> Iterator[Batch]:
    """Batches from step `start` on, without end; each epoch in a new order, its incomplete batch dropped.

    Args:
        source: n >= 1 labelled records; fewer than a batch are repeated within it.
        training: batch size, crop and scales.
        seed: of order and augmentation.
        start: first step.

    Returns:
        Iterator of Batch.

    Raises:
        UserError: from a record that cannot be read, naming its file.
    """

    def augment(record: Record, rng: np.random.Generator) -> Batch:
        image = random_long_side(rng, record.image, low=training.long_side[0], high=training.long_side[1])
        canvas, box = random_crop(rng, random_mirror(rng, image), crop=training.crop)
        return {"image": canvas, "box": box, "labels": record.labels}

    # grain reads absl's command line flags, which no program but an absl one has parsed.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    order = grain.MapDataset.source(source).seed(seed).shuffle()
    if len(source) < training.batch_size:
        order = order.repeat(-(-training.batch_size // len(source)))
    batches = order.random_map(augment).batch(training.batch_size, drop_remainder=True).repeat(None)
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4 * training.batch_size)
    return iter(batches.slice(slice(start, None)).to_iter_dataset(options))
