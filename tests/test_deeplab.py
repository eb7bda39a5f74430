"""The segmentation networks: scales, rates, statistics, losses; test_deeplab_parity.py has their numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from tiny_networks import CLASSES, V3PLUS, image_of, network

from lpcam_jax import resize_bilinear
from lpcam_jax.backbones.layers.resizing import rescale, resize_valid
from lpcam_jax.systems.deeplab.config import DeepLabModel
from lpcam_jax.systems.deeplab.losses import multi_scale_loss, shrink_labels
from lpcam_jax.systems.deeplab.network import DeepLabV2, build_deeplab
from lpcam_jax.systems.segmentation.losses import cross_entropy, full_size_loss

V2_NAME, V3PLUS_NAME = "segmentation", "segmentation, v3plus"


def pictures(count: int) -> np.ndarray:
    return np.stack([image_of((33, 49))] * count)


def test_v2_logits_are_the_best_of_three_scales():
    net = network(V2_NAME)
    shapes = jax.eval_shape(
        lambda images: net.traced(*net.arrays, images, None, None, None), np.zeros((1, 321, 241, 3), np.float32)
    )
    names = [*(f"logits of scale {number}" for number in range(3)), "logits"]
    assert [shapes[name].shape[1:3] for name in names] == [(41, 31), (31, 23), (21, 16), (41, 31)]
    outputs = net(pictures(1))
    first, best = outputs[names[0]], outputs["logits"]
    assert (best >= first).all()
    assert (best > first).any()
    assert (best == first).mean() > 0.1


def test_a_call_of_v2_gives_the_maximum():
    net, images = network(V2_NAME), pictures(1)
    called = jax.jit(lambda *arrays: nnx.merge(net.graph, *arrays)(images))(*net.arrays)
    np.testing.assert_allclose(called, net(images)["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [1, 6, 12, 18]), (8, [1, 12, 24, 36])])
def test_v3plus_has_logits_at_layer1_and_rates_in_pixels(output_stride, rates):
    model = DeepLabModel(**V3PLUS | {"rates": (), "output_stride": output_stride}, blocks=(1, 1, 1, 1), width=4)
    built = nnx.eval_shape(lambda: build_deeplab(model, 1 + CLASSES))
    assert [branch.conv.dilation for branch in built.pyramid.local] == rates
    assert built.grid_sizes(jnp.int32([[65, 34]])).tolist() == [[17, 9]]


@pytest.mark.parametrize("name", [V2_NAME, V3PLUS_NAME])
def test_classifiers_start_small_with_bias_zero(name):
    @jax.jit
    def classifiers():
        model = build_deeplab(network(name).config.model, 1 + CLASSES)
        convs = model.head if name == V2_NAME else [model.classifier]
        return [(conv.kernel[...], conv.bias[...]) for conv in convs]

    for kernel, bias in classifiers():
        assert kernel.std() == pytest.approx(0.01, rel=0.4 if kernel.size < 100 else 0.1)
        assert not bias.any()


def moved(name: str, train) -> dict:
    """Which statistics are others after `train(model, images)`."""
    net, images = network(name), pictures(2)

    @jax.jit
    def statistics(*arrays):
        model = nnx.merge(net.graph, *arrays)
        train(model, images)
        return nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    after = jax.device_get(statistics(*net.arrays))
    return jax.tree.map(lambda a, b: bool((a != b).any()), after, net.batch_stats)


def test_the_statistics_of_v2_move_in_train_mode():
    assert all(jax.tree.leaves(moved(V2_NAME, lambda model, images: model.pyramid(images, train_backbone=True))))


def test_the_statistics_of_v3plus_move_in_train_mode_only():
    assert not any(jax.tree.leaves(moved(V3PLUS_NAME, lambda model, images: model(images))))
    of_both = moved(V3PLUS_NAME, lambda model, images: model(images, train=True, train_backbone=True))
    assert all(jax.tree.leaves(of_both))


def test_the_head_s_statistics_move_without_those_of_the_backbone():
    of_head = moved(V3PLUS_NAME, lambda model, images: model(images, train=True))
    assert not any(jax.tree.leaves(of_head.pop("backbone")))
    assert all(jax.tree.leaves(of_head))


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


class Drawing(nnx.Module):
    """A backbone that leaves something out at random, and keeps the keys that it is given."""

    channels, strides, draws = (8,), (8,), True

    def __init__(self):
        self.keys = nnx.List([])

    def grids(self, sizes):
        return [None if sizes is None else -(-sizes // 8)]

    def __call__(self, images, sizes, *, train, key):
        self.keys.append(nnx.Variable(jax.random.key_data(key)))
        b, h, w, _ = images.shape
        return [jnp.zeros((b, -(-h // 8), -(-w // 8), 8))]


def test_what_is_left_out_at_random_differs_from_scale_to_scale():
    model = DeepLabV2(Drawing(), 1 + CLASSES, preprocessing=None, rngs=nnx.Rngs(0))
    model.pyramid(pictures(1), dropout_key=jax.random.key(0))
    assert len({tuple(np.asarray(key[...]).tolist()) for key in model.backbone.keys}) == 3
