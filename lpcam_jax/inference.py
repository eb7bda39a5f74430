"""From pictures to maps: several scales, mirror images, one compilation a bucket.

Every picture at every scale is an item. Items of one bucket share a batch, whatever picture and scale they come from; a
picture is done when its last item is. Reading and resizing run in threads, one batch is on the devices while the next
is gathered.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from .class_activation import cam, fuse, normalize
from .config import Inference
from .data.augment import resize, scaled_size
from .data.buckets import bucket_of, choose_buckets
from .data.records import Record, RecordSource
from .devices import jit_forward, replicate, shard
from .errors import UserError
from .models.classifier import Classifier
from .prototype_activation import lpcam, without_context
from .prototypes import Prototypes

METHODS = ("cam", "lpcam_f", "lpcam")

Outputs = dict[str, Any]


class Pass(NamedTuple):
    """One scale of every picture, and the network that computes it.

    network: (pictures uint8 (b, h, w, 3), sizes int32 (b, 2)) -> dict of arrays with leading axis b. Its entry "grid",
             int32 (b, 2), says how much of each (b, h', w', ...) array is valid.
    """

    scale: float
    network: Callable[[jax.Array, jax.Array], Outputs]


class PictureMaps(NamedTuple):
    """What is known of a picture after all its scales.

    classes:       int (n,), the classes that are mapped
    probabilities: float32 (c,), of all classes, at the first scale
    maps:          for each of METHODS float32 (H, W, n), normalized, in [0, 1]
    """

    classes: np.ndarray
    probabilities: np.ndarray
    maps: dict[str, np.ndarray]


def features_of_both(
    model: Classifier, pictures: jax.Array, sizes: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Features of padded pictures and of their mirror images, the latter mirrored back.

    Args:
        model: the classifier.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.

    Returns:
        features float32 (b, h', w', d), of the mirror images (b, h', w', d), logits (b, c), mean of both.
    """
    both = jnp.concatenate([pictures, mirror(pictures, sizes[:, 1])])
    sizes = jnp.concatenate([sizes, sizes])
    boxes = jnp.concatenate([jnp.zeros_like(sizes), sizes], axis=1)
    features = model.features(model.preprocessing(both, boxes), sizes)
    logits = model.logits(features, sizes).reshape(2, len(pictures), -1).mean(axis=0)
    straight, mirrored = jnp.split(features, 2)
    return straight, mirror(mirrored, model.backbone.grid_sizes(sizes)[: len(pictures), 1]), logits


def mirror(x: jax.Array, widths: jax.Array) -> jax.Array:
    """Reverse the first `widths[i]` columns of each x[i]: (b, h, w, d), int32 (b,) -> (b, h, w, d)."""
    columns = jnp.arange(x.shape[2])[None, :]
    reverse = widths[:, None] - 1 - columns
    source = jnp.where(reverse >= 0, reverse, columns)
    return jax.vmap(lambda one, order: jnp.take(one, order, axis=1))(x, source)


def run_passes(
    passes: Sequence[Pass],
    source: RecordSource,
    *,
    inference: Inference,
    devices: Mesh,
    description: str,
    skipped: list[str],
) -> Iterator[tuple[int, Record, list[Outputs]]]:
    """Compute every pass of every picture.

    Args:
        passes: scales and their networks.
        source: the pictures.
        inference: limits of batches and shapes.
        devices: the mesh; batches are split over it.
        description: of the progress bar.
        skipped: gets one line for every picture that could not be read; those are left out.

    Yields:
        (index, record, one dict of NumPy arrays a pass), each picture once, in the order they finish. Arrays of rank 3
        and more are cut to the valid grid.
    """
    sizes = {}
    for index in range(len(source)):
        try:
            sizes[index] = source.size(index)
        except UserError as error:
            skipped.append(str(error))
    shapes = [scaled_size(size, one.scale) for size in sizes.values() for one in passes]
    buckets = choose_buckets(shapes, limit=inference.max_shapes)
    items_left = defaultdict(int)
    for size in sizes.values():
        for one in passes:
            items_left[one.network, bucket_of(scaled_size(size, one.scale), buckets)] += 1
    batch_sizes = {key: _batch_size(key[1], count, inference, devices) for key, count in items_left.items()}

    waiting: dict[tuple, list] = defaultdict(list)
    unfinished: dict[int, tuple[Record, list]] = {}
    running: deque = deque()
    compiled = set()
    bar = tqdm(total=len(sizes), desc=description, unit="img", smoothing=0.05)

    def launch(key):
        network, bucket = key
        batch, waiting[key] = waiting[key], []
        pictures = np.zeros((batch_sizes[key], *bucket, 3), np.uint8)
        extents = np.ones((batch_sizes[key], 2), np.int32)
        for slot, (_, _, image) in enumerate(batch):
            pictures[slot, : image.shape[0], : image.shape[1]] = image
            extents[slot] = image.shape[:2]
        if key not in compiled:
            compiled.add(key)
            bar.set_postfix_str(f"compiling {bucket[0]}x{bucket[1]} ({len(compiled)} of {len(batch_sizes)})")
        outputs = network(*shard((pictures, extents), devices))
        bar.set_postfix_str("", refresh=False)
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
        for index, record, images in _read_ahead(pool, source, list(sizes), [one.scale for one in passes]):
            if isinstance(record, UserError):
                skipped.append(str(record))
                bar.update()
            else:
                unfinished[index] = (record, [None] * len(passes))
            for number, one in enumerate(passes):
                key = (one.network, bucket_of(scaled_size(sizes[index], one.scale), buckets))
                items_left[key] -= 1
                if images:
                    waiting[key].append((index, number, images[number]))
                if waiting[key] and (len(waiting[key]) == batch_sizes[key] or not items_left[key]):
                    launch(key)
                while len(running) > 1:
                    yield from collect()
        while running:
            yield from collect()


