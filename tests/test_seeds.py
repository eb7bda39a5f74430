import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax import (
    bounding_boxes,
    confident_labels,
    largest_component,
    otsu_threshold,
    percentile_threshold,
    seed_mask,
)

# Two classes at four pixels: nobody, the first, the second, both (the second more).
MAPS = np.array([[[0.1, 0.2], [0.9, 0.1]], [[0.0, 0.5], [0.6, 0.7]]], np.float32)
BOTH = np.array([1, 1])


def test_seed_mask_exact_small_example():
    result = seed_mask(MAPS, BOTH, background=0.3)
    assert result.tolist() == [[0, 1], [2, 2]]
    assert result.dtype == np.int32
    assert seed_mask(MAPS, BOTH, background=0.55).tolist() == [[0, 1], [0, 2]]
    assert seed_mask(MAPS, BOTH, background=0.05).tolist() == [[2, 1], [2, 2]]


def test_seed_mask_default_background_is_three_tenths():
    maps = np.array([[[0.29], [0.31]]], np.float32)
    assert seed_mask(maps, np.array([1])).tolist() == [[0, 1]]


def test_a_tie_with_the_background_is_background():
    maps = np.array([[[0.5, 0.25], [0.25, 0.5], [0.5, 0.5], [0.75, 0.5]]], np.float32)
    assert seed_mask(maps, BOTH, background=0.5).tolist() == [[0, 0, 0, 1]]


def test_a_tie_of_classes_is_the_first():
    assert seed_mask(np.array([[[0.1, 0.8, 0.8]]], np.float32), np.ones(3)).tolist() == [[2]]


def test_a_picture_of_no_class_is_background():
    for maps in (np.zeros((4, 5, 0), np.float32), jnp.zeros((4, 5, 0))):
        assert not seed_mask(maps, np.zeros(0)).any()
        assert confident_labels(maps, np.zeros(0)).shape == (4, 5)


def test_absent_classes_never_win():
    assert seed_mask(MAPS, np.array([1, 0]), background=0.3).tolist() == [[0, 1], [0, 1]]
    assert seed_mask(MAPS, np.array([0, 1]), background=0.3).tolist() == [[0, 0], [2, 2]]
    assert seed_mask(MAPS, np.array([0, 0]), background=-1.0).tolist() == [[0, 0], [0, 0]]


def test_seed_mask_is_the_argmax_with_the_threshold_in_front():
    rng = np.random.default_rng(0)
    maps, labels = rng.random((2, 3, 8, 9, 5), dtype=np.float32), rng.integers(0, 2, (2, 3, 5))
    labels[0, 0] = 0
    result = seed_mask(maps, labels, background=0.6)
    assert result.shape == (2, 3, 8, 9)
    for i, j in np.ndindex(2, 3):
        present = np.flatnonzero(labels[i, j])
        competition = np.concatenate([np.full((8, 9, 1), 0.6, np.float32), maps[i, j][..., present]], axis=-1)
        expected = np.concatenate([[0], present + 1])[competition.argmax(axis=-1)]
        np.testing.assert_array_equal(result[i, j], expected)


def test_confident_labels_are_class_unsure_or_background():
    maps = np.array([[[0.5, 0.1], [0.1, 0.5], [0.3, 0.4], [0.2, 0.1]]], np.float32)
    assert confident_labels(maps, BOTH).tolist() == [[1, 2, 255, 0]]
    assert confident_labels(maps, BOTH, foreground=0.35, background=0.15).tolist() == [[1, 2, 2, 255]]


def test_confident_labels_at_a_threshold():
    maps = np.array([[[0.25], [0.5], [0.51], [0.26]]], np.float32)
    assert confident_labels(maps, np.array([1]), foreground=0.5, background=0.25).tolist() == [[0, 255, 1, 255]]


def test_confident_labels_of_absent_classes_are_background():
    maps = np.full((2, 1, 2, 2), 0.9, np.float32)
    maps[..., 1] = 0.35
    result = confident_labels(maps, np.array([[1, 1], [0, 1]]))
    assert result.tolist() == [[[1, 1]], [[255, 255]]]
    assert confident_labels(maps[0], np.array([0, 0])).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("top", "left", "bottom", "right"), [(0, 0, 1, 1), (2, 3, 4, 7), (0, 0, 6, 8), (5, 7, 6, 8), (1, 0, 2, 8)]
)
def test_the_box_of_a_rectangle_is_the_rectangle(top, left, bottom, right):
    mask = np.zeros((6, 8), bool)
    mask[top:bottom, left:right] = True
    result = bounding_boxes(mask)
    assert result.tolist() == [top, left, bottom, right]
    assert result.dtype == np.int32


def test_the_box_spans_all_pieces_and_each_mask_has_its_own():
    masks = np.zeros((2, 2, 6, 8), bool)
    masks[0, 0, 1, 5] = masks[0, 0, 4, 2] = True
    masks[1, 0, 3, 3] = True
    assert bounding_boxes(masks).tolist() == [[[1, 2, 5, 6], [0, 0, 0, 0]], [[3, 3, 4, 4], [0, 0, 0, 0]]]


@pytest.mark.parametrize("function", [seed_mask, confident_labels, lambda maps, _: bounding_boxes(maps[..., 0] > 0.9)])
def test_numpy_in_numpy_out_and_jax_in_jax_out_and_both_equal(function):
    maps = np.random.default_rng(0).random((2, 6, 7, 3), dtype=np.float32)
    maps[:, :, ::2] *= 0.4
    labels = np.array([[1, 0, 1], [0, 1, 1]])
    on_host, on_device, jitted = (
        function(maps, labels),
        function(jnp.asarray(maps), jnp.asarray(labels)),
        jax.jit(function)(maps, labels),
    )
    assert isinstance(on_host, np.ndarray)
    assert isinstance(on_device, jax.Array)
    assert on_host.dtype == on_device.dtype == np.int32
    assert len(np.unique(on_host)) > 2
    np.testing.assert_array_equal(on_host, on_device)
    np.testing.assert_array_equal(on_host, jitted)


