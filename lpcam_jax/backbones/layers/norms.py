"""Norms over the batch, over groups of channels, and over channels."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from .convolution import Conv
from .valid import Sizes, keep_valid


class BatchNorm(nnx.Module):
    """Batch norm, computed in float32, equal to torch's; train mode is an argument of every call.

    In train mode x is normalized with the biased variance of the batch (over n), and the stored variance moves by a
    tenth towards the unbiased one (over n - 1), where n = b * h * w of the global batch. flax's uses the biased one.
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        dtype, x = x.dtype, x.astype(jnp.float32)
        mean, var = self.mean[...], self.var[...]
        if train:
            n = x[..., 0].size
            batch_mean, batch_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            # Torch refuses to train on a single position; here its variance is 0.
            self.mean[...] = 0.9 * mean + 0.1 * batch_mean
            self.var[...] = 0.9 * var + 0.1 * (n / max(n - 1, 1)) * batch_var
            mean, var = batch_mean, batch_var
        factor = jax.lax.rsqrt(var + 1e-5) * self.scale[...]
        mean, factor, bias = (values.reshape(1, 1, 1, -1) for values in (mean, factor, self.bias[...]))
        return ((x - mean) * factor + bias).astype(dtype)

    def after(self, conv: Conv, x: jax.Array, *, train: bool) -> jax.Array:
        """The norm of conv(x). Outside train mode the kernel is scaled instead of the outputs, which are many more."""
        if train:
            return self(conv(x), train=True)
        factor, bias = self.factor_and_bias()
        return shifted(conv(x, factor.reshape(1, 1, 1, -1)), bias)

    def factor_and_bias(self) -> tuple[jax.Array, jax.Array]:
        """Factor and bias, float32 (d,) each, of the norm outside train mode, x * factor + bias."""
        factor = jax.lax.rsqrt(self.var[...] + 1e-5) * self.scale[...]
        return factor, self.bias[...] - self.mean[...] * factor


class Shift(nnx.Module):
    """The rest of a batch norm that is folded into its convolution (`folding`): a bias."""

    def __init__(self, bias: jax.Array):
        self.bias = nnx.Param(bias)

    def after(self, conv: Conv, x: jax.Array, *, train: bool) -> jax.Array:
        """conv(x) plus the bias."""
        if train:
            raise ValueError("A network whose batch norm is folded cannot be trained.")
        return shifted(conv(x), self.bias[...])


def shifted(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x (b, h, w, d) plus a bias float32 (d,), added in float32, in the dtype of x."""
    return (x.astype(jnp.float32) + bias.reshape(1, 1, 1, -1)).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Group norm, computed in float32, equal to torch's on each picture's valid region.

        y = (x - mean) / sqrt(variance + 1e-5) * scale + bias

    Mean and biased variance are computed for each picture over the channels of a group and all valid positions. Values
    outside the valid region are ignored, and are not zero afterwards.
    """

    def __init__(self, features: int, groups: int):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.groups = groups

    def __call__(self, x: jax.Array, sizes: Sizes = None) -> jax.Array:
        """The norm of x (b, h, w, d) with valid sizes int32 (b, 2): (b, h, w, d), in the dtype of x."""
        centred = x.astype(jnp.float32)
        centred = centred - self._mean(centred, sizes)
        factor = jax.lax.rsqrt(self._mean(centred**2, sizes) + 1e-5)
        scale, bias = (values[...].reshape(1, 1, 1, -1) for values in (self.scale, self.bias))
        return (centred * (factor * scale) + bias).astype(x.dtype)

    def _mean(self, x: jax.Array, sizes: Sizes) -> jax.Array:
        """The mean of each group, repeated for its channels: (b, 1, 1, d)."""
        b, h, w, d = x.shape
        positions = h * w if sizes is None else sizes.prod(axis=1)[:, None]
        of_channels = keep_valid(x, sizes).sum(axis=(1, 2)) / positions
        of_groups = of_channels.reshape(b, self.groups, -1).mean(axis=-1)
        return jnp.repeat(of_groups, d // self.groups, axis=-1).reshape(b, 1, 1, d)


class LayerNorm(nnx.Module):
    """Layer norm over the channels, computed in float32: (x - mean) / sqrt(variance + epsilon) * scale + bias."""

    undecayed: ClassVar = ("scale", "bias")

    def __init__(self, features: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """The norm of x (..., d), in the dtype of x."""
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt((y**2).mean(axis=-1, keepdims=True) + self.epsilon)
        scale, bias = (values[...].reshape(*(1,) * (x.ndim - 1), -1) for values in (self.scale, self.bias))
        return (y * scale + bias).astype(x.dtype)
