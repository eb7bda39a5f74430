"""From pictures to maps: CAM, LPCAM-F and LPCAM over several scales and mirror images (paper, Eq. 1, 5 and 6)."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from ...class_activation import cam, fuse, normalize
from ...data.records import Record, RecordSource
from ...inference.forward import Network, mirrored_back, with_mirror_images
from ...inference.passes import Outputs, finish_each
from ...machine.errors import UserError
from ...prototype_activation import directions, lpcam, without_context
from ...prototypes import Prototypes
from ...results.picture_maps import PictureMaps
from .config import LPCAMInference
from .network import Classifier

# Added to a map's maximum, as in the reference: to that of the CAM, and none to that of LPCAM.
EPSILON = {"cam": 1e-5, "lpcam_f": 0.0, "lpcam": 0.0, "taught": 0.0}
# The paper's, and those of a run that was taught more (`teaching`).
METHODS, TAUGHT_METHODS = tuple(EPSILON)[:3], tuple(EPSILON)


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
    images, extents = with_mirror_images(model, pictures, sizes)
    features = model.features(images, extents)
    logits = model.logits(features, extents).reshape(2, len(pictures), -1).mean(axis=0)
    return *mirrored_back(features, model.grid_sizes(extents)), logits


def map_pictures(
    network: Network,
    prototypes: Prototypes,
    source: RecordSource,
    *,
    stride: int,
    inference: LPCAMInference,
    only: Sequence[int] | None = None,
    description: str | None = "heat maps",
) -> Iterator[tuple[int, Record | UserError, PictureMaps | None]]:
    """CAM, LPCAM-F and LPCAM of every picture, for its labels or else for the classes that are predicted.

    Args:
        network: the classifier.
        prototypes: of its classes.
        source: the pictures.
        stride: pixels a feature position.
        inference: scales and limits.
        only: indices to map; None: all.
        description: of the progress bar; None: there is none.

    Yields:
        (index, record, PictureMaps), each picture once, in the order they finish; of one that cannot be read (index,
        the error, None).

    Raises:
        UserError: the network's output is not finite.

    Source: paper Eq. 1, 5, 6; reference steps "make_cam" and "make_lpcam": features of the mirror image are added
    before the cosine; for CAM the maps are, after the ReLU.
    """
    methods = methods_of(prototypes)
    # LPCAM-F's directions beside LPCAM's and those that were taught: all are one product with the features.
    stacked = [directions(without_context(prototypes)), directions(prototypes)]
    stacked += [] if prototypes.taught is None else [prototypes.taught]

    def finish(record: Record, outputs: list[Outputs]) -> PictureMaps:
        probabilities = expit(outputs[0]["logits"])
        classes = mapped_classes(record, probabilities, inference.probability)
        size = record.image.shape[:2]
        maps = {
            method: on_picture(
                [scale[method][..., classes] for scale in outputs], size, stride=stride, epsilon=EPSILON[method]
            )
            for method in methods
        }
        return PictureMaps(classes, maps, probabilities)

    results = network.run(
        grid_maps,
        source,
        scales=inference.scales,
        batches=inference,
        constants=[jnp.concatenate(stacked)],
        description=description,
        only=only,
    )
    return finish_each(results, finish)


def grid_maps(model: Classifier, pictures: jax.Array, sizes: jax.Array, stacked: jax.Array) -> Outputs:
    """The maps of one scale on the grid of the features, pictures and mirror images added, and logits.

    Args:
        model: the classifier.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.
        stacked: float32 (m c, d), directions of the methods behind "cam" in `EPSILON`.

    Returns:
        By method float32 (b, h', w', c); "logits" float32 (b, c).
    """
    straight, mirrored, logits = features_of_both(model, pictures, sizes)
    weights = model.head[...]
    maps = jnp.split(lpcam(straight + mirrored, stacked), len(stacked) // weights.shape[1], axis=-1)
    return {
        "cam": cam(straight, weights) + cam(mirrored, weights),
        **dict(zip(tuple(EPSILON)[1:], maps, strict=False)),
        "logits": logits,
    }


def on_picture(
    maps: Sequence[np.ndarray], size: tuple[int, int], *, stride: int, epsilon: float = EPSILON["cam"]
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
