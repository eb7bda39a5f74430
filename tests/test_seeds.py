import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax import bounding_boxes, confident_labels, seed_mask

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
