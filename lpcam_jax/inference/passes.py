"""Every picture at every scale through a network, in full batches of few shapes, whatever the pictures' sizes.

A picture at one scale is an item. Items of one bucket share a batch, whatever picture and scale they come from; a
picture is finished with its last item. `plan_batches` chooses shapes and batches from the sizes alone; `run_passes`
reads and resizes ahead in threads, compiles the shapes side by side, and runs two batches on the devices while
collecting the next.
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from threading import Event
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ..config import Batches
from ..data.augment import resize_bicubic, scaled_size
from ..data.buckets import bucket_of, choose_buckets
from ..data.records import Record, RecordSource
from ..machine.devices import shard
from ..machine.errors import UserError
from ..machine.threads import cores, map_ahead, pool

# Batches on the devices while the next one is put together.
_RUNNING = 2

Outputs = dict[str, Any]
Size = tuple[int, int]
T = TypeVar("T")


class Pass(NamedTuple):
    """One scale of every picture, and the network that computes it.

    Attributes:
        scale: factor on the sides of the pictures.
        network: (pictures uint8 (b, h, w, 3), sizes int32 (b, 2), extra input of the records, if any) -> dict of arrays
            with leading axis b. Its entry "grid", int32 (b, 2), is the valid size of each (b, h', w', ...) array.
    """

    scale: float
    network: Callable[..., Outputs]


class Key(NamedTuple):
    """What the items of a batch have in common.

    Attributes:
        network: the network that computes them.
        bucket: their padded shape, for which the network is compiled.
    """

    network: Callable[..., Outputs]
    bucket: Size


class Place(NamedTuple):
    """Where an item is computed.

    Attributes:
        key: network and bucket.
        batch: number of the batch among those of the key.
        slot: in the batch.
    """

    key: Key
    batch: int
    slot: int


class BatchPlan(NamedTuple):
    """The batches of a whole source; a resumed run computes only some of its pictures, in the slots they always have.

    Attributes:
        places: for each picture to compute, the place of its item in each pass.
        batch_sizes: batch size for each key.
        items: number of items of each key among the pictures to compute.
        padding: fraction of the computed pixels that is padding.
    """

    places: dict[int, list[Place]]
    batch_sizes: dict[Key, int]
    items: Counter
    padding: float

    def __str__(self) -> str:
        shapes = len(self.items)
        return f"{shapes} shape{'s' * (shapes != 1)}, {100 * self.padding:.0f} % padding"


def plan_batches(
    sizes: Mapping[int, Size],
    passes: Sequence[Pass],
    wanted: Sequence[int],
    *,
    among: Sequence[int] | None = None,
    batches: Batches,
    devices: int,
) -> BatchPlan:
    """Choose shapes, batch sizes and the slot of every item.

    Args:
        sizes: (H, W) of every readable picture of the source.
        passes: scales and their networks.
        wanted: indices of the pictures to compute.
        among: indices of the pictures that share the batches, such as all of one process, of which `wanted` are those
            that a stopped run had not finished: nothing that is computed depends on which these are; None: `wanted`.
        batches: limits of batches and shapes.
        devices: number of devices that a batch is split over.

    Returns:
        BatchPlan.
    """
    shapes = {index: [scaled_size(size, step.scale) for step in passes] for index, size in sizes.items()}
    buckets = choose_buckets([shape for scaled in shapes.values() for shape in scaled], limit=batches.max_shapes)
    keys = {
        index: [Key(step.network, bucket_of(shape, buckets)) for step, shape in zip(passes, scaled, strict=True)]
        for index, scaled in shapes.items()
    }
    counts = Counter(key for picture_keys in keys.values() for key in picture_keys)
    batch_sizes = {key: _batch_size(key.bucket, count, batches, devices) for key, count in counts.items()}
    taken, places, chosen = Counter(), {}, set(wanted)
    for index in wanted if among is None else among:
        if index not in keys:  # it cannot be read
            continue
        places[index] = []
        for key in keys[index]:
            places[index].append(Place(key, *divmod(taken[key], batch_sizes[key])))
            taken[key] += 1
    places = {index: of_picture for index, of_picture in places.items() if index in chosen}
    items = Counter(place.key for of_picture in places.values() for place in of_picture)
    started = {place[:2] for of_picture in places.values() for place in of_picture}
    pixels = sum(math.prod(shape) for index in places for shape in shapes[index])
    computed = sum(batch_sizes[key] * math.prod(key.bucket) for key, _ in started)
    return BatchPlan(places, batch_sizes, items, 1 - pixels / max(computed, 1))


def run_passes(
    passes: Sequence[Pass],
    source: RecordSource,
    *,
    batches: Batches,
    devices: Mesh,
    description: str | None,
    only: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    extra_input: Callable[[Record], np.ndarray] | None = None,
) -> Iterator[tuple[int, Record | UserError, list[Outputs]]]:
    """Compute every pass of every picture.

    Args:
        passes: scales and their networks.
        source: the pictures.
        batches: limits of batches and shapes.
        devices: the mesh of this process; batches are split over it.
        description: label of the progress bar, which also shows the number of shapes and the fraction of padding; None:
            no progress bar.
        only: indices to compute; None: all.
        among: indices of the pictures that share the batches, as for `plan_batches`; None: those of `only`.
        extra_input: record -> a third input of the networks, an array of fixed shape; None: no third input.

    Yields:
        (index, record, one dict of NumPy arrays per pass), each picture once, in order of completion; arrays of rank 3
        and more are cropped to the valid grid. (index, error, []) for a picture that cannot be read.
    """
    requested = set(range(len(source)) if only is None else only)
    sizes: dict[int, Size] = {}
    for index, size in enumerate(map_ahead(partial(_size_or_error, source), range(len(source)))):
        if not isinstance(size, UserError):
            sizes[index] = size
        elif index in requested:
            yield index, size, []
    readable = [index for index in sizes if index in requested]
    plan = plan_batches(sizes, passes, readable, among=among, batches=batches, devices=devices.size)
    bar = tqdm(total=len(readable), desc=description, unit="img", smoothing=0.05, disable=description is None)
    with bar, pool(cores()) as workers:
        queue = _Queue(plan, devices, extra_input, bar, workers)
        for index, record, images in _read_ahead(source, readable, [step.scale for step in passes]):
            if isinstance(record, UserError):
                bar.update()
                yield index, record, []
            yield from queue.add(index, record, images)
        yield from queue.finished(running=0)


class _Queue:
    """Items waiting for their batch, batches on the devices, and unfinished pictures."""

    def __init__(self, plan: BatchPlan, devices: Mesh, extra_input: Callable | None, bar: tqdm, workers: Executor):
        self._plan, self._devices, self._extra_input = plan, devices, extra_input
        self._bar, self._workers = bar, workers
        # (key, number of the batch) -> (index, number of the pass, slot, image)
        self._waiting: dict[tuple[Key, int], list[tuple[int, int, int, np.ndarray]]] = defaultdict(list)
        self._unfinished: dict[int, tuple[Record, list[Outputs | None]]] = {}
        self._running: deque[tuple[list, Future[Outputs]]] = deque()
        self._items_left = Counter(place[:2] for of_picture in plan.places.values() for place in of_picture)
        self._compiled: dict[Key, Event] = {}  # set once the first batch of the key has compiled its program

    def add(
        self, index: int, record: Record | UserError, images: Sequence[np.ndarray]
    ) -> Iterator[tuple[int, Record, list[Outputs]]]:
        """Add a picture, and start the batches that this completes.

        Args:
            index: index of the picture.
            record: the picture, or the error of reading it.
            images: the picture at every scale; empty if it cannot be read.

        Yields:
            Pictures that finish meanwhile, see `run_passes`.
        """
        if images:
            self._unfinished[index] = (record, [None] * len(images))
        for number, (key, batch, slot) in enumerate(self._plan.places[index]):
            self._items_left[key, batch] -= 1
            if images:
                self._waiting[key, batch].append((index, number, slot, images[number]))
            if not self._items_left[key, batch] and self._waiting[key, batch]:
                self._start(key, self._waiting.pop((key, batch)))
            compiling = sum(not done.is_set() for done in self._compiled.values())
            yield from self.finished(running=_RUNNING + compiling)

    def finished(self, *, running: int) -> Iterator[tuple[int, Record, list[Outputs]]]:
        """Yield finished pictures, waiting until at most `running` batches are on the devices."""
        while len(self._running) > running:
            batch, outputs = self._running.popleft()
            outputs = {name: np.asarray(value) for name, value in outputs.result().items()}
            self._bar.set_postfix_str(str(self._plan), refresh=False)
            for index, number, slot, _ in batch:
                rows, columns = outputs["grid"][slot]
                record, results = self._unfinished[index]
                results[number] = {
                    name: value[slot, :rows, :columns] if value.ndim >= 4 else value[slot]
                    for name, value in outputs.items()
                    if name != "grid"
                }
                if all(result is not None for result in results):
                    del self._unfinished[index]
                    self._bar.update()
                    yield index, record, results

    def _start(self, key: Key, batch: list[tuple[int, int, int, np.ndarray]]) -> None:
        count, (height, width) = self._plan.batch_sizes[key], key.bucket
        pictures, extents = np.zeros((count, height, width, 3), np.uint8), np.ones((count, 2), np.int32)
        for _, _, slot, image in batch:
            pictures[slot, : image.shape[0], : image.shape[1]] = image
            extents[slot] = image.shape[:2]
        inputs = [pictures, extents]
        if self._extra_input:
            values = {slot: self._extra_input(self._unfinished[index][0]) for index, _, slot, _ in batch}
            nothing = np.zeros_like(next(iter(values.values())))
            inputs.append(np.stack([values.get(slot, nothing) for slot in range(count)]))
        is_first, compiled = key not in self._compiled, self._compiled.setdefault(key, Event())
        if is_first:
            shapes = f"{len(self._compiled)} of {len(self._plan.items)}"
            self._bar.set_postfix_str(f"compiling {height}x{width} ({shapes})")

        def compute() -> Outputs:
            if not is_first:
                compiled.wait()  # so that no program is compiled twice
            try:
                outputs = key.network(*shard(tuple(inputs), self._devices))
            finally:
                compiled.set()
            jax.copy_to_host_async(outputs)
            return outputs

        if self._devices.size == 1:
            outputs = self._workers.submit(compute)
        else:  # several devices have to be given their programs in one order
            outputs = Future()
            outputs.set_result(compute())
        self._running.append((batch, outputs))


def finish_each(
    results: Iterator[tuple[int, Record | UserError, list[Outputs]]], finish: Callable[[Record, list[Outputs]], T]
) -> Iterator[tuple[int, Record | UserError, T | None]]:
    """Turn the outputs of each picture into its result, in threads; errors are passed through.

    Args:
        results: from `run_passes`; closed at the end in any case, which closes its progress bar.
        finish: (record, one dict of arrays per pass) -> result.

    Yields:
        (index, record, result); (index, error, None) for a picture that cannot be read.

    Raises:
        UserError: the network's logits of a picture are not finite.
    """

    def finished(item: tuple[int, Record | UserError, list[Outputs]]) -> tuple[int, Record | UserError, T | None]:
        index, record, outputs = item
        if isinstance(record, UserError):
            return index, record, None
        expect_finite(record, [output["logits"] for output in outputs if "logits" in output])
        return index, record, finish(record, outputs)

    yield from map_ahead(finished, results)


def expect_finite(record: Record, arrays: Iterable[np.ndarray]) -> None:
    """Raise UserError, naming the picture, unless all outputs of the network are finite."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(
            f"{record.id}: the network's output is not finite; its training diverged or its checkpoint is damaged: "
            "train again."
        )


def _batch_size(bucket: Size, count: int, batches: Batches, devices: int) -> int:
    """Batch size: at most what fits a device's pixel limit, mirror images included, times the number of devices.

    The batches are as few and as even as possible: five pictures, of which four fit, become three and two.
    """
    fit = max(batches.batch_pixels // (2 * bucket[0] * bucket[1]), 1) * devices
    batch = -(-count // -(-count // fit))
    return -(-batch // devices) * devices


def _size_or_error(source: RecordSource, index: int) -> Size | UserError:
    try:
        return source.size(index)
    except UserError as error:
        return error


def _read_ahead(
    source: RecordSource, indices: Sequence[int], scales: Sequence[float]
) -> Iterator[tuple[int, Record | UserError, list[np.ndarray]]]:
    """Yield (index, record or the UserError of reading it, its image at every scale), reading a few pictures ahead."""

    def read(index: int) -> tuple[int, Record | UserError, list[np.ndarray]]:
        try:
            record = source[index]
        except UserError as error:
            return index, error, []
        sizes = [scaled_size(record.image.shape[:2], scale) for scale in scales]
        return index, record, [resize_bicubic(record.image, size) for size in sizes]

    return map_ahead(read, indices)
