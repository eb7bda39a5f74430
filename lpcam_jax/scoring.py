"""Scoring maps against masks: Table 1 of the paper, at every threshold, with its protocol.

Which threshold makes a mask is a choice, and CAM and LPCAM need different ones. So every method is scored at its own
best threshold and at a common fixed one, and the whole curve is kept.
"""

from typing import Any

import numpy as np

from .metrics import iou, seed_scores, threshold_sweep

THRESHOLDS = np.arange(100, dtype=np.float32) / 100
FIXED = 0.3

# Pixels are padded to a multiple of this, as ignored ones: few compilations for pictures of any size.
_PIXELS = 1 << 16


class SeedScoring:
    """Counts over pictures, for one method: the confusion matrix at each of THRESHOLDS.

    Args:
        classes: c, without background.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self.matrices = np.zeros((len(THRESHOLDS), classes + 1, classes + 1))

    def add(self, maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> None:
        """Count one picture.

        Args:
            maps: float (H, W, n), normalized, of the classes that may win.
            classes: int (n,), their indices; n may be 0: then all is background.
            truth: uint8 (H, W), 0 background, 1..c, 255 ignored.
        """
        if len(classes):
            heights = maps.max(axis=-1).astype(np.float32)
            winners = classes[maps.argmax(axis=-1)] + 1
        else:
            heights, winners = np.full(truth.shape, -1, np.float32), np.ones(truth.shape, int)
        padding = (0, -truth.size % _PIXELS)
        self.matrices += np.asarray(
            threshold_sweep(
                np.pad(truth.reshape(-1), padding, constant_values=255),
                np.pad(winners.reshape(-1), padding).astype(np.int32),
                np.pad(heights.reshape(-1), padding),
                THRESHOLDS,
                num_classes=self.classes + 1,
            )
        )

    def report(self) -> dict[str, Any]:
        """Scores at the best and at the fixed threshold, and the curve; plain JSON values, fractions in [0, 1].

        Returns:
            {"best": S, "fixed": S, "curve": {"threshold": [...], "miou": [...]}} with S = {"threshold", "miou", "fp",
            "fn", "precision", "recall", "iou": [background, class 1, ...]}; None where a class does not occur.
        """
        curve = np.asarray(seed_scores(self.matrices.astype(np.float32)).miou)
        return {
            "best": self._at(int(np.argmax(curve))),
            "fixed": self._at(int(np.argmin(abs(THRESHOLDS - FIXED)))),
            "curve": {"threshold": _numbers(THRESHOLDS), "miou": _numbers(curve)},
        }

    def _at(self, index: int) -> dict[str, Any]:
        matrix = self.matrices[index].astype(np.float32)
        scores = {name: _numbers(value) for name, value in seed_scores(matrix)._asdict().items()}
        return {"threshold": _numbers(THRESHOLDS[index]), **scores, "iou": _numbers(iou(matrix))}


def _numbers(values: Any) -> Any:
    """Arrays as floats of seven digits; JSON has no NaN: it becomes None."""
    if np.ndim(values):
        return [_numbers(value) for value in np.asarray(values)]
    return None if np.isnan(values) else float(f"{float(values):.7g}")
