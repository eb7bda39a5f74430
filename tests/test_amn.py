"""AMN: padded pictures, labels, dropout, and its arithmetic by hand; test_amn_parity.py has its numbers."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_inference import SIZES as PICTURE_SIZES
from test_inference import Noise

from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.data.augment import resize_bicubic, scaled_size
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.amn.activation import activation_maps, balanced_loss
from lpcam_jax.systems.amn.config import AMNInference, AMNModel, AMNTraining
from lpcam_jax.systems.amn.logits import activate_pictures
from lpcam_jax.systems.amn.network import build_amn
from lpcam_jax.systems.amn.training import make_train_step
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.optimizers import amn_optimizer

CLASSES = 3
BUCKET = (64, 98)
SIZES = ((1, 1), (17, 65), (49, 98))
LABELS = np.float32([[1, 0, 1], [0, 1, 0], [1, 1, 1]])
TINY = AMNModel(blocks=(1, 1, 1, 1), width=4, stem_width=8, rates=(1, 2, 3, 4))


class Network(NamedTuple):
    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    logits: Callable  # (parameters, batch_stats, images, labels, sizes=None, key=None) -> logits


@cache
def network() -> Network:
    """A tiny network with random parameters whose norms shift and scale."""
    graph, *trees = nnx.split(nnx.eval_shape(lambda: build_amn(TINY, CLASSES)), nnx.Param, nnx.BatchStat)
    rng = np.random.default_rng(0)

    def random(path, leaf):
        assert leaf.dtype == jnp.float32
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:-1]) ** -0.5).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.5, 0.8)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    trees = [jax.tree_util.tree_map_with_path(random, nnx.to_pure_dict(tree)) for tree in trees]
    return Network(graph, *trees, function_of(graph))


def function_of(graph: nnx.GraphDef) -> Callable:
    @jax.jit
    def logits(parameters, batch_stats, images, labels, sizes=None, key=None):
        return nnx.merge(graph, parameters, batch_stats)(images, labels, sizes, dropout_key=key)

    return logits


def logits_of(net: Network, images: np.ndarray, labels: np.ndarray = LABELS, *more) -> np.ndarray:
    return np.asarray(net.logits(net.parameters, net.batch_stats, images, labels, *more))


def image_of(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(*size, 3)).astype(np.float32)


def padded() -> np.ndarray:
    images = np.zeros((len(SIZES), *BUCKET, 3), np.float32)
    for image, (height, width) in zip(images, SIZES, strict=True):
        image[:height, :width] = image_of((height, width))
    return images


def relative_difference(values: np.ndarray, expected: np.ndarray) -> float:
    assert values.shape == expected.shape
    return np.abs(values - expected).max() / np.abs(expected).max()


# The network.


def test_a_padded_picture_is_the_picture_alone():
    logits = logits_of(network(), padded(), LABELS, np.int32(SIZES))
    assert (logits.shape, logits.dtype) == ((3, 4, 7, CLASSES + 1), np.float32)
    for index, size in enumerate(SIZES):
        alone = logits_of(network(), image_of(size)[None], LABELS[index : index + 1])
        rows, columns = alone.shape[1:3]
        assert (rows, columns) == tuple(-(-length // 16) for length in size)
        assert relative_difference(logits[index, :rows, :columns], alone[0]) < 1e-5, size
        assert not logits[index, rows:].any(), size
        assert not logits[index, :, columns:].any(), size
    unknown = logits_of(network(), padded(), LABELS)
    assert relative_difference(unknown[1, :2, :5], logits[1, :2, :5]) > 0.01  # padding would change them


def test_labels_weigh_the_features_and_are_of_one_picture_each():
    images = np.repeat(image_of((33, 49))[None], 2, axis=0)
    one, other = logits_of(network(), images, LABELS[:2])
    assert np.abs(one - other).max() > 0.1
    np.testing.assert_array_equal(logits_of(network(), images, LABELS[1::-1]), [other, one])


def test_dropout_is_of_the_key_and_keeps_the_mean():
    images = padded()
    without = logits_of(network(), images)
    drawn = [logits_of(network(), images, LABELS, None, jax.random.key(seed)) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert np.abs(drawn[0] - drawn[1]).max() > 0.1
    many = [logits_of(network(), images, LABELS, None, jax.random.key(seed)) for seed in range(60)]
    assert np.abs(np.mean(many, axis=0) - without).mean() < 0.3 * np.abs(drawn[0] - without).mean()


def test_a_network_whose_batch_norm_is_folded_is_the_same_function():
    net = network()
    graph, *state = fold_batch_norm(net.graph, net.parameters, net.batch_stats)
    assert not state[1]
    folded = function_of(graph)(*state, padded(), LABELS, np.int32(SIZES))
    assert relative_difference(np.asarray(folded), logits_of(net, padded(), LABELS, np.int32(SIZES))) < 1e-5


@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18, 24)), (8, (12, 24, 36, 48)), (32, (3, 6, 9, 12))])
def test_the_convolutions_reach_as_far_at_every_output_stride(stride, rates):
    model = AMNModel(blocks=(1, 1, 1, 1), width=4, stem_width=8, output_stride=stride)
    assert nnx.eval_shape(lambda: build_amn(model, CLASSES)).rates == rates


def test_the_label_encoder_starts_as_torch_s_linear_layer():
    @jax.jit
    def start():
        encoder = build_amn(TINY, CLASSES).labels
        return encoder.kernel[...], encoder.bias[...]

    for array in start():
        assert 0.9 * CLASSES**-0.5 < np.abs(array).max() <= CLASSES**-0.5


def test_the_forward_pass_exports_for_every_platform():
    net = network()
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (net.parameters, net.batch_stats))
    shapes = [((2, 48, 64, 3), jnp.float32), ((2, CLASSES), jnp.float32), ((2, 2), jnp.int32)]
    exported = jax.export.export(net.logits, platforms=("cpu", "cuda", "tpu"))(
        *state, *(jax.ShapeDtypeStruct(*one) for one in shapes)
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")


def test_the_training_step_exports_for_every_platform():
    net, training = network(), AMNTraining(frozen=("conv1", "bn1", "layer1", "layer2", "layer3"))
    optimizer = amn_optimizer(training)
    state = TrainState(np.int32(0), net.parameters, net.batch_stats, optimizer.init(net.parameters))
    batch = {
        "image": np.zeros((2, 32, 32, 3), np.uint8),
        "box": np.zeros((2, 4), np.int32),
        "mask": np.zeros((2, 2, 2), np.uint8),
        "labels": LABELS[:2],
    }
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, batch))
    step = make_train_step(net.graph, optimizer, training, seed=0)
    exported = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(*shapes)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    expected = shapes[0], {"loss": jax.ShapeDtypeStruct((), jnp.float32)}
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), results) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )


# Whole pictures.

ORDER = (1, 3)  # of Noise: 37x50, 5x7
TWO_SCALES = AMNInference(scales=(1.0, 0.5), max_shapes=2)


def activated(source, mesh, net=None, **options) -> dict[str, np.ndarray]:
    net = net or network()
    results = activate_pictures(
        net.graph,
        (net.parameters, net.batch_stats),
        source,
        lambda record: LABELS[int(record.id) % 3],
        inference=TWO_SCALES,
        devices=mesh,
        **{"skipped": [], **options},
    )
    return {record.id: logits for _, record, logits in results}


def test_logits_are_those_of_the_picture_alone_at_every_scale_and_its_mirror_images(mesh):
    found = activated(Noise(ORDER), mesh)
    assert set(found) == {str(number) for number in ORDER}
    for number in ORDER:
        size, total = PICTURE_SIZES[number], 0
        for scale in TWO_SCALES.scales:
            image = resize_bicubic(Noise((number,))[0].image, scaled_size(size, scale)).astype(np.float32)
            image = ((image - np.float32([[123.675, 116.28, 103.53]])) / np.float32([[58.395, 57.12, 57.375]]))[None]
            labels, mirrored = LABELS[[number % 3]], image[:, :, ::-1]
            one = (logits_of(network(), image, labels) + logits_of(network(), mirrored, labels)[:, :, ::-1]) / 2
            total = total + jax.image.resize(one[0], (*size, CLASSES + 1), "linear", antialias=False)
        np.testing.assert_allclose(found[str(number)], total / 2, rtol=0, atol=1e-4)
        assert np.abs(total).max() > 0.1


def test_only_some_of_the_pictures_and_none_that_cannot_be_read(mesh):
    skipped = []
    found = activated(Noise((5, 3, 1), unreadable=[3]), mesh, only=[1, 2], skipped=skipped)
    assert set(found) == {"1"}
    assert skipped == ["3.jpg: damaged picture; get it again"]


def test_output_that_is_not_finite_names_the_picture(mesh):
    net = network()
    parameters = {**net.parameters, "labels": jax.tree.map(lambda leaf: leaf * np.nan, net.parameters["labels"])}
    with pytest.raises(UserError, match=r"^3: the network's output is not finite; .*train again\.$"):
        activated(Noise((3,)), mesh, net._replace(parameters=parameters))


# The loss.


def loss_by_hand(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> float:
    """Pixel by pixel."""
    found = {"background": [], "objects": []}
    for pixel, label in zip(logits.reshape(-1, logits.shape[-1]).astype(float), labels.reshape(-1), strict=True):
        if label < logits.shape[-1]:
            target = np.full(len(pixel), smoothing / (len(pixel) - 1))
            target[label] = 1 - smoothing
            p = np.exp(pixel) / np.exp(pixel).sum()
            found["objects" if label else "background"].append(-(target * np.log(p)).sum())
    return sum(np.mean(losses) for losses in found.values() if losses) / 2


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 3, 255], (2, 5, 4), p=[0.5, 0.1, 0.1, 0.1, 0.2])
    return rng.normal(0, 3, (2, 5, 4, CLASSES + 1)).astype(np.float32), labels.astype(np.uint8)


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_the_loss_is_the_one_by_hand(smoothing):
    logits, labels = example(0)
    loss = jax.jit(balanced_loss, static_argnames="smoothing")(logits, labels, smoothing=smoothing)
    assert (loss.shape, loss.dtype) == ((), jnp.float32)
    np.testing.assert_allclose(loss, loss_by_hand(logits, labels, smoothing), rtol=1e-5)


def test_background_weighs_as_much_as_objects_however_many_pixels_each_has():
    logits, labels = example(1)
    more = np.where(labels == 0, 0, 255).astype(np.uint8)  # the pixels of background a second time
    loss = balanced_loss(np.concatenate([logits, logits]), np.concatenate([labels, more]))
    np.testing.assert_allclose(loss, balanced_loss(logits, labels), rtol=1e-6)


@pytest.mark.parametrize("only", ["background", "objects", "nothing"])
def test_a_mean_of_no_pixels_is_zero_and_not_nan(only):
    logits, labels = example(2)
    kept = {"background": labels == 0, "objects": (labels > 0) & (labels < 255), "nothing": labels > 255}[only]
    labels = np.where(kept, labels, 255)
    loss, gradient = jax.value_and_grad(balanced_loss)(jnp.asarray(logits), labels)
    np.testing.assert_allclose(loss, loss_by_hand(logits, labels, 0.4), rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert not gradient[~kept].any()
    assert gradient.any() == (only != "nothing")


# The maps.


def test_maps_exact_small_example():
    # Probabilities of class 0: 0.2, 0.6, 0.5; of class 1: 0.7, 0.2, 0.1.
    p = np.array([[[0.1, 0.2, 0.7], [0.2, 0.6, 0.2], [0.4, 0.5, 0.1]]])
    seed = np.array([[0, 1, 255]])  # sure background, sure object, unsure
    maps = activation_maps(np.log(p), np.array([0, 1]), seed, epsilon=0.0)
    np.testing.assert_allclose(maps, [[[0.2, 0.7], [1.0, 1 / 6], [0.75, 0.0]]], atol=1e-12)
    only = activation_maps(np.log(p), np.array([1]), seed, epsilon=0.0)
    np.testing.assert_array_equal(only, maps[..., 1:])  # the softmax is over all classes


def test_maps_are_the_same_in_numpy_and_jax_and_of_many_pictures():
    rng = np.random.default_rng(0)
    logits, seed = rng.normal(0, 2, (2, 6, 5, 4)).astype(np.float32), rng.integers(0, 2, (2, 6, 5))
    maps = activation_maps(logits, np.array([0, 2]), seed)
    assert isinstance(maps, np.ndarray)
    assert (maps.shape, maps.dtype) == ((2, 6, 5, 2), np.float32)
    assert maps.min() >= 0
    assert maps.max() <= 1
    np.testing.assert_allclose(jax.jit(activation_maps)(logits, np.array([0, 2]), seed), maps, atol=1e-6)
    np.testing.assert_array_equal(activation_maps(logits[1], np.array([0, 2]), seed[1]), maps[1])


def test_maps_of_no_class_and_of_a_flat_picture():
    logits, everywhere = np.zeros((4, 3, CLASSES + 1), np.float32), np.ones((4, 3), int)
    assert activation_maps(logits, np.zeros(0, int), everywhere).shape == (4, 3, 0)
    assert not activation_maps(logits, np.array([1]), everywhere).any()  # and no NaN
    assert (activation_maps(logits, np.array([1]), 0 * everywhere) == 0.25).all()


def test_loss_and_maps_export_for_every_platform():
    logits, labels = (jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (((2, 8, 8, 4), "f4"), ((2, 8, 8), "u1")))
    for function, shapes in (
        (jax.grad(balanced_loss), (logits, labels)),
        (activation_maps, (logits, jax.ShapeDtypeStruct((2,), "i4"), labels)),
    ):
        exported = jax.export.export(jax.jit(function), platforms=("cpu", "cuda", "tpu"))(*shapes)
        assert exported.platforms == ("cpu", "cuda", "tpu")
