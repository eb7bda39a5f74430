"""The batches of all pictures at all scales: few shapes, whatever the pictures' sizes, chosen from the sizes alone.

A picture at one scale is an item. Items of one bucket share a batch, whatever picture and scale they come from.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..config import Batches
from ..data.buckets import bucket_of, choose_buckets
from ..data.resizing import fitted_size, resize_bicubic, resize_bilinear_uint8, scaled_size, shrunk_size

Outputs = dict[str, Any]
Size = tuple[int, int]


class Pass(NamedTuple):
    """One scale of every picture, and the network that computes it.

    Attributes:
        scale: factor on the sides of the pictures.
        network: (pictures uint8 (b, h, w, 3), sizes int32 (b, 2), extra input of the records, if any) -> dict of arrays
            with leading axis b. Its entry "grid", int32 (b, 2), is the valid size of each (b, h', w', ...) array;
            "NAME_grid" is that of the array NAME, if there is such an entry.
        fit: short and long side that every picture is first brought to, see `resizing.fitted_size`; None: its own.
        longest: without `fit`, pixels of the longest side that a picture may have before it is scaled; None: any.
    """

    scale: float
    network: Callable[..., Outputs]
    fit: Size | None = None
    longest: int | None = None

    def size_of(self, size: Size) -> Size:
        """The size of a picture (H, W) at this scale."""
        if self.fit is None:
            return scaled_size(shrunk_size(size, self.longest), self.scale)
        return fitted_size(size, self.fit, scale=self.scale)

    def resized(self, image: np.ndarray) -> np.ndarray:
        """A picture uint8 (H, W, 3) at this scale; with `fit` it is not antialiased, as in mmsegmentation."""
        resize = resize_bicubic if self.fit is None else resize_bilinear_uint8
        return resize(image, self.size_of(image.shape[:2]))


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
        shrunk: number of pictures to compute that are larger than networks see them.
    """

    places: dict[int, list[Place]]
    batch_sizes: dict[Key, int]
    items: Counter
    padding: float
    shrunk: int

    def __str__(self) -> str:
        shapes = len(self.items)
        said = f"{shapes} shape{'s' * (shapes != 1)}, {100 * self.padding:.0f} % padding"
        return f"{said}, {self.shrunk} shrunk (--data.longest)" if self.shrunk else said


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
    shapes = {index: [step.size_of(size) for step in passes] for index, size in sizes.items()}
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
    longest = {step.longest for step in passes if step.fit is None}
    shrunk = sum(any(shrunk_size(sizes[index], most) != sizes[index] for most in longest) for index in places)
    return BatchPlan(places, batch_sizes, items, 1 - pixels / max(computed, 1), shrunk)


def _batch_size(bucket: Size, count: int, batches: Batches, devices: int) -> int:
    """Batch size: at most what fits a device's pixel limit, mirror images included, times the number of devices.

    The batches are as few and as even as possible: five pictures, of which four fit, become three and two.
    """
    fit = max(batches.batch_pixels // (2 * bucket[0] * bucket[1]), 1) * devices
    batch = -(-count // -(-count // fit))
    return -(-batch // devices) * devices
