"""Endless training batches: shuffled, augmented, decoded by threads a few batches ahead of the device.

Batch number `step` is a function of (source, seed, step) alone, so a resumed run sees what it would have seen.
"""

from collections.abc import Callable, Generator
from contextlib import closing

import grain
import numpy as np
from absl import flags

from ..machine.threads import MOST, cores
from .records import Record, RecordSource

Batch = dict[str, np.ndarray]
Augmentation = Callable[..., Batch]
"""(record, generator) -> named arrays; or, if its draws are shared, (record, generator, generator of the batch)."""


def training_batches(
    source: RecordSource,
    augmented: Augmentation,
    *,
    batch_size: int,
    seed: int,
    shared: bool = False,
    shuffled: bool = True,
    start: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Generator[Batch, None, None]:
    """Batches from step `start` on, without end; each epoch in a new order, if any, its incomplete batch dropped.

    Args:
        source: n >= 1 records; fewer than a batch are repeated within it.
        augmented: what becomes of a record, as named arrays of always the same shape.
        batch_size: b.
        seed: of order and augmentation.
        shared: whether `augmented` has a third argument, a generator in the same state for all records of a batch.
        shuffled: whether each epoch has a new order; otherwise that of the source.
        start: first step.
        part: (i, p), the i-th of p equal parts of every batch; p divides b. Only its records are read.

    Yields:
        The named arrays with a leading axis b / p. Close the generator, and nothing more is read.

    Raises:
        UserError: from a record that cannot be read, naming its file.
    """
    # grain reads absl's command line flags, which no program but an absl one has parsed.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    order = grain.MapDataset.source(source).seed(seed)
    order = order.shuffle() if shuffled else order
    if len(source) < batch_size:
        order = order.repeat(-(-batch_size // len(source)))
    index, parts = part
    count, augment = len(order), augmented
    if shared:

        def augment(placed: tuple[int, Record], rng: np.random.Generator) -> Batch:
            place, record = placed
            epoch, within = divmod(place, count)
            return augmented(record, rng, np.random.default_rng([seed, epoch, within // batch_size]))

        order = order.map_with_index(lambda place, record: (place, record))
    whole = order.random_map(augment).slice(slice(0, count // batch_size * batch_size))
    batches = whole.batch(batch_size // parts, drop_remainder=True).slice(slice(index, None, parts)).repeat(None)
    # What grain reads ahead is counted in whole batches, each of which a thread makes alone.
    threads = min(max(cores(), 4), MOST)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
    with closing(iter(batches.slice(slice(start, None)).to_iter_dataset(options))) as ahead:
        yield from ahead
