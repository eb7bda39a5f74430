"""The affinity network: features that are alike where pixels belong together.

    the last three stages -> 1x1 to 64, 128, 256 channels, ELU -> onto the finest grid, concat -> 1x1, ELU

On a WideResNet-38 the three stages have 8 pixels per position. Of another backbone the coarser ones are enlarged.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone, drawn_with
from ...backbones.config import BackboneConfig
from ...backbones.layers.convolution import Conv
from ...backbones.layers.resizing import rescale
from ...backbones.layers.valid import Sizes, keep_valid
from ...backbones.preprocessing import Preprocessing
from ...machine.errors import UserError

WIDTHS = (64, 128, 256)


class AffinityNet(nnx.Module):
    """Features for affinities, on a trained backbone with stored statistics of batch norm.

    Args:
        backbone: with at least three stages.
        preprocessing: matches the backbone's weights.
        dtype: of the convolutions and of what is stored between them.
        rngs: random streams for the initialization.

    Source: Ahn and Kwak, Learning pixel-level semantic affinity with image-level supervision (CVPR 2018), as in the
    authors' code, network/resnet38_aff.py.
    """

    def __init__(
        self, backbone: Backbone, *, preprocessing: Preprocessing, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ):
        strides = backbone.strides[-3:]
        if len(strides) < 3 or any(stride % strides[0] for stride in strides):
            raise UserError(
                "the affinity network needs a backbone with three stages, of which the first is the finest; this one's "
                f"strides are {', '.join(map(str, backbone.strides))}. Give another --model.backbone."
            )
        self.backbone, self.preprocessing, self.stride = backbone, preprocessing, strides[0]
        self.enlarge = tuple(stride // strides[0] for stride in strides)
        inputs = zip(backbone.channels[-3:], WIDTHS, strict=True)
        # Initialized as in psa: affinities begin in the middle of their range. Names as in psa's files.
        narrow = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        self.f8_3, self.f8_4, self.f8_5 = (
            Conv(channels, width, 1, kernel_init=narrow, dtype=dtype, rngs=rngs) for channels, width in inputs
        )
        together = sum(WIDTHS)
        wide = nnx.initializers.variance_scaling(4.0**2, "fan_avg", "uniform")
        self.f9 = Conv(together, together, 1, kernel_init=wide, dtype=dtype, rngs=rngs)

    def features(self, images: jax.Array, sizes: Sizes = None, *, key: jax.Array | None = None) -> jax.Array:
        """The features whose differences are the affinities.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the picture.
            sizes: int32 (b, 2), valid rows and columns; None: all.
            key: random key of a backbone that draws, in training; None: nothing is left out.

        Returns:
            float32 (b, h', w', 448), > -1, zero outside the valid region of `grid_sizes`.
        """
        stages, grids = (
            self.backbone(images, sizes, **drawn_with(self.backbone, key))[-3:],
            self.backbone.grids(sizes)[-3:],
        )
        height, width = stages[0].shape[1:3]
        parts = []
        for conv, features, grid, enlarge in zip(
            (self.f8_3, self.f8_4, self.f8_5), stages, grids, self.enlarge, strict=True
        ):
            y = nnx.elu(conv(features))
            parts.append(y if enlarge == 1 else rescale(y, grid, enlarge)[0][:, :height, :width])
        together = keep_valid(jnp.concatenate(parts, axis=-1), grids[0])
        return keep_valid(nnx.elu(self.f9(together).astype(jnp.float32)), grids[0])

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the features for pictures of these sizes; both int32 (b, 2)."""
        return self.backbone.grids(sizes)[-3]


def build_affinity_net(model: BackboneConfig, *, seed: int = 0) -> AffinityNet:
    """Build the network from its config, randomly initialized; call it inside `jax.jit` or `nnx.eval_shape`.

    Args:
        model: the backbone's config; its `weights` are not loaded here.
        seed: random seed of the initialization.
    """
    rngs = nnx.Rngs(seed)
    return AffinityNet(
        model.build(rngs=rngs), preprocessing=Preprocessing.of(model), dtype=jnp.dtype(model.precision), rngs=rngs
    )
