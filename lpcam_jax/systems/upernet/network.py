"""UperNet: a picture as a whole and at every stage of any `backbones.base.Backbone`, exact on padded pictures.

    x4 = conv3x3( f4, and its means over 1, 4, 9 and 36 windows, each through a 1x1 convolution )
    x3 = conv1x1(f3) + x4,   x2 = conv1x1(f2) + x3,   x1 = conv1x1(f1) + x2
    logits = conv1x1( dropout( conv3x3( conv3x3(x1), conv3x3(x2), conv3x3(x3), x4 ) ) )

What is added or concatenated is first enlarged bilinearly to the finer grid, at last to that of f1; every convolution
but the last is followed by batch norm and ReLU.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone, drawn_with
from ...backbones.heads import CLASSIFIER_INIT, ConvNormRelu
from ...backbones.layers.convolution import Conv
from ...backbones.layers.drops import channel_dropout
from ...backbones.layers.pooling import adaptive_pool
from ...backbones.layers.resizing import resize_valid
from ...backbones.layers.valid import Sizes, keep_valid
from ...backbones.preprocessing import Preprocessing
from ..segmentation.losses import Over, full_size_loss
from .config import UperNetConfig

BINS = (1, 2, 3, 6)


class UPerHead(nnx.Module):
    """The features of all levels, fused on the grid of the finest.

    Args:
        channels: of each level, fine to coarse.
        width: channels of all convolutions.
        dtype: dtype of the convolutions and of what is stored between them.
        rngs: random streams for the initialization.

    Source: Xiao et al., Unified perceptual parsing (ECCV 2018), as mmsegmentation has it.
    """

    def __init__(self, channels: Sequence[int], width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        *finer, last = channels
        options = {"dtype": dtype, "rngs": rngs}
        self.windows = nnx.List([ConvNormRelu(last, width, 1, **options) for _ in BINS])
        self.whole = ConvNormRelu(last + len(BINS) * width, width, 3, **options)
        self.laterals = nnx.List([ConvNormRelu(inputs, width, 1, **options) for inputs in finer])
        self.smoothing = nnx.List([ConvNormRelu(width, width, 3, **options) for _ in finer])
        self.fusion = ConvNormRelu(len(channels) * width, width, 3, **options)

    def __call__(self, features: Sequence[jax.Array], grids: Sequence[Sizes], *, train: bool) -> jax.Array:
        """The fused features.

        Args:
            features: (b, h_s, w_s, d_s) of each level, fine to coarse, zero outside the valid region.
            grids: int32 (b, 2), the valid sizes of each; None: all.
            train: whether batch norm uses the statistics of this batch and updates the stored ones.

        Returns:
            (b, h_1, w_1, width), zero outside the valid region.
        """

        def on_level(x: jax.Array, level: int, target: int) -> jax.Array:
            return resize_valid(x, grids[level], features[target].shape[1:3], grids[target])

        *finer, last = range(len(features))
        levels = [lateral(features[i], grids[i], train=train) for i, lateral in zip(finer, self.laterals, strict=True)]
        levels.append(self.of_the_whole(features[last], grids[last], train=train))
        for i in reversed(finer):
            levels[i] = levels[i] + on_level(levels[i + 1], i + 1, i)
        for i, convolution in zip(finer, self.smoothing, strict=True):
            levels[i] = convolution(levels[i], grids[i], train=train)
        levels = [on_level(x, i, 0) if i else x for i, x in enumerate(levels)]
        return self.fusion(jnp.concatenate(levels, axis=-1), grids[0], train=train)

    def of_the_whole(self, x: jax.Array, sizes: Sizes, *, train: bool) -> jax.Array:
        """The coarsest level: what is at a position, and in parts of the picture up to all of it."""
        views = [x]
        for bins, convolution in zip(BINS, self.windows, strict=True):
            means = convolution(adaptive_pool(x, sizes, bins), None, train=train)
            of_means = None if sizes is None else jnp.full_like(sizes, bins)
            views.append(resize_valid(means, of_means, x.shape[1:3], sizes))
        return self.whole(jnp.concatenate(views, axis=-1), sizes, train=train)


class UperNet(nnx.Module):
    """Backbone, head and auxiliary head.

    Args:
        backbone: the feature extractor; its last four stages, if it has as many, are the levels, see `levels`.
        classes: c, including the background.
        preprocessing: matches the backbone's weights.
        width: channels of the head.
        auxiliary_width: channels of the auxiliary head, a 3x3 convolution on the last level but one.
        dtype: dtype of the heads' convolutions and of what is stored between them; parameters and logits stay float32.
        rngs: random streams for the initialization.
    """

    dropout = 0.1

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        preprocessing: Preprocessing,
        width: int = 512,
        auxiliary_width: int = 256,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.backbone, self.preprocessing = backbone, preprocessing
        channels, options = backbone.channels[-4:], {"dtype": dtype, "rngs": rngs}
        self.head = UPerHead(channels, width, **options)
        self.classifier = Conv(width, classes, 1, use_bias=True, kernel_init=CLASSIFIER_INIT, **options)
        self.auxiliary = ConvNormRelu(channels[-2], auxiliary_width, 3, **options)
        self.auxiliary_classifier = Conv(
            auxiliary_width, classes, 1, use_bias=True, kernel_init=CLASSIFIER_INIT, **options
        )

    def __call__(self, images: jax.Array, sizes: Sizes = None, *, key: jax.Array | None = None) -> jax.Array:
        """Logits of pictures.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            key: random key of dropout and stochastic depth; None: there is none.

        Returns:
            float32 (b, h', w', c), on the grid of the finest level, zero outside the valid region.
        """
        keys = (None, None) if key is None else jax.random.split(key)
        features, grids = self.levels(images, sizes, key=keys[0])
        return self._classified(self.classifier, self.head(features, grids, train=False), grids[0], keys[1])

    def loss(
        self,
        images: jax.Array,
        labels: jax.Array,
        *,
        train_backbone: bool,
        key: jax.Array | None,
        auxiliary: float = 0.4,
        over: Over = "all",
    ) -> jax.Array:
        """Training loss: `full_size_loss` of the logits of both heads.

        Args:
            images: float (b, H, W, 3), preprocessed; whole canvases, padding has the label 255.
            labels: int (b, H, W), 0 .. c - 1, or 255: no label.
            train_backbone: whether the backbone's batch norm uses the statistics of the batch and updates the stored
                ones; the heads' always does.
            key: random key of dropout and stochastic depth; None: there is none.
            auxiliary: weight of the auxiliary head's.
            over: see `segmentation.losses.cross_entropy`.

        Returns:
            float32 ().
        """
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        features, grids = self.levels(images, None, train=train_backbone, key=keys[0])
        fused = self.head(features, grids, train=True)
        of_head = self._classified(self.classifier, fused, None, keys[1])
        coarse = self.auxiliary(features[-2], None, train=True)
        of_auxiliary = self._classified(self.auxiliary_classifier, coarse, None, keys[2])
        return full_size_loss(of_head, labels, over=over) + auxiliary * full_size_loss(of_auxiliary, labels, over=over)

    def levels(
        self, images: jax.Array, sizes: Sizes, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[list[jax.Array], list[Sizes]]:
        """The features that the head fuses, fine to coarse, and their valid sizes.

        They are the backbone's last four stages, or all if it has fewer. Those of a vision transformer are on one grid;
        there the first is enlarged four times, the second twice, and the last shrunk to half of it, bilinearly.
        """
        features = list(self.backbone(images, sizes, train=train, **drawn_with(self.backbone, key))[-4:])
        grids = list(self.backbone.grids(sizes)[-4:])
        if self._on_one_grid:
            shape, targets = features[0].shape[1:3], [_at_level(grid, level) for level, grid in enumerate(grids)]
            features = [
                resize_valid(x, grid, tuple(_at_level(length, level) for length in shape), target)
                for level, (x, grid, target) in enumerate(zip(features, grids, targets, strict=True))
            ]
            grids = targets
        return features, grids

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the logits for pictures of these sizes; both int32 (b, 2)."""
        finest = self.backbone.grids(sizes)[-4:][0]
        return _at_level(finest, 0) if self._on_one_grid else finest

    @property
    def _on_one_grid(self) -> bool:
        return len(set(self.backbone.strides)) == 1

    def _classified(self, classifier: Conv, x: jax.Array, grid: Sizes, key: jax.Array | None) -> jax.Array:
        return keep_valid(classifier(channel_dropout(key, x, rate=self.dropout)), grid)


def _at_level(length: Any, level: int) -> Any:
    """Lengths, one or an array of them, or None, of a level that is made from a grid of these."""
    return None if length is None else (4 * length, 2 * length, length, -(-length // 2))[level]


def build_upernet(config: UperNetConfig, classes: int) -> UperNet:
    """Build UperNet from a config, randomly initialized.

    Call it inside `jax.jit` or `nnx.eval_shape`: run eagerly, it compiles hundreds of tiny programs.

    Args:
        config: the config; the `weights` of its model are not loaded here.
        classes: c, including the background.
    """
    rngs = nnx.Rngs(config.seed)
    return UperNet(
        config.model.build(dilation="atrous", rngs=rngs),
        classes,
        preprocessing=Preprocessing.of(config.model),
        width=config.head.width,
        auxiliary_width=config.head.auxiliary_width,
        dtype=jnp.dtype(config.model.precision),
        rngs=rngs,
    )
