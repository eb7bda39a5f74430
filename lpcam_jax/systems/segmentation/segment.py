"""Segmentation of whole pictures of any size, fused over scales and mirror images.

p(x) = mean or maximum over scales and mirror images of  softmax( logits, resized bilinearly to the picture )(x)
mask = argmax p;  or that of a CRF with the energies -log p
"""

from collections.abc import Iterator, Sequence
from functools import partial, reduce
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ...backbones.layers.valid import Sizes
from ...data.records import Record, RecordSource
from ...inference.canvas import Band, ScaleMaps, cropped, fused, in_bands, stack_scales
from ...inference.forward import Network, PictureNetwork, as_they_are, mirrored_back, with_mirror_images
from ...inference.passes import finish_each
from ...inference.plan import Outputs
from ...machine.devices import finishing
from ...machine.errors import UserError
from ...machine.padding import canvas_of
from ...refine.crf import CRFS
from ...refine.pictures import bounded_size, crf_mask
from .config import SegmentationInference

Fusion = Literal["mean", "maximum"]


class SegmentationNetwork(PictureNetwork, Protocol):
    """A network with an output for every class, the background included, at every position of its grid."""

    def __call__(self, images: jax.Array, sizes: Sizes = None) -> jax.Array:
        """Logits float32 (b, h', w', c) of preprocessed pictures (b, h, w, 3), zero outside the valid region."""
        ...


def segment_pictures(
    network: Network,
    source: RecordSource,
    *,
    inference: SegmentationInference,
    description: str | None = "masks",
    only: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
) -> Iterator[tuple[int, Record | UserError, np.ndarray | None]]:
    """Segment every picture.

    Args:
        network: a `SegmentationNetwork`.
        source: the pictures.
        inference: size, scales, mirror images, batch limits.
        description: label of the progress bar; None: no progress bar.
        only: indices to compute; None: all.
        among: indices of the pictures that share the batches, as for `plan_batches`; None: those of `only`.

    Yields:
        (index, record, mask uint8 (H, W), 0 background, n + 1 class n), each picture once, in order of completion;
        (index, error, None) for a picture that cannot be read.

    Raises:
        UserError: the network's output is not finite.

    Source: DeepLabV2's recipe has one scale and no mirror image (its network itself sees three scales).
    """

    def finish(record: Record, outputs: list[Outputs]) -> np.ndarray:
        logits, size = [logits for scale in outputs for logits in scale.values()], record.image.shape[:2]
        if not inference.crf:
            return mask_of(logits, size, fusion=inference.fusion)
        probabilities = probabilities_of(logits, bounded_size(size), fusion=inference.fusion)
        return crf_mask(record.image, probabilities, crf=CRFS[inference.crf])

    results = network.run(
        logits_of_both if inference.mirror else logits,
        source,
        scales=inference.scales,
        fit=inference.fit,
        batches=inference,
        description=description,
        only=only,
        among=among,
    )
    return finish_each(results, finish)


def logits(model: SegmentationNetwork, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Logits float32 (b, h', w', c) of padded pictures uint8 (b, h, w, 3) with valid sizes int32 (b, 2)."""
    return {"logits": model(as_they_are(model, pictures, sizes), sizes)}


def logits_of_both(model: SegmentationNetwork, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """`logits` of the pictures and, as "mirrored", of their mirror images, mirrored back."""
    images, extents = with_mirror_images(model, pictures, sizes)
    straight, mirrored = mirrored_back(model(images, extents), model.grid_sizes(sizes))
    return {"logits": straight, "mirrored": mirrored}


def mask_of(logits: Sequence[np.ndarray], size: tuple[int, int], *, fusion: Fusion = "mean") -> np.ndarray:
    """Most probable class of each pixel, with the probabilities of several logits fused.

    Args:
        logits: float (h_i, w_i, c) each, of the whole picture at any resolution.
        size: (H, W) of the picture.
        fusion: of the probabilities.

    Returns:
        uint8 (H, W).
    """
    with finishing():
        return cropped(_best(stack_scales(logits, size), canvas=canvas_of(size), fusion=fusion), size)


def probabilities_of(logits: Sequence[np.ndarray], size: tuple[int, int], *, fusion: Fusion = "mean") -> np.ndarray:
    """The fused probabilities: float32 (c, H, W), in [0, 1]; arguments as of `mask_of`."""
    with finishing():
        total = cropped(_fused(stack_scales(logits, size), canvas=canvas_of(size), fusion=fusion), size)
    return total / len(logits) if fusion == "mean" else total


@partial(jax.jit, static_argnames=("canvas", "fusion"))
def _best(logits: ScaleMaps, *, canvas: tuple[int, int], fusion: Fusion) -> jax.Array:
    """The most probable class, uint8 (*canvas)."""
    combine = jnp.maximum if fusion == "maximum" else jnp.add

    def best(band: Band) -> jax.Array:
        views = len(logits.maps)
        if views == 1:  # softmax is monotonic
            scores = band.fused()
        else:
            scores = reduce(combine, (jax.nn.softmax(band.of_scale(n), axis=0) for n in range(views)))
        return scores.argmax(axis=0, keepdims=True).astype(jnp.uint8)

    return in_bands(best, logits, logits.size, canvas=canvas)[0]


@partial(jax.jit, static_argnames=("canvas", "fusion"))
def _fused(logits: ScaleMaps, *, canvas: tuple[int, int], fusion: Fusion) -> jax.Array:
    """Sum or maximum of the probabilities, float32 (c, *canvas); those of one view at a time are in memory."""
    combine = jnp.maximum if fusion == "maximum" else jnp.add

    def add(total, view):
        one = ScaleMaps(*(array[None] for array in view), logits.size)
        return combine(total, jax.nn.softmax(fused(one, logits.size, canvas=canvas), axis=0)), None

    start = jnp.zeros((logits.maps.shape[1], *canvas), jnp.float32)
    total, _ = jax.lax.scan(add, start, (logits.maps, logits.grids))
    return total
