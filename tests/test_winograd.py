"""Winograd's convolution and its gradients are those of the plain one, on maps of any size."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.layers import Conv
from lpcam_jax.backbones.winograd import trainable_winograd, transformed, winograd


def plain(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, precision="highest")


@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 3), (2, 8, 4)])
def test_winograd_is_the_plain_convolution(shape):
    rng = np.random.default_rng(0)
    draws = ((*shape, 5), (3, 3, 5, 6), (*shape, 6))
    x, kernel, cotangent = (rng.normal(size=size).astype(np.float32) for size in draws)

    @partial(jax.jit, static_argnums=0)
    def with_gradients(convolution, x, kernel, cotangent):
        found, gradients = jax.vjp(convolution, x, kernel)
        return (found, *gradients(cotangent))

    expected = with_gradients(plain, x, kernel, cotangent)
    found = with_gradients(trainable_winograd, x, kernel, cotangent)
    inferred = jax.jit(lambda x, kernel: winograd(x, transformed(kernel)))(x, kernel)
    for one, other in zip((inferred, *found), (expected[0], *expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * abs(other).max())


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("folded", [False, True])
def test_a_convolution_is_the_same_in_every_form(monkeypatch, folded, backend):
    x = np.random.default_rng(0).normal(size=(1, 12, 13, 128)).astype(np.float32)
    conv = Conv(128, 128, 3, rngs=nnx.Rngs(0))
    expected = plain(x, conv.kernel[...])
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    if folded:
        conv.for_inference(np.full(128, 2, np.float32))
        assert conv.transformed == (backend == "cpu")
    np.testing.assert_allclose(conv(x), expected * (1 + folded), rtol=0, atol=2e-5 * (1 + folded) * abs(expected).max())
