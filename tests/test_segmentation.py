"""Segmentation masks of whole pictures: what the network says of each picture alone, whatever its size and batch."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx
from noise import SIZES, Mirrored, Noise, found_in
from tiny_networks import CLASSES, network

from lpcam_jax.class_activation import resize_bilinear
from lpcam_jax.data.resizing import resize_bicubic, scaled_size
from lpcam_jax.machine.errors import UserError
from lpcam_jax.refine.crf import CRFS
from lpcam_jax.refine.pictures import bounded_size, crf_mask
from lpcam_jax.systems.deeplab.config import DeepLabInference
from lpcam_jax.systems.segmentation.segment import mask_of, probabilities_of, segment_pictures

V2, V3PLUS = "segmentation", "segmentation, v3plus"
ORDER = (1, 3)  # of Noise: 37x50, 5x7
PLAIN = DeepLabInference(max_shapes=1)
ALL_OF_IT = DeepLabInference(scales=(1.0, 0.5), mirror=True, max_shapes=2)


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize, pixel by pixel: half-pixel centres, no value beyond the outermost centres."""
    h, w, c = values.shape
    result = np.zeros((*size, c))
    for row, column in np.ndindex(*size):
        y = min(max((row + 0.5) * h / size[0] - 0.5, 0), h - 1)
        x = min(max((column + 0.5) * w / size[1] - 0.5, 0), w - 1)
        for i in range(h):
            for j in range(w):
                result[row, column] += max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * values[i, j]
    return result


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def mean_of(logits: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    return np.mean([probabilities(enlarged(one, size)) for one in logits], axis=0)


def assert_is_the_best(mask: np.ndarray, scores: np.ndarray, *, share: float):
    """The mask is the argmax wherever two classes are not as good as each other, which is nearly everywhere."""
    assert (mask.shape, mask.dtype) == (scores.shape[:2], np.uint8)
    ranked = np.sort(scores, axis=-1)
    clear = ranked[..., -1] - ranked[..., -2] > 1e-4
    np.testing.assert_array_equal(mask[clear], scores.argmax(axis=-1)[clear])
    assert clear.mean() >= share


@pytest.mark.parametrize("size", [(7, 11), (2, 3), (1, 1), (13, 2)])
def test_a_mask_is_the_best_class_of_the_enlarged_logits(size):
    logits = np.random.default_rng(size).normal(size=(3, 4, 5), scale=3).astype(np.float32)
    assert_is_the_best(mask_of([logits], size), enlarged(logits, size), share=0.99)


def test_several_logits_are_averaged_as_probabilities():
    rng, size = np.random.default_rng(0), (9, 12)
    logits = [rng.normal(size=(*grid, 5), scale=3).astype(np.float32) for grid in ((3, 4), (2, 2), (1, 5))]
    mask = mask_of(logits, size)
    assert_is_the_best(mask, mean_of(logits, size), share=0.99)
    of_mean_logits = np.mean([enlarged(one, size) for one in logits], axis=0).argmax(axis=-1)
    assert (mask != of_mean_logits).any()
    assert all((mask != mask_of([one], size)).any() for one in logits)


def test_one_sure_scale_outweighs_two_doubtful_ones():
    sure, doubtful = np.float32([[[0, 9, 0]]]), np.float32([[[0.4, 0, 0]]])
    assert mask_of([doubtful, doubtful, sure], (2, 2)).tolist() == [[1, 1], [1, 1]]
    assert mask_of([doubtful, doubtful], (2, 2)).tolist() == [[0, 0], [0, 0]]


def test_huge_logits_are_no_overflow():
    logits = np.float32([[[1e4, 2e4, -1e4]]])
    assert mask_of([logits, logits], (1, 2)).tolist() == [[1, 1]]


@cache
def parameters_of(name: str) -> dict:
    """Parameters under which every class is somewhere the best one, and none is sure."""
    parameters, head = network(name).parameters, "head" if name == V2 else "classifier"
    raw = np.asarray(of_one_picture(name)(parameters, pixels_of(name, 1, 1.0)))
    factor = 3 / raw.std(axis=(0, 1, 2)).mean()
    scaled = jax.tree.map(lambda leaf: factor * leaf, parameters[head])
    last = scaled[3] if name == V2 else scaled
    last["bias"] = last["bias"] - factor * raw.mean(axis=(0, 1, 2))
    return parameters | {head: scaled}


@cache
def of_one_picture(name: str):
    net = network(name)
    return jax.jit(lambda parameters, images: nnx.merge(net.graph, parameters, net.batch_stats)(images))


def pixels_of(name: str, number: int, scale: float) -> np.ndarray:
    image = Noise((number,))[0].image
    return network(name).preprocessed(resize_bicubic(image, scaled_size(image.shape[:2], scale)))


@cache
def alone(name: str, number: int, scale: float, *, mirrored: bool) -> np.ndarray:
    """Logits of one picture, not padded, in a batch of its own; those of its mirror image are mirrored back."""
    pixels = pixels_of(name, number, scale)
    result = np.asarray(of_one_picture(name)(parameters_of(name), pixels[:, :, ::-1] if mirrored else pixels))[0]
    return result[:, ::-1] if mirrored else result


def segmented(name, source, inference, **options) -> tuple[dict[str, np.ndarray], list[str]]:
    on_devices = network(name).on_devices(**parameters_of(name))
    return found_in(segment_pictures(on_devices, source, inference=inference, description=None, **options))


@pytest.mark.parametrize("name", [V2, V3PLUS])
def test_a_mask_is_that_of_the_picture_alone_without_padding(name):
    found, _ = segmented(name, Noise(ORDER), PLAIN)
    assert set(found) == {str(number) for number in ORDER}
    for number in ORDER:
        scores = enlarged(alone(name, number, 1.0, mirrored=False), SIZES[number])
        assert_is_the_best(found[str(number)], scores, share=0.98)
    assert set(np.unique(found["1"])) == set(range(1 + CLASSES))  # all of them: an empty mask would not be one


def views_of(name: str, number: int) -> list[np.ndarray]:
    """Logits of one picture alone, as ALL_OF_IT sees it."""
    return [alone(name, number, scale, mirrored=mirrored) for scale in ALL_OF_IT.scales for mirrored in (False, True)]


@pytest.mark.parametrize("name", [pytest.param(V2, marks=pytest.mark.rest), V3PLUS])
def test_scales_and_mirror_images_are_averaged(name):
    (found, _), (plain, _) = (segmented(name, Noise(ORDER), inference) for inference in (ALL_OF_IT, PLAIN))
    for number in ORDER:
        assert_is_the_best(found[str(number)], mean_of(views_of(name, number), SIZES[number]), share=0.98)
    assert (found["1"] != plain["1"]).mean() > 0.05


def test_the_maximum_over_views_is_that_of_the_picture_alone():
    found, _ = segmented(V3PLUS, Noise(ORDER), replace(ALL_OF_IT, fusion="maximum"))
    for number in ORDER:
        views, size = views_of(V3PLUS, number), SIZES[number]
        best = np.max([probabilities(enlarged(view, size)) for view in views], axis=0)
        assert_is_the_best(found[str(number)], best, share=0.98)
        for fusion, expected in {"mean": mean_of(views, size), "maximum": best}.items():
            fused = np.moveaxis(probabilities_of(views, size, fusion=fusion), 0, -1)
            np.testing.assert_allclose(fused, expected, atol=1e-5)
    assert (found["1"] != mean_of(views_of(V3PLUS, 1), SIZES[1]).argmax(axis=-1)).any()


@pytest.mark.parametrize("mirror", [True, False])
def test_with_mirror_images_the_mask_of_a_mirror_image_is_mirrored(mirror):
    inference = DeepLabInference(mirror=mirror, max_shapes=1)
    (straight, _), (mirrored, _) = (segmented(V3PLUS, kind((1, 4)), inference) for kind in (Noise, Mirrored))
    agreement = np.mean([(straight[name] == mirrored[name][:, ::-1]).mean() for name in straight])
    assert (agreement > 0.995) == mirror


def test_probabilities_of_a_large_picture_are_as_large_as_its_crf_takes_them():
    size = (1024, 1200)
    image = np.zeros((*size, 3), np.uint8)
    image[:, 600:] = 200
    coarse = np.float32([[[0.9, 0.4, 0.2]] * 2, [[0.1, 0.6, 0.8]] * 2])
    assert bounded_size(size) == (512, 600)
    assert [bounded_size(one) for one in ((1024, 1024), (8, 100_000), (1, 1))] == [(1024, 1024), (1, 7692), (1, 1)]
    whole, few = (
        crf_mask(image, np.moveaxis(resize_bilinear(np.moveaxis(coarse, 0, -1), shape), -1, 0), crf=CRFS["mctformer"])
        for shape in (size, bounded_size(size))
    )
    assert few.shape == size
    assert (whole == few).mean() > 0.999
    assert (few == (image[..., 0] > 0)).mean() > 0.99


def test_a_crf_moves_the_mask_to_the_edges():
    """The picture has two halves; the network, random, sees no edge."""
    image = np.full((40, 60, 3), 30, np.uint8)
    image[:, 30:] = 220
    logits = np.zeros((5, 8, 3), np.float32)
    logits[:, :5, 1], logits[:, 5:, 2] = 2, 2  # its edge is eight pixels too far
    scores = probabilities_of([logits], image.shape[:2])
    assert (scores.argmax(axis=0)[:, 31] == 1).all()
    mask = crf_mask(image, scores, crf=CRFS["mctformer"])
    assert mask.dtype == np.uint8
    assert (mask[:, :30] == 1).all()
    assert (mask[:, 30:] == 2).all()


def test_only_some_of_the_pictures_and_none_that_cannot_be_read():
    whole, _ = segmented(V3PLUS, Noise(ORDER), PLAIN)
    found, errors = segmented(V3PLUS, Noise((4, 3, 1), unreadable=[3]), PLAIN, only=[1, 2])
    assert set(found) == {"1"}
    np.testing.assert_array_equal(found["1"], whole["1"])
    assert errors == ["3.jpg: damaged picture; get it again"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_output_that_is_not_finite_names_the_picture(value):
    net = network(V3PLUS)
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, value), net.parameters["classifier"])
    with pytest.raises(UserError, match=r"^4: the network's output is not finite; .*train again\.$"):
        list(segment_pictures(net.on_devices(classifier=broken), Noise((4,)), inference=PLAIN, description=None))
