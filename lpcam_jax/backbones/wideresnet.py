"""WideResNet-38: pre-activation blocks, wide and dilated; 8 pixels per feature position.

    picture -> conv1a -> b2, b2_1, b2_2 -> b3 .. b3_2 -> b4 .. b4_5 -> b5 .. b5_2 -> b6 -> b7 -> bn7, ReLU
                  /1             /2             /4            /8             /8     /8    /8
    stages                                           conv3         conv4         conv5           conv6

Names are those of psa's files and their descendants' (b2_1.bn_branch2a, ...), so weights map one to one. A stage is
tapped inside the block that follows it, after that block's first norm and ReLU.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ..config.numbers import Count
from .config import BackboneConfig
from .layers.convolution import Conv
from .layers.drops import channel_dropout
from .layers.norms import BatchNorm
from .layers.valid import Sizes, keep_valid, strided

if TYPE_CHECKING:
    from pathlib import Path

    from .weights.fill import Loaded

# Of the blocks of two convolutions: channels inside and outside, in units of conv1a's; stride; dilations of both.
BASIC = {
    "b2": (2, 2, 2, (1, 1)),
    **dict.fromkeys(("b2_1", "b2_2"), (2, 2, 1, (1, 1))),
    "b3": (4, 4, 2, (1, 1)),
    **dict.fromkeys(("b3_1", "b3_2"), (4, 4, 1, (1, 1))),
    "b4": (8, 8, 2, (1, 1)),
    **dict.fromkeys(("b4_1", "b4_2", "b4_3", "b4_4", "b4_5"), (8, 8, 1, (1, 1))),
    "b5": (8, 16, 1, (1, 2)),
    **dict.fromkeys(("b5_1", "b5_2"), (8, 16, 1, (2, 2))),
}
# Of the blocks of three: channels outside.
BOTTLENECKS = {"b6": 32, "b7": 64}
# And the share of the channels inside that are left out in training.
DROPOUT = {"b6": 0.3, "b7": 0.5}
# Blocks -> the stage that is tapped inside.
TAPS = {"b4": "conv3", "b5": "conv4", "b6": "conv5"}


@dataclass(frozen=True, kw_only=True)
class WideResNet38Config(BackboneConfig):
    """A WideResNet-38 (A1)."""

    backbone: Literal["wideresnet38"] = "wideresnet38"
    width: Count = 64
    """channels of the first convolution; the last features have 64 times as many"""
    final_relu: bool = True
    """whether the features are those after the last ReLU; EDAM's are those before it"""
    dropout: bool = True
    """whether channels are left out at random in training, 30 % of those inside b6, half of those inside b7"""

    fixed: ClassVar[tuple[str, ...]] = ("width", *BackboneConfig.fixed)

    def build(self, *, dilation: Literal["reference", "atrous"] = "reference", rngs: nnx.Rngs) -> "WideResNet38":
        """Build the network, randomly initialized; there is one dilation."""
        options = {"final_relu": self.final_relu, "dropout": self.dropout, "dtype": jnp.dtype(self.precision)}
        return WideResNet38(width=self.width, rngs=rngs, **options)

    def load(self, path: "str | Path", network: dict[str, Any]) -> "Loaded":
        """Load a file of psa, SEAM, EDAM or MCTformer (`load_wideresnet38`)."""
        from .weights.wideresnet import load_wideresnet38

        return load_wideresnet38(path, network)

    def flags(self) -> str:
        """The flags for kind and width."""
        return f"{super().flags()} --model.width {self.width}"


