"""Counting one picture: its seeds at every threshold, and its mask, against the true mask; scores of the counts.

The threshold that turns maps into masks is a choice, and CAM and LPCAM need different ones. So every method is scored
at its own best threshold and at a common fixed one, and the whole curve is kept.
"""

from typing import Any, NamedTuple

import numpy as np

from ..machine import processes
from ..machine.devices import finishing
from ..machine.padding import power_of_two
from ..metrics import confusion_matrix, iou, seed_scores, threshold_sweep
from ..seeds import IGNORE

THRESHOLDS = np.arange(100, dtype=np.float32) / 100
FIXED = 0.3
RULE = (
    f"a pixel is background where no map is above the threshold; best: of {THRESHOLDS[0]:.2f} to {THRESHOLDS[-1]:.2f}, "
    f"in steps of 0.01, the one with the highest mIoU on these pictures, for each method; fixed: {FIXED}"
)

# Pixels are padded to a multiple of this with ignored ones, to limit compilations.
_PIXELS = 1 << 16


def classes_in(mask: np.ndarray | None) -> np.ndarray:
    """The classes in a mask, uint8 (H, W), 0 background, n + 1 class n, 255 ignored: int (m,), empty for None."""
    if mask is None:
        return np.zeros(0, int)
    return np.flatnonzero(np.bincount(mask.reshape(-1), minlength=IGNORE + 1)[1:IGNORE])


def picture_confusion(truth: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix of one picture of any size, padded to limit compilations.

    Args:
        truth: uint8 (H, W), 0 .. classes - 1, or 255: ignored.
        mask: uint8 (H, W), 0 .. classes - 1.
        classes: number of classes, background included.

    Returns:
        int (classes, classes), [truth, prediction].
    """
    padding = (0, -truth.size % _PIXELS)
    labels = np.pad(truth.reshape(-1), padding, constant_values=IGNORE)
    return np.asarray(confusion_matrix(labels, np.pad(mask.reshape(-1), padding), num_classes=classes))


class SeedCounts(NamedTuple):
    """The confusion matrices of one picture's seeds, of the classes that occur in its maps or its truth.

    Attributes:
        values: int (v,), these classes as values of a mask, 0 among them.
        matrices: int32 (100, v, v), at each of THRESHOLDS.
        miou: float32 (100,), mIoU at each of THRESHOLDS, over the classes that occur in truth or seed.
    """

    values: np.ndarray
    matrices: np.ndarray
    miou: np.ndarray


def seed_counts(maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> SeedCounts:
    """Count one picture's seeds at every threshold.

    Args:
        maps: float (H, W, n), normalized, of the classes that may win; ties go to the first.
        classes: int (n,), their indices; if n is 0, everything is background.
        truth: uint8 (H, W), 0 background, n + 1 class n, 255 ignored.
    """
    # Only the values in this picture: a sweep over all classes of COCO would have 650,000 cells.
    values = np.flatnonzero(np.bincount(truth.reshape(-1), minlength=IGNORE)[:IGNORE])
    values = np.union1d([0], np.union1d(values, classes + 1)).astype(int)
    number = np.full(IGNORE + 1, IGNORE, np.uint8)
    number[values] = np.arange(len(values))

    heights = np.full(truth.shape, -1, np.float32)
    winners = np.full(truth.shape, number[values[-1]], np.uint8)
    for k, n in enumerate(classes):
        class_map = maps[..., k].astype(np.float32)
        winners[class_map > heights] = number[n + 1]
        np.maximum(heights, class_map, out=heights)
    padding = (0, -truth.size % _PIXELS)
    with finishing():
        sweep = threshold_sweep(
            np.pad(number[truth].reshape(-1), padding, constant_values=IGNORE),
            np.pad(winners.reshape(-1), padding),
            np.pad(heights.reshape(-1), padding),
            THRESHOLDS,
            num_classes=max(4, power_of_two(len(values))),
        )
        matrices = np.asarray(sweep)[:, : len(values), : len(values)]
    return SeedCounts(values, matrices, np.nanmean(iou(sweep.astype(np.float32)), axis=1))


class SeedScoring:
    """The confusion matrix of one method's seeds at each of THRESHOLDS, summed over pictures.

    Args:
        classes: c, without background.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self.matrices = np.zeros((len(THRESHOLDS), classes + 1, classes + 1))

    def add(self, maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Count one picture, see `seed_counts`; returns its mIoU at each of THRESHOLDS, float32 (100,)."""
        counts = seed_counts(maps, classes, truth)
        self.add_counts(counts)
        return counts.miou

    def add_counts(self, counts: SeedCounts) -> None:
        """Add what was counted of one picture."""
        cells = np.ix_(range(len(THRESHOLDS)), counts.values, counts.values)
        self.matrices[cells] += counts.matrices

    def add_processes(self) -> None:
        """Add what the other processes have counted."""
        for matrix in self.matrices:  # one at a time: together, those of a thousand classes take a gigabyte
            matrix[:] = np.sum(processes.gather(matrix), axis=0)

    def report(self) -> dict[str, Any]:
        """Scores at the best and at the fixed threshold, and the curve; plain JSON values, fractions in [0, 1].

        Returns:
            {"best": S, "fixed": S, "curve": {"threshold": [...], "miou": [...]}, "confusion": [...]} with
            S = {"threshold", "miou", "fp", "fn", "precision", "recall", "iou": [background, class 1, ...]}; None where
            a class does not occur. "confusion" counts the pixels, [truth][prediction], at the best threshold.
        """
        curve = np.asarray(seed_scores(self.matrices.astype(np.float32)).miou)
        best, fixed = int(np.argmax(curve)), int(np.argmin(abs(THRESHOLDS - FIXED)))
        return {
            "best": {"threshold": json_numbers(THRESHOLDS[best]), **scores_of(self.matrices[best])},
            "fixed": {"threshold": json_numbers(THRESHOLDS[fixed]), **scores_of(self.matrices[fixed])},
            "curve": {"threshold": json_numbers(THRESHOLDS), "miou": json_numbers(curve)},
            "confusion": self.matrices[best].astype(int).tolist(),
        }


def scores_of(matrix: np.ndarray) -> dict[str, Any]:
    """{"miou", "fp", "fn", "precision", "recall", "iou": [background, class 1, ...]} of a confusion matrix, as JSON."""
    matrix = matrix.astype(np.float32)
    scores = {name: json_numbers(value) for name, value in seed_scores(matrix)._asdict().items()}
    return {**scores, "iou": json_numbers(iou(matrix))}


def json_numbers(values: Any) -> Any:
    """Arrays as floats of seven digits; NaN, which JSON does not have, becomes None."""
    if np.ndim(values):
        return [json_numbers(value) for value in np.asarray(values)]
    return None if np.isnan(values) else float(f"{float(values):.7g}")
