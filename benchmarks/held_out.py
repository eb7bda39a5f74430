"""The tables of `cross_validation`: folds at thresholds they did not choose, and differences with their uncertainty."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lpcam_jax import iou
from lpcam_jax.report.sweep import spread
from lpcam_jax.results.counts import THRESHOLDS

BOOTSTRAPS = 1000


class Held:
    """Confusion matrices of all pictures, each at the threshold that is best on the pictures of the other folds."""

    def __init__(self, counts: Sequence[np.ndarray], folds: np.ndarray):
        self.at = np.zeros((len(folds), *counts[0].shape[2:]))
        self.curve = np.zeros(counts[0].shape[1:])
        self.thresholds = []
        for fold, of_fold in enumerate(counts):
            best = iou_of(of_fold[folds != fold].sum(axis=0, dtype=np.float64)).mean(axis=-1).argmax()
            self.at[folds == fold] = of_fold[folds == fold, best]
            self.curve += of_fold[folds == fold].sum(axis=0)
            self.thresholds.append(float(THRESHOLDS[best]))


def iou_of(matrices: np.ndarray) -> np.ndarray:
    """IoU of background and each class, float64 (*, 1 + c), in per cent."""
    return 100 * np.asarray(iou(jnp.asarray(matrices, jnp.float32)), np.float64)


def report_held(held: dict[str, list[Held]], class_names: Sequence[str]) -> None:
    """Print the scores of the pictures that were not learned from, and the differences."""
    print(f"\n| held out | mIoU | at | within a point | background | {' | '.join(class_names)} |")
    print(f"|---|---:|---:|---:|{'---:|' * (1 + len(class_names))}")
    for title, runs in held.items():
        scores = np.array([iou_of(one.at.sum(axis=0, dtype=np.float64)) for one in runs])
        curves = np.array([iou_of(one.curve).mean(axis=-1) for one in runs])
        flat = (curves > curves.max(axis=1, keepdims=True) - 1).sum(axis=1)
        thresholds = np.concatenate([one.thresholds for one in runs])
        cells = [
            spread(scores.mean(axis=1) / 100),
            f"{thresholds.min():.2f} to {thresholds.max():.2f}",
            f"{flat.mean():.0f} thresholds",
            *(f"{value:.1f}" for value in scores.mean(axis=0)),
        ]
        print(f"| {title} | {' | '.join(cells)} |")
    for ours, other in (
        ("LPCAM-A", "LPCAM"),
        ("LPCAM-T", "LPCAM"),
        ("LPCAM-T", "CAM"),
        ("LPCAM-A of LPCAM-T", "LPCAM-T"),
    ):
        if ours in held:
            print(f"\n{ours} - {other}: {difference(held[ours], held[other])}")


def difference(ours: list[Held], theirs: list[Held]) -> str:
    """Of the mean mIoU over seeds, with 95 % of the paired bootstraps over pictures."""
    generator, found = np.random.default_rng(0), []
    count = len(ours[0].at)

    def mean(runs: list[Held], weights: np.ndarray) -> float:
        return np.mean([iou_of(np.tensordot(weights, one.at, axes=1)).mean() for one in runs])

    for _ in range(BOOTSTRAPS):
        weights = np.bincount(generator.integers(0, count, count), minlength=count).astype(float)
        found.append(mean(ours, weights) - mean(theirs, weights))
    low, high = np.percentile(found, [2.5, 97.5])
    whole = mean(ours, np.ones(count)) - mean(theirs, np.ones(count))
    return f"{whole:+.1f} (95 % of {BOOTSTRAPS:,} paired bootstraps over pictures: {low:+.1f} to {high:+.1f})"


def report_whole(rows: dict[str, list[np.ndarray]], class_names: Sequence[str]) -> None:
    """Print the scores of all pictures at the best common threshold."""
    print(f"\n| all pictures | mIoU | at | background | {' | '.join(class_names)} |")
    print(f"|---|---:|---:|{'---:|' * (1 + len(class_names))}")
    for title, runs in rows.items():
        scores = [iou_of(counts.sum(axis=0, dtype=np.float64)) for counts in runs]
        best = [one.mean(axis=-1).argmax() for one in scores]
        at = np.array([one[index] for one, index in zip(scores, best, strict=True)])
        cells = [spread(at.mean(axis=1) / 100), f"{THRESHOLDS[best].mean():.2f}"]
        print(f"| {title} | {' | '.join(cells + [f'{value:.1f}' for value in at.mean(axis=0)])} |")
