"""Collaborative attention: what two pictures, looking at each other and at themselves, say of every label.

    t_n(x)  = A_n(x) g(x) + position(x) + picture          x in both pictures; g, the features in few channels
    y       = t_n + attention_n(norm(t_n))
    z       = y + mlp_n(norm(y))
    logit_n = v_n . mean_x z(x)                            of each picture

A_n is the heat map of label n, which is learned by nothing else: a label can only be seen where its map is. Every
label has a block of its own. The labels are computed one after the other, and again for the gradient, so that memory
holds the attention of one label: of b pairs of h x w positions a few times 2 b (2 h w)^2 floats, b times 143 MB for
crops of 368, whatever the number of labels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.layers.convolution import Linear
from ...backbones.layers.drops import dropout
from ...backbones.layers.valid import Sizes, keep_valid
from ...backbones.vit import attention_weights, weighted
from .config import HEADS

DROPOUT = 0.1
XAVIER = nnx.initializers.xavier_uniform()
_EPSILON = 1e-6


class TokenNorm(nnx.Module):
    """(x - mean) / (deviation + 1e-6) * scale + bias over the channels, with the unbiased deviation, in float32."""

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """The norm of x (b, n, d), in the dtype of x."""
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        variance = (y**2).sum(axis=-1, keepdims=True) / (y.shape[-1] - 1)
        deviation = jnp.sqrt(jnp.maximum(variance, _EPSILON**2))  # not 0, where its gradient is none
        scale, bias = (values[...].reshape(1, 1, -1) for values in (self.scale, self.bias))
        return (y / (deviation + _EPSILON) * scale + bias).astype(x.dtype)


class LabelBlock(nnx.Module):
    """The transformer block of a label, and the weights that make its logit of a mean token."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        def linear(inputs: int, outputs: int) -> Linear:
            bound = inputs**-0.5  # of torch's biases

            def bias_init(key, shape, dtype):
                return jax.random.uniform(key, shape, dtype, -bound, bound)

            return Linear(inputs, outputs, kernel_init=XAVIER, bias_init=bias_init, dtype=dtype, rngs=rngs)

        self.norm1, self.norm2 = TokenNorm(width), TokenNorm(width)
        self.query, self.key, self.value, self.out = (linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = linear(width, 4 * width), linear(4 * width, width)
        self.score = nnx.Param(XAVIER(rngs.params(), (width, 1), jnp.float32))

    def __call__(self, x: jax.Array, attended: jax.Array | None, key: jax.Array | None) -> jax.Array:
        """The block's output.

        Args:
            x: (b, n, width), tokens of both pictures, of dtype.
            attended: bool (b, 1, 1, n), which of them are attended to; None: all.
            key: random key of the dropout; None: no dropout.

        Returns:
            (b, n, width), of dtype.
        """
        keys = [None] * 5 if key is None else jax.random.split(key, 5)
        y = self.norm1(x)
        query, key_, value = (part(y).reshape(*y.shape[:2], HEADS, -1) for part in (self.query, self.key, self.value))
        weights = dropout(keys[0], attention_weights(query, key_, attended), rate=DROPOUT)
        x = x + dropout(keys[1], self.out(weighted(weights, value).reshape(y.shape)), rate=DROPOUT)
        y = dropout(keys[2], jax.nn.gelu(self.fc1(self.norm2(x)), approximate=True), rate=DROPOUT)
        x = x + dropout(keys[3], self.fc2(y), rate=DROPOUT)
        return dropout(keys[4], x, rate=DROPOUT)


class CollaborativeAttention(nnx.Module):
    """A block for each label over the tokens of both pictures of a pair.

    Args:
        classes: c.
        width: channels of a token, even.
        dtype: dtype of the products and of the tokens; parameters, norms, softmax and logits stay float32.
        rngs: random streams for the initialization.

    The parameters of the blocks are stacked, one entry a label.

    Source: Wu et al., Embedded discriminative attention mechanism for weakly supervised semantic segmentation (CVPR
    2021), as in the authors' code.
    """

    def __init__(self, classes: int, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=classes)
        @nnx.vmap
        def stacked(rngs: nnx.Rngs) -> LabelBlock:
            return LabelBlock(width, dtype=dtype, rngs=rngs)

        self.segments = nnx.Param(XAVIER(rngs.params(), (2, width), jnp.float32))
        self.blocks = stacked(rngs)
        self.dtype = dtype

    def __call__(
        self, x: jax.Array, heat: jax.Array, grids: Sizes = None, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Logits of pairs of pictures.

        Args:
            x: (b, 2, h, w, width), few channels of the features of both, of dtype.
            heat: float32 (b, 2, h, w, c), their heat maps.
            grids: int32 (b, 2, 2), valid rows and columns of each; None: all.
            key: random key of the dropout; None: no dropout.

        Returns:
            float32 (b, 2, c).
        """
        b, _, h, w, width = x.shape
        flat = None if grids is None else grids.reshape(-1, 2)
        places = positions(flat, (h, w), width).reshape(-1, 1 if grids is None else 2, h, w, width)
        places = places + self.segments[...].reshape(1, 2, 1, 1, width)
        valid = keep_valid(jnp.ones((2 * b, h, w, 1)), flat).reshape(b, 2, h * w, 1)
        attended = None if grids is None else (valid > 0).reshape(b, 1, 1, -1)
        graph, stacked = nnx.split(self.blocks)

        def of_label(_: None, label: tuple[Any, jax.Array, jax.Array | None]) -> tuple[None, jax.Array]:
            parameters, weight, key = label
            keys = (None, None) if key is None else jax.random.split(key)
            tokens = x.astype(jnp.float32) * weight[..., None] + places
            tokens = dropout(keys[0], tokens.astype(self.dtype), rate=DROPOUT).reshape(b, -1, width)
            block = nnx.merge(graph, parameters)
            tokens = block(tokens, attended, keys[1]).astype(jnp.float32).reshape(b, 2, h * w, width)
            means = jnp.where(valid > 0, tokens, 0).sum(axis=2) / valid.sum(axis=2)
            return None, jnp.matmul(means, block.score[...], precision="highest")[..., 0]

        keys = None if key is None else jax.random.split(key, heat.shape[-1])
        step = jax.checkpoint(of_label, prevent_cse=False)
        _, logits = jax.lax.scan(step, None, (stacked, jnp.moveaxis(heat, -1, 0), keys))
        return jnp.moveaxis(logits, 0, -1)


def positions(grids: Sizes, shape: tuple[int, int], width: int) -> jax.Array:
    """What a token is told of its position: sin(p / 10000^(2 i / width)) in channel 2 i, the cosine in 2 i + 1.

    Args:
        grids: int32 (b, 2), valid rows and columns of each picture; None: all.
        shape: (h, w) of the canvas.
        width: number of channels, even.

    Returns:
        float32 (b, h, w, width), or (1, h, w, width); p counts the positions of the picture, row by row.
    """
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (1, *shape), axis) for axis in (1, 2))
    columns = jnp.int32([shape[1]]) if grids is None else grids[:, 1]
    place = (row * columns.reshape(-1, 1, 1) + column).astype(jnp.float32)[..., None]
    rates = 10000.0 ** (-jnp.arange(0, width, 2) / width)
    angles = place * rates.reshape(1, 1, 1, -1)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*place.shape[:3], width)
