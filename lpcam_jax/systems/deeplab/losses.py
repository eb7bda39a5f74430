"""DeepLabV2's loss: cross entropy over the labelled pixels, at the sizes of its logits, with shrunken masks.

V3+'s is at the size of the mask, with enlarged logits: `systems.segmentation.losses.full_size_loss`. Both take whole
canvases: padding has the label 255, or 0 where it is taken for background.
"""

from collections.abc import Sequence

import jax
import numpy as np

from ..segmentation.losses import cross_entropy


def shrink_labels(labels: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Nearest-neighbour resize by PIL's rule: row i of h is the centre one, row floor((i + 1/2) H / h) of H.

    Args:
        labels: int (b, H, W).
        shape: (h, w) to resize to.

    Returns:
        int (b, h, w), of the same dtype.

    Source: PIL's `resize(..., NEAREST)`, which accumulates H / h row by row; done likewise here, for equal rounding.
    """
    rows, columns = (
        np.cumsum([source / target / 2] + [source / target] * (target - 1)).astype(int)
        for source, target in zip(labels.shape[1:3], shape, strict=True)
    )
    return labels[:, rows][:, :, columns]


def multi_scale_loss(logits: Sequence[jax.Array], labels: jax.Array) -> jax.Array:
    """DeepLabV2's loss: sum over scales of the cross entropy, with labels shrunk to the size of the logits.

    Args:
        logits: float (b, h_s, w_s, c) for each scale, from `DeepLabV2.pyramid`.
        labels: int (b, H, W), 0 .. c - 1, or 255: no label; at the size of the picture.

    Returns:
        float32 ().
    """
    return sum(cross_entropy(at_scale, shrink_labels(labels, at_scale.shape[1:3])) for at_scale in logits)
