"""The backbone: its shapes, and that a padded picture gives the very features of the picture alone."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.layers import BatchNorm, Conv, keep_valid, max_pool
from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.backbones.resnet import ResNet

BUCKET = (64, 64)
SIZES = ((1, 1), (2, 3), (5, 64), (64, 5), (17, 33), (31, 32), (33, 31), (47, 63), (64, 61), (64, 64))
ATROUS = {"output_stride": 8, "dilation": "atrous", "blocks": (1, 1, 2, 2)}
STRIDES = {32: (4, 4, 8, 16, 32), 16: (4, 4, 8, 16, 16), 8: (4, 4, 8, 8, 8)}


class Network(NamedTuple):
    model: ResNet  # without memory
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    features: Callable  # (parameters, pictures, boxes, sizes) -> outputs of every stage
    train: Callable  # (pictures, boxes) -> statistics after a pass in train mode, and after one in eval mode before it


@cache
def network(**options) -> Network:
    """A tiny ResNet with random parameters whose batch norms shift and scale."""
    options = {"blocks": (1, 1, 1, 1), "width": 4, "stem_width": 8} | options
    model = nnx.eval_shape(lambda: ResNet(**options, rngs=nnx.Rngs(0)))
    graph, parameters, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    rng = np.random.default_rng(0)

    def random(path, leaf):
        assert leaf.dtype == jnp.float32
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:3]) ** -0.5).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.5, 0.8)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    parameters = jax.tree_util.tree_map_with_path(random, nnx.to_pure_dict(parameters))
    batch_stats = jax.tree_util.tree_map_with_path(random, nnx.to_pure_dict(batch_stats))

    @jax.jit
    def features(parameters, pictures, boxes, sizes):
        return nnx.merge(graph, parameters, batch_stats)(Preprocessing()(pictures, boxes), sizes)

    @jax.jit
    def train(pictures, boxes):
        images = Preprocessing()(pictures, boxes)
        backbone = nnx.merge(graph, parameters, jax.tree.map(jnp.asarray, batch_stats))
        backbone(images, train=False)
        after_eval = nnx.to_pure_dict(nnx.state(backbone, nnx.BatchStat))
        backbone(images, train=True)
        return nnx.to_pure_dict(nnx.state(backbone, nnx.BatchStat)), after_eval

    return Network(model, parameters, batch_stats, features, train)


def picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (*size, 3), np.uint8)


def alone(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return picture(size)[None], np.int32([[0, 0, *size]])


def padded(sizes: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of many sizes in one batch with anything around them, their boxes and their sizes."""
    canvases = np.random.default_rng(0).integers(0, 256, (len(sizes), *BUCKET, 3), np.uint8)
    for canvas, (height, width) in zip(canvases, sizes, strict=True):
        canvas[:height, :width] = picture((height, width))
    sizes = np.int32(sizes)
    return canvases, np.concatenate([0 * sizes, sizes], axis=1), sizes


def output_shapes(net: Network, size: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    return jax.eval_shape(net.features, net.parameters, *alone(size), None)


def relative_difference(values: np.ndarray, expected: np.ndarray) -> float:
    assert values.shape == expected.shape
    return np.abs(values - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, SIZES),
        ({"layout": "caffe"}, ((1, 1), (47, 63), (33, 9))),
        ({"stem_pool": "ceil", "output_stride": 32}, ((1, 1), (2, 3), (64, 1), (8, 8), (9, 64), (47, 61))),
        ({"layout": "caffe", "stem_pool": "ceil", "output_stride": 8, "blocks": (1, 1, 1, 2)}, ((11, 8), (49, 62))),
        ({"stem_pool": "symmetric_ceil", "output_stride": 32}, ((1, 2), (64, 8), (47, 63))),
        ({"layout": "caffe", "stem_pool": "symmetric_ceil", **ATROUS}, ((11, 8), (49, 62))),
    ],
    ids=["default", "caffe", "ceil", "caffe-ceil-dilated", "symmetric-ceil", "atrous"],
)
def test_padding_changes_no_feature(options, sizes):
    net = network(**options)
    batch = padded(sizes)
    outputs, grids = jax.device_get((net.features(net.parameters, *batch), net.model.grid_sizes(batch[-1])))
    for index, size in enumerate(sizes):
        expected = jax.device_get(net.features(net.parameters, *alone(size), None))
        for stage, values in outputs.items():
            rows, columns = expected[stage].shape[1:3]
            assert values.dtype == np.float32
            assert values.min() >= 0
            assert relative_difference(values[index, :rows, :columns], expected[stage][0]) <= 1e-4, (size, stage)
            assert not values[index, rows:].any(), (size, stage)
            assert not values[index, :, columns:].any(), (size, stage)
        assert tuple(grids[index]) == expected["layer4"].shape[1:3]


