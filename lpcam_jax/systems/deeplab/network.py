"""DeepLabV2 and DeepLabV3+: segmentation networks on any `backbones.base.Backbone`, exact on padded pictures.

    V2:   g(x) = sum_r  conv3x3_r(f(x)),  r = 6, 12, 18, 24          logits = max over scales s of  g(x at scale s)
    V3+:  f -> 1x1, 3x3 at three rates, picture mean -> concat, 1x1 -> concat with a finer stage -> two 3x3 -> 1x1

The logits are on a grid of 8 (V2) or 4 (V3+) pixels per position; `segmentation.losses.full_size_loss`
brings them to the picture in training, `segmentation.segment` in inference.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone, drawn_with
from ...backbones.heads import CLASSIFIER_INIT, AtrousSum, ConvNormRelu, scaled_rates
from ...backbones.layers.convolution import Conv
from ...backbones.layers.drops import dropout
from ...backbones.layers.resizing import rescale, resize_valid
from ...backbones.layers.valid import Sizes, keep_valid
from ...backbones.preprocessing import Preprocessing
from ...machine.errors import UserError
from ..segmentation.losses import full_size_loss
from .config import Head
from .large_fov import LargeFOV
from .losses import multi_scale_loss


class DeepLabV2(nnx.Module):
    """Sum of four dilated convolutions, maximum over three scales of the picture.

    Args:
        backbone: the feature extractor; DeepLab's has output stride 8 and `dilation="atrous"`.
        classes: c, including the background.
        preprocessing: matches the backbone's weights.
        rates: dilations of the head at output stride 8; rescaled for other strides to the same reach in pixels.
        dtype: dtype of the head's convolutions; parameters and logits stay float32.
        rngs: random streams for the initialization.

    Source: Chen et al., DeepLab (TPAMI 2018), as trained by the multi-scale recipe behind the papers' numbers.
    """

    smaller_scales = (0.75, 0.5)

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        preprocessing: Preprocessing,
        rates: tuple[int, ...] = (6, 12, 18, 24),
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.backbone, self.preprocessing = backbone, preprocessing
        self.rates = scaled_rates(rates, 8, backbone)
        self.head = AtrousSum(backbone.channels[-1], classes, self.rates, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array, sizes: Sizes = None) -> jax.Array:
        """Logits of pictures: the last element of `pyramid`."""
        return self.pyramid(images, sizes)[-1]

    def pyramid(
        self,
        images: jax.Array,
        sizes: Sizes = None,
        *,
        train_backbone: bool = False,
        dropout_key: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Logits of every scale, and their maximum; the loss is computed on all of them.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            train_backbone: whether the backbone's batch norm uses the statistics of each scale's batch and updates the
                stored ones; the source never does.
            dropout_key: random key of a backbone that draws, in training; None: all of it is used.

        Returns:
            Four float32 (b, h_s, w_s, c), zero outside the valid region: scales 1, 0.75 and 0.5, each on its own grid,
            and the element-wise maximum of the three on the grid of scale 1, the smaller ones resized to it.
        """
        pictures = [(images, sizes), *(rescale(images, sizes, scale) for scale in self.smaller_scales)]
        keys = [None] * len(pictures) if dropout_key is None else jax.random.split(dropout_key, len(pictures))
        logits = [
            self._logits_of_one_scale(*picture, train_backbone, key)
            for picture, key in zip(pictures, keys, strict=True)
        ]
        grids = [self.grid_sizes(valid) for _, valid in pictures]
        shape = logits[0].shape[1:3]
        resized = [resize_valid(x, grid, shape, grids[0]) for x, grid in zip(logits[1:], grids[1:], strict=True)]
        return [*logits, reduce(jnp.maximum, resized, logits[0])]

    def loss(
        self, images: jax.Array, labels: jax.Array, *, train_backbone: bool, dropout_key: jax.Array | None
    ) -> jax.Array:
        """Training loss: `losses.multi_scale_loss` of the pyramid. The head has no dropout.

        Args:
            images: float (b, H, W, 3), preprocessed.
            labels: int (b, H, W), 0 .. c - 1, or 255: no label.
            train_backbone: see `pyramid`.
            dropout_key: see `pyramid`.

        Returns:
            float32 ().
        """
        return multi_scale_loss(self.pyramid(images, train_backbone=train_backbone, dropout_key=dropout_key), labels)

    def _logits_of_one_scale(
        self, images: jax.Array, sizes: Sizes, train_backbone: bool, key: jax.Array | None
    ) -> jax.Array:
        *_, features = self.backbone(images, sizes, train=train_backbone, **drawn_with(self.backbone, key))
        return self.head(features, self.grid_sizes(sizes))

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the logits for pictures of these sizes; both int32 (b, 2)."""
        return self.backbone.grids(sizes)[-1]


class AtrousPyramid(nnx.Module):
    """Features with receptive fields from one position to the whole picture, mixed by a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, *, rates: tuple[int, ...], dtype: jnp.dtype, rngs: nnx.Rngs):
        branches = [ConvNormRelu(inputs, outputs, 1, dtype=dtype, rngs=rngs)]
        branches += [ConvNormRelu(inputs, outputs, 3, dilation=rate, dtype=dtype, rngs=rngs) for rate in rates]
        self.local = nnx.List(branches)
        self.picture = ConvNormRelu(inputs, outputs, 1, dtype=dtype, rngs=rngs)
        self.mix = ConvNormRelu((2 + len(rates)) * outputs, outputs, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, sizes: Sizes, *, train: bool) -> jax.Array:
        b, h, w, _ = x.shape
        positions = h * w if sizes is None else sizes.prod(axis=1).reshape(-1, 1, 1, 1)
        mean = x.sum(axis=(1, 2), dtype=jnp.float32, keepdims=True) / positions
        picture = self.picture(mean.astype(x.dtype), None, train=train)
        picture = keep_valid(jnp.broadcast_to(picture, (b, h, w, picture.shape[-1])), sizes)
        branches = [branch(x, sizes, train=train) for branch in self.local]
        return self.mix(jnp.concatenate([*branches, picture], axis=-1), sizes, train=train)


