"""IRNet: object edges and displacements, from the features of a frozen backbone.

    edge           five stages -> 1x1, group norm, upsample, ReLU -> concat -> 1x1         edge logit per position
    displacement   five stages -> 1x1, group norm, upsample, ReLU, coarse to fine -> 1x1   towards the object's centre

Both are on a grid of 4 pixels per position. Semantic masks need only the edges; the displacements, which separate
objects of one class, share no trained parameter with them. (At test time the original subtracts the displacements'
mean over the data set. That affects instance masks only and is not done here.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone
from ...backbones.config import BackboneConfig
from ...backbones.layers.convolution import TORCH_UNIFORM, Conv
from ...backbones.layers.norms import GroupNorm
from ...backbones.layers.resizing import rescale
from ...backbones.layers.valid import Sizes, keep_valid
from ...backbones.preprocessing import Preprocessing
from ...machine.errors import UserError

STRIDE = 4
"""Pixels per position of edges and displacements."""


class Tap(NamedTuple):
    """Output of a backbone stage.

    Attributes:
        features: (b, h, w, d), in the backbone's precision, zero outside the valid region.
        sizes: int32 (b, 2), valid rows and columns; None: all.
    """

    features: jax.Array
    sizes: Sizes


class Projection(nnx.Module):
    """1x1 convolution without bias, group norm, bilinear upsampling by a factor, ReLU, in this order."""

    def __init__(self, inputs: int, outputs: int, *, groups: int, enlarge: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv = Conv(inputs, outputs, 1, kernel_init=TORCH_UNIFORM, dtype=dtype, rngs=rngs)
        self.gn = GroupNorm(outputs, groups)
        self.enlarge = enlarge

    def __call__(self, tap: Tap, onto: Tap) -> jax.Array:
        """Project a tap onto the grid of another: (b, h, w, outputs), of dtype, zero outside the valid region."""
        y = self.gn(self.conv(tap.features), tap.sizes)
        if self.enlarge > 1:
            height, width = onto.features.shape[1:3]
            y = rescale(y, tap.sizes, self.enlarge)[0][:, :height, :width]
        return keep_valid(nnx.relu(y), onto.sizes)


class EdgeBranch(nnx.Module):
    """All stages, upsampled to the finest grid and concatenated."""

    width, groups = 32, 4

    def __init__(self, backbone: Backbone, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"groups": self.groups, "dtype": dtype, "rngs": rngs}
        self.stages = backbone.stages
        for stage, channels, stride in zip(self.stages, backbone.channels, backbone.strides, strict=True):
            setattr(self, stage, Projection(channels, self.width, enlarge=stride // STRIDE, **options))
        options = {"use_bias": True, "kernel_init": TORCH_UNIFORM, "dtype": dtype, "rngs": rngs}
        self.logit = Conv(len(self.stages) * self.width, 1, 1, **options)

    def __call__(self, taps: dict[str, Tap]) -> jax.Array:
        fine = taps[self.stages[0]]
        parts = [getattr(self, stage)(taps[stage], fine) for stage in self.stages]
        return keep_valid(self.logit(jnp.concatenate(parts, axis=-1)), fine.sizes)


class DisplacementBranch(nnx.Module):
    """The coarse stages, combined at 8 pixels per position, then with the fine ones at 4."""

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
        self.vector = Conv(256, 2, 1, kernel_init=TORCH_UNIFORM, dtype=dtype, rngs=rngs)

    def __call__(self, taps: dict[str, Tap]) -> jax.Array:
        fine, coarse = taps[self.fine_stages[-1]], taps[self.coarse_stages[0]]
        parts = [getattr(self, stage)(taps[stage], coarse) for stage in self.coarse_stages]
        x = self.coarse(coarse._replace(features=jnp.concatenate(parts, axis=-1)), fine)
        parts = [*(getattr(self, stage)(taps[stage], fine) for stage in self.fine_stages), x]
        x = self.fine(fine._replace(features=jnp.concatenate(parts, axis=-1)), fine)
        return self.vector(x).astype(jnp.float32)


class IRNet(nnx.Module):
    """Edges and displacements on a frozen backbone, including its batch norm.

    `taps` runs the backbone once for both branches; `edges` and `displacements` take its result.

    Args:
        backbone: an ImageNet-pretrained feature extractor of any width; IRN's has output stride 16.
        preprocessing: matches the backbone's weights.
        dtype: dtype of the branches' convolutions and of what is stored between them; parameters and results stay
            float32.
        rngs: random streams for the initialization.

    Source: Ahn, Cho and Kwak, Weakly supervised learning of instance segmentation with inter-pixel relations (CVPR
    2019), as in the authors' code.
    """

    def __init__(
        self, backbone: Backbone, *, preprocessing: Preprocessing, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ):
        fine, coarse = backbone.strides.count(STRIDE), backbone.strides.count(2 * STRIDE)
        if backbone.strides[0] != STRIDE or fine > 2 or not coarse:
            strides = ", ".join(map(str, backbone.strides))
            raise UserError(
                "IRNet needs a backbone with one or two stages of stride 4, then one of stride 8; this one's strides "
                f"are {strides}. Give another --model.backbone."
            )
        self.backbone, self.preprocessing = backbone, preprocessing
        self.edge = EdgeBranch(backbone, dtype=dtype, rngs=rngs)
        self.displacement = DisplacementBranch(backbone, dtype=dtype, rngs=rngs)

    def taps(self, images: jax.Array, sizes: Sizes = None) -> dict[str, Tap]:
        """Backbone features for both branches, without gradient.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.

        Returns:
            The Tap of every stage, by name.
        """
        features, grids = jax.lax.stop_gradient(self.backbone(images, sizes)), self.backbone.grids(sizes)
        return dict(zip(self.backbone.stages, map(Tap, features, grids), strict=True))

    def edges(self, taps: dict[str, Tap]) -> jax.Array:
        """Edge logits float32 (b, h / 4, w / 4), on the grid of the first stage, zero outside the valid region."""
        return self.edge(taps)[..., 0]

    def displacements(self, taps: dict[str, Tap]) -> jax.Array:
        """Rows and columns to the object's centre, on the grid of the edges: float32 (b, h / 4, w / 4, 2), zero
        outside the valid region."""
        return self.displacement(taps)

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of edges and displacements for pictures of these sizes; both int32 (b, 2)."""
        return self.backbone.grids(sizes)[0]


def build_irnet(model: BackboneConfig, *, seed: int = 0) -> IRNet:
    """Build IRNet from its config, randomly initialized.

    Call it inside `jax.jit` or `nnx.eval_shape`: run eagerly, it compiles hundreds of tiny programs.

    Args:
        model: the backbone's config; its `weights` are not loaded here.
        seed: random seed of the initialization.
    """
    rngs = nnx.Rngs(seed)
    return IRNet(
        model.build(rngs=rngs), preprocessing=Preprocessing.of(model), dtype=jnp.dtype(model.precision), rngs=rngs
    )