def map_pictures(
    model: nnx.GraphDef,
    state: tuple[dict, dict],
    prototypes: Prototypes,
    source: RecordSource,
    *,
    stride: int,
    inference: Inference,
    devices: Mesh,
    skipped: list[str],
) -> Iterator[tuple[int, Record, PictureMaps]]:
    """CAM, LPCAM-F and LPCAM of every picture, for its labels or else for the classes that are predicted.

    Args:
        model: graph of the classifier.
        state: its parameters and batch statistics.
        prototypes: of its classes.
        source: the pictures.
        stride: pixels a feature position.
        inference: scales and limits.
        devices: the mesh.
        skipped: gets one line for every picture that could not be read.

    Yields:
        (index, record, PictureMaps), each picture once, in the order they finish.

    Source: paper Eq. 1, 5, 6; reference steps "make_cam" and "make_lpcam": features of the mirror image are added
    before the cosine; for CAM the maps are, after the ReLU.
    """
    parameters, batch_stats = state

    @jit_forward
    def network(parameters, batch_stats, prototypes, pictures, sizes):
        classifier = nnx.merge(model, parameters, batch_stats)
        straight, mirrored, logits = features_of_both(classifier, pictures, sizes)
        weights = classifier.head[...]
        return {
            "cam": cam(straight, weights) + cam(mirrored, weights),
            "lpcam_f": lpcam(straight + mirrored, without_context(prototypes)),
            "lpcam": lpcam(straight + mirrored, prototypes),
            "logits": logits,
            "grid": classifier.backbone.grid_sizes(sizes),
        }

    on_devices = replicate((parameters, batch_stats, jax.tree.map(jnp.asarray, prototypes)), devices)

    def of_pictures(pictures, sizes):
        return network(*on_devices, pictures, sizes)

    passes = [Pass(scale, of_pictures) for scale in inference.scales]
    results = run_passes(passes, source, inference=inference, devices=devices, description="heat maps", skipped=skipped)
    for index, record, outputs in results:
        probabilities = 1 / (1 + np.exp(-outputs[0]["logits"]))
        classes = mapped_classes(record, probabilities, inference.probability)
        maps = {
            method: normalize(
                fuse([one[method][..., classes] for one in outputs], record.image.shape[:2], stride=stride)
            )
            for method in METHODS
        }
        yield index, record, PictureMaps(classes, probabilities, maps)


def mapped_classes(record: Record, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The labels of a picture; without labels, the classes at least this probable, or else the most probable one.

    Args:
        record: the picture.
        probabilities: float (c,).
        threshold: in [0, 1].

    Returns:
        int (n,), ascending; empty for a picture that is labelled with none.
    """
    if record.labels is not None:
        return np.flatnonzero(record.labels)
    predicted = np.flatnonzero(probabilities >= threshold)
    return predicted if len(predicted) else np.array([int(np.argmax(probabilities))])


def _batch_size(bucket: tuple[int, int], count: int, inference: Inference, devices: Mesh) -> int:
    """Pictures of a batch: as many as fit the pixels of a device, mirror images included, times the devices."""
    fit = max(inference.batch_pixels // (2 * bucket[0] * bucket[1]), 1)
    return min(fit, -(-count // devices.size)) * devices.size


def _read_ahead(pool: ThreadPoolExecutor, source: RecordSource, indices: list[int], scales: list[float]):
    """(index, record or the UserError of reading it, its image at every scale), a few pictures ahead."""

    def read(index):
        try:
            record = source[index]
        except UserError as error:
            return index, error, []
        return index, record, [resize(record.image, scaled_size(record.image.shape[:2], s)) for s in scales]

    ahead: deque = deque()
    for index in indices:
        ahead.append(pool.submit(read, index))
        if len(ahead) > 16:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()
