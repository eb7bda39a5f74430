"""From pictures to maps: CAM, LPCAM-F and LPCAM over several scales and mirror images (paper, Eq. 1, 5 and 6)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from .class_activation import cam, fuse, normalize
from .config import Inference
from .data.records import Record, RecordSource
from .devices import jit_forward, replicate
from .models.classifier import Classifier
from .models.folding import fold_batch_norm
from .passes import Pass, expect_finite, run_passes
from .prototype_activation import directions, lpcam, without_context
from .prototypes import Prototypes

# Added to a map's maximum, as in the reference: to that of the CAM, and none to that of LPCAM.
_EPSILON = {"cam": 1e-5, "lpcam_f": 0.0, "lpcam": 0.0, "taught": 0.0}
# The paper's, and those of a run that was taught more (`teaching`).
METHODS, TAUGHT_METHODS = tuple(_EPSILON)[:3], tuple(_EPSILON)


class PictureMaps(NamedTuple):
    """What is known of a picture after all its scales.

    classes:       int (n,), the classes that are mapped
    maps:          by method float32 (H, W, n), normalized, in [0, 1]; seeds are cut from the last
    probabilities: float32 (c,), of all classes, at the first scale; None: the network does not classify
    """

    classes: np.ndarray
    maps: dict[str, np.ndarray]
    probabilities: np.ndarray | None = None


def methods_of(prototypes: Prototypes) -> tuple[str, ...]:
    """The maps that are made with these prototypes; seeds are cut from the last."""
    return METHODS if prototypes.taught is None else TAUGHT_METHODS


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
    only: Sequence[int] | None = None,
    description: str | None = "heat maps",
) -> Iterator[tuple[int, Record, PictureMaps]]:
    """CAM, LPCAM-F and LPCAM of every picture, for its labels or else for the classes that are predicted.

    Args:
        model: graph of the classifier; its batch norm is folded here, if it is not yet.
        state: its parameters and batch statistics.
        prototypes: of its classes.
        source: the pictures.
        stride: pixels a feature position.
        inference: scales and limits.
        devices: the mesh.
        skipped: gets one line for every picture that could not be read.
        only: indices to map; None: all.
        description: of the progress bar; None: there is none.

    Yields:
        (index, record, PictureMaps), each picture once, in the order they finish.

    Raises:
        UserError: the network's output is not finite.

    Source: paper Eq. 1, 5, 6; reference steps "make_cam" and "make_lpcam": features of the mirror image are added
    before the cosine; for CAM the maps are, after the ReLU.
    """
    model, *folded = fold_batch_norm(model, *replicate(state, devices))
    # LPCAM-F's directions beside LPCAM's and those that were taught: all are one product with the features.
    methods = methods_of(prototypes)
    made = [directions(without_context(prototypes)), directions(prototypes)]
    made += [] if prototypes.taught is None else [prototypes.taught]
    network, on_devices = _maps_network(model, methods), replicate((*folded, jnp.concatenate(made)), devices)

    def of_pictures(pictures, sizes):
        return network(*on_devices, pictures, sizes)

    passes = [Pass(scale, of_pictures) for scale in inference.scales]
    results = run_passes(
        passes, source, batches=inference, devices=devices, description=description, skipped=skipped, only=only
    )
    with closing(results):  # and the progress bar with it, whatever happens
        for index, record, outputs in results:
            expect_finite(record, [one["logits"] for one in outputs])
            probabilities = np.exp(-np.logaddexp(0, -outputs[0]["logits"]))  # the sigmoid, of logits of any size
            classes = mapped_classes(record, probabilities, inference.probability)
            size = record.image.shape[:2]
            maps = {
                method: on_picture(
                    [one[method][..., classes] for one in outputs],
                    size,
                    stride=stride,
                    epsilon=_EPSILON[method],
                )
                for method in methods
            }
            yield index, record, PictureMaps(classes, maps, probabilities)


@cache  # so that a notebook that maps picture after picture compiles a shape once
def _maps_network(model: nnx.GraphDef, methods: tuple[str, ...]) -> Callable[..., dict[str, Any]]:
    """The forward pass of every scale: parameters, statistics, directions of all methods but CAM (m c, d), pictures and
    sizes -> maps on the grid."""

    @jit_forward
    def network(parameters, batch_stats, made, pictures, sizes):
        classifier = nnx.merge(model, parameters, batch_stats)
        straight, mirrored, logits = features_of_both(classifier, pictures, sizes)
        weights = classifier.head[...]
        by_directions = methods[1:]
        maps = jnp.split(lpcam(straight + mirrored, made), len(by_directions), axis=-1)
        return {
            "cam": cam(straight, weights) + cam(mirrored, weights),
            **dict(zip(by_directions, maps, strict=True)),
            "logits": logits,
            "grid": classifier.backbone.grid_sizes(sizes),
        }

    return network


def on_picture(
    maps: Sequence[np.ndarray], size: tuple[int, int], *, stride: int, epsilon: float = _EPSILON["cam"]
) -> np.ndarray:
    """The maps of all scales as one normalized map on the picture.

    Args:
        maps: one float (h_s, w_s, n) for each scale s.
        size: (H, W) of the picture.
        stride: pixels a feature position.
        epsilon: added to the maximum of the sum over scales; the default is the CAM's.

    Returns:
        float32 (H, W, n) in [0, 1].

    Source: reference steps "make_cam" and "make_lpcam" (the former sums, and so adds epsilon to, all scales).
    """
    return normalize(fuse(maps, size, stride=stride), epsilon=epsilon / len(maps))


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
