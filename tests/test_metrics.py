import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from lpcam_jax import average_precision, confusion_matrix, iou, seed_mask, seed_scores, threshold_sweep

# Background, two classes that occur, one that does not. Truth in rows.
MATRIX = np.array([[50, 6, 4, 0], [10, 20, 0, 0], [0, 5, 5, 0], [0, 0, 0, 0]])


def confusion_loop(labels, predictions, num_classes, ignore=255):
    matrix = np.zeros((num_classes, num_classes), int)
    for truth, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        if truth != ignore:
            matrix[truth, prediction] += 1
    return matrix


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("ignore", [255, 2])
def test_confusion_matrix_matches_a_loop(dtype, ignore):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 4], (3, 7, 9), p=[0.4, 0.3, 0.1, 0.1, 0.1]).astype(dtype)
    labels[labels == 2] = ignore
    predictions = rng.integers(0, 5, (3, 7, 9)).astype(dtype)
    result = confusion_matrix(labels, predictions, num_classes=5, ignore=ignore)
    np.testing.assert_array_equal(result, confusion_loop(labels, predictions, 5, ignore))
    assert result.sum() == (labels != ignore).sum() < labels.size
    assert (result != result.T).any()


def test_confusion_matrix_of_nothing_but_ignored_pixels_is_zero():
    labels = np.full((4, 4), 255)
    assert confusion_matrix(labels, np.ones((4, 4), int), num_classes=3).tolist() == [[0] * 3] * 3


def test_threshold_sweep_is_the_confusion_matrix_of_the_seeds_at_every_threshold():
    rng = np.random.default_rng(0)
    thresholds = np.array([0.0, 0.125, 0.25, 0.5, 0.875, 1.0], np.float32)
    maps = rng.choice(np.arange(9, dtype=np.float32) / 8, (20, 30, 3))  # many heights equal a threshold
    present = np.array([1, 0, 1])
    labels = rng.choice([0, 1, 2, 3, 255], (20, 30))
    shown = np.where(present != 0, maps, -np.inf)
    winners, heights = shown.argmax(axis=-1) + 1, shown.max(axis=-1)
    sweep = threshold_sweep(labels.ravel(), winners.ravel(), heights.ravel(), thresholds, num_classes=4)
    assert sweep.shape == (6, 4, 4)
    for matrix, threshold in zip(sweep, thresholds, strict=True):
        seeds = np.asarray(seed_mask(maps, present, background=threshold))
        np.testing.assert_array_equal(matrix, confusion_loop(labels, seeds, 4))
    assert sweep[0, :, 0].sum() < sweep[-1, :, 0].sum() == (labels != 255).sum()


def test_a_height_equal_to_a_threshold_is_background_there():
    thresholds = np.array([0.25, 0.5, 0.75], np.float32)
    sweep = threshold_sweep(np.array([1]), np.array([1]), np.array([0.5], np.float32), thresholds, num_classes=2)
    assert sweep[:, 1].tolist() == [[0, 1], [1, 0], [1, 0]]


def test_iou_of_a_matrix_by_hand():
    np.testing.assert_allclose(iou(MATRIX), [50 / 70, 20 / 41, 5 / 14, np.nan], rtol=1e-6)


def test_iou_of_a_class_that_is_only_predicted_or_only_missed_is_zero():
    np.testing.assert_allclose(iou(np.array([[8, 2, 0], [0, 0, 0], [3, 0, 0]])), [8 / 13, 0, 0], rtol=1e-6)


def test_seed_scores_of_a_matrix_by_hand():
    scores = seed_scores(MATRIX)
    truth, predicted, hit, union = [60, 30, 10], [60, 31, 9], [50, 20, 5], [70, 41, 14]
    np.testing.assert_allclose(scores.miou, np.mean(np.divide(hit, union)), rtol=1e-6)
    np.testing.assert_allclose(scores.fp, (11 / 41 + 4 / 14) / 2, rtol=1e-5)
    np.testing.assert_allclose(scores.fn, (10 / 41 + 5 / 14) / 2, rtol=1e-5)
    np.testing.assert_allclose(scores.precision, np.mean(np.divide(hit, predicted)), rtol=1e-6)
    np.testing.assert_allclose(scores.recall, np.mean(np.divide(hit, truth)), rtol=1e-6)


def test_foreground_errors_and_iou_are_the_whole():
    scores = seed_scores(MATRIX[:3, :3])
    foreground = np.nanmean(iou(MATRIX[:3, :3])[1:])
    np.testing.assert_allclose(foreground + scores.fp + scores.fn, 1, rtol=1e-6)


def test_ratios_are_of_floats_beyond_int32_and_batched():
    large = np.stack([MATRIX * 1e9, np.eye(4) * 1e11])
    np.testing.assert_allclose(iou(large)[0], iou(MATRIX), rtol=1e-6)
    scores = seed_scores(large)
    assert all(leaf.shape == (2,) for leaf in scores)
    np.testing.assert_allclose(scores.miou, [seed_scores(MATRIX).miou, 1], rtol=1e-6)
    np.testing.assert_allclose([scores.fp[1], scores.fn[1], scores.precision[1], scores.recall[1]], [0, 0, 1, 1])


def ranked(seed, n=60):
    """Labels and scores with many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = np.round(rng.normal(size=n) + 0.7 * labels, 1).astype(np.float32)
    return labels, scores


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_sklearn_with_ties(seed):
    labels, scores = ranked(seed)
    assert len(np.unique(scores)) < len(scores)
    np.testing.assert_allclose(average_precision(labels, scores), average_precision_score(labels, scores), rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([1, 0, 1], [0.9, 0.8, 0.7], (1 + 2 / 3) / 2),
        ([0, 0, 1], [0.9, 0.8, 0.7], 1 / 3),
        ([1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5),
        ([1, 1], [-3.0, -7.0], 1),
        ([0, 0], [0.1, 0.2], np.nan),
    ],
)
def test_average_precision_by_hand(labels, scores, expected):
    np.testing.assert_allclose(average_precision(np.array(labels), np.array(scores, np.float32)), expected, rtol=1e-6)


def test_average_precision_of_every_class_at_once():
    labels, scores = (np.stack(x, axis=1) for x in zip(*(ranked(seed) for seed in range(3)), strict=True))
    labels[:, 1] = 0
    result = jax.vmap(average_precision, in_axes=1)(labels, scores)
    expected = [average_precision_score(labels[:, n], scores[:, n]) for n in (0, 2)]
    np.testing.assert_allclose(result, [expected[0], np.nan, expected[1]], rtol=1e-6)
