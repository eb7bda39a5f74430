"""From pictures to edge maps: the whole picture and its mirror image, of any size.

edge(x) = sigmoid( mean over picture and mirror image of IRNet's edge logits at x ),   on a grid of 4 pixels a position
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from .config import Batches
from .data.records import Record, RecordSource
from .devices import jit_forward, replicate
from .inference import mirror
from .models.folding import fold_batch_norm
from .models.irnet import IRNet
from .passes import Pass, expect_finite, run_passes

Detect = Callable[..., Iterator[tuple[int, Record, np.ndarray]]]


def edge_logits(model: IRNet, pictures: jax.Array, sizes: jax.Array) -> jax.Array:
    """Edge logits of padded pictures, the mean over them and their mirror images, the latter mirrored back.

    Args:
        model: IRNet.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.

    Returns:
        float32 (b, h / 4, w / 4), zero outside the valid region of `IRNet.grid_sizes`.
    """
    both = jnp.concatenate([pictures, mirror(pictures, sizes[:, 1])])
    extents = jnp.concatenate([sizes, sizes])
    boxes = jnp.concatenate([jnp.zeros_like(extents), extents], axis=1)
    logits = model.edges(model.taps(model.preprocessing(both, boxes), extents))
    straight, mirrored = jnp.split(logits[..., None], 2)
    return (straight + mirror(mirrored, model.grid_sizes(sizes)[:, 1]))[..., 0] / 2


def detect_edges(graph: nnx.GraphDef, *, inference: Batches, devices: Mesh) -> Detect:
    """The edges IRNet sees, compiled once however often its parameters change.

    Args:
        graph: of IRNet; its batch norm is folded here, if it is not yet.
        inference: limits of batches.
        devices: the mesh.

    Returns:
        (state, source, *, skipped, description="edges", only=None) -> iterator of (index, record, edges), where

        state: parameters and batch statistics.
        source: the pictures.
        skipped: gets one line for every picture that could not be read.
        description: of the progress bar.
        only: indices to compute; None: all.
        edges: float32 (h, w), probabilities; for most backbones h, w = H / 4, W / 4, rounded up.

        It raises UserError when the network's output is not finite.

    Source: IRN's step "make_sem_seg", whose logits are averaged, not probabilities; and without the padding to 512x512
    that some of its descendants took out.
    """

    def detect(
        state: tuple[dict, dict],
        source: RecordSource,
        *,
        skipped: list[str],
        description: str = "edges",
        only: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Record, np.ndarray]]:
        folded, *arrays = fold_batch_norm(graph, *replicate(state, devices))
        passes = [Pass(1.0, partial(_edge_network(folded), *arrays))]
        results = run_passes(
            passes, source, batches=inference, devices=devices, description=description, skipped=skipped, only=only
        )
        with closing(results):  # and the progress bar with it, whatever happens
            for index, record, [outputs] in results:
                logits = outputs["logits"][..., 0]
                expect_finite(record, [logits])
                yield index, record, np.exp(-np.logaddexp(0, -logits))  # the sigmoid, of logits of any size

    return detect


@cache
def _edge_network(graph: nnx.GraphDef) -> Callable[..., dict[str, Any]]:
    """The forward pass: parameters, statistics, pictures and sizes -> logits on the grid."""

    @jit_forward
    def network(parameters, batch_stats, pictures, sizes):
        model = nnx.merge(graph, parameters, batch_stats)
        return {"logits": edge_logits(model, pictures, sizes)[..., None], "grid": model.grid_sizes(sizes)}

    return network
