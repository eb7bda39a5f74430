"""Every picture at every scale through a network: full batches of few shapes, whatever the pictures' sizes.

A picture at a scale is an item. Items of one bucket share a batch, whatever picture and scale they come from; a picture
is done when its last item is. Threads read and resize ahead; one batch is on the devices while the next is gathered.
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from .config import Batches
from .data.augment import resize_bicubic, scaled_size
from .data.buckets import bucket_of, choose_buckets
from .data.records import Record, RecordSource
from .devices import shard
from .errors import UserError

Outputs = dict[str, Any]


class Pass(NamedTuple):
    """One scale of every picture, and the network that computes it.

    network: (pictures uint8 (b, h, w, 3), sizes int32 (b, 2), what is `beside` them, if anything) -> dict of arrays
             with leading axis b. Its entry "grid", int32 (b, 2), says how much of each (b, h', w', ...) array is valid.
    """

    scale: float
    network: Callable[..., Outputs]


def run_passes(
    passes: Sequence[Pass],
    source: RecordSource,
    *,
    batches: Batches,
    devices: Mesh,
    description: str | None,
    skipped: list[str],
    only: Sequence[int] | None = None,
    beside: Callable[[Record], np.ndarray] | None = None,
) -> Iterator[tuple[int, Record, list[Outputs]]]:
    """Compute every pass of every picture.

    Args:
        passes: scales and their networks.
        source: the pictures.
        batches: limits of batches and shapes.
        devices: the mesh of this process; batches are split over it.
        description: of the progress bar, which also says how many shapes there are and how much of the computed pixels
            is padding; None: there is none.
        skipped: gets one line for every picture that could not be read; those are left out.
        only: indices to compute, such as the share of one of several processes; None: all. Shapes and batches are
            chosen for the whole source all the same, so that the parts of a run that was stopped fit together.
        beside: of a record, what else the networks are given, an array of always the same shape; None: nothing.

    Yields:
        (index, record, one dict of NumPy arrays a pass), each picture once, in the order they finish. Arrays of rank 3
        and more are cut to the valid grid.
    """
    chosen = set(range(len(source)) if only is None else only)
    sizes = {}
    for index in range(len(source)):
        try:
            sizes[index] = source.size(index)
        except UserError as error:
            if index in chosen:
                skipped.append(str(error))
    shapes = [scaled_size(size, one.scale) for size in sizes.values() for one in passes]
    buckets = choose_buckets(shapes, limit=batches.max_shapes)
    keys = {
        index: [(one.network, bucket_of(scaled_size(size, one.scale), buckets)) for one in passes]
        for index, size in sizes.items()
    }
    counts = Counter(key for of_picture in keys.values() for key in of_picture)
    batch_sizes = {key: _batch_size(key[1], count, batches, devices) for key, count in counts.items()}
    wanted = [index for index in sizes if index in chosen]
    items_left = Counter(key for index in wanted for key in keys[index])
    pixels = sum(math.prod(scaled_size(sizes[index], one.scale)) for index in wanted for one in passes)
    padding = _padding(items_left, batch_sizes, pixels)

    waiting: dict[tuple, list] = defaultdict(list)
    unfinished: dict[int, tuple[Record, list]] = {}
    running: deque = deque()
    compiled = set()
    bar = tqdm(total=len(wanted), desc=description, unit="img", smoothing=0.05, disable=description is None)

    def launch(key):
        network, bucket = key
        batch, waiting[key] = waiting[key], []
        pictures = np.zeros((batch_sizes[key], *bucket, 3), np.uint8)
        extents = np.ones((batch_sizes[key], 2), np.int32)
        for slot, (_, _, image) in enumerate(batch):
            pictures[slot, : image.shape[0], : image.shape[1]] = image
            extents[slot] = image.shape[:2]
        inputs = [pictures, extents]
        if beside:
            more = [beside(unfinished[index][0]) for index, *_ in batch]
            inputs.append(np.stack(more + [np.zeros_like(more[0])] * (batch_sizes[key] - len(batch))))
        if key not in compiled:
            compiled.add(key)
            bar.set_postfix_str(f"compiling {bucket[0]}x{bucket[1]} ({len(compiled)} of {len(items_left)})")
        outputs = network(*shard(tuple(inputs), devices))
        bar.set_postfix_str(padding, refresh=False)
        running.append((batch, outputs))

    def collect():
        batch, outputs = running.popleft()
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        for slot, (index, number, _) in enumerate(batch):
            rows, columns = outputs["grid"][slot]
            results = unfinished[index][1]
            results[number] = {
                name: value[slot, :rows, :columns] if value.ndim >= 4 else value[slot]
                for name, value in outputs.items()
                if name != "grid"
            }
            if all(result is not None for result in results):
                bar.update()
                yield (index, *unfinished.pop(index))

    with bar, ThreadPoolExecutor(4) as pool:
        for index, record, images in _read_ahead(pool, source, wanted, [one.scale for one in passes]):
            if isinstance(record, UserError):
                skipped.append(str(record))
                bar.update()
            else:
                unfinished[index] = (record, [None] * len(passes))
            for number, key in enumerate(keys[index]):
                items_left[key] -= 1
                if images:
                    waiting[key].append((index, number, images[number]))
                if waiting[key] and (len(waiting[key]) == batch_sizes[key] or not items_left[key]):
                    launch(key)
                while len(running) > 1:
                    yield from collect()
        while running:
            yield from collect()


def expect_finite(record: Record, arrays: Iterable[np.ndarray]) -> None:
    """UserError, that names the picture, when not all outputs of a network are finite."""
    if not all(np.isfinite(one).all() for one in arrays):
        raise UserError(
            f"{record.id}: the network's output is not finite; its training diverged or its checkpoint is damaged: "
            "train again."
        )


def _batch_size(bucket: tuple[int, int], count: int, batches: Batches, devices: Mesh) -> int:
    """Pictures of a batch: what fits the pixels of a device, mirror images included, times the devices.

    Of five pictures, of which four fit, three and two: the fewest batches, as even as they can be.
    """
    fit = max(batches.batch_pixels // (2 * bucket[0] * bucket[1]), 1) * devices.size
    batch = -(-count // -(-count // fit))
    return -(-batch // devices.size) * devices.size


def _padding(items: Counter, batch_sizes: dict, pixels: int) -> str:
    """How many shapes there are, and which part of all batches is none of the `pixels` of pictures."""
    computed = sum(-(-count // batch_sizes[key]) * batch_sizes[key] * math.prod(key[1]) for key, count in items.items())
    return f"{len(items)} shape{'s' * (len(items) != 1)}, {100 * (1 - pixels / max(computed, 1)):.0f} % padding"


def _read_ahead(pool: ThreadPoolExecutor, source: RecordSource, indices: list[int], scales: list[float]):
    """(index, record or the UserError of reading it, its image at every scale), a few pictures ahead."""

    def read(index):
        try:
            record = source[index]
        except UserError as error:
            return index, error, []
        return index, record, [resize_bicubic(record.image, scaled_size(record.image.shape[:2], s)) for s in scales]

    ahead: deque = deque()
    for index in indices:
        ahead.append(pool.submit(read, index))
        if len(ahead) > 16:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()
