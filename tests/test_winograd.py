"""Winograd's convolution and its gradients are those of the plain one, on maps of any size."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.layers.convolution import Conv
from lpcam_jax.backbones.layers.winograd import at_dilation, trainable_winograd, transformed, winograd


def plain(x, kernel, dilation=1):
    options = {"rhs_dilation": [dilation] * 2, "dimension_numbers": ("NHWC", "HWIO", "NHWC"), "precision": "highest"}
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **options)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 3), (2, 8, 4)])
def test_winograd_is_the_plain_convolution(shape, dilation):
    rng = np.random.default_rng(0)
    draws = ((*shape, 5), (3, 3, 5, 6), (*shape, 6))
    x, kernel, cotangent = (rng.normal(size=size).astype(np.float32) for size in draws)

    @partial(jax.jit, static_argnums=0)
    def with_gradients(convolution, x, kernel, cotangent):
        found, gradients = jax.vjp(convolution, x, kernel)
        return (found, *gradients(cotangent))

    dilated = partial(at_dilation, dilation=dilation)
    expected = with_gradients(partial(plain, dilation=dilation), x, kernel, cotangent)
    found = with_gradients(partial(dilated, trainable_winograd), x, kernel, cotangent)
    inferred = jax.jit(lambda x, kernel: dilated(winograd, x, transformed(kernel)))(x, kernel)
    for one, other in zip((inferred, *found), (expected[0], *expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * abs(other).max())


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("dilation", [1, 4])
def test_a_convolution_is_the_same_in_every_form(monkeypatch, folded, backend, dilation):
    x = np.random.default_rng(0).normal(size=(1, 12, 13, 128)).astype(np.float32)
    conv = Conv(128, 128, 3, dilation=dilation, rngs=nnx.Rngs(0))
    expected = plain(x, conv.kernel[...], dilation)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    if folded:
        conv.for_inference(np.full(128, 2, np.float32))
        assert conv.transformed == (backend == "cpu")
    np.testing.assert_allclose(conv(x), expected * (1 + folded), rtol=0, atol=2e-5 * (1 + folded) * abs(expected).max())