class BasicBlock(nnx.Module):
    """u = ReLU(norm(x));  3x3 -> norm, ReLU -> 3x3 of u, plus x, or where the shape changes a 1x1 of u."""

    folds: ClassVar = (("conv_branch2a", "bn_branch2b1"),)
    branch_end: ClassVar = ("conv_branch2b1", "kernel")

    def __init__(
        self,
        inputs: int,
        inside: int,
        outputs: int,
        *,
        stride: int,
        dilations: tuple[int, int],
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        self.bn_branch2a = BatchNorm(inputs)
        self.conv_branch2a = Conv(inputs, inside, 3, stride=stride, dilation=dilations[0], **options)
        self.bn_branch2b1 = BatchNorm(inside)
        self.conv_branch2b1 = Conv(inside, outputs, 3, dilation=dilations[1], **options)
        reshapes = stride != 1 or inputs != outputs
        self.conv_branch1 = Conv(inputs, outputs, 1, stride=stride, **options) if reshapes else None
        self.stride = stride

    def __call__(self, x: jax.Array, sizes: Sizes, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """The block's output, and u, zero outside the valid region."""
        u = keep_valid(nnx.relu(self.bn_branch2a(x, train=train)), sizes)
        y = nnx.relu(self.bn_branch2b1.after(self.conv_branch2a, u, train=train))
        y = self.conv_branch2b1(keep_valid(y, strided(sizes, self.stride)))
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(u)
        return y + shortcut, u


class Bottleneck(nnx.Module):
    """u = ReLU(norm(x));  1x1 -> norm, ReLU -> 3x3 dilated by 4 -> norm, ReLU -> 1x1 of u, plus a 1x1 of u.

    In training, channels are left out after the second and the third ReLU.
    """

    folds: ClassVar = (("conv_branch2a", "bn_branch2b1"), ("conv_branch2b1", "bn_branch2b2"))
    branch_end: ClassVar = ("conv_branch2b2", "kernel")
    stride = 1

    def __init__(self, inputs: int, outputs: int, *, dropout: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.dropout = dropout
        self.bn_branch2a = BatchNorm(inputs)
        self.conv_branch2a = Conv(inputs, outputs // 4, 1, **options)
        self.bn_branch2b1 = BatchNorm(outputs // 4)
        self.conv_branch2b1 = Conv(outputs // 4, outputs // 2, 3, dilation=4, **options)
        self.bn_branch2b2 = BatchNorm(outputs // 2)
        self.conv_branch2b2 = Conv(outputs // 2, outputs, 1, **options)
        self.conv_branch1 = Conv(inputs, outputs, 1, **options)

    def __call__(
        self, x: jax.Array, sizes: Sizes, *, train: bool, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The block's output, and u, zero outside the valid region; without a key, no channel is left out."""
        first, second = (None, None) if key is None else jax.random.split(key)
        u = keep_valid(nnx.relu(self.bn_branch2a(x, train=train)), sizes)
        y = nnx.relu(self.bn_branch2b1.after(self.conv_branch2a, u, train=train))
        y = channel_dropout(first, y, rate=self.dropout)
        y = nnx.relu(self.bn_branch2b2.after(self.conv_branch2b1, keep_valid(y, sizes), train=train))
        y = channel_dropout(second, y, rate=self.dropout)
        y, shortcut = self.conv_branch2b2(y), self.conv_branch1(u)
        return y + shortcut, u


class WideResNet38(nnx.Module):
    """The backbone, a `backbones.base.Backbone`.

    Args:
        width: channels of the first convolution.
        final_relu: whether the last features are those after the last ReLU, or those of the norm before it.
        dropout: whether channels inside b6 and b7 are left out in training, torch's Dropout2d.
        dtype: dtype of the convolutions and of what is stored between layers; parameters and norms stay float32.
        rngs: random streams for the initialization.

    Source: Wu, Shen and van den Hengel, Wider or deeper (Pattern Recognition 2019), model A1, with the strides and
    dilations of Ahn and Kwak, Learning pixel-level semantic affinity (CVPR 2018).
    """

    stages: ClassVar = (*TAPS.values(), "conv6")
    parts: ClassVar = ("conv1a", *BASIC, *BOTTLENECKS, "bn7")
    stem: ClassVar = ("conv1a",)
    strides: ClassVar = (4, 8, 8, 8)

    def __init__(
        self,
        *,
        width: int = 64,
        final_relu: bool = True,
        dropout: bool = True,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.final_relu = self.nonnegative = final_relu
        self.draws = dropout
        options = {"dtype": dtype, "rngs": rngs}
        self.channels = (4 * width, 8 * width, 16 * width, 64 * width)
        self.conv1a = Conv(3, width, 3, **options)
        inputs = width
        for name, (inside, outside, stride, dilations) in BASIC.items():
            block = BasicBlock(inputs, inside * width, outside * width, stride=stride, dilations=dilations, **options)
            setattr(self, name, block)
            inputs = outside * width
        for name, outside in BOTTLENECKS.items():
            setattr(self, name, Bottleneck(inputs, outside * width, dropout=DROPOUT[name], **options))
            inputs = outside * width
        self.bn7 = BatchNorm(inputs)

    def __call__(
        self, images: jax.Array, sizes: Sizes = None, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Features of every stage.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid rows and columns of each picture; None: all.
            train: whether batch norm uses the statistics of this batch and updates the stored ones.
            key: random key of the dropout in training; None: no channel is left out.

        Returns:
            (b, h_s, w_s, d_s) of each stage, in its precision, >= 0 but for the last without its ReLU, zero outside the
            valid region of `grids`.
        """
        x, outputs = self.conv1a(images), []
        keys = {} if key is None else dict(zip(BOTTLENECKS, jax.random.split(key, len(BOTTLENECKS)), strict=True))
        for name in (*BASIC, *BOTTLENECKS):
            block = getattr(self, name)
            drawn = {"key": keys.get(name)} if name in BOTTLENECKS else {}
            x, u = block(x, sizes, train=train, **drawn)
            sizes = strided(sizes, block.stride)
            if name in TAPS:
                outputs.append(u)
        x = self.bn7(x, train=train)
        return (*outputs, keep_valid(nnx.relu(x) if self.final_relu else x, sizes))

    def grids(self, sizes: Sizes) -> tuple[Sizes, ...]:
        """Valid sizes of every stage for pictures of these sizes; all int32 (b, 2)."""
        return tuple(strided(sizes, stride) for stride in self.strides)
