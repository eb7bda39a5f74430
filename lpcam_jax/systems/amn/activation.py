"""AMN's training loss, and the activation maps computed from its logits.

The labels are `seeds.ir_labels` of two masks: they cover only some of the pixels and are partly wrong. Hence the
target is smoothed, and background and objects have equal weight whatever their number of pixels. The background is
channel 0 of the logits.

Source: Lee et al., Threshold matters in WSSS: manipulating the activation for the robust and accurate segmentation
model against thresholds (2022).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ...inference.canvas import Band, ScaleMaps, cropped, in_bands, inside
from ...machine.devices import finishing
from ...machine.padding import canvas_of, power_of_two
from ..segmentation.losses import at_labels

Array = jax.Array | np.ndarray

EPSILON = 1e-5


def balanced_loss(logits: jax.Array, labels: jax.Array, *, smoothing: float = 0.4) -> jax.Array:
    """Cross entropy with label smoothing and equal weight for background and objects.

        l(x) = - sum_k t_k(x) log softmax(logits(x))_k,        t_k = 1 - e of the label, e / c of each other class
        loss = 1/2 mean_background l + 1/2 mean_objects l

    Means are over the pixels of the whole batch; a mean of no pixels is 0.

    Args:
        logits: float (*b, h, w, c + 1), background first.
        labels: int (*b, h, w), 0 for background, n + 1 for class n; anything above c, such as 255, is unsure and
            ignored.
        smoothing: e, in [0, 1).

    Returns:
        float32 ().

    Source: AMN's training step, which gives 0 / 0 if there is no background pixel or no object pixel.
    """
    classes, labels = logits.shape[-1] - 1, labels.astype(jnp.int32)
    known = labels <= classes
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    target_term = at_labels(log_probabilities, labels)
    other_terms = log_probabilities.sum(axis=-1) - target_term
    losses = -(1 - smoothing) * target_term - smoothing / classes * other_terms
    return (_mean(losses, known & (labels == 0)) + _mean(losses, known & (labels > 0))) / 2


def activation_maps(logits: Array, classes: Array, seed: Array, *, epsilon: float = EPSILON) -> Array:
    """Class probabilities, stretched to [0, 1] except where the seed is certain background.

        p = softmax(logits)          A_n(x) = (p_n(x) - min p_n) / (max p_n - min p_n + e)    where seed(x) is not 0
                                     A_n(x) = p_n(x)                                          elsewhere

    NumPy in, NumPy out; JAX in (also inside `jax.jit`), JAX out.

    Args:
        logits: float (*b, H, W, c + 1), background first; the mean over scales and mirror images, at the size of the
            picture.
        classes: int (n,), the classes to map: the labels of the picture. The softmax is over all classes.
        seed: int (*b, H, W), 0 for certain background.
        epsilon: e, guards against constant maps.

    Returns:
        float (*b, H, W, n), in [0, 1].

    Source: AMN's map generation; minimum and maximum are taken over the whole picture.
    """
    return _stretched(_probabilities(logits, classes), seed, epsilon=epsilon)


def _probabilities(logits: Array, classes: Array) -> Array:
    xp = logits.__array_namespace__()
    exponentials = xp.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials[..., 1 + classes] / exponentials.sum(axis=-1, keepdims=True)


def _stretched(p: Array, seed: Array, *, epsilon: float) -> Array:
    xp = p.__array_namespace__()
    low, high = (extreme(extreme(p, axis=-3, keepdims=True), axis=-2, keepdims=True) for extreme in (xp.min, xp.max))
    return xp.where((seed != 0)[..., None], (p - low) / (high - low + epsilon), p)


def activate(logits: ScaleMaps, classes: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """`activation_maps` of a picture of any size, on the device; compiled for few shapes.

    Args:
        logits: of all scales, k = c + 1, background first.
        classes: int (n,), the classes to map.
        seed: uint8 (H, W), 0 for certain background.

    Returns:
        float16 (n, H, W), in [0, 1].
    """
    count, size, canvas = len(classes), seed.shape, canvas_of(seed.shape)
    if not count:
        return np.zeros((0, *size), np.float16)
    numbers = np.resize(classes, power_of_two(count))
    seed = np.pad(seed, [(0, whole - length) for whole, length in zip(canvas, size, strict=True)])
    with finishing():
        return cropped(_activate(logits, numbers, seed, canvas=canvas)[:count], size)


@partial(jax.jit, static_argnames="canvas")
def _activate(logits: ScaleMaps, classes: jax.Array, seed: jax.Array, *, canvas: tuple[int, int]) -> jax.Array:
    """Maps float16 (n, *canvas)."""

    def probabilities(band: Band) -> jax.Array:
        return jnp.moveaxis(_probabilities(jnp.moveaxis(band.fused(), 0, -1), classes), -1, 0)

    p = in_bands(probabilities, logits, logits.size, canvas=canvas)
    p = jnp.where(inside(logits, canvas)[None], p, p[:, :1, :1])  # the padding has no influence on the extremes
    return jnp.moveaxis(_stretched(jnp.moveaxis(p, 0, -1), seed, epsilon=EPSILON), -1, 0).astype(jnp.float16)


def _mean(losses: jax.Array, pixels: jax.Array) -> jax.Array:
    return jnp.where(pixels, losses, 0).sum() / jnp.maximum(pixels.sum(), 1)
