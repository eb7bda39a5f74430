"""Convolutions and linear layers, which are products."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ...machine.devices import convolves_by_products
from .winograd import at_dilation, trainable_winograd, transformed, winograd

HE_NORMAL = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
# Torch's default, for new layers with few outputs, for which He's (fan out) would be far too large.
TORCH_UNIFORM = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nnx.Module):
    """Convolution with symmetric padding, `dilation * (size // 2)` on every side; its bias, if any, starts at 0.

    Its result is of its dtype; with a bias, which is added in float32, it is float32.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        use_bias: bool = False,
        kernel_init: nnx.Initializer = HE_NORMAL,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if use_bias else None
        self.size, self.stride, self.dilation, self.dtype = size, stride, dilation, dtype
        self.transformed = False

    def for_inference(self, factor: jax.Array) -> None:
        """Scale the outputs by a factor (outputs,), and transform the kernel to the form that is fastest to apply."""
        kernel = self.kernel[...] * factor.reshape(1, 1, 1, -1)
        self.transformed = convolves_by_products() and self._suits_winograd(128)
        self.kernel = nnx.Param(transformed(kernel) if self.transformed else kernel)

    def _suits_winograd(self, channels: int) -> bool:
        """Whether it is 3x3 in float32, of stride 1, with at least this many channels, so that transforms pay off.

        At larger dilations each of the maps of positions a dilation apart is smaller than a tile.
        """
        is_plain_3x3 = (self.size, self.stride, self.dtype) == (3, 1, jnp.float32) and self.dilation <= 4
        return is_plain_3x3 and min(self.kernel.shape[-2:]) >= channels

    def __call__(self, x: jax.Array, factor: jax.Array | float = 1.0) -> jax.Array:
        """The convolution of x (b, h, w, inputs), times a factor (1, 1, 1, outputs) before the bias."""
        y = self._product(x, self.kernel[...] * factor)
        return y if self.bias is None else y + self.bias[...].reshape(1, 1, 1, -1)

    def _product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.transformed:
            return at_dilation(winograd, x, kernel, self.dilation)
        # The kernel is transformed at every step, which pays off only for maps that are larger than the kernel.
        if convolves_by_products() and self._suits_winograd(64) and x.shape[1] * x.shape[2] >= self.kernel.shape[2]:
            return at_dilation(trainable_winograd, x, kernel, self.dilation)
        kernel = self._overlapping_taps(kernel, x.shape)
        if kernel.shape[:2] == (1, 1) and convolves_by_products():
            # Twice as fast as XLA's CPU convolution; as matrices, so that the gradient needs no transposed copy.
            x = x[:, :: self.stride, :: self.stride]
            return jnp.matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:3], -1)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(self.dilation * (length // 2),) * 2 for length in kernel.shape[:2]],
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def _overlapping_taps(self, kernel: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The taps that can overlap the map: only the centre, if the map is no larger than the dilation."""
        centre = slice(self.size // 2, self.size // 2 + 1)
        rows, columns = (centre if self.dilation >= length else slice(None) for length in shape[1:3])
        return kernel[rows, columns]


class Linear(nnx.Linear):
    """A linear layer whose bias has no weight decay."""

    undecayed: ClassVar = ("bias",)
