"""LargeFOV: dilated convolutions one after the other on any `backbones.base.Backbone`, exact on padded pictures.

    f -> conv3x3_12, ReLU -> conv3x3_12 = logits

On a WideResNet-38 it is the segmentation network of psa's descendants, and MCTformer's.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone, drawn_with
from ...backbones.heads import scaled_rates
from ...backbones.layers.convolution import Conv
from ...backbones.layers.valid import Sizes, keep_valid
from ...backbones.preprocessing import Preprocessing
from ..segmentation.losses import full_size_loss


class LargeFOV(nnx.Module):
    """Two dilated convolutions with a ReLU in between.

    Args:
        backbone: the feature extractor; MCTformer's is a WideResNet-38, with output stride 8.
        classes: c, including the background.
        preprocessing: matches the backbone's weights.
        rates: dilations of the convolutions at output stride 8; rescaled for other strides to the same reach in pixels.
        width: channels between them.
        dtype: dtype of the convolutions and of what is between them; parameters and logits stay float32.
        rngs: random streams for the initialization: Xavier's for the weights, 0 for the biases.

    Source: Xu et al., Multi-class Token Transformer (CVPR 2022), its segmentation network; the name is that of Chen et
    al., DeepLab-LargeFOV (ICLR 2015), whose second convolution is 1x1.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        preprocessing: Preprocessing,
        rates: tuple[int, ...] = (12, 12),
        width: int = 512,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.backbone, self.preprocessing = backbone, preprocessing
        self.rates, self.dtype = scaled_rates(rates, 8, backbone), dtype
        channels = [backbone.channels[-1], *[width] * (len(rates) - 1), classes]
        options = {"use_bias": True, "kernel_init": nnx.initializers.xavier_uniform(), "dtype": dtype, "rngs": rngs}
        self.head = nnx.List(
            [
                Conv(inputs, outputs, 3, dilation=rate, **options)
                for inputs, outputs, rate in zip(channels[:-1], channels[1:], self.rates, strict=True)
            ]
        )

    def __call__(
        self,
        images: jax.Array,
        sizes: Sizes = None,
        *,
        train_backbone: bool = False,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Logits of pictures.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            train_backbone: whether the backbone's batch norm uses the statistics of this batch and updates the stored
                ones; the source never does.
            dropout_key: random key of a backbone that draws, in training; None: all of it is used.

        Returns:
            float32 (b, h', w', c), on the grid of the backbone's last stage, zero outside the valid region.
        """
        *_, x = self.backbone(images, sizes, train=train_backbone, **drawn_with(self.backbone, dropout_key))
        grid = self.grid_sizes(sizes)
        *hidden, last = self.head
        for conv in hidden:
            x = keep_valid(nnx.relu(conv(x)).astype(self.dtype), grid)
        return keep_valid(last(x), grid)

    def loss(
        self, images: jax.Array, labels: jax.Array, *, train_backbone: bool, dropout_key: jax.Array | None
    ) -> jax.Array:
        """Training loss: `full_size_loss` of the logits. The head has no dropout.

        Args:
            images: float (b, H, W, 3), preprocessed.
            labels: int (b, H, W), 0 .. c - 1, or 255: no label.
            train_backbone: see `__call__`.
            dropout_key: see `__call__`.

        Returns:
            float32 ().
        """
        return full_size_loss(self(images, train_backbone=train_backbone, dropout_key=dropout_key), labels)

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the logits for pictures of these sizes; both int32 (b, 2)."""
        return self.backbone.grids(sizes)[-1]