def test_padding_would_change_features_if_it_were_not_masked():
    net = network()
    pictures, boxes, _ = padded(SIZES)
    outputs = jax.device_get(net.features(net.parameters, pictures, boxes, None))
    for index, size in enumerate(SIZES[:-1]):  # the last one fills its canvas
        expected = jax.device_get(net.features(net.parameters, *alone(size), None))["layer4"][0]
        values = outputs["layer4"][index, : expected.shape[0], : expected.shape[1]]
        assert relative_difference(values, expected) > 1e-3, size


def test_padding_changes_no_gradient():
    net, size = network(), (33, 47)
    gradient = jax.jit(jax.grad(lambda *inputs: net.features(*inputs)["layer4"].sum()))
    with_padding = jax.device_get(gradient(net.parameters, *padded((size,))))
    without = jax.device_get(gradient(net.parameters, *alone(size), None))
    for path, expected in jax.tree_util.tree_leaves_with_path(without):
        value = with_padding
        for entry in path:
            value = value[entry.key]
        assert relative_difference(value, expected) <= 1e-4, path


@pytest.mark.parametrize("output_stride", STRIDES)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 64), (33, 65), (97, 96)])
def test_a_stage_has_one_position_per_started_stride(output_stride, size):
    net = network(output_stride=output_stride)
    outputs = output_shapes(net, size)
    expected = {
        stage: (1, -(-size[0] // stride), -(-size[1] // stride), channels)
        for stage, stride, channels in zip(
            ("stem", "layer1", "layer2", "layer3", "layer4"), STRIDES[output_stride], (8, 16, 32, 64, 128), strict=True
        )
    }
    assert {stage: values.shape for stage, values in outputs.items()} == expected
    assert net.model.features == 128
    assert net.model.grid_sizes(jnp.int32([size])).tolist() == [list(expected["layer4"][1:3])]


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
    model = network(blocks=(2, 2, 2, 2), output_stride=output_stride, layout=layout).model
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
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
    model = network(**options, dilation="atrous").model
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    assert [tuple(block.conv2.dilation for block in stage) for stage in stages] == dilations


@pytest.mark.parametrize("layout", ["caffe", "torchvision"])
def test_atrous_features_are_those_of_stride_32_in_between(layout):
    options = {"blocks": (1, 1, 2, 3), "layout": layout, "dilation": "atrous"}
    coarse = network(**options, output_stride=32)
    expected = coarse.features(coarse.parameters, *alone((97, 130)), None)["layer4"]
    for output_stride, step in ((16, 2), (8, 4)):
        fine = network(**options, output_stride=output_stride)
        features = fine.features(coarse.parameters, *alone((97, 130)), None)["layer4"]
        assert relative_difference(features[:, ::step, ::step], expected) < 1e-4


@pytest.mark.parametrize("size", [(1, 2), (3, 4), (2, 33), (32, 33), (34, 35), (97, 102)])
def test_ceil_pool_has_one_position_per_full_pair_and_never_none(size):
    net = network(stem_pool="ceil", output_stride=32)
    outputs = output_shapes(net, size)
    rows, columns = (max(-(-length // 2) // 2, 1) for length in size)
    assert outputs["stem"].shape[1:3] == (rows, columns)
    assert outputs["layer4"].shape[1:3] == (-(-rows // 8), -(-columns // 8))
    assert net.model.grid_sizes(jnp.int32([size])).tolist() == [list(outputs["layer4"].shape[1:3])]


def test_bfloat16_features_are_close_and_parameters_stay_float32():
    exact, fast = network(), network(dtype=jnp.bfloat16)  # which asserts float32 of every parameter
    batch = padded(((47, 63), (17, 33)))
    expected, outputs = jax.device_get([net.features(net.parameters, *batch) for net in (exact, fast)])
    for stage, values in outputs.items():
        assert values.dtype == np.float32
        assert 1e-5 < relative_difference(values, expected[stage]) < 0.05, stage


def test_statistics_move_in_train_mode_only():
    net = network()
    trained, evaluated = net.train(*alone((33, 31)))
    jax.tree.map(np.testing.assert_array_equal, evaluated, net.batch_stats)
    for (path, after), before in zip(
        jax.tree_util.tree_leaves_with_path(trained), jax.tree.leaves(net.batch_stats), strict=True
    ):
        assert (after != before).all(), path


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
