"""IRNet: where one thing ends and another begins, on the features of a backbone that stays as it is.

    edge           five stages -> 1x1, group norm, upsample, ReLU -> concat -> 1x1         edge logit a position
    displacement   five stages -> 1x1, group norm, upsample, ReLU, coarse to fine -> 1x1   towards the object's centre

Both are on the grid of layer1, 4 pixels a position. Only the edges make semantic masks; the displacements share no
parameter with them and tell objects of one class apart. (At test the original takes their mean over a data set away,
which changes no edge: it is left to whoever makes instances.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..config import Model
from .layers import TORCH_UNIFORM, Conv, GroupNorm, Sizes, keep_valid, rescale
from .preprocessing import Preprocessing
from .resnet import STAGES, ResNet, build_backbone


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
    """Every stage, enlarged to the grid of layer1, side by side."""

    width, groups = 32, 4

    def __init__(self, backbone: ResNet, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"groups": self.groups, "dtype": dtype, "rngs": rngs}
        for stage, channels, stride in zip(STAGES, backbone.channels, backbone.strides, strict=True):
            setattr(self, stage, Projection(channels, self.width, enlarge=stride // 4, **options))
        self.logit = Conv(len(STAGES) * self.width, 1, 1, use_bias=True, kernel_init=TORCH_UNIFORM, rngs=rngs)

    def __call__(self, taps: dict[str, Tap]) -> jax.Array:
        fine = taps["layer1"]
        parts = [getattr(self, stage)(taps[stage], fine) for stage in STAGES]
        return keep_valid(self.logit(jnp.concatenate(parts, axis=-1)), fine.sizes)


class DisplacementBranch(nnx.Module):
    """The coarse stages on the grid of layer2, then with the fine ones on that of layer1."""

    def __init__(self, backbone: ResNet, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"groups": 16, "dtype": dtype, "rngs": rngs}
        stem, layer1, layer2, layer3, layer4 = backbone.channels
        *_, stride3, stride4 = backbone.strides
        self.stem = Projection(stem, 64, **(options | {"groups": 8}))
        self.layer1 = Projection(layer1, 128, **options)
        self.layer2 = Projection(layer2, 256, **options)
        self.layer3 = Projection(layer3, 256, enlarge=stride3 // 8, **options)
        self.layer4 = Projection(layer4, 256, enlarge=stride4 // 8, **options)
        self.coarse = Projection(3 * 256, 256, enlarge=2, **options)
        self.fine = Projection(64 + 128 + 256, 256, **options)
        self.vector = Conv(256, 2, 1, kernel_init=TORCH_UNIFORM, rngs=rngs)

    def __call__(self, taps: dict[str, Tap]) -> jax.Array:
        fine, coarse = taps["layer1"], taps["layer2"]
        parts = [getattr(self, stage)(taps[stage], coarse) for stage in ("layer2", "layer3", "layer4")]
        x = self.coarse(coarse._replace(features=jnp.concatenate(parts, axis=-1)), fine)
        parts = [self.stem(taps["stem"], fine), self.layer1(fine, fine), x]
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
        self, backbone: ResNet, *, preprocessing: Preprocessing, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ):
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
        features, grids = self.backbone(images, sizes), self.backbone.stage_sizes(sizes)
        return {stage: Tap(jax.lax.stop_gradient(features[stage]), grids[stage]) for stage in STAGES}

    def edges(self, taps: dict[str, Tap]) -> jax.Array:
        """Edge logits float32 (b, h / 4, w / 4), rounded up as layer1 is, zero outside the valid region."""
        return self.edge(taps)[..., 0]

    def displacements(self, taps: dict[str, Tap]) -> jax.Array:
        """Rows and columns to the object's centre, on the grid of the edges: float32 (b, h / 4, w / 4, 2), zero outside
        the valid region."""
        return self.displacement(taps)

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of edges and displacements for pictures of these sizes, int32 (b, 2) each."""
        return self.backbone.stem_sizes(sizes)


def build_irnet(model: Model, *, seed: int = 0) -> IRNet:
    """The IRNet a config describes, randomly initialized.

    Args:
        model: the description of its backbone; `weights` is not read here.
        seed: of the initialization.

    Returns:
        IRNet. Call it inside `jax.jit` or `nnx.eval_shape`: eagerly, hundreds of tiny programs are compiled.
    """
    rngs = nnx.Rngs(seed)
    backbone = build_backbone(model, rngs=rngs)
    preprocessing = Preprocessing(model.channel_order, model.mean, model.std)
    return IRNet(backbone, preprocessing=preprocessing, dtype=jnp.dtype(model.precision), rngs=rngs)
