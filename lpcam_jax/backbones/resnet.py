"""ResNet with bottlenecks: any depth and width, both layouts, output stride 32, 16 or 8.

    picture -> 7x7/2 -> 3x3/2 max pool -> layer1 -> layer2 -> layer3 -> layer4
                                            /4        /8      /16       /32, /16 or /8

Names are torchvision's (conv1, bn1, layer1.0.conv2, ...), so weights map one to one.
"""

from itertools import accumulate
from operator import mul
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from .layers.convolution import Conv
from .layers.norms import BatchNorm
from .layers.pooling import PoolPadding, max_pool, pooled_sizes
from .layers.valid import Sizes, keep_valid, strided

# Strides of layer2..4.
STRIDES = {32: (2, 2, 2), 16: (2, 2, 1), 8: (2, 1, 1)}
# Dilations of layer1..4. The reference dilates stages with a removed stride at output stride 8, but not at 16, where
# the reach of their 3x3 convolutions is simply halved.
DILATIONS = {
    "reference": {32: (1, 1, 1, 1), 16: (1, 1, 1, 1), 8: (1, 1, 2, 2)},
    "atrous": {32: (1, 1, 1, 1), 16: (1, 1, 1, 2), 8: (1, 1, 2, 4)},
}


class Shortcut(nnx.Module):
    """1x1 convolution and norm that match a block's input to the shape of its output."""

    folds: ClassVar = (("conv", "bn"),)

    def __init__(self, inputs: int, outputs: int, *, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv = Conv(inputs, outputs, 1, stride=stride, dtype=dtype, rngs=rngs)
        self.bn = BatchNorm(outputs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.bn.after(self.conv, x, train=train)


class Bottleneck(nnx.Module):
    """1x1 -> 3x3 -> 1x1 to four times the width, plus the input."""

    folds: ClassVar = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
    branch_end: ClassVar = ("bn3", "scale")

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int,
        dilation: int,
        layout: Literal["torchvision", "caffe"],
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        outputs = 4 * width
        first, second = (stride, 1) if layout == "caffe" else (1, stride)
        self.conv1 = Conv(inputs, width, 1, stride=first, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv(width, width, 3, stride=second, dilation=dilation, dtype=dtype, rngs=rngs)
        self.bn2 = BatchNorm(width)
        self.conv3 = Conv(width, outputs, 1, dtype=dtype, rngs=rngs)
        self.bn3 = BatchNorm(outputs)
        reshapes = stride != 1 or inputs != outputs
        self.downsample = Shortcut(inputs, outputs, stride=stride, dtype=dtype, rngs=rngs) if reshapes else None
        self.first_stride, self.stride = first, stride

    def __call__(self, x: jax.Array, sizes: Sizes, *, train: bool) -> jax.Array:
        y = nnx.relu(self.bn1.after(self.conv1, x, train=train))
        y = keep_valid(y, strided(sizes, self.first_stride))
        y = nnx.relu(self.bn2.after(self.conv2, y, train=train))
        y = self.bn3.after(self.conv3, y, train=train)
        shortcut = x if self.downsample is None else self.downsample(x, train=train)
        return nnx.relu(y + shortcut)


class ResNet(nnx.Module):
    """The backbone, a `backbones.base.Backbone`.

    Args:
        blocks: bottlenecks of layer1..4; (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101.
        width: bottleneck width of layer1, doubled with each stage.
        stem_width: channels of the first convolution.
        layout: stride on the 3x3 ("torchvision") or on the first 1x1 ("caffe").
        stem_pool: see `layers.pooling.max_pool`.
        output_stride: 32, 16 or 8 pixels per position of layer4.
        dilation: "reference": as in LPCAM's classifier, which never dilates the first block of a stage. "atrous": every
            3x3 after a removed stride keeps its reach, so that the features contain those of output stride 32
            unchanged. In the Caffe layout these are all blocks of the stage (DeepLabV2); in torchvision's, where the
            stride is on the first 3x3 itself, all but the first, which has the dilation of the previous stage
            (DeepLabV3+).
        dtype: dtype of the convolutions and of what is stored between layers; parameters stay float32.
        rngs: random streams for the initialization.

    The stages are the stem, including its pool, and layer1 to layer4.
    """

    stages: ClassVar = ("stem", "layer1", "layer2", "layer3", "layer4")
    parts: ClassVar = ("conv1", "bn1", *stages[1:])
    stem: ClassVar = ("conv1", "bn1")
    nonnegative: ClassVar = True
    folds: ClassVar = (("conv1", "bn1"),)

    def __init__(
        self,
        *,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        stem_width: int = 64,
        layout: Literal["torchvision", "caffe"] = "torchvision",
        stem_pool: PoolPadding = "symmetric",
        output_stride: Literal[32, 16, 8] = 16,
        dilation: Literal["reference", "atrous"] = "reference",
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem_pool = stem_pool
        self.channels = (stem_width, *(4 * width * 2**stage for stage in range(4)))
        self.conv1 = Conv(3, stem_width, 7, stride=2, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(stem_width)
        strides, dilations = (1, *STRIDES[output_stride]), DILATIONS[dilation][output_stride]
        first_dilations = dilations if layout == "caffe" else (1, *dilations[:-1])
        if dilation == "reference":
            first_dilations = (1, 1, 1, 1)
        self.strides = tuple(accumulate((4, *strides), mul))
        inputs = stem_width
        stages = []
        for count, stage_stride, first, others in zip(blocks, strides, first_dilations, dilations, strict=True):
            stage = []
            for block in range(count):
                stage.append(
                    Bottleneck(
                        inputs,
                        width,
                        stride=stage_stride if block == 0 else 1,
                        dilation=first if block == 0 else others,
                        layout=layout,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                inputs = 4 * width
            stages.append(nnx.List(stage))
            width *= 2
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def __call__(self, images: jax.Array, sizes: Sizes = None, *, train: bool = False) -> tuple[jax.Array, ...]:
        """Features of every stage.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid rows and columns of each picture; None: all.
            train: whether batch norm uses the statistics of this batch and updates the stored ones.

        Returns:
            (b, h_s, w_s, d_s) of each stage, of dtype, >= 0, zero outside the valid region of `grids`.
        """
        sizes = strided(sizes, 2)
        x = keep_valid(nnx.relu(self.bn1.after(self.conv1, images, train=train)), sizes)
        x, sizes = max_pool(x, sizes, padding=self.stem_pool)
        outputs = [keep_valid(x, sizes)]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, sizes, train=train)
                sizes = strided(sizes, block.stride)
            outputs.append(keep_valid(x, sizes))
        return tuple(outputs)

    def grids(self, sizes: Sizes) -> tuple[Sizes, ...]:
        """Valid sizes of every stage for pictures of these sizes; all int32 (b, 2)."""
        stem = pooled_sizes(strided(sizes, 2), self.stem_pool)
        return tuple(strided(stem, stride // 4) for stride in self.strides)
