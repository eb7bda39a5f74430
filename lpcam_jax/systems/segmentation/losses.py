"""Cross entropy over the labelled pixels.

loss = mean over labelled pixels of  -log softmax(logits)[label]
"""

from typing import Literal

import jax
import jax.numpy as jnp

from ...backbones.layers.resizing import resize_valid
from ...seeds import IGNORE

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
    losses = jax.nn.logsumexp(logits, axis=-1) - at_labels(logits, labels)
    count = jnp.maximum(labelled.sum(), 1) if over == "labelled" else labels.size
    return jnp.where(labelled, losses, 0).sum() / count


def at_labels(values: jax.Array, labels: jax.Array) -> jax.Array:
    """The value of each pixel's label: values[..., labels].

    By comparing, which is exact: an index for each pixel would be a gather, and its gradient a scatter of single
    numbers, which TPUs do one after the other, and GPUs, where they are told to repeat the same bits.

    Args:
        values: float (..., c).
        labels: int (...,), 0 .. c - 1; anything else is no label.

    Returns:
        float (...,); 0 without a label.
    """
    is_label = jax.nn.one_hot(labels, values.shape[-1], dtype=bool)
    return jnp.where(is_label, values, 0).sum(axis=-1)


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
