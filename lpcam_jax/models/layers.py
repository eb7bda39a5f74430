"""Convolution, pooling and batch norm that are exact on padded pictures.

Pictures of many sizes share one shape: padded right and bottom to a bucket, with the true sizes beside them. A
convolution pads with zeros; so as long as everything outside the valid region is zero, the valid region equals that
of the picture alone. Positions outside become non-zero only through batch norm's shift, so `keep_valid` before each
spatial layer is enough. Padding is always explicit and symmetric, as in torch, and the top left corner stays put.

All arrays NHWC. Sizes are int32 (b, 2), rows and columns that are valid; None means all.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

Sizes = jax.Array | None


def strided(sizes: Sizes, stride: int) -> Sizes:
    """Valid sizes after a symmetric layer of this stride: ceil(size / stride)."""
    return None if sizes is None else -(-sizes // stride)


def keep_valid(x: jax.Array, sizes: Sizes) -> jax.Array:
    """Zero everything outside the valid region.

    Args:
        x: (b, h, w, d).
        sizes: int32 (b, 2), or None: all valid.

    Returns:
        (b, h, w, d).
    """
    if sizes is None:
        return x
    rows = jax.lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), 1)
    columns = jax.lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), 2)
    height, width = (sizes[:, axis].reshape(-1, 1, 1, 1) for axis in range(2))
    return jnp.where((rows < height) & (columns < width), x, jnp.zeros((), x.dtype))


class Conv(nnx.Module):
    """Bias-free convolution with symmetric padding, `dilation * (size // 2)` on every side."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        initializer = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(initializer(rngs.params(), (size, size, inputs, outputs), jnp.float32))
        self.size, self.stride, self.dilation, self.dtype = size, stride, dilation, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        if self.size == 1 and jax.default_backend() == "cpu":
            # Twice as fast as XLA's CPU convolution; on GPU and TPU the convolution is the faster form.
            return jnp.matmul(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        padding = self.dilation * (self.size // 2)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=((padding, padding), (padding, padding)),
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class BatchNorm(nnx.Module):
    """Batch norm in float32 that does what torch's does; whether it trains is said at every call.

    In train mode x is normalized with the biased variance of the batch (over n), and the stored variance moves by a
    tenth towards the unbiased one (over n - 1), where n = b * h * w of the global batch. flax's moves towards the
    biased one.
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.astype(jnp.float32)
        mean, var = self.mean[...], self.var[...]
        if train:
            n = x[..., 0].size
            batch_mean, batch_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            # Of a single position torch refuses to train; here its variance is 0.
            self.mean[...] = 0.9 * mean + 0.1 * batch_mean
            self.var[...] = 0.9 * var + 0.1 * (n / max(n - 1, 1)) * batch_var
            mean, var = batch_mean, batch_var
        factor = jax.lax.rsqrt(var + 1e-5) * self.scale[...]
        mean, factor, bias = (values.reshape(1, 1, 1, -1) for values in (mean, factor, self.bias[...]))
        return (x - mean) * factor + bias


def max_pool(x: jax.Array, sizes: Sizes, *, padding: Literal["symmetric", "ceil"]) -> tuple[jax.Array, Sizes]:
    """3x3 max pool of stride 2 over non-negative, `keep_valid` maps.

    Args:
        x: (b, h, w, d), >= 0 and zero outside the valid region: then zero padding equals torch's minus infinity.
        sizes: int32 (b, 2), or None.
        padding: one on each side (n -> ceil(n / 2)), or right and bottom only (n -> floor(n / 2), but 1 -> 1: Caffe's
            pool without padding, torch's with `padding=0, ceil_mode=True`, both of which have nothing left of one).

    Returns:
        pooled (b, h', w', d) and its valid sizes.
    """
    pads = [(1, 1) if padding == "symmetric" else (0, max(3 - length, 1)) for length in x.shape[1:3]]
    pooled = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=pads)
    if padding == "symmetric":
        return pooled, strided(sizes, 2)
    return pooled, None if sizes is None else jnp.maximum(sizes // 2, 1)
