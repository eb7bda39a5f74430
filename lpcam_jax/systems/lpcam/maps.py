"""CAM, LPCAM-F and LPCAM of pictures, over several scales and mirror images (paper, Eq. 1, 5 and 6).

With them, if they are asked for, the maps beyond the paper: LPCAM-T (`teaching`) and LPCAM-A (`spreading`).
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from ...class_activation import cam, fuse, normalize
from ...data.records import Record, RecordSource
from ...inference.canvas import grid_extent
from ...inference.finish import finished_maps
from ...inference.forward import Network, mirrored_back, out_of_pairs, with_mirror_images
from ...inference.passes import finish_each
from ...inference.plan import Outputs
from ...machine.errors import UserError
from ...prototype_activation import directions, evidence, similarity_maps, without_context
from ...prototypes import Prototypes
from ...results.picture_maps import PictureMaps, mapped_classes
from .config import LPCAMInference
from .network import Classifier
from .spreading import guide, spread_over_picture

# Added to a map's maximum when normalizing; the reference does so for CAM only.
EPSILON = {"cam": 1e-5, "lpcam_f": 0.0, "lpcam": 0.0, "taught": 0.0}
# The paper's methods.
METHODS = tuple(EPSILON)[:3]


def methods_of(prototypes: Prototypes, inference: LPCAMInference) -> tuple[str, ...]:
    """Names of the maps that are made with these prototypes and settings; seeds are cut from the last.

    Raises:
        UserError: seeds are asked for of maps that are not made.
    """
    made = (
        *METHODS,
        *(["taught"] if prototypes.taught is not None else []),
        *(["affinity"] if inference.affinity is not None else []),
    )
    seeds = made[-1] if inference.seeds == "last" else inference.seeds
    if seeds not in made:
        needs = {"taught": "prototypes of train.py --prototypes.taught", "affinity": "--inference.affinity, such as 5"}
        raise UserError(f"--inference.seeds {seeds}: there are no such maps without {needs[seeds]}.")
    return (*(method for method in made if method != seeds), seeds)


def features_of_both(
    model: Classifier, pictures: jax.Array, sizes: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Features of padded pictures and of their mirror images, the latter mirrored back.

    Args:
        model: the classifier.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.

    Returns:
        Features of the pictures and of the mirror images, float32 (b, h', w', d) each; logits float32 (b, c), the mean
        over both.
    """
    images, extents = with_mirror_images(model, pictures, sizes)
    return _of_both(model, model.features(images, extents), extents)


