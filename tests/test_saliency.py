import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import numpy_walk as reference

from lpcam_jax.refine.saliency import background_scores, saliency_mask

SALIENT, NOT = 255, 0


def mask(pixels, saliency, **options):
    """The labels of pixels in a row, each with its scores."""
    scores, row = np.array([pixels], np.float32), np.array([saliency], np.uint8)
    return saliency_mask(scores, row, **options)[0].tolist()


def test_a_salient_pixel_is_its_best_class_and_any_other_is_background():
    pixel = [0.7, 0.1, 0.2]
    assert mask([pixel, pixel], [SALIENT, NOT]) == [2, 0]


def test_the_cut_is_at_20_of_255():
    pixel = [0.1, 0.9]
    assert mask([pixel] * 3, [19, 20, 21]) == [0, 0, 1]
    assert mask([pixel] * 2, [30, 31], threshold=0.3) == [0, 1]


def test_a_certain_class_wins_outside_of_what_is_salient():
    assert mask([[0, 0.999995, 0], [0, 0.99998, 0]], [NOT, NOT]) == [1, 0]
    assert mask([[0, 0.95, 0]], [NOT], high=0.9) == [1]


def test_absent_classes_never_win():
    assert mask([[1, 0, 0], [0.999, 0, 2e-6]], [SALIENT, SALIENT]) == [0, 2]


def test_of_several_certain_classes_the_first_wins():
    assert mask([[0, 0.1, 0.999995, 1]], [SALIENT]) == [2]


@pytest.mark.parametrize("threshold", [0.2, 0.29, 0.8])
def test_masks_are_the_reference_s(threshold):
    rng = np.random.default_rng(0)
    scores = rng.random((3, 20, 30, 5)) ** 4
    scores[rng.random(scores.shape) < 0.2] = 0
    scores[rng.random(scores.shape) < 0.1] = 1
    saliency = rng.integers(0, 256, (3, 20, 30), np.uint8)
    result = saliency_mask(scores, saliency, threshold=threshold)
    assert result.dtype == np.int32
    assert set(np.unique(result)) == set(range(5))
    for one, picture, salience in zip(result, scores, saliency, strict=True):
        expected = reference.saliency_rule(np.moveaxis(picture, -1, 0), salience, theta=threshold)
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize("alpha", [1, 1.5, 12])
def test_background_scores_are_the_reference_s(alpha):
    maps = np.random.default_rng(0).random((2, 7, 9, 3))
    result = background_scores(maps, alpha=alpha)
    for one, picture in zip(result, maps, strict=True):
        expected = reference.background_and_maps(np.moveaxis(picture, -1, 0), alpha)
        np.testing.assert_array_equal(one, np.moveaxis(expected, 0, -1))


def test_a_map_a_little_above_one_leaves_nothing_for_the_background():
    assert background_scores(np.array([[[1 + 1e-6]]]), alpha=1.5)[..., 0].tolist() == [[0]]


def test_the_functions_follow_the_namespace_of_the_scores():
    maps = np.random.default_rng(0).random((6, 7, 3), dtype=np.float32)
    saliency = np.random.default_rng(1).integers(0, 256, (6, 7), np.uint8)
    host = background_scores(maps)
    device = jax.jit(background_scores)(maps)
    assert isinstance(host, np.ndarray)
    assert isinstance(background_scores(jnp.asarray(maps)), jax.Array)
    assert host.dtype == device.dtype == np.float32
    np.testing.assert_allclose(host, device, atol=1e-6)
    on_host, on_device = saliency_mask(host, saliency), jax.jit(saliency_mask)(host, saliency)
    assert isinstance(on_host, np.ndarray)
    assert on_host.dtype == on_device.dtype == np.int32
    np.testing.assert_array_equal(on_host, on_device)
