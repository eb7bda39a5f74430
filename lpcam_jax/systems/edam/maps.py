"""EDAM's maps of pictures, over several scales and mirror images; and its classes of pictures without labels.

    map_n = sum over scales, pictures and mirror images of A_n, enlarged to the picture, over its maximum

Only the attention says which classes are in a picture. For those without labels it is that of the picture and its
mirror image as a pair, which share their classes, at the size of training crops: so memory does not grow with the
picture.
"""

from collections.abc import Iterator, Sequence

import jax
from scipy.special import expit

from ...data.records import Record, RecordSource
from ...inference.finish import finished_maps
from ...inference.forward import Network, mirrored_back, out_of_pairs, with_mirror_images
from ...inference.passes import finish_each, run_passes
from ...inference.plan import Outputs, Pass
from ...machine.errors import UserError
from ...results.picture_maps import PictureMaps, mapped_classes
from .config import EDAMInference
from .network import EDAM

METHOD = "edam"


def map_pictures(
    network: Network,
    source: RecordSource,
    *,
    inference: EDAMInference,
    crop: int,
    only: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    description: str | None = "heat maps",
) -> Iterator[tuple[int, Record | UserError, PictureMaps | None]]:
    """Compute EDAM's maps of every picture, for its labels or, without labels, its predicted classes.

    Args:
        network: EDAM.
        source: the pictures.
        inference: scales, batch limits, class threshold.
        crop: side of the training crops, to which pictures without labels are brought to predict their classes.
        only: indices to map; None: all.
        among: indices of the pictures that share the batches, as for `plan_batches`; None: those of `only`.
        description: label of the progress bar; None: no progress bar.

    Yields:
        (index, record, PictureMaps), each picture once, in order of completion; (index, error, None) for a picture that
        cannot be read.

    Raises:
        UserError: the network's output is not finite.

    Source: EDAM, infer_cls.py.
    """
    passes = [Pass(scale, network.forward(grid_maps), longest=network.longest) for scale in inference.scales]
    if source.labels is None:
        passes.append(Pass(1.0, network.forward(logits_of_both), fit=(crop, crop)))

    def finish(record: Record, outputs: list[Outputs]) -> PictureMaps:
        probabilities = expit(outputs[-1]["logits"]) if source.labels is None else None
        classes = mapped_classes(record, probabilities, inference.probability)
        scales = [scale[METHOD][..., classes] for scale in outputs[: len(inference.scales)]]
        maps = finished_maps(scales, record.image.shape[:2], epsilon=0.0)
        return PictureMaps(classes, {METHOD: maps}, probabilities)

    options = {"description": description, "only": only, "among": among}
    results = run_passes(passes, source, batches=inference, devices=network.devices, **options)
    return finish_each(results, finish)


def grid_maps(model: EDAM, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Maps of one scale on the feature grid, summed over pictures and mirror images.

    Args:
        model: EDAM.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.

    Returns:
        "edam" float32 (b, h', w', c), without the background, zero outside the valid region.
    """
    images, extents = with_mirror_images(model, pictures, sizes)
    heat = model.heat(model.features(images, extents), extents)[..., :-1]
    return {METHOD: sum(mirrored_back(heat, model.grid_sizes(sizes)))}


def logits_of_both(model: EDAM, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Logits (b, c) of pictures paired with their mirror images, the mean over both."""
    images, extents = with_mirror_images(model, pictures, sizes)
    features = model.features(images, extents)
    logits = model.logits(features, model.heat(features, extents), extents)
    return {"logits": sum(out_of_pairs(logits)) / 2}
