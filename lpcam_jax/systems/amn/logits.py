"""AMN's logits of pictures of any size, at every scale, averaged with those of the mirror images.

g(x) = mean over scales of  (logits + logits of the mirror image, mirrored back)(x) / 2,  resized to the picture

The mean is left to `activation`, so that only the small grids wait to be written.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from ...data.records import Record, RecordSource
from ...inference.canvas import ScaleMaps, stack_scales
from ...inference.forward import Network, in_pairs, mirrored_back, with_mirror_images
from ...inference.passes import finish_each
from ...inference.plan import Outputs
from ...machine.errors import UserError
from .config import AMNInference
from .network import AMN


def logits_of_both(model: AMN, pictures: jax.Array, sizes: jax.Array, labels: jax.Array) -> Outputs:
    """Logits of padded pictures, averaged with the mirrored-back logits of their mirror images.

    Args:
        model: AMN.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.
        labels: float32 (b, c), 1 for the classes of each picture, else 0.

    Returns:
        "logits" float32 (b, h', w', c + 1), background first, zero outside the valid region of `AMN.grid_sizes`.
    """
    images, extents = with_mirror_images(model, pictures, sizes)
    logits = model(images, in_pairs(labels, labels), extents)
    straight, mirrored = mirrored_back(logits, model.grid_sizes(sizes))
    return {"logits": (straight + mirrored) / 2}


def activate_pictures(
    network: Network,
    source: RecordSource,
    labels_of: Callable[[Record], np.ndarray],
    *,
    inference: AMNInference,
    only: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    description: str | None = "heat maps",
) -> Iterator[tuple[int, Record | UserError, ScaleMaps | None]]:
    """Compute AMN's logits of every picture.

    Args:
        network: AMN.
        source: the pictures.
        labels_of: record -> float32 (c,), 1 for the classes of the picture, else 0.
        inference: scales and batch limits.
        only: indices to compute; None: all.
        among: indices of the pictures that share the batches, as for `plan_batches`; None: those of `only`.
        description: label of the progress bar; None: no progress bar.

    Yields:
        (index, record, logits of all scales, k = c + 1, background first), each picture once, in order of completion;
        (index, error, None) for a picture that cannot be read.

    Raises:
        UserError: the network's output is not finite.

    Source: AMN's map generation, which leaves training's dropout switched on.
    """

    def finish(record: Record, outputs: list[Outputs]) -> ScaleMaps:
        return stack_scales([scale["logits"] for scale in outputs], record.image.shape[:2])

    results = network.run(
        logits_of_both,
        source,
        scales=inference.scales,
        batches=inference,
        description=description,
        only=only,
        among=among,
        extra_input=labels_of,
    )
    return finish_each(results, finish)
