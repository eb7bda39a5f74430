"""DeepLabV2 and DeepLabV3+: segmentation networks on any backbone of the house, exact on padded pictures.

    V2:   g(x) = sum_r  conv3x3_r(f(x)),  r = 6, 12, 18, 24          logits = max over scales s of  g(x at scale s)
    V3+:  f -> 1x1, 3x3 at three rates, picture mean -> concat, 1x1 -> beside layer1 -> two 3x3 -> 1x1

The logits are on a grid, 8 (V2) or 4 (V3+) pixels a position; `layers.resize` brings them to the picture.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx

from ..config import DeepLab
from .layers import BatchNorm, Conv, Sizes, dropout, keep_valid, rescale, resize_valid
from .preprocessing import Preprocessing
from .resnet import ResNet, build_backbone

CLASSIFIER_INIT = nnx.initializers.normal(0.01)


class AtrousSum(nnx.List):
    """DeepLabV2's head: 3x3 convolutions of several dilations, whose outputs are added.

    Args:
        inputs: channels of the features.
        outputs: channels of the logits.
        rates: the dilations.
        rngs: of the initialization, N(0, 0.01) for the weights and 0 for the biases.
    """

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...], *, rngs: nnx.Rngs):
        options = {"use_bias": True, "kernel_init": CLASSIFIER_INIT, "rngs": rngs}
        super().__init__([Conv(inputs, outputs, 3, dilation=rate, **options) for rate in rates])

    def __call__(self, features: jax.Array, sizes: Sizes = None) -> jax.Array:
        """Logits float32 (b, h, w, outputs) of features on the grid of these valid sizes, zero outside."""
        return keep_valid(sum(conv(features) for conv in self), sizes)


class DeepLabV2(nnx.Module):
    """Sum of four dilated convolutions, maximum over three scales of the picture.

    Args:
        backbone: with output stride 8 and `dilation="atrous"` to be DeepLab's.
        classes: c, with the background.
        preprocessing: what the backbone's weights expect.
        rates: dilations of the head at output stride 8; at another they reach as many pixels.
        rngs: of the initialization.

    Source: Chen et al., DeepLab (TPAMI 2018), as trained by the multi-scale recipe that the papers' numbers come from.
    """

    smaller_scales = (0.75, 0.5)

    def __init__(
        self,
        backbone: ResNet,
        classes: int,
        *,
        preprocessing: Preprocessing,
        rates: tuple[int, ...] = (6, 12, 18, 24),
        rngs: nnx.Rngs,
    ):
        self.backbone, self.preprocessing = backbone, preprocessing
        self.rates = scaled_rates(rates, 8, backbone)
        self.head = AtrousSum(backbone.features, classes, self.rates, rngs=rngs)

    def __call__(self, images: jax.Array, sizes: Sizes = None) -> jax.Array:
        """Logits of pictures: the last of `pyramid`."""
        return self.pyramid(images, sizes)[-1]

    def pyramid(self, images: jax.Array, sizes: Sizes = None, *, train_backbone: bool = False) -> list[jax.Array]:
        """Logits of every scale, and their maximum: what is trained.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            train_backbone: whether its batch norm uses and updates with the statistics of each scale's batch; the
                source never does.

        Returns:
            Four float32 (b, h_s, w_s, c), zero outside the valid region: of scales 1, 0.75 and 0.5, each on its own
            grid, and the element-wise maximum of the three on the grid of scale 1, the smaller ones resized to it.
        """
        pictures = [(images, sizes), *(rescale(images, sizes, scale) for scale in self.smaller_scales)]
        logits = [self._logits_of_one_scale(*picture, train_backbone) for picture in pictures]
        grids = [self.grid_sizes(valid) for _, valid in pictures]
        shape = logits[0].shape[1:3]
        smaller = [resize_valid(one, grid, shape, grids[0]) for one, grid in zip(logits[1:], grids[1:], strict=True)]
        return [*logits, reduce(jnp.maximum, smaller, logits[0])]

    def _logits_of_one_scale(self, images: jax.Array, sizes: Sizes, train_backbone: bool) -> jax.Array:
        features = self.backbone(images, sizes, train=train_backbone)["layer4"]
        return self.head(features, self.grid_sizes(sizes))

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the logits for pictures of these sizes, int32 (b, 2) each."""
        return self.backbone.grid_sizes(sizes)


