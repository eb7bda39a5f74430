"""Cross-validation: no fold chooses its own threshold, and a difference is one of the same pictures."""

import numpy as np
import pytest

from benchmarks.held_out import THRESHOLDS, Held, difference, iou_of

pytestmark = pytest.mark.rest


def counts(right: np.ndarray) -> np.ndarray:
    """Confusion matrices (n, t, 2, 2) of pictures of 100 pixels, half background, so many of each half right."""
    right = np.asarray(right, np.float32)
    return np.moveaxis(np.array([[right, 50 - right], [50 - right, right]]), (0, 1), (2, 3))


def test_a_fold_is_scored_at_the_threshold_of_the_others():
    folds = np.array([0, 0, 1, 1])
    right = np.full((4, len(THRESHOLDS)), 20.0)
    right[:2, 30] = 50  # the pictures of fold 0 are perfect at 0.30
    right[2:, 60] = 40  # those of fold 1 best at 0.60
    held = Held([counts(right)] * 2, folds)
    assert held.thresholds == pytest.approx([0.6, 0.3])
    np.testing.assert_array_equal(held.at[:, 0, 0], 20)
    np.testing.assert_array_equal(held.curve, counts(right).sum(axis=0))


def test_iou_is_in_per_cent():
    np.testing.assert_allclose(iou_of(np.array([[40, 10], [10, 40]])), [100 * 40 / 60] * 2, rtol=1e-6)


def test_the_difference_is_paired_over_pictures():
    rng, folds = np.random.default_rng(0), np.arange(40) % 5
    theirs = np.repeat(rng.uniform(5, 40, (40, 1)), len(THRESHOLDS), axis=1)  # easy and hard pictures
    one, other = ([Held([counts(right)] * 5, folds)] for right in (theirs + 5, theirs))
    assert difference(one, one).startswith("+0.0 (95 % of 1,000 paired bootstraps over pictures: +0.0 to +0.0)")
    found = difference(one, other)
    gain, low, high = float(found.split()[0]), *(float(word.strip(")")) for word in found.split()[-3::2])
    assert low < gain < high
    assert high - low < 2  # a quarter of what the pictures themselves differ
    gains = [iou_of(x[0].at.sum(axis=0)).mean() for x in (one, other)]
    assert gain == pytest.approx(gains[0] - gains[1], abs=0.06)
