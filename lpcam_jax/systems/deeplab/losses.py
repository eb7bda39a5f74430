"""Losses of the segmentation networks: cross entropy over the labelled pixels.

    loss = mean over labelled pixels of  -log softmax(logits)[label]

V2's is computed at the sizes of its logits, with shrunken masks; V3+'s at the size of the mask, with enlarged logits.
Both take whole canvases: padding has the label 255.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...backbones.layers import resize_valid
from ...data.masks import IGNORE


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross entropy over the labelled pixels.

    Args:
        logits: float (b, h, w, c).
        labels: int (b, h, w), 0 .. c - 1, or 255: no label.

    Returns:
        float32 (); 0 if no pixel is labelled.

    Source: torch's `cross_entropy(ignore_index=255)`, which is NaN if no pixel is labelled.
    """
    labels = labels.astype(jnp.int32)
    labelled = labels != IGNORE
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(labelled, labels, 0))
    return jnp.where(labelled, losses, 0).sum() / jnp.maximum(labelled.sum(), 1)


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


def full_size_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """DeepLabV3+'s loss: cross entropy of the logits, resized bilinearly to the picture.

    Args:
        logits: float (b, h, w, c), from `DeepLabV3Plus`.
        labels: int (b, H, W), 0 .. c - 1, or 255: no label; at the size of the picture.

    Returns:
        float32 ().
    """
    return cross_entropy(resize_valid(logits, None, labels.shape[1:3], None), labels)
