"""From pictures and their labels to AMN's logits: several scales and mirror images, of any size.

g(x) = mean over scales of  (logits + logits of the mirror image, mirrored back)(x) / 2,  resized to the picture
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

from .class_activation import resize_bilinear
from .config import AMNInference
from .data.records import Record, RecordSource
from .devices import jit_forward, replicate
from .inference import mirror
from .models.amn import AMN
from .models.folding import fold_batch_norm
from .passes import Pass, expect_finite, run_passes


def logits_of_both(model: AMN, pictures: jax.Array, sizes: jax.Array, labels: jax.Array) -> jax.Array:
    """Logits of padded pictures, the mean over them and their mirror images, the latter mirrored back.

    Args:
        model: AMN.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.
        labels: float32 (b, c), 1 for the classes of each picture, else 0.

    Returns:
        float32 (b, h', w', c + 1), background first, zero outside the valid region of `AMN.grid_sizes`.
    """
    both = jnp.concatenate([pictures, mirror(pictures, sizes[:, 1])])
    extents = jnp.concatenate([sizes, sizes])
    boxes = jnp.concatenate([jnp.zeros_like(extents), extents], axis=1)
    logits = model(model.preprocessing(both, boxes), jnp.concatenate([labels, labels]), extents)
    straight, mirrored = jnp.split(logits, 2)
    return (straight + mirror(mirrored, model.grid_sizes(sizes)[:, 1])) / 2


def activate_pictures(
    graph: nnx.GraphDef,
    state: tuple[dict, dict],
    source: RecordSource,
    labels_of: Callable[[Record], np.ndarray],
    *,
    inference: AMNInference,
    devices: Mesh,
    skipped: list[str],
    only: Sequence[int] | None = None,
    description: str | None = "heat maps",
) -> Iterator[tuple[int, Record, np.ndarray]]:
    """AMN's logits of every picture.

    Args:
        graph: of AMN; its batch norm is folded here, if it is not yet.
        state: its parameters and batch statistics.
        source: the pictures.
        labels_of: of a record, float32 (c,), 1 for its classes, else 0.
        inference: scales and limits.
        devices: the mesh.
        skipped: gets one line for every picture that could not be read.
        only: indices to compute; None: all.
        description: of the progress bar; None: there is none.

    Yields:
        (index, record, logits float32 (H, W, c + 1), background first), each picture once, in the order they finish.

    Raises:
        UserError: the network's output is not finite.

    Source: AMN, the step that makes its maps; there the dropout of training is left on.
    """
    graph, *arrays = fold_batch_norm(graph, *replicate(state, devices))
    of_pictures = partial(_logits_network(graph), *arrays)
    passes = [Pass(scale, of_pictures) for scale in inference.scales]
    results = run_passes(
        passes,
        source,
        batches=inference,
        devices=devices,
        description=description,
        skipped=skipped,
        only=only,
        beside=labels_of,
    )
    with closing(results):  # and the progress bar with it, whatever happens
        for index, record, outputs in results:
            logits = [one["logits"] for one in outputs]
            expect_finite(record, logits)
            size = record.image.shape[:2]
            yield index, record, sum(resize_bilinear(one, size) for one in logits) / len(logits)


@cache
def _logits_network(graph: nnx.GraphDef) -> Callable[..., dict[str, Any]]:
    """The forward pass: parameters, statistics, pictures, sizes and labels -> logits on the grid."""

    @jit_forward
    def network(parameters, batch_stats, pictures, sizes, labels):
        model = nnx.merge(graph, parameters, batch_stats)
        return {"logits": logits_of_both(model, pictures, sizes, labels), "grid": model.grid_sizes(sizes)}

    return network
