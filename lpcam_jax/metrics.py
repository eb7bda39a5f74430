"""Metrics of masks and classifiers: counts first, ratios of counts last.

All metrics of masks are computed from one confusion matrix m, m[i, j] = pixels of truth i and prediction j, 0 the
background. A call counts in int32; sum the matrices of many pictures as NumPy float64, as int32 overflows at 2 10^9
pixels.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .seeds import IGNORE


@partial(jax.jit, static_argnames=("num_classes", "ignore"))
def confusion_matrix(labels: jax.Array, predictions: jax.Array, *, num_classes: int, ignore: int = IGNORE) -> jax.Array:
    """Pixels by truth and prediction.

    Args:
        labels: int (...), the truth, 0..num_classes-1 or `ignore`.
        predictions: int (...), of the same shape, 0..num_classes-1; this is not checked, other values are miscounted.
        num_classes: background included.
        ignore: pixels of this truth are not counted.

    Returns:
        int32 (num_classes, num_classes), [truth, prediction].
    """
    labels, predictions = labels.astype(jnp.int32), predictions.astype(jnp.int32)
    cell = jnp.where(labels == ignore, num_classes**2, labels * num_classes + predictions)
    return jnp.bincount(cell.reshape(-1), length=num_classes**2 + 1)[:-1].reshape(num_classes, num_classes)


@partial(jax.jit, static_argnames=("num_classes", "ignore"))
def threshold_sweep(
    labels: jax.Array,
    winners: jax.Array,
    heights: jax.Array,
    thresholds: jax.Array,
    *,
    num_classes: int,
    ignore: int = IGNORE,
) -> jax.Array:
    """The confusion matrix of the seed mask at every threshold, in one pass over the pixels.

    A pixel keeps its winning class while the threshold is below its height, and is background from there on.

    Args:
        labels: int (p,), the truth of p pixels, `ignore` for those not counted.
        winners: int (p,), class (1..num_classes-1) whose map is highest.
        heights: float (p,), that map's value.
        thresholds: float (t,), ascending.
        num_classes: background included.
        ignore: pixels of this truth are not counted.

    Returns:
        int32 (t, num_classes, num_classes), [threshold, truth, prediction].
    """
    labels, winners = labels.astype(jnp.int32), winners.astype(jnp.int32)
    t = thresholds.shape[0]
    below = jnp.searchsorted(thresholds, heights, side="left").astype(jnp.int32)
    cell = (below * num_classes + labels) * num_classes + winners
    cell = jnp.where(labels == ignore, (t + 1) * num_classes**2, cell)
    counts = jnp.bincount(cell, length=(t + 1) * num_classes**2 + 1)[:-1]
    counts = counts.reshape(t + 1, num_classes, num_classes)
    # Pixel i is foreground at the first below[i] thresholds: at threshold number s, those with below > s.
    foreground = jnp.cumsum(counts[::-1], axis=0)[::-1][1:]
    background = (jnp.cumsum(counts, axis=0)[:-1]).sum(axis=-1)
    return foreground.at[:, :, 0].add(background)


class SeedScores(NamedTuple):
    """Table 1's columns, fractions in [0, 1].

    Attributes:
        miou: mean IoU over the classes that occur, background included.
        fp: wrong pixels over the union, mean over foreground classes.
        fn: missed pixels over the union, mean over foreground classes.
        precision: mean over the classes that are predicted, background included.
        recall: mean over the classes that are in the truth, background included.
    """

    miou: jax.Array
    fp: jax.Array
    fn: jax.Array
    precision: jax.Array
    recall: jax.Array


@jax.jit
def iou(matrix: jax.Array) -> jax.Array:
    """IoU_n = m_nn / (truth_n + prediction_n - m_nn).

    Args:
        matrix: (*b, c, c), [truth, prediction].

    Returns:
        float32 (*b, c), in [0, 1]; NaN for a class that is in neither truth nor prediction.
    """
    hit, truth, predicted = _margins(matrix)
    return _ratio(hit, truth + predicted - hit)


@jax.jit
def seed_scores(matrix: jax.Array) -> SeedScores:
    """Table 1's columns from a confusion matrix.

    FP_n = 1 - truth_n / union_n, FN_n = 1 - prediction_n / union_n, precision_n = m_nn / prediction_n,
    recall_n = m_nn / truth_n.

    Args:
        matrix: (*b, c, c), [truth, prediction], 0 the background.

    Returns:
        SeedScores of float32 (*b,) each.

    Source: paper Table 1; reference step "eval_sem_seg" (means of FP and FN over foreground only).
    """
    hit, truth, predicted = _margins(matrix)
    union = truth + predicted - hit
    fp, fn = 1 - _ratio(truth, union), 1 - _ratio(predicted, union)
    return SeedScores(
        miou=jnp.nanmean(_ratio(hit, union), axis=-1),
        fp=jnp.nanmean(fp[..., 1:], axis=-1),
        fn=jnp.nanmean(fn[..., 1:], axis=-1),
        precision=jnp.nanmean(_ratio(hit, predicted), axis=-1),
        recall=jnp.nanmean(_ratio(hit, truth), axis=-1),
    )


@jax.jit
def average_precision(labels: jax.Array, scores: jax.Array) -> jax.Array:
    """Area under the precision-recall steps: mean over positives of the precision at their score.

    Args:
        labels: (n,), non-zero for positives.
        scores: float (n,), ties count together.

    Returns:
        float32 (), in [0, 1]; NaN without positives.

    Source: scikit-learn's `average_precision_score`, equal to 1e-6.
    """
    n = scores.shape[0]
    positive = labels != 0
    at_least = n - jnp.searchsorted(jnp.sort(scores), scores, side="left")
    positive_scores = jnp.sort(jnp.where(positive, scores, -jnp.inf))
    positives_at_least = n - jnp.searchsorted(positive_scores, scores, side="left")
    precision = positives_at_least / at_least
    return jnp.where(positive, precision, 0).sum() / jnp.where(positive.any(), positive.sum(), jnp.nan)


@jax.jit
def mean_average_precision(labels: jax.Array, scores: jax.Array) -> jax.Array:
    """mAP: the mean of `average_precision` over the classes that occur.

    Args:
        labels: (n, c), non-zero for positives.
        scores: float (n, c).

    Returns:
        float32 (), in [0, 1]; NaN if no class occurs.
    """
    return jnp.nanmean(jax.vmap(average_precision, in_axes=1)(labels, scores))


def _margins(matrix):
    matrix = jnp.asarray(matrix).astype(jnp.float32)
    return jnp.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2)


def _ratio(numerator, denominator):
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), jnp.nan)
