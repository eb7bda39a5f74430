"""Heads shared by several systems."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from .base import Backbone
from .layers.convolution import Conv
from .layers.norms import BatchNorm
from .layers.valid import Sizes, keep_valid

CLASSIFIER_INIT = nnx.initializers.normal(0.01)


class ConvNormRelu(nnx.Module):
    """Convolution, batch norm, ReLU, then zeros outside the valid region."""

    folds: ClassVar = (("conv", "bn"),)

    def __init__(self, inputs: int, outputs: int, size: int, *, dilation: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv = Conv(inputs, outputs, size, dilation=dilation, dtype=dtype, rngs=rngs)
        self.bn = BatchNorm(outputs)

    def __call__(self, x: jax.Array, sizes: Sizes, *, train: bool) -> jax.Array:
        return keep_valid(nnx.relu(self.bn.after(self.conv, x, train=train)), sizes)


class AtrousSum(nnx.List):
    """DeepLabV2's head: the sum of 3x3 convolutions with several dilations.

    Args:
        inputs: channels of the features.
        outputs: channels of the logits.
        rates: the dilations.
        dtype: dtype of the convolutions; parameters and logits stay float32.
        rngs: random streams for the initialization: N(0, 0.01) for the weights, 0 for the biases.
    """

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...], *, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"use_bias": True, "kernel_init": CLASSIFIER_INIT, "dtype": dtype, "rngs": rngs}
        super().__init__([Conv(inputs, outputs, 3, dilation=rate, **options) for rate in rates])

    def __call__(self, features: jax.Array, sizes: Sizes = None) -> jax.Array:
        """Logits float32 (b, h, w, outputs), zero outside the valid sizes int32 (b, 2) of the features; None: all."""
        return keep_valid(sum(conv(features) for conv in self), sizes)


def scaled_rates(rates: tuple[int, ...], stride: int, backbone: Backbone) -> tuple[int, ...]:
    """Rescale dilations given for one output stride to the stride of the backbone's last stage."""
    return tuple(max(rate * stride // backbone.strides[-1], 1) for rate in rates)
