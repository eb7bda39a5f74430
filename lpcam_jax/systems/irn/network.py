"""IRNet: where one thing ends and another begins, on the features of a backbone that stays as it is.

    edge           five stages -> 1x1, group norm, upsample, ReLU -> concat -> 1x1         edge logit a position
    displacement   five stages -> 1x1, group norm, upsample, ReLU, coarse to fine -> 1x1   towards the object's centre

Both are on the grid of the stages with 4 pixels a position. Only the edges make semantic masks; the displacements share
no parameter with them and tell objects of one class apart. (At test the original takes their mean over a data set away,
which changes no edge: it is left to whoever makes instances.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone
from ...backbones.config import BackboneConfig
from ...backbones.layers import TORCH_UNIFORM, Conv, GroupNorm, Sizes, keep_valid, rescale
from ...backbones.preprocessing import Preprocessing

STRIDE = 4
"""Pixels a position of edges and displacements."""


class Tap(NamedTuple):
    """What a stage hands on.

    features: float32 (b, h, w, d), zero outside the valid region
    sizes:    int32 (b, 2), valid rows and columns; None: all
    """

    features: jax.Array
    sizes: Sizes


class Projection(nnx.Module):
    """1x1 convolution without bias, group norm, bilinear enlargement by a factor, ReLU: in this order."""

    def __init__(self, inputs: int, outputs: int, *, groups: int, enlarge: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv = Conv(inputs, outputs, 1, kernel_init=TORCH_UNIFORM, dtype=dtype, rngs=rngs)
        self.gn = GroupNorm(outputs, groups)
        self.enlarge = enlarge

    def __call__(self, tap: Tap, onto: Tap) -> jax.Array:
        """Of a tap, cut to the grid of another: float32 (b, h, w, outputs), zero outside the valid region."""
        y = self.gn(self.conv(tap.features), tap.sizes)
        if self.enlarge > 1:
            height, width = onto.features.shape[1:3]
            y = rescale(y, tap.sizes, self.enlarge)[0][:, :height, :width]
        return keep_valid(nnx.relu(y), onto.sizes)


class EdgeBranch(nnx.Module):
    """Every stage, enlarged to the finest grid, side by side."""

    width, groups = 32, 4

    def __init__(self, backbone: Backbone, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"groups": self.groups, "dtype": dtype, "rngs": rngs}
        self.stages = backbone.stages
        for stage, channels, stride in zip(self.stages, backbone.channels, backbone.strides, strict=True):
            setattr(self, stage, Projection(channels, self.width, enlarge=stride // STRIDE, **options))
        self.logit = Conv(len(self.stages) * self.width, 1, 1, use_bias=True, kernel_init=TORCH_UNIFORM, rngs=rngs)

    def __call__(self, taps: dict[str, Tap]) -> jax.Array:
        fine = taps[self.stages[0]]
        parts = [getattr(self, stage)(taps[stage], fine) for stage in self.stages]
        return keep_valid(self.logit(jnp.concatenate(parts, axis=-1)), fine.sizes)


class DisplacementBranch(nnx.Module):
    """The coarse stages on a grid of 8 pixels a position, then with the fine ones on one of 4."""

    def __init__(self, backbone: Backbone, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"groups": 16, "dtype": dtype, "rngs": rngs}
        self.fine_stages = backbone.stages[: backbone.strides.count(STRIDE)]
        self.coarse_stages = backbone.stages[len(self.fine_stages) :]
        widths = [64, 128][: len(self.fine_stages)]
        for number, (stage, channels, stride) in enumerate(
            zip(backbone.stages, backbone.channels, backbone.strides, strict=True)
        ):
            if stage in self.coarse_stages:
                projection = Projection(channels, 256, enlarge=stride // (2 * STRIDE), **options)
            else:
                projection = Projection(channels, widths[number], **(options | {"groups": widths[number] // 8}))
            setattr(self, stage, projection)
        self.coarse = Projection(len(self.coarse_stages) * 256, 256, enlarge=2, **options)
        self.fine = Projection(sum(widths) + 256, 256, **options)
        self.vector = Conv(256, 2, 1, kernel_init=TORCH_UNIFORM, rngs=rngs)

    def __call__(self, taps: dict[str, Tap]) -> jax.Array:
        fine, coarse = taps[self.fine_stages[-1]], taps[self.coarse_stages[0]]
        parts = [getattr(self, stage)(taps[stage], coarse) for stage in self.coarse_stages]
        x = self.coarse(coarse._replace(features=jnp.concatenate(parts, axis=-1)), fine)
        parts = [*(getattr(self, stage)(taps[stage], fine) for stage in self.fine_stages), x]
        x = self.fine(fine._replace(features=jnp.concatenate(parts, axis=-1)), fine)
        return self.vector(x)


class IRNet(nnx.Module):
    """Edges and displacements; the backbone is frozen, its batch norm too.

    `taps` runs the backbone, once for both branches; `edges` and `displacements` are functions of what it returns.

    Args:
        backbone: with output stride 16 to be IRN's, ImageNet's parameters, and any width.
        preprocessing: what the backbone's weights expect.
        dtype: of the branches' convolutions but the last; parameters, norms and results stay float32.
        rngs: of the initialization.

    Source: Ahn, Cho and Kwak, Weakly supervised learning of instance segmentation with inter-pixel relations (CVPR
    2019), as in the authors' code.
    """

    def __init__(
        self, backbone: Backbone, *, preprocessing: Preprocessing, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ):
        fine, coarse = backbone.strides.count(STRIDE), backbone.strides.count(2 * STRIDE)
        if backbone.strides[0] != STRIDE or fine > 2 or not coarse:
            raise ValueError(f"IRNet needs one or two stages of stride 4, then one of stride 8, not {backbone.strides}")
        self.backbone, self.preprocessing = backbone, preprocessing
        self.edge = EdgeBranch(backbone, dtype=dtype, rngs=rngs)
        self.displacement = DisplacementBranch(backbone, dtype=dtype, rngs=rngs)

    def taps(self, images: jax.Array, sizes: Sizes = None) -> dict[str, Tap]:
        """What both branches see of pictures; no gradient flows back.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.

        Returns:
            A Tap of every stage of the backbone.
        """
        features, grids = jax.lax.stop_gradient(self.backbone(images, sizes)), self.backbone.grids(sizes)
        return dict(zip(self.backbone.stages, map(Tap, features, grids), strict=True))

    def edges(self, taps: dict[str, Tap]) -> jax.Array:
        """Edge logits float32 (b, h / 4, w / 4), rounded up as layer1 is, zero outside the valid region."""
        return self.edge(taps)[..., 0]

    def displacements(self, taps: dict[str, Tap]) -> jax.Array:
        """Rows and columns to the object's centre, on the grid of the edges: float32 (b, h / 4, w / 4, 2), zero outside
        the valid region."""
        return self.displacement(taps)

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of edges and displacements for pictures of these sizes, int32 (b, 2) each."""
        return self.backbone.grids(sizes)[0]


def build_irnet(model: BackboneConfig, *, seed: int = 0) -> IRNet:
    """The IRNet a config describes, randomly initialized.

    Args:
        model: the description of its backbone; `weights` is not read here.
        seed: of the initialization.

    Returns:
        IRNet. Call it inside `jax.jit` or `nnx.eval_shape`: eagerly, hundreds of tiny programs are compiled.
    """
    rngs = nnx.Rngs(seed)
    return IRNet(
        model.build(rngs=rngs), preprocessing=Preprocessing.of(model), dtype=jnp.dtype(model.precision), rngs=rngs
    )