class ConvNormRelu(nnx.Module):
    """Convolution, batch norm, ReLU, and zeros outside the valid region."""

    def __init__(self, inputs: int, outputs: int, size: int, *, dilation: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv = Conv(inputs, outputs, size, dilation=dilation, dtype=dtype, rngs=rngs)
        self.bn = BatchNorm(outputs)

    def __call__(self, x: jax.Array, sizes: Sizes, *, train: bool) -> jax.Array:
        return keep_valid(nnx.relu(self.bn.after(self.conv, x, train=train)), sizes)


class AtrousPyramid(nnx.Module):
    """Features at several reaches, from one position to the whole picture, mixed by a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, *, rates: tuple[int, ...], dtype: jnp.dtype, rngs: nnx.Rngs):
        layer = [ConvNormRelu(inputs, outputs, 1, dtype=dtype, rngs=rngs)]
        layer += [ConvNormRelu(inputs, outputs, 3, dilation=rate, dtype=dtype, rngs=rngs) for rate in rates]
        self.local = nnx.List(layer)
        self.picture = ConvNormRelu(inputs, outputs, 1, dtype=dtype, rngs=rngs)
        self.mix = ConvNormRelu((2 + len(rates)) * outputs, outputs, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, sizes: Sizes, *, train: bool) -> jax.Array:
        b, h, w, _ = x.shape
        positions = h * w if sizes is None else sizes.prod(axis=1).reshape(-1, 1, 1, 1)
        mean = x.sum(axis=(1, 2), keepdims=True) / positions
        picture = self.picture(mean, None, train=train)
        picture = keep_valid(jnp.broadcast_to(picture, (b, h, w, picture.shape[-1])), sizes)
        branches = [branch(x, sizes, train=train) for branch in self.local]
        return self.mix(jnp.concatenate([*branches, picture], axis=-1), sizes, train=train)


class DeepLabV3Plus(nnx.Module):
    """Atrous pyramid on layer4, decoder with the finer layer1.

    Args:
        backbone: with output stride 16 or 8 and `dilation="atrous"`.
        classes: c, with the background.
        preprocessing: what the backbone's weights expect.
        rates: dilations of the pyramid at output stride 16; at another they reach as many pixels.
        width: channels of pyramid and decoder.
        dtype: of the convolutions but the last; parameters, norms and logits stay float32.
        rngs: of the initialization.

    Source: Chen et al., Encoder-Decoder with Atrous Separable Convolution (ECCV 2018), without the separable ones;
    dropout of 0.1 after the pyramid, none in the decoder, as in the authors' code.
    """

    finer_width, dropout = 48, 0.1

    def __init__(
        self,
        backbone: ResNet,
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
        self.pyramid = AtrousPyramid(backbone.features, width, rates=self.rates, **options)
        self.finer = ConvNormRelu(backbone.channels[1], finer_width, 1, **options)
        self.decoder = nnx.List([ConvNormRelu(inputs, width, 3, **options) for inputs in (width + finer_width, width)])
        self.classifier = Conv(width, classes, 1, use_bias=True, kernel_init=CLASSIFIER_INIT, rngs=rngs)

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
            train: whether the batch norm of the head uses and updates with the statistics of this batch.
            train_backbone: whether that of the backbone does.
            dropout_key: of the dropout while training; None: no dropout.

        Returns:
            float32 (b, h / 4, w / 4, c), rounded up as layer1 is, zero outside the valid region.
        """
        features = self.backbone(images, sizes, train=train_backbone)
        coarse, fine = self.backbone.grid_sizes(sizes), self.grid_sizes(sizes)
        x = self.pyramid(features["layer4"], coarse, train=train)
        x = dropout(dropout_key, x, rate=self.dropout)
        finer = self.finer(features["layer1"], fine, train=train)
        x = jnp.concatenate([resize_valid(x, coarse, finer.shape[1:3], fine), finer], axis=-1)
        for layer in self.decoder:
            x = layer(x, fine, train=train)
        return keep_valid(self.classifier(x), fine)

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the logits for pictures of these sizes, int32 (b, 2) each."""
        return self.backbone.stem_sizes(sizes)


def build_deeplab(model: DeepLab, classes: int, *, seed: int = 0) -> DeepLabV2 | DeepLabV3Plus:
    """The segmentation network a config describes, randomly initialized.

    Args:
        model: its description; `weights` is not read here.
        classes: c, with the background.
        seed: of the initialization.

    Returns:
        DeepLabV2 or DeepLabV3Plus. Call it inside `jax.jit` or `nnx.eval_shape`: eagerly, hundreds of tiny programs are
        compiled.
    """
    rngs = nnx.Rngs(seed)
    backbone = build_backbone(model, dilation="atrous", rngs=rngs)
    options = {"preprocessing": Preprocessing(model.channel_order, model.mean, model.std), "rngs": rngs}
    if model.rates:
        options["rates"] = model.rates
    if model.head == "deeplabv2":
        return DeepLabV2(backbone, classes, **options)
    return DeepLabV3Plus(backbone, classes, width=model.head_width, dtype=jnp.dtype(model.precision), **options)


def scaled_rates(rates: tuple[int, ...], stride: int, backbone: ResNet) -> tuple[int, ...]:
    """Rates at the output stride of the backbone for those at another."""
    return tuple(max(rate * stride // backbone.output_stride, 1) for rate in rates)
