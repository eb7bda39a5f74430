"""From pictures to segmentation masks: the whole picture, at several scales and mirrored, of any size.

p(x) = mean over scales and mirror images of  softmax( logits, resized bilinearly to the picture )(x)
mask = argmax p
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from .class_activation import resize_bilinear
from .config import SegmentationInference
from .data.records import Record, RecordSource
from .devices import jit_forward, replicate
from .inference import mirror
from .passes import Pass, expect_finite, run_passes

Segment = Callable[..., Iterator[tuple[int, Record, np.ndarray]]]


def segment_pictures(graph: nnx.GraphDef, *, inference: SegmentationInference, devices: Mesh) -> Segment:
    """The segmentation by a network, compiled once however often its parameters change.

    Args:
        graph: of DeepLabV2 or DeepLabV3Plus.
        inference: scales, mirror images, limits of batches.
        devices: the mesh.

    Returns:
        (state, source, *, skipped, description="masks", only=None) -> iterator of (index, record, mask), where

        state: parameters and batch statistics.
        source: the pictures.
        skipped: gets one line for every picture that could not be read.
        description: of the progress bar.
        only: indices to compute; None: all.
        mask: uint8 (H, W), 0 background, n + 1 class n.

        It raises UserError when the network's output is not finite.

    Source: DeepLabV2's recipe has one scale and no mirror image (its network itself sees three scales).
    """

    @jit_forward
    def network(parameters, batch_stats, pictures, sizes):
        model = nnx.merge(graph, parameters, batch_stats)
        images = jnp.concatenate([pictures, mirror(pictures, sizes[:, 1])]) if inference.mirror else pictures
        extents = jnp.concatenate([sizes] * (len(images) // len(sizes)))
        boxes = jnp.concatenate([jnp.zeros_like(extents), extents], axis=1)
        logits = model(model.preprocessing(images, boxes), extents)
        grids = model.grid_sizes(sizes)
        outputs = {"logits": logits[: len(sizes)], "grid": grids}
        if inference.mirror:
            outputs["mirrored"] = mirror(logits[len(sizes) :], grids[:, 1])
        return outputs

    def segment(
        state: tuple[dict, dict],
        source: RecordSource,
        *,
        skipped: list[str],
        description: str = "masks",
        only: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Record, np.ndarray]]:
        of_pictures = partial(network, *replicate(state, devices))
        passes = [Pass(scale, of_pictures) for scale in inference.scales]
        results = run_passes(
            passes, source, batches=inference, devices=devices, description=description, skipped=skipped, only=only
        )
        with closing(results):  # and the progress bar with it, whatever happens
            for index, record, outputs in results:
                logits = [values for one in outputs for values in one.values()]
                expect_finite(record, logits)
                yield index, record, mask_of(logits, record.image.shape[:2])

    return segment


def mask_of(logits: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The most probable class of each pixel, on average over the logits.

    Args:
        logits: float (h_i, w_i, c) each, of the whole picture at any size.
        size: (H, W) of the picture.

    Returns:
        uint8 (H, W).
    """
    if len(logits) == 1:  # the softmax keeps the order
        return resize_bilinear(logits[0], size).argmax(axis=-1).astype(np.uint8)
    total = sum(_softmax(resize_bilinear(one, size)) for one in logits)
    return total.argmax(axis=-1).astype(np.uint8)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