def otsu_of_histogram(values: np.ndarray) -> float:
    """Otsu's criterion at every cut of the histogram, from its definition: weights, means and variances of both."""
    levels, counts = np.unique(values, return_counts=True)
    within = []
    for cut in range(1, len(levels)):
        sides = [(levels[:cut], counts[:cut]), (levels[cut:], counts[cut:])]
        within.append(sum(n.sum() * np.average((v - np.average(v, weights=n)) ** 2, weights=n) for v, n in sides))
    return float(levels[np.argmin(within)])


@pytest.mark.parametrize("pixels", [(17, 23), (1, 2), (40, 1)])
def test_otsu_is_the_best_of_all_cuts_of_the_histogram(pixels):
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 64, (2, *pixels, 3)) / 64  # a few levels, each of many pixels
    maps[..., 1] **= 4
    maps[:, : pixels[0] // 3, :, 2] += 1
    for xp in (np, jnp):
        thresholds = otsu_threshold(xp.asarray(maps.astype(np.float32)))
        assert thresholds.shape == (2, 3)
        for b, n in np.ndindex(2, 3):
            assert float(thresholds[b, n]) == otsu_of_histogram(maps[b, :, :, n])


def test_otsu_separates_two_groups_whatever_their_sizes_and_spread():
    low, high = np.linspace(0.0, 0.2, 900), np.linspace(0.7, 0.9, 100)
    maps = np.random.default_rng(0).permutation(np.concatenate([low, high])).reshape(50, 20, 1).astype(np.float32)
    (threshold,) = otsu_threshold(maps)
    assert threshold == np.float32(0.2)
    assert (maps > threshold).sum() == 100


@pytest.mark.parametrize("value", [0.0, 0.4])
@pytest.mark.parametrize("shape", [(3, 4, 1), (1, 1, 1)])
def test_nothing_is_above_the_threshold_of_a_flat_map(shape, value):
    maps = np.full(shape, value, np.float32)
    assert otsu_threshold(maps).tolist() == [np.float32(value)]
    assert otsu_threshold(jnp.asarray(maps)).tolist() == [np.float32(value)]


def test_otsu_of_a_large_map_is_that_of_double_precision():
    maps = np.random.default_rng(0).beta(0.5, 2.0, (500, 600, 1)).astype(np.float32)
    values = np.sort(maps.reshape(-1).astype(np.float64))
    k, low = np.arange(1, len(values)), np.cumsum(values)[:-1]
    between = k * k[::-1] * ((values.sum() - low) / k[::-1] - low / k) ** 2
    assert otsu_threshold(maps)[0] == values[np.argmax(between)]
    np.testing.assert_allclose(otsu_threshold(jnp.asarray(maps))[0], values[np.argmax(between)], atol=1e-3)


def test_a_fifth_of_the_pixels_is_above_the_eightieth_percentile():
    maps = np.random.default_rng(0).random((2, 10, 10, 3), dtype=np.float32)
    thresholds = percentile_threshold(maps, 80)
    assert thresholds.shape == (2, 3)
    assert ((maps > thresholds[:, None, None, :]).sum(axis=(1, 2)) == 20).all()
    assert percentile_threshold(maps, 100).tolist() == maps.max(axis=(1, 2)).tolist()
    assert percentile_threshold(maps, 0).tolist() == maps.min(axis=(1, 2)).tolist()


def test_the_box_of_a_map_is_that_of_its_bright_part():
    maps = np.full((8, 9, 2), 0.1, np.float32)
    maps[2:5, 3:8, 0], maps[6, 0, 1] = 0.8, 1.0
    above = maps > otsu_threshold(maps)
    assert bounding_boxes(np.moveaxis(above, -1, 0)).tolist() == [[2, 3, 5, 8], [6, 0, 7, 1]]


@pytest.mark.parametrize("function", [otsu_threshold, lambda maps: percentile_threshold(maps, 37.5)])
def test_thresholds_follow_the_namespace_of_the_maps(function):
    maps = np.random.default_rng(0).random((2, 6, 7, 3), dtype=np.float32)
    on_host, on_device, jitted = function(maps), function(jnp.asarray(maps)), jax.jit(function)(maps)
    assert isinstance(on_host, np.ndarray)
    assert isinstance(on_device, jax.Array)
    assert on_host.dtype == on_device.dtype == np.float32
    np.testing.assert_allclose(on_host, on_device, atol=1e-6)
    np.testing.assert_allclose(on_host, jitted, atol=1e-6)


def test_the_largest_piece_of_each_mask_stays():
    masks = np.zeros((2, 2, 6, 8), bool)
    masks[0, 0, :2, :2], masks[0, 0, 2:5, 2:5], masks[0, 0, 5, 7] = True, True, True  # the first two meet at a corner
    masks[0, 1, 0, 0] = masks[0, 1, 5, 7] = True
    masks[1, 0] = True
    result = largest_component(masks)
    assert result[0, 0].sum() == 13
    assert not result[0, 0, 5, 7]
    assert np.argwhere(result[0, 1]).tolist() == [[0, 0]]
    assert result[1, 0].all()
    assert not result[1, 1].any()
    assert bounding_boxes(result)[0, 0].tolist() == [0, 0, 5, 5]
