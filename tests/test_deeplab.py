"""The segmentation networks: padded pictures, sizes, dropout, losses; test_deeplab_parity.py has their numbers."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lpcam_jax import resize_bilinear
from lpcam_jax.backbones.layers import rescale, resize_valid
from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.backbones.resnet import ResNet
from lpcam_jax.systems.deeplab.losses import cross_entropy, full_size_loss, multi_scale_loss, shrink_labels
from lpcam_jax.systems.deeplab.network import DeepLabV2, DeepLabV3Plus

CLASSES = 3
BUCKET = (48, 66)
SIZES = ((1, 2), (33, 49))
BACKBONES = {
    "v2": {"layout": "caffe", "stem_pool": "symmetric_ceil", "output_stride": 8},
    "v3plus-16": {"output_stride": 16},
    "v3plus-8": {"output_stride": 8},
}


class Network(NamedTuple):
    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    logits: Callable  # (images, sizes) -> logits of all scales, or of the only one; valid sizes of the last


def build(name: str) -> DeepLabV2 | DeepLabV3Plus:
    rngs = nnx.Rngs(0)
    options = BACKBONES[name] | {"blocks": (1, 1, 1, 2), "width": 4, "stem_width": 8}
    model = DeepLabV2 if name == "v2" else DeepLabV3Plus
    backbone = ResNet(**options, dilation="atrous", rngs=rngs)
    return model(backbone, CLASSES, preprocessing=Preprocessing(), rngs=rngs)


def outputs_of(model: DeepLabV2 | DeepLabV3Plus, images: jax.Array, sizes: jax.Array | None) -> list[jax.Array]:
    return model.pyramid(images, sizes) if isinstance(model, DeepLabV2) else [model(images, sizes)]


@cache
def network(name: str) -> Network:
    """A tiny network with random parameters whose batch norms shift and scale."""
    graph, *trees = nnx.split(nnx.eval_shape(lambda: build(name)), nnx.Param, nnx.BatchStat)
    rng = np.random.default_rng(0)

    def random(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:3]) ** -0.5).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.5, 0.8)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    trees = [jax.tree_util.tree_map_with_path(random, nnx.to_pure_dict(tree)) for tree in trees]

    @jax.jit
    def logits(images, sizes):
        model = nnx.merge(graph, *trees)
        return outputs_of(model, images, sizes), model.grid_sizes(sizes)

    return Network(graph, *trees, logits)


def image_of(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(*size, 3)).astype(np.float32)


def padded() -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((len(SIZES), *BUCKET, 3), np.float32)
    for image, (height, width) in zip(images, SIZES, strict=True):
        image[:height, :width] = image_of((height, width))
    return images, np.int32(SIZES)


def relative_difference(values: np.ndarray, expected: np.ndarray) -> float:
    assert values.shape == expected.shape
    return np.abs(values - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", BACKBONES)
def test_a_padded_picture_is_the_picture_alone(name):
    net = network(name)
    outputs, grids = jax.device_get(net.logits(*padded()))
    for index, size in enumerate(SIZES):
        alone, _ = jax.device_get(net.logits(image_of(size)[None], None))
        assert len(outputs) == len(alone)
        for values, expected in zip(outputs, alone, strict=True):
            rows, columns = expected.shape[1:3]
            assert values.dtype == np.float32
            assert relative_difference(values[index, :rows, :columns], expected[0]) < 1e-5, size
            assert not values[index, rows:].any(), size
            assert not values[index, :, columns:].any(), size
        assert tuple(grids[index]) == alone[-1].shape[1:3]


@pytest.mark.parametrize("name", BACKBONES)
def test_padding_would_change_logits_if_it_were_not_known(name):
    images, _ = padded()
    outputs, _ = jax.device_get(network(name).logits(images, np.int32([BUCKET] * len(SIZES))))
    index = SIZES.index((33, 49))
    alone, _ = jax.device_get(network(name).logits(images[index : index + 1, :33, :49], None))
    rows, columns = alone[-1].shape[1:3]
    assert relative_difference(outputs[-1][index, :rows, :columns], alone[-1][0]) > 0.01


def test_v2_logits_are_the_best_of_three_scales():
    net = network("v2")
    outputs, _ = jax.eval_shape(net.logits, jax.ShapeDtypeStruct((1, 321, 241, 3), jnp.float32), None)
    assert [one.shape[1:3] for one in outputs] == [(41, 31), (31, 23), (21, 16), (41, 31)]
    (first, _, _, best), _ = net.logits(image_of((33, 49))[None], None)
    assert (best >= first).all()
    assert (best > first).any()
    assert (best == first).mean() > 0.1


def test_a_call_of_v2_gives_the_maximum():
    net, images = network("v2"), image_of((33, 49))[None]
    called = jax.jit(lambda images: nnx.merge(net.graph, net.parameters, net.batch_stats)(images))(images)
    np.testing.assert_allclose(called, net.logits(images, None)[0][-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "rates"), [("v3plus-16", [1, 6, 12, 18]), ("v3plus-8", [1, 12, 24, 36])])
def test_v3plus_has_logits_at_layer1_and_rates_in_pixels(name, rates):
    net = network(name)
    model = nnx.merge(net.graph, net.parameters, net.batch_stats)
    assert [branch.conv.dilation for branch in model.pyramid.local] == rates
    (logits,), _ = jax.eval_shape(net.logits, jax.ShapeDtypeStruct((2, 65, 34, 3), jnp.float32), None)
    assert logits.shape == (2, 17, 9, CLASSES)


@pytest.mark.parametrize("name", ["v2", "v3plus-16"])
def test_classifiers_start_small_with_bias_zero(name):
    @jax.jit
    def classifiers():
        model = build(name)
        return [(conv.kernel[...], conv.bias[...]) for conv in (model.head if name == "v2" else [model.classifier])]

    for kernel, bias in classifiers():
        assert kernel.std() == pytest.approx(0.01, rel=0.1)
        assert not bias.any()


@pytest.mark.parametrize("name", ["v2", "v3plus-16"])
def test_statistics_move_in_train_mode_only(name):
    net, images = network(name), np.stack([image_of((33, 49))] * 2)

    @jax.jit
    def statistics(images):
        model = nnx.merge(net.graph, net.parameters, jax.tree.map(jnp.asarray, net.batch_stats))
        model(images)
        after_eval = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        model.pyramid(images, train_backbone=True) if name == "v2" else model(images, train=True, train_backbone=True)
        return after_eval, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    evaluated, trained = jax.device_get(statistics(images))
    jax.tree.map(np.testing.assert_array_equal, evaluated, net.batch_stats)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), trained, evaluated)))


def test_the_head_s_statistics_move_without_those_of_the_backbone():
    net, images = network("v3plus-16"), np.stack([image_of((33, 49))] * 2)

    @jax.jit
    def statistics(images):
        model = nnx.merge(net.graph, net.parameters, jax.tree.map(jnp.asarray, net.batch_stats))
        model(images, train=True)
        return nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    moved = jax.tree.map(lambda a, b: bool((a != b).any()), jax.device_get(statistics(images)), net.batch_stats)
    backbone = moved.pop("backbone")
    assert not any(jax.tree.leaves(backbone))
    assert all(jax.tree.leaves(moved))


def test_dropout_is_of_a_key():
    net, images = network("v3plus-16"), image_of((33, 49))[None]

    @jax.jit
    def logits(seed):
        model = nnx.merge(net.graph, net.parameters, net.batch_stats)
        return model(images, dropout_key=jax.random.key(seed))

    without = net.logits(images, None)[0][0]
    assert (logits(0) == logits(0)).all()
    assert relative_difference(logits(0), logits(1)) > 1e-3
    mean = np.mean([logits(seed) for seed in range(40)], axis=0)
    assert relative_difference(mean, without) < 0.5 * relative_difference(logits(0), without)


@pytest.mark.parametrize("name", ["v2", "v3plus-16"])
def test_the_forward_pass_exports_for_every_platform(name):
    net = network(name)
    shapes = jax.ShapeDtypeStruct((2, 48, 64, 3), jnp.float32), jax.ShapeDtypeStruct((2, 2), jnp.int32)
    exported = jax.export.export(net.logits, platforms=("cpu", "cuda", "tpu"))(*shapes)
    assert exported.platforms == ("cpu", "cuda", "tpu")


# Resizing.


@pytest.mark.parametrize("shape", [(5, 7), (40, 31)])
def test_resize_is_the_house_s(shape):
    x = np.random.default_rng(0).normal(size=(2, 12, 9, 3)).astype(np.float32)
    np.testing.assert_allclose(resize_valid(x, None, shape, None), resize_bilinear(x, shape), rtol=1e-5, atol=1e-6)


def test_resize_of_padded_pictures():
    x = np.random.default_rng(0).normal(size=(4, 12, 9, 3)).astype(np.float32)  # also outside: it has no weight
    sizes, wanted = [(12, 9), (5, 9), (1, 1), (7, 2)], [(20, 17), (9, 4), (3, 17), (20, 1)]
    resized = resize_valid(x, jnp.int32(sizes), (20, 17), jnp.int32(wanted))
    for one, values, (h, w), (height, width) in zip(x, resized, sizes, wanted, strict=True):
        expected = resize_bilinear(one[:h, :w], (height, width))
        np.testing.assert_allclose(values[:height, :width], expected, rtol=1e-5, atol=1e-6)
        assert not values[height:].any()
        assert not values[:, width:].any()


def test_rescaling_to_half_is_the_mean_of_pairs_whatever_the_size():
    x = np.random.default_rng(0).normal(size=(1, 7, 8, 2)).astype(np.float32)
    half, _ = rescale(x, None, 0.5)
    np.testing.assert_allclose(half, x[:, :6].reshape(1, 3, 2, 4, 2, 2).mean((2, 4)), rtol=1e-5, atol=1e-6)


def test_positions_of_a_large_picture_are_exact():
    ramp = jnp.arange(4000, dtype=jnp.float32).reshape(1, 4000, 1, 1)
    resized = resize_valid(ramp, jnp.int32([[3999, 1]]), (2999, 1), jnp.int32([[2999, 1]]))
    expected = (np.arange(2999) + 0.5) * 3999 / 2999 - 0.5
    np.testing.assert_allclose(resized.ravel(), expected, rtol=1e-6)


# Losses.


@pytest.mark.parametrize("size", [(321, 241), (320, 480), (500, 375)])
@pytest.mark.parametrize("shape", [(41, 31), (21, 16), (33, 48), (97, 65)])
def test_labels_shrink_as_in_pil(size, shape):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 256, (2, *size), np.uint8)
    expected = [Image.fromarray(one).resize(shape[::-1], Image.Resampling.NEAREST) for one in labels]
    shrunk = jax.jit(shrink_labels, static_argnums=1)(labels, shape)
    assert shrunk.dtype == np.uint8
    np.testing.assert_array_equal(shrunk, np.stack(expected))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_cross_entropy_is_the_mean_over_labelled_pixels(dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 5, CLASSES)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 255], (2, 4, 5)).astype(dtype)
    shares = np.exp(logits, dtype=np.float64) / np.exp(logits, dtype=np.float64).sum(-1, keepdims=True)
    pixels = np.argwhere(labels != 255)
    expected = -np.mean([np.log(shares[*pixel, labels[*pixel]]) for pixel in pixels])
    assert float(cross_entropy(logits, labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [lambda logits, labels: multi_scale_loss([logits] * 4, labels), full_size_loss])
def test_without_any_label_there_is_nothing_to_learn(loss):
    logits = np.random.default_rng(0).normal(size=(1, 4, 5, CLASSES)).astype(np.float32)
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits, np.full((1, 16, 20), 255, np.uint8))
    assert value == 0
    assert not gradient.any()