class DeepLabV3Plus(nnx.Module):
    """Atrous pyramid on the last stage, decoder on a finer stage with 4 pixels per position.

    Args:
        backbone: the feature extractor, with output stride 16 or 8 and `dilation="atrous"`.
        classes: c, including the background.
        preprocessing: matches the backbone's weights.
        rates: dilations of the pyramid at output stride 16; rescaled for other strides to the same reach in pixels.
        width: channels of pyramid and decoder.
        dtype: dtype of the head's convolutions and of what is stored between them; parameters and logits stay float32.
        rngs: random streams for the initialization.

    Source: Chen et al., Encoder-Decoder with Atrous Separable Convolution (ECCV 2018), with plain convolutions in
    place of separable ones; dropout of 0.1 after the pyramid, none in the decoder, as in the authors' code.
    """

    finer_width, dropout = 48, 0.1

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        preprocessing: Preprocessing,
        rates: tuple[int, ...] = (6, 12, 18),
        width: int = 256,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.backbone, self.preprocessing = backbone, preprocessing
        options, finer_width = {"dtype": dtype, "rngs": rngs}, self.finer_width
        self.rates = scaled_rates(rates, 16, backbone)
        self.finer_stage = _last_of_stride(4, backbone)
        self.pyramid = AtrousPyramid(backbone.channels[-1], width, rates=self.rates, **options)
        self.finer = ConvNormRelu(backbone.channels[self.finer_stage], finer_width, 1, **options)
        self.decoder = nnx.List([ConvNormRelu(inputs, width, 3, **options) for inputs in (width + finer_width, width)])
        self.classifier = Conv(width, classes, 1, use_bias=True, kernel_init=CLASSIFIER_INIT, **options)

    def __call__(
        self,
        images: jax.Array,
        sizes: Sizes = None,
        *,
        train: bool = False,
        train_backbone: bool = False,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Logits of pictures.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            train: whether the head's batch norm uses the statistics of this batch and updates the stored ones.
            train_backbone: the same for the backbone's batch norm.
            dropout_key: random key of the dropout in training; None: no dropout.

        Returns:
            float32 (b, h / 4, w / 4, c), on the grid of the finer stage (rounded up), zero outside the valid region.
        """
        path_key, dropout_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        features = self.backbone(images, sizes, train=train_backbone, **drawn_with(self.backbone, path_key))
        coarse, fine = self.backbone.grids(sizes)[-1], self.grid_sizes(sizes)
        x = self.pyramid(features[-1], coarse, train=train)
        x = dropout(dropout_key, x, rate=self.dropout)
        finer = self.finer(features[self.finer_stage], fine, train=train)
        x = jnp.concatenate([resize_valid(x, coarse, finer.shape[1:3], fine), finer], axis=-1)
        for layer in self.decoder:
            x = layer(x, fine, train=train)
        return keep_valid(self.classifier(x), fine)

    def loss(
        self, images: jax.Array, labels: jax.Array, *, train_backbone: bool, dropout_key: jax.Array | None
    ) -> jax.Array:
        """Training loss: `full_size_loss` of the logits.

        Args:
            images: float (b, H, W, 3), preprocessed.
            labels: int (b, H, W), 0 .. c - 1, or 255: no label.
            train_backbone: see `__call__`.
            dropout_key: random key of the dropout; None: no dropout.

        Returns:
            float32 ().
        """
        return full_size_loss(self(images, train=True, train_backbone=train_backbone, dropout_key=dropout_key), labels)

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the logits for pictures of these sizes; both int32 (b, 2)."""
        return self.backbone.grids(sizes)[self.finer_stage]


def build_deeplab(model: Head, classes: int, *, seed: int = 0) -> DeepLabV2 | DeepLabV3Plus | LargeFOV:
    """Build the segmentation network from its config, randomly initialized.

    Call it inside `jax.jit` or `nnx.eval_shape`: run eagerly, it compiles hundreds of tiny programs.

    Args:
        model: the config of a head and a backbone; its `weights` are not loaded here.
        classes: c, including the background.
        seed: random seed of the initialization.

    Raises:
        UserError: the head does not go with the backbone.
    """
    rngs = nnx.Rngs(seed)
    backbone = model.build(dilation="atrous", rngs=rngs)
    options = {"preprocessing": Preprocessing.of(model), "dtype": jnp.dtype(model.precision), "rngs": rngs}
    if model.rates:
        options["rates"] = model.rates
    if model.head == "deeplabv2":
        return DeepLabV2(backbone, classes, **options)
    network = DeepLabV3Plus if model.head == "deeplabv3plus" else LargeFOV
    return network(backbone, classes, width=model.head_width, **options)


def _last_of_stride(stride: int, backbone: Backbone) -> int:
    """Index of the last stage with this stride; UserError if there is none."""
    if stride not in backbone.strides:
        raise UserError(
            f"--model.head deeplabv3plus needs a stage of {stride} pixels per position; this backbone has stages of "
            f"{', '.join(map(str, backbone.strides))}: use another head."
        )
    return len(backbone.strides) - 1 - backbone.strides[::-1].index(stride)
