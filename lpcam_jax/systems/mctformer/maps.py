"""MCTformer's maps of pictures, over several scales and mirror images.

    M_n(x)     = sum over the last blocks of what class token n attends to           (mean over heads)
    A(x, y)    = sum over all blocks of what patch x attends to                      (mean over heads)
    map_n(x)   = sum_y A(x, y) M_n(y) P_n(y)         P = ReLU(scores of the patches), PatchCAM

LPCAM of the patches, ReLU(unit(f(x)) . direction_n), takes PatchCAM's place, or that of the whole map. V1 has no
PatchCAM: there P = 1.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from ...data.records import Record, RecordSource
from ...inference.finish import finished_maps
from ...inference.forward import Network, mirrored_back, out_of_pairs, with_mirror_images
from ...inference.passes import finish_each
from ...inference.plan import Outputs
from ...machine.errors import UserError
from ...prototype_activation import directions, lpcam
from ...prototypes import Prototypes
from ...results.picture_maps import PictureMaps, mapped_classes
from .config import MCTformerInference
from .network import Attended, MCTformer, class_logits

METHOD, LPCAM_METHOD = "mctformer", "mctformer_lpcam"
_EPSILON = 1e-8


def methods_of(prototypes: Prototypes | None) -> tuple[str, ...]:
    """Names of the maps made with these prototypes, or without any; seeds are cut from the last."""
    return (METHOD,) if prototypes is None else (METHOD, LPCAM_METHOD)


def map_pictures(
    network: Network,
    prototypes: Prototypes | None,
    source: RecordSource,
    *,
    depth: int,
    inference: MCTformerInference,
    only: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    description: str | None = "heat maps",
) -> Iterator[tuple[int, Record | UserError, PictureMaps | None]]:
    """Compute MCTformer's maps of every picture, for its labels or, without labels, its predicted classes.

    Args:
        network: MCTformer.
        prototypes: those of its patches; None: of V1, without LPCAM.
        source: the pictures.
        depth: number of its blocks.
        inference: scales, batch limits, blocks, place of LPCAM, class threshold.
        only: indices to map; None: all.
        among: indices of the pictures that share the batches, as for `plan_batches`; None: those of `only`.
        description: label of the progress bar; None: no progress bar.

    Yields:
        (index, record, PictureMaps), each picture once, in order of completion; (index, error, None) for a picture that
        cannot be read.

    Raises:
        UserError: the network's output is not finite.

    Source: MCTformer's map generation, whose test is at scale 1.
    """
    methods = methods_of(prototypes)
    shares = np.float32(np.arange(depth) >= depth - inference.blocks)
    constants = [shares] if prototypes is None else [shares, directions(prototypes)]

    def finish(record: Record, outputs: list[Outputs]) -> PictureMaps:
        probabilities = expit(outputs[0]["logits"])
        classes = mapped_classes(record, probabilities, inference.probability)
        maps = {
            method: finished_maps(
                [scale[method][..., classes] for scale in outputs],
                record.image.shape[:2],
                epsilon=_EPSILON,
                scaled=stretched,
            )
            for method in methods
        }
        return PictureMaps(classes, maps, probabilities)

    results = network.run(
        {"patches": grid_maps, "alone": grid_maps_alone}[inference.lpcam],
        source,
        scales=inference.scales,
        batches=inference,
        constants=constants,
        description=description,
        only=only,
        among=among,
    )
    return finish_each(results, finish)


def grid_maps(
    model: MCTformer,
    pictures: jax.Array,
    sizes: jax.Array,
    shares: jax.Array,
    toward: jax.Array | None = None,
    *,
    fuse_lpcam: bool = True,
) -> Outputs:
    """Maps of one scale on the grid of the patches, summed over pictures and mirror images, and logits.

    Args:
        model: MCTformer.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.
        shares: float32 (blocks,), of each block in the attention of the class tokens.
        toward: float32 (c, d), directions of LPCAM; None: without it.
        fuse_lpcam: whether LPCAM is fused with the attention.

    Returns:
        "mctformer" and, with directions, "mctformer_lpcam", float32 (b, h', w', c), zero outside the valid region;
        "logits" float32 (b, c), those of the class tokens.
    """
    images, extents = with_mirror_images(model, pictures, sizes)
    seen, grid = model.attended(images, extents, shares=shares), model.grid_sizes(sizes)
    patch_cam = None if model.head is None else jax.nn.relu(model.scores(seen.patches, extents))
    maps = {METHOD: attended_map(seen, patch_cam)}
    if toward is not None:
        activation = lpcam(seen.patches.astype(jnp.float32), toward)
        maps[LPCAM_METHOD] = attended_map(seen, activation) if fuse_lpcam else activation
    logits = sum(out_of_pairs(class_logits(seen.tokens))) / 2
    return {method: sum(mirrored_back(one, grid)) for method, one in maps.items()} | {"logits": logits}


def grid_maps_alone(
    model: MCTformer, pictures: jax.Array, sizes: jax.Array, shares: jax.Array, toward: jax.Array | None = None
) -> Outputs:
    """`grid_maps` with LPCAM in the place of the fused map."""
    return grid_maps(model, pictures, sizes, shares, toward, fuse_lpcam=False)


def attended_map(seen: Attended, activation: jax.Array | None) -> jax.Array:
    """The attention of the class tokens times a map of the patches, spread by the affinity: sum_y A(x, y) M(y) P(y).

    Args:
        seen: of b pictures.
        activation: P, float32 (b, h', w', c), zero outside the valid region; None: 1.

    Returns:
        float32 (b, h', w', c), >= 0; undefined outside the valid region.
    """
    product = seen.attention if activation is None else seen.attention * activation
    b, h, w, c = product.shape
    return jnp.matmul(seen.affinity, product.reshape(b, h * w, c), precision="highest").reshape(b, h, w, c)


def logits_of_both(model: MCTformer, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Logits (b, c) of the class tokens, averaged over pictures and their mirror images."""
    tokens, _ = model(*with_mirror_images(model, pictures, sizes))
    return {"logits": sum(out_of_pairs(class_logits(tokens))) / 2}


def stretched(maps: jax.Array | np.ndarray, *, epsilon: float | jax.Array = _EPSILON) -> jax.Array | np.ndarray:
    """(x - min) / (max - min + epsilon) of each map.

    Args:
        maps: float (*b, h, w).
        epsilon: guards against constant maps.

    Returns:
        float (*b, h, w), in [0, 1]. A flat map does not localize anything: it gives zeros.
    """
    xp = maps.__array_namespace__()
    low, high = (extreme(maps, axis=(-2, -1), keepdims=True) for extreme in (xp.min, xp.max))
    flat = high - low <= 1e-6 * xp.abs(high)
    return xp.where(flat, 0, (maps - low) / xp.where(flat, 1, high - low + epsilon))
