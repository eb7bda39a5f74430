"""EDAM's pseudo masks: a saliency map says where objects are, the scores of a CRF say which.

The scores are those of a CRF over `background_scores`, the maps with a background channel in front.

`*b` are any leading dimensions. The functions follow the namespace of the scores: NumPy in, NumPy out; JAX in (also
inside `jax.jit`), JAX out.

Source: Wu et al., Embedded discriminative attention mechanism for weakly supervised semantic segmentation (2021).
"""

import math

import jax
import numpy as np

Array = jax.Array | np.ndarray


def background_scores(maps: Array, *, alpha: float = 1.0) -> Array:
    """The maps with the background in front, (1 - max_n A_n)^alpha.

    Args:
        maps: float (*b, H, W, n), normalized maps in [0, 1].
        alpha: the larger, the smaller the background.

    Returns:
        float (*b, H, W, n + 1), in [0, 1], background first; they do not sum to 1.

    Source: EDAM and psa, infer.
    """
    xp = maps.__array_namespace__()
    background = xp.maximum(1 - maps.max(axis=-1, keepdims=True), 0)
    return xp.concatenate([background**alpha, maps], axis=-1)


def saliency_mask(
    scores: Array, saliency: Array, *, threshold: float = 0.2, low: float = 1e-6, high: float = 0.99999
) -> Array:
    """The best class where the picture is salient, background elsewhere; but a certain class wins anywhere.

    A class competes where its score is at least `low`; the background wins where no class competes.

    Args:
        scores: float (*b, H, W, n + 1), from a CRF, in [0, 1], background first (its score is not used); 0 for a class
            that is not in the picture.
        saliency: uint8 (*b, H, W).
        threshold: a pixel is salient above 100 times this, of 255; 0.2 is a cut at 20.
        low: a class with a lower score does not compete.
        high: a class with a higher score is certain; of several, the first wins.

    Returns:
        int32 (*b, H, W), 0 for background, n + 1 for class n.

    Source: EDAM, its evaluation.
    """
    xp = scores.__array_namespace__()
    classes = scores[..., 1:]
    classes = xp.where(classes > high, 2, xp.where(classes < low, -2, classes))
    # Compare integers: 100 * 0.29 is slightly less than 29 in double precision, but 29 in single.
    background = xp.where(saliency.astype(xp.int32) <= math.floor(100 * threshold), 1, 0).astype(classes.dtype)
    return xp.concatenate([background[..., None], classes], axis=-1).argmax(axis=-1).astype(xp.int32)
