"""Every picture at every scale through a network, in full batches of few shapes, whatever the pictures' sizes.

Which item, a picture at one scale, is in which batch is planned first (`plan`); a picture is finished with its last
item. `run_passes` reads and resizes ahead in threads, compiles the shapes side by side, and runs two batches on the
devices while collecting the next.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from threading import Event
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ..config import Batches
from ..data.records import Record, RecordSource
from ..machine.devices import shard
from ..machine.errors import UserError
from ..machine.threads import cores, map_ahead, pool
from .plan import BatchPlan, Key, Outputs, Pass, Size, plan_batches

# Batches on the devices while the next one is put together.
_RUNNING = 2

T = TypeVar("T")


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
        for index, record, images in _read_ahead(source, readable, passes):
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
                record, results = self._unfinished[index]
                results[number] = {
                    name: _valid(value[slot], outputs.get(f"{name}_grid", outputs["grid"])[slot])
                    for name, value in outputs.items()
                    if not name.endswith("grid")
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


def _valid(value: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The part of a (h', w', ...) array that belongs to the picture; a vector or scalar as it is."""
    return value[: grid[0], : grid[1]] if value.ndim >= 3 else value


def _size_or_error(source: RecordSource, index: int) -> Size | UserError:
    try:
        return source.size(index)
    except UserError as error:
        return error


def _read_ahead(
    source: RecordSource, indices: Sequence[int], passes: Sequence[Pass]
) -> Iterator[tuple[int, Record | UserError, list[np.ndarray]]]:
    """Yield (index, record or the UserError of reading it, its image at every scale), reading a few pictures ahead."""

    def read(index: int) -> tuple[int, Record | UserError, list[np.ndarray]]:
        try:
            record = source[index]
        except UserError as error:
            return index, error, []
        return index, record, [step.resized(record.image) for step in passes]

    return map_ahead(read, indices)
