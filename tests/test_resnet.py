"""The ResNet: where strides and dilations are; and the layers, by hand. The network contract has the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_networks import Random, image_of, relative_difference, split

from lpcam_jax.backbones.layers.convolution import Conv
from lpcam_jax.backbones.layers.norms import BatchNorm
from lpcam_jax.backbones.layers.pooling import max_pool
from lpcam_jax.backbones.layers.valid import keep_valid
from lpcam_jax.backbones.resnet import ResNet


def resnet(**options) -> ResNet:
    """A tiny one without memory."""
    options = {"blocks": (1, 1, 1, 1), "width": 4, "stem_width": 8} | options
    return nnx.eval_shape(lambda: ResNet(**options, rngs=nnx.Rngs(0)))


def stages_of(model: ResNet) -> list[nnx.List]:
    return [getattr(model, name) for name in model.stages[1:]]


@pytest.mark.parametrize(
    ("output_stride", "strides"), [(32, (4, 4, 8, 16, 32)), (16, (4, 4, 8, 16, 16)), (8, (4, 4, 8, 8, 8))]
)
def test_strides_and_channels_of_every_output_stride(output_stride, strides):
    model = resnet(output_stride=output_stride)
    assert model.strides == strides
    assert model.channels == (8, 16, 32, 64, 128)


@pytest.mark.parametrize(
    ("output_stride", "strides", "dilations"),
    [
        (32, [1, 2, 2, 2], [(1, 1), (1, 1), (1, 1), (1, 1)]),
        (16, [1, 2, 2, 1], [(1, 1), (1, 1), (1, 1), (1, 1)]),
        (8, [1, 2, 1, 1], [(1, 1), (1, 1), (1, 2), (1, 2)]),
    ],
)
@pytest.mark.parametrize(("layout", "strided"), [("torchvision", "conv2"), ("caffe", "conv1")])
def test_strides_and_dilations_sit_where_the_weights_expect_them(output_stride, strides, dilations, layout, strided):
    stages = stages_of(resnet(blocks=(2, 2, 2, 2), output_stride=output_stride, layout=layout))
    assert [getattr(stage[0], strided).stride for stage in stages] == strides
    assert [tuple(block.conv2.dilation for block in stage) for stage in stages] == dilations
    for stage in stages:
        first, second = ([block.conv1.stride, block.conv2.stride, block.conv3.stride] for block in stage)
        assert first.count(1) >= 2
        assert second == [1, 1, 1]


@pytest.mark.parametrize(
    ("layout", "output_stride", "dilations"),
    [
        ("caffe", 8, [(1, 1), (1, 1), (2, 2), (4, 4)]),
        ("caffe", 16, [(1, 1), (1, 1), (1, 1), (2, 2)]),
        ("torchvision", 8, [(1, 1), (1, 1), (1, 2), (2, 4)]),
        ("torchvision", 16, [(1, 1), (1, 1), (1, 1), (1, 2)]),
        ("torchvision", 32, [(1, 1), (1, 1), (1, 1), (1, 1)]),
    ],
)
def test_atrous_dilations(layout, output_stride, dilations):
    options = {"blocks": (2, 2, 2, 2), "layout": layout, "output_stride": output_stride}
    stages = stages_of(resnet(**options, dilation="atrous"))
    assert [tuple(block.conv2.dilation for block in stage) for stage in stages] == dilations


@pytest.mark.parametrize("layout", ["caffe", "torchvision"])
def test_atrous_features_are_those_of_stride_32_in_between(layout):
    def features(output_stride: int) -> np.ndarray:
        options = {"blocks": (1, 1, 2, 3), "layout": layout, "dilation": "atrous"}
        model = resnet(**options, output_stride=output_stride)
        return Random(*split(model), lambda model, images: model(images)[-1])(image_of((97, 130))[None])

    expected = features(32)
    for output_stride, step in ((16, 2), (8, 4)):
        assert relative_difference(features(output_stride)[:, ::step, ::step], expected) < 1e-4


@pytest.mark.parametrize("size", [(1, 2), (3, 4), (2, 33), (32, 33), (34, 35), (97, 102)])
def test_ceil_pool_has_one_position_per_full_pair_and_never_none(size):
    stem, *_, last = resnet(stem_pool="ceil", output_stride=32).grids(jnp.int32([size]))
    rows, columns = (max(-(-length // 2) // 2, 1) for length in size)
    assert stem.tolist() == [[rows, columns]]
    assert last.tolist() == [[-(-rows // 8), -(-columns // 8)]]


def test_batch_norm_moves_its_statistics_by_a_tenth():
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (4, 5, 6, 3)).astype(np.float32)
    norm = BatchNorm(3)
    norm.mean[...], norm.var[...] = jnp.float32([1, 2, 3]), jnp.float32([4, 5, 6])
    norm.scale[...], norm.bias[...] = jnp.float32([1, 2, 3]), jnp.float32([0, 1, -1])

    y = norm(x, train=False)
    scaled = (x - np.reshape([1, 2, 3], (1, 1, 1, 3))) / np.sqrt(np.reshape([4, 5, 6], (1, 1, 1, 3)) + 1e-5)
    expected = scaled * np.reshape([1, 2, 3], (1, 1, 1, 3)) + np.reshape([0, 1, -1], (1, 1, 1, 3))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert norm.mean[...].tolist() == [1, 2, 3]
    assert norm.var[...].tolist() == [4, 5, 6]

    y = norm(x, train=True)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(norm.mean[...], 0.9 * np.array([1, 2, 3]) + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 * np.array([4, 5, 6]) + 0.1 * var, rtol=1e-5)
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), [0, 1, -1], atol=1e-4)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), [1, 2, 3], rtol=1e-4)


def test_batch_norm_of_few_positions():
    """Stored: the unbiased variance; divided by: the biased one; both 0 of a single position, where nothing is NaN."""
    norm = BatchNorm(1)
    y = norm(jnp.float32([[[[1], [5]]]]), train=True)  # mean 3, variance 4 over n and 8 over n - 1
    np.testing.assert_allclose(y.ravel(), np.array([-2, 2]) / np.sqrt(4 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose([*norm.mean[...], *norm.var[...]], [0.1 * 3, 0.9 + 0.1 * 8], rtol=1e-6)

    def forward(x):
        norm = BatchNorm(1)
        return norm(x, train=True).sum(), (norm.mean[...], norm.var[...])

    (y, (mean, var)), gradient = jax.value_and_grad(forward, has_aux=True)(jnp.full((1, 1, 1, 1), 7.0))
    assert y == 0
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose([*mean, *var], [0.7, 0.9], rtol=1e-6)


def test_batch_norm_keeps_the_variance_beside_a_large_mean():
    x = np.random.default_rng(0).normal(1000, 1, (4, 8, 8, 3)).astype(np.float32)
    norm = BatchNorm(3)
    norm(x, train=True)
    expected = 0.9 + 0.1 * x.astype(np.float64).var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(norm.var[...], expected, rtol=1e-5)


@pytest.mark.parametrize(("size", "stride", "dilation"), [(7, 2, 1), (3, 2, 1), (3, 1, 2), (1, 2, 1)])
@pytest.mark.parametrize("shape", [(6, 7), (1, 4)])
def test_convolution_pads_alike_on_all_sides(size, stride, dilation, shape):
    x = np.random.default_rng(0).normal(size=(1, *shape, 2)).astype(np.float32)
    conv = Conv(2, 3, size, stride=stride, dilation=dilation, rngs=nnx.Rngs(0))
    margin = dilation * (size // 2)
    around = np.pad(x[0], ((margin, margin), (margin, margin), (0, 0)))
    reach = dilation * (size - 1) + 1
    expected = [
        [
            np.einsum("uvi,uvio->o", around[r : r + reach : dilation, c : c + reach : dilation], conv.kernel[...])
            for c in range(0, shape[1], stride)
        ]
        for r in range(0, shape[0], stride)
    ]
    np.testing.assert_allclose(conv(x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_convolution_is_the_same_in_both_forms(monkeypatch, stride, backend):
    x = np.random.default_rng(0).normal(size=(2, 7, 10, 5)).astype(np.float32)
    conv = Conv(5, 6, 1, stride=stride, rngs=nnx.Rngs(0))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    kernel, dimensions = conv.kernel[...], ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=dimensions)
    assert expected.shape == (2, -(-7 // stride), -(-10 // stride), 6)
    np.testing.assert_allclose(conv(x), expected, rtol=1e-5, atol=1e-6)


def test_only_the_valid_corner_is_kept():
    x = jnp.arange(1, 25, dtype=jnp.float32).reshape(2, 3, 4, 1)
    kept = keep_valid(x, jnp.int32([[2, 3], [3, 1]]))[..., 0]
    assert kept[0].tolist() == [[1, 2, 3, 0], [5, 6, 7, 0], [0, 0, 0, 0]]
    assert kept[1].tolist() == [[13, 0, 0, 0], [17, 0, 0, 0], [21, 0, 0, 0]]
    assert keep_valid(x, None) is x


@pytest.mark.parametrize(("padding", "first"), [("symmetric", -1), ("ceil", 0), ("symmetric_ceil", -1)])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8])
def test_pool_takes_the_largest_of_each_window(padding, first, length):
    x = np.random.default_rng(0).random((1, length, length, 2), np.float32)
    pooled, sizes = max_pool(x, jnp.int32([[length, length]]), padding=padding)
    end = length if padding == "symmetric_ceil" else max(length - 1, 1)  # the last window starts before
    windows = [slice(max(start, 0), start + 3) for start in range(first, end, 2)]
    expected = [[x[0, rows, columns].max((0, 1)) for columns in windows] for rows in windows]
    np.testing.assert_array_equal(pooled[0], expected)
    assert sizes.tolist() == [[len(windows), len(windows)]]
