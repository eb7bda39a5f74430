"""A backbone of somebody else, outside the package: pre-activation blocks, and features that may be negative."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from lpcam_jax.backbones.config import BackboneConfig
from lpcam_jax.backbones.layers.convolution import Conv
from lpcam_jax.backbones.layers.norms import BatchNorm
from lpcam_jax.backbones.layers.valid import keep_valid, strided
from lpcam_jax.config.numbers import Count


@dataclass(frozen=True, kw_only=True)
class PreactConfig(BackboneConfig):
    """Three stages of pre-activation blocks."""

    backbone: Literal["preact"] = "preact"
    width: Count = 8
    """channels of the first stage"""

    fixed: ClassVar[tuple[str, ...]] = ("width", *BackboneConfig.fixed)

    def build(self, *, dilation="reference", rngs):
        return Preact(self.width, dtype=jnp.dtype(self.precision), rngs=rngs)


class Block(nnx.Module):
    """bn1 -> relu -> conv1 -> bn2 -> relu -> conv2, plus the input."""

    folds: ClassVar = (("conv1", "bn2"),)  # bn1 follows no convolution of this block: it stays
    branch_end: ClassVar = ("conv2", "kernel")

    def __init__(self, inputs, outputs, *, stride, dtype, rngs):
        self.bn1, self.bn2 = BatchNorm(inputs), BatchNorm(outputs)
        self.conv1 = Conv(inputs, outputs, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.conv2 = Conv(outputs, outputs, 3, dtype=dtype, rngs=rngs)
        self.shortcut = Conv(inputs, outputs, 1, stride=stride, dtype=dtype, rngs=rngs)
        self.stride = stride

    def __call__(self, x, sizes, *, train):
        y = keep_valid(nnx.relu(self.bn1(x, train=train)), sizes)
        y = keep_valid(nnx.relu(self.bn2.after(self.conv1, y, train=train)), strided(sizes, self.stride))
        return self.conv2(y) + self.shortcut(x)


class Preact(nnx.Module):
    """The backbone."""

    stages: ClassVar = ("fine", "middle", "coarse")
    parts: ClassVar = ("stem", *stages)
    stem: ClassVar = ("stem",)
    nonnegative: ClassVar = False

    def __init__(self, width, *, dtype, rngs):
        self.channels, self.strides = (width, 2 * width, 4 * width), (4, 8, 16)
        self.stem = Conv(3, width, 3, stride=2, dtype=dtype, rngs=rngs)
        inputs = width
        for stage, channels in zip(self.stages, self.channels, strict=True):
            setattr(self, stage, Block(inputs, channels, stride=2, dtype=dtype, rngs=rngs))
            inputs = channels

    def __call__(self, images, sizes=None, *, train=False) -> tuple[jax.Array, ...]:
        sizes = strided(sizes, 2)
        x, outputs = keep_valid(self.stem(images), sizes), []
        for stage in self.stages:
            x = getattr(self, stage)(x, sizes, train=train)
            sizes = strided(sizes, 2)
            x = keep_valid(x, sizes)
            outputs.append(x)
        return tuple(outputs)

    def grids(self, sizes):
        return tuple(strided(sizes, stride) for stride in self.strides)
