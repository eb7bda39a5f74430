"""VGG-16: thirteen 3x3 convolutions with biases, in five blocks; no norms.

    picture -> block1 -> pool -> block2 -> pool -> block3 -> pool -> block4 -> pool -> block5
                 /1                /2                /4                /8               /16, or /8

Blocks and convolutions are counted as in the paper (block5.conv3 is conv5_3), so weights map one to one.
"""

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ..config.numbers import Count
from .config import BackboneConfig
from .layers.convolution import Conv
from .layers.pooling import max_pool
from .layers.valid import Sizes, keep_valid, strided

if TYPE_CHECKING:
    from pathlib import Path

    from .weights.fill import Loaded

# Of the blocks.
CONVOLUTIONS = (2, 2, 3, 3, 3)
WIDENING = (1, 2, 4, 8, 8)
# Of the stages.
STRIDES = {"plain": (4, 8, 16), "psa": (4, 8, 8)}


@dataclass(frozen=True, kw_only=True)
class VGG16Config(BackboneConfig):
    """A VGG-16, without its fully connected layers."""

    backbone: Literal["vgg16"] = "vgg16"
    layout: Literal["plain", "psa"] = "plain"
    """plain: 2x2 max pools, as trained on ImageNet, 16 pixels per feature position; psa, as in DeepLab: 3x3 max pools,
    the last without a stride, and a dilated block5, 8 pixels per feature position"""
    width: Count = 64
    """channels of block1; the last block has eight times as many"""

    example_weights: ClassVar[str] = "hf:timm/vgg16.tv_in1k"
    fixed: ClassVar[tuple[str, ...]] = ("layout", "width", *BackboneConfig.fixed)

    def build(self, *, dilation: Literal["reference", "atrous"] = "reference", rngs: nnx.Rngs) -> "VGG16":
        """Build the network, randomly initialized; `layout` determines the dilation."""
        return VGG16(layout=self.layout, width=self.width, dtype=jnp.dtype(self.precision), rngs=rngs)

    def load(self, path: "str | Path", network: dict[str, Any]) -> "Loaded":
        """Load a file with the names of torchvision, timm, psa or Caffe, or ours (`load_vgg16`)."""
        from .weights.vgg import load_vgg16

        return load_vgg16(path, network)

    def flags(self) -> str:
        """The flags for kind and width."""
        return f"{super().flags()} --model.width {self.width}"


class Block(nnx.Module):
    """3x3 convolutions, each followed by a ReLU."""

    def __init__(self, inputs: int, outputs: int, count: int, *, dilation: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.count = count
        for number in range(1, count + 1):
            conv = Conv(inputs, outputs, 3, dilation=dilation, use_bias=True, dtype=dtype, rngs=rngs)
            setattr(self, f"conv{number}", conv)
            inputs = outputs

    def __call__(self, x: jax.Array, sizes: Sizes) -> jax.Array:
        for number in range(1, self.count + 1):
            conv = getattr(self, f"conv{number}")
            x = keep_valid(nnx.relu(conv(x)).astype(conv.dtype), sizes)
        return x


class VGG16(nnx.Module):
    """The backbone, a `backbones.base.Backbone`.

    Args:
        layout: "plain": 2x2 max pools of stride 2. "psa": 3x3 max pools, of stride 2 after block1 to block3, and of
            stride 1 after block4; the convolutions of block5 have dilation 2. A stride makes ceil(n / 2) of n.
        width: channels of block1.
        dtype: dtype of the convolutions and of what is stored between them; parameters stay float32.
        rngs: random streams for the initialization.

    The stages are the blocks from 4 pixels per position on, before the pool that follows them.

    Source: Simonyan and Zisserman, Very deep convolutional networks (ICLR 2015); psa: the VGG-16 of Ahn and Kwak,
    Learning pixel-level semantic affinity (CVPR 2018), without fc6 and fc7.
    """

    stages: ClassVar = ("block3", "block4", "block5")
    parts: ClassVar = ("block1", "block2", *stages)
    stem: ClassVar = ("block1",)
    nonnegative: ClassVar = True

    def __init__(
        self,
        *,
        layout: Literal["plain", "psa"] = "plain",
        width: int = 64,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.layout = layout
        channels = tuple(factor * width for factor in WIDENING)
        self.channels, self.strides = channels[2:], STRIDES[layout]
        for part, inputs, outputs, count in zip(self.parts, (3, *channels), channels, CONVOLUTIONS, strict=False):
            dilation = 2 if layout == "psa" and part == "block5" else 1
            setattr(self, part, Block(inputs, outputs, count, dilation=dilation, dtype=dtype, rngs=rngs))

    def __call__(self, images: jax.Array, sizes: Sizes = None, *, train: bool = False) -> tuple[jax.Array, ...]:
        """Features of every stage.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid rows and columns of each picture; None: all.
            train: no influence: there is no norm.

        Returns:
            (b, h_s, w_s, d_s) of each stage, in its precision, >= 0, zero outside the valid region of `grids`.
        """
        x, outputs = self.block1(images, sizes), []
        for part in self.parts[1:]:
            x, sizes = self._pool(x, sizes, before=part)
            x = getattr(self, part)(keep_valid(x, sizes), sizes)
            outputs.append(x)
        return tuple(outputs[-len(self.stages) :])

    def grids(self, sizes: Sizes) -> tuple[Sizes, ...]:
        """Valid sizes of every stage for pictures of these sizes; all int32 (b, 2)."""
        return tuple(strided(sizes, stride) for stride in self.strides)

    def _pool(self, x: jax.Array, sizes: Sizes, *, before: str) -> tuple[jax.Array, Sizes]:
        if self.layout == "plain":
            return max_of_pairs(x), strided(sizes, 2)
        if before == "block5":
            return max_of_neighbours(x), sizes
        return max_pool(x, sizes, padding="symmetric")


def max_of_pairs(x: jax.Array) -> jax.Array:
    """2x2 max pool of stride 2 over non-negative maps, zero outside their valid region.

    Args:
        x: (b, h, w, d), >= 0.

    Returns:
        (b, ceil(h / 2), ceil(w / 2), d), as Caffe's; torch's drops an odd last row or column by default.
    """
    x = jnp.pad(x, [(0, 0), *((0, length % 2) for length in x.shape[1:3]), (0, 0)])
    b, h, w, d = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, d).max((2, 4))


def max_of_neighbours(x: jax.Array) -> jax.Array:
    """3x3 max pool of stride 1 over non-negative maps (b, h, w, d), zero outside their valid region: the same shape."""
    for axis in (1, 2):
        length = x.shape[axis]
        padded = jnp.pad(x, [(int(axis == other),) * 2 for other in range(x.ndim)])
        x = reduce(jnp.maximum, (jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(3)))
    return x
