"""MCTformer: a vision transformer with a token for every class.

    class logit_n = mean_d  token_n           patch logit_n = mean_x  s_n(x),   s = conv3x3(patches)         (V2 only)

What token n attends to in the last blocks is a map of class n; what the patches attend to says which of them belong
together. Both are summed inside the network while the blocks run, so that memory holds the attention of one block at a
time. Exact on padded pictures.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.layers.convolution import TORCH_UNIFORM, Conv
from ...backbones.layers.recomputation import recomputed
from ...backbones.layers.valid import Sizes, keep_valid
from ...backbones.preprocessing import Preprocessing
from ...backbones.vit import ViT
from .config import MCTformerModel


class PatchHead(Conv):
    """A 3x3 convolution with a bias, which has no weight decay; both start as torch's do."""

    undecayed: ClassVar = ("bias",)

    def __init__(self, inputs: int, classes: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        super().__init__(inputs, classes, 3, use_bias=True, kernel_init=TORCH_UNIFORM, dtype=dtype, rngs=rngs)
        bound = (9 * inputs) ** -0.5
        self.bias = nnx.Param(jax.random.uniform(rngs.params(), (classes,), jnp.float32, -bound, bound))


class Attended(NamedTuple):
    """What the network makes of pictures, and what it looks at.

    Attributes:
        tokens: (b, c, d), of the classes after the last block, in the network's precision.
        patches: (b, h', w', d), likewise, zero outside the valid region.
        attention: float32 (b, h', w', c), of each class token to the patches, summed over the last blocks; zero outside
            the valid region.
        affinity: float32 (b, h' w', h' w'), of each patch (row) to the patches, summed over all blocks; the columns
            outside the valid region are zero.
    """

    tokens: jax.Array
    patches: jax.Array
    attention: jax.Array
    affinity: jax.Array


class MCTformer(nnx.Module):
    """Class tokens, patches, and a head for each.

    Args:
        backbone: a vision transformer with c tokens.
        preprocessing: matches the backbone's weights.
        classifies_patches: whether there is a head for the patches (V2).
        dtype: dtype of its convolution; parameters and logits stay float32.
        rngs: random streams for the initialization.

    A picture has as many positions as whole patches fit in, as in the reference, and at least one: what is left at the
    right and the bottom is not seen.

    Source: Xu et al., Multi-class token transformer for weakly supervised semantic segmentation (CVPR 2022), as in the
    authors' code, where the norm after the blocks is never applied.
    """

    def __init__(
        self,
        backbone: ViT,
        *,
        preprocessing: Preprocessing,
        classifies_patches: bool = True,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.backbone, self.preprocessing = backbone, preprocessing
        inputs, classes = backbone.channels[-1], backbone.tokens
        self.head = PatchHead(inputs, classes, dtype=dtype, rngs=rngs) if classifies_patches else None

    def __call__(
        self, images: jax.Array, sizes: Sizes = None, *, drop_path: float = 0.0, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Class tokens and patches, without the attention.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            drop_path: stochastic depth of the last block, in [0, 1).
            key: its random key in training; None: every block is computed.

        Returns:
            tokens (b, c, d) and patches (b, h', w', d), the latter zero outside the valid region, in the network's
            precision.
        """
        images, whole = self._whole_patches(images, sizes)
        x, shape, attended = self.backbone.embedded(images, whole)
        blocks = self.backbone.all_blocks
        factors = [None] * len(blocks) if key is None else path_factors(key, len(blocks), len(x), rate=drop_path)
        for block, of_branches in zip(blocks, factors, strict=True):
            inputs = x, attended, of_branches
            x = recomputed(block, *inputs) if self.backbone.remat else block(*inputs)
        return x[:, : self.backbone.tokens], keep_valid(self.backbone.on_grid(x, shape), self.grid_sizes(sizes))

    def attended(self, images: jax.Array, sizes: Sizes = None, *, shares: jax.Array) -> Attended:
        """The same, with what is attended to.

        Args:
            images: as above.
            sizes: as above.
            shares: float32 (blocks,), the factors with which each block's attention of the class tokens is summed: 1
                for the last, 0 for the others.

        Returns:
            Attended.
        """
        images, whole = self._whole_patches(images, sizes)
        x, shape, attended = self.backbone.embedded(images, whole)
        b, c, n = len(x), self.backbone.tokens, math.prod(shape)
        graph, stacked = _stacked(self.backbone.all_blocks)

        def step(sums: tuple[jax.Array, ...], block: tuple) -> tuple[tuple[jax.Array, ...], None]:
            (x, attention, affinity), (share, parameters) = sums, block
            x, weights = nnx.merge(graph, parameters).with_weights(x, attended)
            return (x, attention + share * weights[:, :c, c:], affinity + weights[:, c:, c:]), None

        # A loop: otherwise the compiler adds the attention of all blocks at the end, and keeps it until then.
        start = x, jnp.zeros((b, c, n)), jnp.zeros((b, n, n))
        (x, attention, affinity), _ = jax.lax.scan(step, start, (shares, stacked))
        patches = keep_valid(self.backbone.on_grid(x, shape), self.grid_sizes(sizes))
        return Attended(x[:, :c], patches, attention.swapaxes(1, 2).reshape(b, *shape, c), affinity)

    def scores(self, patches: jax.Array, sizes: Sizes = None) -> jax.Array:
        """What the head says of every patch: float32 (b, h', w', c), zero outside the valid region."""
        return keep_valid(self.head(patches), self.grid_sizes(sizes))

    def patch_logits(self, scores: jax.Array, sizes: Sizes = None) -> jax.Array:
        """Logits float32 (b, c), the mean of the `scores` of pictures of these sizes."""
        if sizes is None:
            return scores.mean(axis=(1, 2))
        return scores.sum(axis=(1, 2)) / self.grid_sizes(sizes).prod(axis=1)[:, None]

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the patches of pictures of these sizes; both int32 (b, 2)."""
        return None if sizes is None else jnp.maximum(sizes // self.backbone.patch, 1)

    def _whole_patches(self, images: jax.Array, sizes: Sizes) -> tuple[jax.Array, Sizes]:
        """Pictures and their sizes without what is left beside whole patches; smaller ones are padded to a patch."""
        patch = self.backbone.patch
        if sizes is None:
            height, width = (max(length // patch * patch, min(length, patch)) for length in images.shape[1:3])
            return images[:, :height, :width], None
        return images, self.grid_sizes(sizes) * patch


def _stacked(modules: Sequence[nnx.Module]) -> tuple[nnx.GraphDef, Any]:
    """The graph of modules that differ in their parameters only, and these with a leading axis, one entry a module."""
    graphs, states = zip(*(nnx.split(module) for module in modules), strict=True)
    return graphs[0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def class_logits(tokens: jax.Array) -> jax.Array:
    """Logits float32 (b, c) of class tokens (b, c, d): their means."""
    return tokens.astype(jnp.float32).mean(axis=-1)


def path_factors(key: jax.Array, blocks: int, pictures: int, *, rate: float) -> list[jax.Array]:
    """Draw which branches are skipped, and scale the others so that the mean is preserved.

    Args:
        key: random key.
        blocks: number of blocks; the rate of the first is 0, that of the last `rate`, linear between.
        pictures: b.
        rate: in [0, 1).

    Returns:
        float32 (2, b) of each block, 0 or 1 / (1 - its rate), for its two branches.

    Source: timm's DropPath.
    """
    keep = [1 - rate * number / max(blocks - 1, 1) for number in range(blocks)]
    keys = jax.random.split(key, blocks)
    return [jax.random.bernoulli(one, share, (2, pictures)) / share for one, share in zip(keys, keep, strict=True)]


def build_mctformer(model: MCTformerModel, classes: int, *, seed: int = 0) -> MCTformer:
    """Build MCTformer from its config, randomly initialized.

    Call it inside `jax.jit` or `nnx.eval_shape`: run eagerly, it compiles hundreds of tiny programs.

    Args:
        model: the config; its `weights` are not loaded here.
        classes: c.
        seed: random seed of the initialization.
    """
    rngs = nnx.Rngs(seed)
    backbone = replace(model, tokens=classes, final_norm=False).build(rngs=rngs)
    options = {"preprocessing": Preprocessing.of(model), "dtype": jnp.dtype(model.precision), "rngs": rngs}
    return MCTformer(backbone, classifies_patches=model.version == "v2", **options)
