"""Vision transformer (ViT) of any size: DeiT's, DINO's, DINOv2's and CLIP's.

    picture -> patches, their positions, and tokens -> blocks1 -> blocks2 -> blocks3 -> blocks4 -> norm

    x = x + gamma1 attention(norm1(x))          x = x + gamma2 fc2(gelu(fc1(norm2(x))))

The tokens (class token, distillation token, registers) have no place in the picture: they are attended to and left out
of the features, which are the patches'. A picture whose sides are no multiples of the patch is padded at the right and
the bottom with zeros, the mean colour, to the patches that it has begun. A patch that is all padding is attended to by
nobody, and positions are those of the picture's own grid (`positions`): so it is the picture alone, on any canvas.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ..machine.devices import traces_for_cpus
from .layers.convolution import Linear
from .layers.norms import LayerNorm
from .layers.pieces import pieces_of
from .layers.recomputation import recomputed
from .layers.valid import Sizes, keep_valid, strided
from .positions import Resize, resize_positions

ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}
_TOKEN_INIT = nnx.initializers.truncated_normal(0.02)


class Embedding(nnx.Module):
    """Tokens and patches of a picture; a token's own position is part of it."""

    undecayed: ClassVar = ("tokens", "positions")

    def __init__(
        self,
        patch: int,
        dim: int,
        *,
        tokens: int,
        grid: int,
        resize: Resize,
        norm: LayerNorm | None,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        # As in CLIP, a norm takes the place of the bias.
        self.patches = Linear(3 * patch**2, dim, use_bias=norm is None, dtype=dtype, rngs=rngs)
        self.tokens = nnx.Param(_TOKEN_INIT(rngs.params(), (tokens, dim), jnp.float32))
        self.positions = nnx.Param(_TOKEN_INIT(rngs.params(), (grid, grid, dim), jnp.float32))
        self.norm = norm
        self.patch, self.resize, self.dtype = patch, resize, dtype

    def __call__(self, images: jax.Array, grids: Sizes) -> tuple[jax.Array, tuple[int, int]]:
        """Pictures (b, h, w, 3) with grids int32 (b, 2) -> (b, tokens + h' w', dim), of dtype; and (h', w')."""
        pieces = pieces_of(images, self.patch)
        b, h, w, *_ = pieces.shape
        x = self.patches(pieces.reshape(b, h, w, -1).astype(self.dtype)).astype(jnp.float32)
        x = x + resize_positions(self.positions[...], grids, (h, w), resize=self.resize)
        tokens = jnp.broadcast_to(self.tokens[...], (b, *self.tokens.shape))
        x = jnp.concatenate([tokens, x.reshape(b, h * w, -1)], axis=1)
        x = x if self.norm is None else self.norm(x)
        return x.astype(self.dtype), (h, w)


class Block(nnx.Module):
    """Attention of all positions to all, then two layers at each; both are added to their input."""

    undecayed: ClassVar = ("gamma1", "gamma2")

    def __init__(
        self,
        dim: int,
        *,
        head_dim: int,
        mlp_ratio: int,
        activation: Literal["gelu", "quick_gelu"],
        epsilon: float,
        layer_scale: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        options = {"kernel_init": nnx.initializers.xavier_uniform(), "dtype": dtype, "rngs": rngs}
        self.norm1, self.norm2 = LayerNorm(dim, epsilon), LayerNorm(dim, epsilon)
        self.qkv, self.proj = Linear(dim, 3 * dim, **options), Linear(dim, dim, **options)
        self.fc1, self.fc2 = Linear(dim, mlp_ratio * dim, **options), Linear(mlp_ratio * dim, dim, **options)
        self.gamma1, self.gamma2 = (
            nnx.Param(jnp.full(dim, 1e-5, jnp.float32)) if layer_scale else None for _ in range(2)
        )
        self.head_dim, self.activation = head_dim, activation

    def __call__(self, x: jax.Array, attended: jax.Array | None, factors: jax.Array | None = None) -> jax.Array:
        """The block's output.

        Args:
            x: (b, n, dim), of dtype.
            attended: bool (b, 1, 1, n), which positions are attended to; None: all.
            factors: float (2, b), of what either branch adds to each x (stochastic depth); None: 1.

        Returns:
            (b, n, dim), of dtype.
        """
        return self._added(x, attention(*self._heads(x), attended), factors)

    def with_weights(self, x: jax.Array, attended: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The same, and how much each position attends to each: float32 (b, n, n), the mean over heads."""
        query, key, value = self._heads(x)
        weights = attention_weights(query, key, attended)
        return self._added(x, weighted(weights, value)), weights.mean(axis=1)

    def _heads(self, x: jax.Array) -> list[jax.Array]:
        """Query, key and value (b, n, heads, d)."""
        b, n, _ = x.shape
        return jnp.split(self.qkv(self.norm1(x)).reshape(b, n, -1, self.head_dim), 3, axis=2)

    def _added(self, x: jax.Array, values: jax.Array, factors: jax.Array | None = None) -> jax.Array:
        """x and both branches, from the values (b, n, heads, d) that were attended to."""
        first, second = (None, None) if factors is None else factors
        x = x + _times(first, _scaled(self.gamma1, self.proj(values.reshape(x.shape))))
        y = self.fc2(ACTIVATIONS[self.activation](self.fc1(self.norm2(x))))
        return x + _times(second, _scaled(self.gamma2, y))


def attention(query: jax.Array, key: jax.Array, value: jax.Array, attended: jax.Array | None) -> jax.Array:
    """softmax(query . key / sqrt(d)) . value, for every head.

    Args:
        query: float (b, n, heads, d).
        key: of the same shape and dtype.
        value: of the same shape and dtype.
        attended: bool (b, 1, 1, n), of the keys; None: all.

    Returns:
        (b, n, heads, d), in the dtype of the arguments; the softmax is in float32.
    """
    if not traces_for_cpus():
        return jax.nn.dot_product_attention(query, key, value, mask=attended)
    return weighted(attention_weights(query, key, attended), value)


def attention_weights(query: jax.Array, key: jax.Array, attended: jax.Array | None) -> jax.Array:
    """softmax(query . key / sqrt(d)), for every head; arguments as of `attention`.

    Returns:
        float32 (b, heads, n, n), of each query over the keys, exactly zero where a key is not attended to.
    """
    # Heads before positions: a product's arrays are then rows in a row, which on CPUs is up to 1.8 times as fast.
    query, key = (x.swapaxes(1, 2) for x in (query * query.shape[-1] ** -0.5, key))
    logits = jnp.matmul(query, key.swapaxes(2, 3)).astype(jnp.float32)
    if attended is not None:
        logits = jnp.where(attended, logits, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(logits)


def weighted(weights: jax.Array, value: jax.Array) -> jax.Array:
    """The means of value (b, n, heads, d) with `attention_weights`: of its shape and dtype."""
    return jnp.matmul(weights.astype(value.dtype), value.swapaxes(1, 2)).swapaxes(1, 2)


def _scaled(gamma: nnx.Param | None, y: jax.Array) -> jax.Array:
    """The output of a branch, scaled if it has a scale (LayerScale)."""
    return y if gamma is None else y * gamma[...].astype(y.dtype).reshape(1, 1, -1)


def _times(factors: jax.Array | None, y: jax.Array) -> jax.Array:
    """y (b, n, d) times a factor for each of b."""
    return y if factors is None else y * factors.astype(y.dtype).reshape(-1, 1, 1)


class Blocks(nnx.Module):
    """Blocks one after the other, computed again for the gradient or not, and maybe the network's last norm."""

    def __init__(self, blocks: list[Block], norm: LayerNorm | None = None, *, remat: bool = False):
        self.blocks, self.norm, self.remat = nnx.List(blocks), norm, remat

    def __call__(self, x: jax.Array, attended: jax.Array | None) -> jax.Array:
        for block in self.blocks:
            x = recomputed(block, x, attended) if self.remat else block(x, attended)
        return x if self.norm is None else self.norm(x)


def quarters(blocks: Sequence) -> list[Sequence]:
    """The blocks of the four stages, from all of them in order."""
    return [blocks[len(blocks) * number // 4 : len(blocks) * (number + 1) // 4] for number in range(4)]


class ViT(nnx.Module):
    """The backbone, a `backbones.base.Backbone`.

    Args:
        patch: side of a patch in pixels.
        dim: channels.
        depth: blocks, at least four.
        head_dim: channels of an attention head; divides dim.
        mlp_ratio: channels between a block's two layers, over dim.
        tokens: tokens beside the patches.
        grid: rows and columns of the stored positions.
        resize: how they become those of a picture, see `positions.resize_positions`.
        pre_norm: whether a norm stands before the blocks.
        final_norm: whether a norm stands after them.
        layer_scale: whether the outputs of branches are scaled.
        activation: "gelu", exact, or "quick_gelu", x sigmoid(1.702 x).
        epsilon: of the norms.
        remat: whether blocks are computed again for the gradient, instead of storing what is inside.
        dtype: dtype of the products and of what is stored between layers; parameters stay float32, in which norms and
            softmax are computed.
        rngs: random streams for the initialization.

    The stages are the outputs of the four quarters of the blocks, all on the grid of the patches.
    """

    stages: ClassVar = ("blocks1", "blocks2", "blocks3", "blocks4")
    parts: ClassVar = ("embedding", *stages)
    stem: ClassVar = ("embedding",)
    nonnegative: ClassVar = False

    def __init__(
        self,
        *,
        patch: int = 16,
        dim: int = 384,
        depth: int = 12,
        head_dim: int = 64,
        mlp_ratio: int = 4,
        tokens: int = 1,
        grid: int = 14,
        resize: Resize = "antialiased",
        pre_norm: bool = False,
        final_norm: bool = True,
        layer_scale: bool = False,
        activation: Literal["gelu", "quick_gelu"] = "gelu",
        epsilon: float = 1e-6,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.patch, self.tokens, self.remat = patch, tokens, remat
        self.channels, self.strides = (dim,) * len(self.stages), (patch,) * len(self.stages)
        norm = LayerNorm(dim, epsilon) if pre_norm else None
        self.embedding = Embedding(
            patch, dim, tokens=tokens, grid=grid, resize=resize, norm=norm, dtype=dtype, rngs=rngs
        )
        blocks = [
            Block(
                dim,
                head_dim=head_dim,
                mlp_ratio=mlp_ratio,
                activation=activation,
                epsilon=epsilon,
                layer_scale=layer_scale,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(depth)
        ]
        for stage, of_stage in zip(self.stages, quarters(blocks), strict=True):
            last = LayerNorm(dim, epsilon) if final_norm and stage == self.stages[-1] else None
            setattr(self, stage, Blocks(of_stage, last, remat=remat))

    def __call__(self, images: jax.Array, sizes: Sizes = None, *, train: bool = False) -> tuple[jax.Array, ...]:
        """Features of every stage.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid rows and columns of each picture; None: all.
            train: without influence; there are no statistics.

        Returns:
            (b, h', w', dim) of each stage, in its precision, zero outside the valid region of `grids`.
        """
        grids = strided(sizes, self.patch)
        x, shape, attended = self.embedded(images, sizes)
        outputs = []
        for stage in self.stages:
            x = getattr(self, stage)(x, attended)
            outputs.append(keep_valid(self.on_grid(x, shape), grids))
        return tuple(outputs)

    def embedded(self, images: jax.Array, sizes: Sizes = None) -> tuple[jax.Array, tuple[int, int], jax.Array | None]:
        """What the first block gets.

        Args:
            images: as above.
            sizes: as above.

        Returns:
            Tokens and patches (b, tokens + h' w', dim), in its precision; (h', w'); which of them are attended to, bool
            (b, 1, 1, tokens + h' w'), or None: all.
        """
        grids = strided(sizes, self.patch)
        x, (h, w) = self.embedding(images, grids)
        if sizes is None:
            return x, (h, w), None
        valid = keep_valid(jnp.ones((len(x), h, w, 1), bool), grids).reshape(len(x), -1)
        attended = jnp.pad(valid, [(0, 0), (self.tokens, 0)], constant_values=True)[:, None, None]
        return x, (h, w), attended

    def on_grid(self, x: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """The patches (b, h', w', dim) of x (b, tokens + h' w', dim)."""
        return x[:, self.tokens :].reshape(len(x), *shape, -1)

    @property
    def all_blocks(self) -> list[Block]:
        """The blocks of all stages, in order; without the norm after them."""
        return [block for stage in self.stages for block in getattr(self, stage).blocks]

    def grids(self, sizes: Sizes) -> tuple[Sizes, ...]:
        """Valid sizes of every stage for pictures of these sizes; all int32 (b, 2)."""
        return (strided(sizes, self.patch),) * len(self.stages)
