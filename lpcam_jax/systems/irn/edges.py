"""IRNet's edge maps of whole pictures of any size, averaged with their mirror images.

edge(x) = sigmoid( mean over picture and mirror image of IRNet's edge logits at x ),   on a grid, 4 pixels per position
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from scipy.special import expit

from ...config import Batches
from ...data.records import Record, RecordSource
from ...inference.forward import Network, mirrored_back, with_mirror_images
from ...inference.passes import finish_each
from ...inference.plan import Outputs
from ...machine.errors import UserError
from .network import IRNet


def edge_logits(model: IRNet, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Edge logits of padded pictures, averaged with the mirrored-back logits of their mirror images.

    Args:
        model: IRNet.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.

    Returns:
        "logits" float32 (b, h / 4, w / 4, 1), zero outside the valid region of `IRNet.grid_sizes`.
    """
    images, extents = with_mirror_images(model, pictures, sizes)
    logits = model.edges(model.taps(images, extents))[..., None]
    straight, mirrored = mirrored_back(logits, model.grid_sizes(sizes))
    return {"logits": (straight + mirrored) / 2}


def detect_edges(
    network: Network,
    source: RecordSource,
    *,
    batches: Batches,
    description: str | None = "edges",
    only: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
) -> Iterator[tuple[int, Record | UserError, np.ndarray | None]]:
    """Compute IRNet's edge maps.

    Args:
        network: IRNet.
        source: the pictures.
        batches: batch limits.
        description: label of the progress bar; None: no progress bar.
        only: indices to compute; None: all.
        among: indices of the pictures that share the batches, as for `plan_batches`; None: those of `only`.

    Yields:
        (index, record, probabilities float32 (h, w)), for most backbones h, w = H / 4, W / 4, rounded up;
        (index, error, None) for a picture that cannot be read.

    Raises:
        UserError: the network's output is not finite.

    Source: IRN's step "make_sem_seg", which averages logits, not probabilities; without its padding to 512x512, which
    some of its descendants removed as well.
    """
    results = network.run(
        edge_logits, source, scales=[1.0], batches=batches, description=description, only=only, among=among
    )
    return finish_each(results, lambda _, outputs: expit(outputs[0]["logits"][..., 0]))
