"""What MCTformer gives to the prototype stage: its patches, the PatchCAM that splits them, its head.

The head is a 3x3 convolution. What it says of a feature is its response where all around is that feature, too: that of
the kernel summed over its taps, with the bias.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...inference.forward import mirrored_back, with_mirror_images
from ...inference.plan import Outputs
from ...prototype_activation import similarity_maps
from ...training.checkpoints import TrainState
from ..prototyping.clustered import Clustered, Size
from .config import MCTformerConfig
from .maps import stretched
from .network import MCTformer


def clustered(config: MCTformerConfig, state: TrainState) -> Clustered:
    """What of a trained MCTformer (V2) is clustered.

    Args:
        config: the run's config.
        state: the trained network.
    """
    kernel, bias = (np.asarray(state.parameters["head"][name]) for name in ("kernel", "bias"))
    options = {"stride": config.model.patch, "weights": kernel.sum(axis=(0, 1)), "bias": bias}
    return Clustered(patches_and_cam, patch_cam_of_both, (1.0,), on_grid, **options)


def on_grid(maps: Sequence[np.ndarray], _: Size, __: Size) -> np.ndarray:
    """PatchCAM of scale 1, which is on the grid of the patches, stretched to [0, 1]: float (h', w')."""
    return stretched(maps[0][..., 0])


def patches_and_cam(model: MCTformer, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """The patches of padded pictures, float32 (b, h', w', d); the sum of their PatchCAM and that of their mirror
    images, float32 (b, h', w', c)."""
    features, cam = _of_both(model, pictures, sizes)
    return {"features": features[0], "cam": sum(cam)}


def patch_cam_of_both(model: MCTformer, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """`patches_and_cam` without the patches."""
    _, cam = _of_both(model, pictures, sizes)
    return {"cam": sum(cam)}


def similarities(model: MCTformer, pictures: jax.Array, sizes: jax.Array, centres: jax.Array) -> Outputs:
    """Cosines float32 (b, h', w', c, k) between patches and centres (c, k, d), the mean over pictures and mirror
    images."""
    features, _ = _of_both(model, pictures, sizes)
    return {"similarity": sum(similarity_maps(one, centres) for one in features) / 2}


def _of_both(
    model: MCTformer, pictures: jax.Array, sizes: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Patches and PatchCAM, each of pictures and, mirrored back, of their mirror images."""
    images, extents = with_mirror_images(model, pictures, sizes)
    _, patches = model(images, extents)
    cam, grid = jax.nn.relu(model.scores(patches, extents)), model.grid_sizes(sizes)
    return mirrored_back(patches.astype(jnp.float32), grid), mirrored_back(cam, grid)
