"""AMN: labels, whole pictures, and its arithmetic by hand; test_amn_parity.py has its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from noise import SIZES, Noise, found_in
from tiny_networks import CLASSES, LABELS, image_of, network

from lpcam_jax.data.resizing import resize_bicubic, scaled_size
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.amn.activation import activate, activation_maps, balanced_loss
from lpcam_jax.systems.amn.config import AMNInference, AMNModel
from lpcam_jax.systems.amn.logits import activate_pictures
from lpcam_jax.systems.amn.network import build_amn


def logits_of(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return network("amn")(images, None, labels)["logits"]


# The network.


def test_labels_weigh_the_features_and_are_of_one_picture_each():
    images = np.repeat(image_of((33, 49))[None], 2, axis=0)
    one, other = logits_of(images, LABELS[:2])
    assert one.shape == (3, 4, CLASSES + 1)
    assert np.abs(one - other).max() > 0.1
    np.testing.assert_array_equal(logits_of(images, LABELS[1::-1]), [other, one])


@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18, 24)), (8, (12, 24, 36, 48)), (32, (3, 6, 9, 12))])
def test_the_convolutions_reach_as_far_at_every_output_stride(stride, rates):
    model = AMNModel(blocks=(1, 1, 1, 1), width=4, stem_width=8, output_stride=stride)
    assert nnx.eval_shape(lambda: build_amn(model, CLASSES)).rates == rates


def test_the_label_encoder_starts_as_torch_s_linear_layer():
    @jax.jit
    def start():
        encoder = build_amn(network("amn").config.model, CLASSES).labels
        return encoder.kernel[...], encoder.bias[...]

    for array in start():
        assert 0.9 * CLASSES**-0.5 < np.abs(array).max() <= CLASSES**-0.5


# Whole pictures.

ORDER = (1, 3)  # of Noise: 37x50, 5x7
TWO_SCALES = AMNInference(scales=(1.0, 0.5), max_shapes=2)


def activated(source, on_devices=None, **options) -> tuple[dict[str, np.ndarray], list[str]]:
    results = activate_pictures(
        on_devices or network("amn").on_devices(),
        source,
        lambda record: LABELS[int(record.id) % 3],
        inference=TWO_SCALES,
        description=None,
        **options,
    )
    return found_in(results)


def test_logits_are_those_of_the_picture_alone_at_every_scale_and_its_mirror_images():
    found, _ = activated(Noise(ORDER))
    assert set(found) == {str(number) for number in ORDER}
    for number in ORDER:
        size, total = SIZES[number], 0
        for scale in TWO_SCALES.scales:
            image = resize_bicubic(Noise((number,))[0].image, scaled_size(size, scale))
            image, labels = network("amn").preprocessed(image), LABELS[[number % 3]]
            one = (logits_of(image, labels) + logits_of(image[:, :, ::-1], labels)[:, :, ::-1]) / 2
            total = total + jax.image.resize(one[0], (*size, CLASSES + 1), "linear", antialias=False)
        classes, seed = np.flatnonzero(LABELS[number % 3]), np.arange(np.prod(size)).reshape(size).astype(np.uint8) % 3
        expected = activation_maps(np.asarray(total / 2), classes, seed)
        maps = activate(found[str(number)], classes, seed)
        np.testing.assert_allclose(maps, np.moveaxis(expected, -1, 0), rtol=0, atol=1e-3)
        assert maps.max() > 0.5 or number == 3  # of a picture of one position, logits are the same everywhere


def test_only_some_of_the_pictures_and_none_that_cannot_be_read():
    found, errors = activated(Noise((5, 3, 1), unreadable=[3]), only=[1, 2])
    assert set(found) == {"1"}
    assert errors == ["3.jpg: damaged picture; get it again"]


def test_output_that_is_not_finite_names_the_picture():
    labels = jax.tree.map(lambda leaf: leaf * np.nan, network("amn").parameters["labels"])
    with pytest.raises(UserError, match=r"^3: the network's output is not finite; .*train again\.$"):
        activated(Noise((3,)), network("amn").on_devices(labels=labels))


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