def _of_both(model: Classifier, features: jax.Array, extents: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits = sum(out_of_pairs(model.logits(features, extents))) / 2
    return *mirrored_back(features, model.grid_sizes(extents)), logits


def map_pictures(
    network: Network,
    prototypes: Prototypes,
    source: RecordSource,
    *,
    stride: int,
    inference: LPCAMInference,
    only: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    description: str | None = "heat maps",
) -> Iterator[tuple[int, Record | UserError, PictureMaps | None]]:
    """Compute CAM, LPCAM-F and LPCAM of every picture, for its labels or, without labels, its predicted classes.

    Args:
        network: the classifier.
        prototypes: the prototypes of its classes.
        source: the pictures.
        stride: pixels per feature position.
        inference: scales, batch limits, class threshold.
        only: indices to map; None: all.
        among: indices of the pictures that share the batches, as for `plan_batches`; None: those of `only`.
        description: label of the progress bar; None: no progress bar.

    Yields:
        (index, record, PictureMaps), each picture once, in order of completion; (index, error, None) for a picture that
        cannot be read.

    Raises:
        UserError: the network's output is not finite; the prototypes are of another network; or as in `methods_of`.

    Source: paper Eq. 1, 5, 6; reference steps "make_cam" and "make_lpcam". For LPCAM the features of the mirror image
    are added before the cosine; for CAM its map is added after the ReLU.
    """
    made = tuple(EPSILON) if prototypes.taught is not None else METHODS
    methods = methods_of(prototypes, inference)
    (classes, _, channels), head = prototypes.class_centres.shape, network.arrays[0]["head"].shape
    if (channels, classes) != head:
        raise UserError(
            f"the prototypes are of {classes} classes and {channels} channels, the network of {head[1]} and {head[0]}; "
            "make those of this network, by train.py --stages prototypes."
        )
    # Directions of LPCAM-F, LPCAM and LPCAM-T, stacked for a single product with the features.
    stacked = [directions(without_context(prototypes)), directions(prototypes)]
    stacked += [] if prototypes.taught is None else [prototypes.taught]

    def finish(record: Record, outputs: list[Outputs]) -> PictureMaps:
        probabilities = expit(outputs[0]["logits"])
        classes = mapped_classes(record, probabilities, inference.probability)
        size = record.image.shape[:2]
        extent = grid_extent(size, stride=stride, longest=network.longest)
        maps = {
            method: finished_maps(
                [np.maximum(scale[method][..., classes], 0) for scale in outputs],
                size,
                extent=extent,
                epsilon=EPSILON[method],
            )
            for method in made
        }
        if inference.affinity is not None:
            scales = [scale[made[-1]][..., classes] for scale in outputs]
            maps["affinity"] = spread_over_picture(scales, outputs[0], size, steps=inference.affinity)
        return PictureMaps(classes, {method: maps[method] for method in methods}, probabilities)

    results = network.run(
        grid_maps,
        source,
        scales=inference.scales,
        batches=inference,
        constants=[jnp.concatenate(stacked)],
        at_first=None if inference.affinity is None else grid_maps_and_guide,
        description=description,
        only=only,
        among=among,
    )
    return finish_each(results, finish)


def grid_maps(model: Classifier, pictures: jax.Array, sizes: jax.Array, stacked: jax.Array) -> Outputs:
    """Maps of one scale on the feature grid, of pictures and mirror images together, and logits.

    Args:
        model: the classifier.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.
        stacked: float32 (m c, d), directions of the first m methods after "cam" in `EPSILON`.

    Returns:
        "cam" and, of each further method, the `evidence`, float32 (b, h', w', c); "logits" float32 (b, c).
    """
    images, extents = with_mirror_images(model, pictures, sizes)
    return _grid_maps(model, model.features(images, extents), extents, stacked)


def grid_maps_and_guide(model: Classifier, pictures: jax.Array, sizes: jax.Array, stacked: jax.Array) -> Outputs:
    """`grid_maps`, and what evidence spreads along (`spreading.guide`)."""
    images, extents = with_mirror_images(model, pictures, sizes)
    stages = model.backbone(images, extents)
    maps = _grid_maps(model, stages[-1].astype(jnp.float32), extents, stacked)
    return maps | guide(model.backbone, stages, extents, pictures)


def _grid_maps(model: Classifier, features: jax.Array, extents: jax.Array, stacked: jax.Array) -> Outputs:
    straight, mirrored, logits = _of_both(model, features, extents)
    weights = model.head[...]
    maps = jnp.split(evidence(straight + mirrored, stacked), len(stacked) // weights.shape[1], axis=-1)
    return {
        "cam": cam_of_pair(straight, mirrored, weights),
        **dict(zip(tuple(EPSILON)[1:], maps, strict=False)),
        "logits": logits,
    }


def cam_of_pair(straight: jax.Array, mirrored: jax.Array, weights: jax.Array) -> jax.Array:
    """The CAM of a picture plus that of its mirror image, each after its ReLU.

    Args:
        straight: float (*b, h, w, d), features of the picture.
        mirrored: likewise of its mirror image, mirrored back.
        weights: float (d, c), the classifier's head.

    Returns:
        float (*b, h, w, c).
    """
    return cam(straight, weights) + cam(mirrored, weights)


def similarities(model: Classifier, pictures: jax.Array, sizes: jax.Array, centres: jax.Array) -> Outputs:
    """Cosines float32 (b, h', w', c, k) between LPCAM's input features and centres (c, k, d)."""
    straight, mirrored, _ = features_of_both(model, pictures, sizes)
    return {"similarity": similarity_maps(straight + mirrored, centres)}


def on_picture(
    maps: Sequence[np.ndarray], size: tuple[int, int], *, stride: int, epsilon: float = EPSILON["cam"]
) -> np.ndarray:
    """Fuse the maps of all scales into normalized maps at the size of the picture.

    Args:
        maps: float (h_s, w_s, n) for each scale s.
        size: (H, W) of the picture.
        stride: pixels per feature position.
        epsilon: added to the maximum of the sum over scales; the default is CAM's.

    Returns:
        float32 (H, W, n) in [0, 1].

    Source: reference steps "make_cam" and "make_lpcam" (the former adds epsilon to the sum over scales).
    """
    return normalize(fuse(maps, size, stride=stride), epsilon=epsilon / len(maps))
