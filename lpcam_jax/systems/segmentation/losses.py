"""Cross entropy over the labelled pixels.

loss = mean over labelled pixels of  -log softmax(logits)[label]
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from ...backbones.layers.resizing import resize_valid
from ...data.masks import IGNORE

Over = Literal["labelled", "all"]


def cross_entropy(logits: jax.Array, labels: jax.Array, *, over: Over = "labelled") -> jax.Array:
    """Mean cross entropy of the labelled pixels.

    Args:
        logits: float (b, h, w, c).
        labels: int (b, h, w), 0 .. c - 1, or 255: no label.
        over: whether the sum is divided by the number of labelled pixels, or of all.

    Returns:
        float32 (); 0 if no pixel is labelled.

    Source: torch's `cross_entropy(ignore_index=255)`, which is NaN if no pixel is labelled; mmsegmentation divides by
    all pixels.
    """
    labels = labels.astype(jnp.int32)
    labelled = labels != IGNORE
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(labelled, labels, 0))
    count = jnp.maximum(labelled.sum(), 1) if over == "labelled" else labels.size
    return jnp.where(labelled, losses, 0).sum() / count


def full_size_loss(logits: jax.Array, labels: jax.Array, *, over: Over = "labelled") -> jax.Array:
    """Cross entropy of the logits, resized bilinearly to the picture.

    Args:
        logits: float (b, h, w, c).
        labels: int (b, H, W), 0 .. c - 1, or 255: no label; at the size of the picture.
        over: see `cross_entropy`.

    Returns:
        float32 ().
    """
    return cross_entropy(resize_valid(logits, None, labels.shape[1:3], None), labels, over=over)
