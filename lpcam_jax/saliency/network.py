"""U2-Net: what stands out in a picture, whatever it is.

    stage1 -> /2 -> stage2 -> /2 -> stage3 -> /2 -> stage4 -> /2 -> stage5 -> /2 -> stage6
      |               |               |               |               |               |
    stage1d <- x2 - stage2d <- x2 - stage3d <- x2 - stage4d <- x2 - stage5d <---- x2 -+
      |               |               |               |               |               |
    side 1          side 2          side 3          side 4          side 5          side 6     -> fusion -> sigmoid

Every stage is a small U-Net itself, plus its own first convolution: the first ones go down through several pools; the
deepest, whose maps are small already, dilate instead. For inference alone: batch norm is folded into the convolutions.

Deviation: none. Sources: Qin et al., U2-Net: going deeper with nested U-structure for salient object detection (2020),
Figure 5; and its code, which numbers the levels.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..class_activation import resize_bilinear


class Width(NamedTuple):
    """Channels of a stage: of its inner levels, and of its output."""

    inner: int
    outputs: int


class Shape(NamedTuple):
    """The number of levels of a stage, and whether they are dilated instead of pooled ("4F" in the paper)."""

    levels: int
    flat: bool


SHAPES = {
    "stage1": Shape(7, flat=False),
    "stage2": Shape(6, flat=False),
    "stage3": Shape(5, flat=False),
    "stage4": Shape(4, flat=False),
    "stage5": Shape(4, flat=True),
    "stage6": Shape(4, flat=True),
    "stage5d": Shape(4, flat=True),
    "stage4d": Shape(4, flat=False),
    "stage3d": Shape(5, flat=False),
    "stage2d": Shape(6, flat=False),
    "stage1d": Shape(7, flat=False),
}
"""The stages in the order in which the network computes them."""
DEPTH = 6


class Stage(nnx.Module):
    """A U-Net, added to the first of its convolutions; each is 3x3, with a ReLU.

    Levels 1 to n - 1 go down by 2x2 pools, level n is dilated instead; where the stage is flat, level k is dilated by
    2^(k - 1) and there are no pools. On the way up, each level joins what is below it and what it was on the way down.
    """

    def __init__(self, inputs: int, width: Width, shape: Shape, *, rngs: nnx.Rngs):
        levels = range(1, shape.levels + 1)
        dilations = [2 ** (level - 1) if shape.flat else 1 + (level == shape.levels) for level in levels]
        self.first = _convolution(inputs, width.outputs, rngs=rngs)
        self.down = nnx.List(
            _convolution(width.inner if level > 1 else width.outputs, width.inner, dilation=dilation, rngs=rngs)
            for level, dilation in zip(levels, dilations, strict=True)
        )
        self.up = nnx.List(
            _convolution(2 * width.inner, width.inner if level > 1 else width.outputs, dilation=dilation, rngs=rngs)
            for level, dilation in zip(levels[:-1], dilations[:-1], strict=True)
        )
        self.flat = shape.flat

    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, h, w, inputs) -> (b, h, w, outputs), >= 0."""
        first = nnx.relu(self.first(x))
        *levels, bottom = self.down
        passed, y = [], first
        for number, level in enumerate(levels):
            y = nnx.relu(level(y if self.flat or not number else halved(y)))
            passed.append(y)
        y = nnx.relu(bottom(y))
        for level, beside in zip(reversed(self.up), reversed(passed), strict=True):
            y = nnx.relu(level(jnp.concatenate([resize_bilinear(y, beside.shape[1:3]), beside], axis=-1)))
        return first + y


class U2Net(nnx.Module):
    """The network.

    Args:
        widths: of every stage in `SHAPES`: U2-Net small has (16, 64) everywhere.
        rngs: random streams for the initialization.
    """

    def __init__(self, widths: Mapping[str, Width], *, rngs: nnx.Rngs):
        outputs = {name: width.outputs for name, width in widths.items()}

        def stage(name: str, inputs: int) -> Stage:
            return Stage(inputs, widths[name], SHAPES[name], rngs=rngs)

        for number in range(1, DEPTH + 1):
            above = outputs[f"stage{number - 1}"] if number > 1 else 3
            setattr(self, f"stage{number}", stage(f"stage{number}", above))
        for number in range(1, DEPTH):
            below = outputs[_decoder(number + 1)]
            setattr(self, f"stage{number}d", stage(f"stage{number}d", below + outputs[f"stage{number}"]))
        self.sides = nnx.List(_convolution(outputs[_decoder(number)], 1, rngs=rngs) for number in range(1, DEPTH + 1))
        self.fusion = nnx.Conv(DEPTH, 1, (1, 1), rngs=rngs)

    def __call__(self, pictures: jax.Array) -> jax.Array:
        """Saliency of normalized pictures: float32 (b, h, w, 3) -> float32 (b, h, w), in [0, 1]."""
        x, passed = pictures, []
        for number in range(1, DEPTH + 1):
            x = getattr(self, f"stage{number}")(halved(x) if passed else x)
            passed.append(x)
        decoded = [passed.pop()]  # from the deepest on
        for number in range(DEPTH - 1, 0, -1):
            beside = passed.pop()
            x = jnp.concatenate([resize_bilinear(decoded[-1], beside.shape[1:3]), beside], axis=-1)
            decoded.append(getattr(self, f"stage{number}d")(x))
        size = pictures.shape[1:3]
        logits = [resize_bilinear(side(x), size) for side, x in zip(self.sides, reversed(decoded), strict=True)]
        return nnx.sigmoid(self.fusion(jnp.concatenate(logits, axis=-1)))[..., 0]


def halved(x: jax.Array) -> jax.Array:
    """2x2 max pool of stride 2 that keeps an odd last row or column: n -> ceil(n / 2); of x (b, h, w, d)."""
    return nnx.max_pool(x, (2, 2), strides=(2, 2), padding=[(0, length % 2) for length in x.shape[1:3]])


def _convolution(inputs: int, outputs: int, *, dilation: int = 1, rngs: nnx.Rngs) -> nnx.Conv:
    # Not `convolution.Conv` of the backbones: with so few channels on such large maps, and 119 of them to compile, its
    # Winograd does not pay.
    return nnx.Conv(inputs, outputs, (3, 3), kernel_dilation=dilation, rngs=rngs)


def _decoder(number: int) -> str:
    """The stage that makes side map `number`: the deepest has no decoder."""
    return f"stage{number}d" if number < DEPTH else f"stage{number}"
