"""Scoring predictions against masks: Table 1 of the paper and its confusion matrix, for maps at every threshold.

The threshold that turns maps into masks is a choice, and CAM and LPCAM need different ones. So every method is scored
at its own best threshold and at a common fixed one, and the whole curve is stored.

Of several processes each scores its share of the pictures, and all have the scores of all.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..data.masks import IGNORE, MaskFolder
from ..data.records import RecordSource, true_mask
from ..machine import processes
from ..machine.devices import finishing
from ..machine.errors import UserError
from ..machine.threads import map_ahead
from ..metrics import confusion_matrix, iou, seed_scores, threshold_sweep
from .predictions import MapFolder

T = TypeVar("T")

THRESHOLDS = np.arange(100, dtype=np.float32) / 100
FIXED = 0.3
RULE = (
    f"a pixel is background where no map is above the threshold; best: of {THRESHOLDS[0]:.2f} to {THRESHOLDS[-1]:.2f}, "
    f"in steps of 0.01, the one with the highest mIoU on these pictures, for each method; fixed: {FIXED}"
)

# Pixels are padded to a multiple of this with ignored ones, to limit compilations.
_PIXELS = 1 << 16


class PictureScore(NamedTuple):
    """The score of the prediction for one picture.

    Attributes:
        classes: int (n,), the classes of its maps, or those in its mask.
        truth: int (m,), the classes in its true mask; empty without one.
        miou: mIoU with the true mask, over the classes that occur in either: for each method, float32 (100,), of its
            seed at each of THRESHOLDS; for a mask {"mask": float32 (1,)}; empty without a true mask.
        disagreement: mean absolute difference of its CAM and LPCAM, in [0, 1]; NaN without maps of both.
    """

    classes: np.ndarray
    truth: np.ndarray
    miou: dict[str, np.ndarray]
    disagreement: float


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
            num_classes=max(4, 1 << (len(values) - 1).bit_length()),  # a power of two, to limit compilations
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
            "best": {"threshold": _numbers(THRESHOLDS[best]), **_scores(self.matrices[best])},
            "fixed": {"threshold": _numbers(THRESHOLDS[fixed]), **_scores(self.matrices[fixed])},
            "curve": {"threshold": _numbers(THRESHOLDS), "miou": _numbers(curve)},
            "confusion": self.matrices[best].astype(int).tolist(),
        }


def scoring_protocol(config: Any, source: RecordSource) -> dict[str, Any]:
    """Everything that scores depend on besides the predictions, as plain JSON values.

    Args:
        config: of the data set.
        source: its pictures.

    Returns:
        {"version", "data": {"source", "root": its name, "split", "masks", "limit", "class_names"}, "ignored", "rule"}.
    """
    data = config.data
    split = data.seeds
    if data.source == "shapes":  # the scenes depend on the seed; the split may be a slice of them
        split = f"{data.scenes} scenes{split.removeprefix('all')}, seed {config.seed}"
    return {
        "version": __version__,
        "data": {
            "source": data.source,
            "root": Path(data.root).resolve().name if data.root else None,
            "split": split,
            "masks": data.truth if data.source == "voc_layout" else None,
            "limit": config.limit,
            "class_names": list(source.class_names),
        },
        "ignored": IGNORE,
        "rule": RULE,
    }


def score_maps(maps: MapFolder, source: RecordSource) -> tuple[dict[str, Any], dict[str, PictureScore]]:
    """Score a folder of maps.

    Args:
        maps: the folder; pictures without a file in it are left out and counted.
        source: the pictures; those without a mask, or with only ignored pixels in it, are left out.

    Returns:
        {"scored": pictures, "without_truth": pictures, "missing": pictures, "first_missing": their first ids,
        "empty_maps": {method: number of all-zero maps}, "scores": {method: see `SeedScoring.report`}}, without "scores"
        if nothing could be scored; and, by id, the score of every picture that has a file.

    Raises:
        UserError: a file cannot be read, or does not fit the classes or its picture.
    """
    # Matrices of all classes at all thresholds: a thousand classes take a gigabyte, which only true masks are worth.
    scoring = {method: SeedScoring(len(source.class_names)) for method in maps.methods if source.has_masks}
    empty, of_pictures = dict.fromkeys(maps.methods, 0), {}

    def counted(prediction: tuple[np.ndarray, dict[str, np.ndarray]], truth: np.ndarray | None) -> tuple:
        classes, arrays = prediction
        nothing = {method: int((~stack.any(axis=(1, 2))).sum()) for method, stack in arrays.items()}
        stacks = {} if truth is None else {method: np.moveaxis(stack, 0, -1) for method, stack in arrays.items()}
        counts = {method: seed_counts(stack, classes, truth) for method, stack in stacks.items()}
        miou = {method: one.miou for method, one in counts.items()}
        return counts, nothing, PictureScore(classes, classes_in(truth), miou, _disagreement(arrays))

    for name, (counts, nothing, score) in _of_each(maps, source, counted):
        of_pictures[name] = score
        for method, number in nothing.items():
            empty[method] += number
        for method, one in counts.items():
            scoring[method].add_counts(one)
    of_pictures = _of_all_processes(of_pictures, source)
    empty = {method: sum(processes.gather_values(count)) for method, count in empty.items()}
    result = {**_counts(of_pictures, source), "empty_maps": empty}
    if result["scored"]:
        for seed_scoring in scoring.values():
            seed_scoring.add_processes()
        result["scores"] = {method: seed_scoring.report() for method, seed_scoring in scoring.items()}
    return result, of_pictures


def score_masks(masks: MaskFolder, source: RecordSource) -> tuple[dict[str, Any], dict[str, PictureScore]]:
    """Score a folder of masks.

    Args:
        masks: the folder; pictures without a file in it are left out and counted.
        source: the pictures; those without a mask, or with only ignored pixels in it, are left out.

    Returns:
        {"scored": pictures, "without_truth": pictures, "missing": pictures, "first_missing": their first ids,
        "unsure_pixels": pixels with the prediction 255, which are counted as background, "scores": {"miou", "fp", "fn",
        "precision", "recall", "iou", "confusion"}, as in `SeedScoring.report`, and "miou_of_pictures", by id, over the
        classes that occur}, without "scores" if nothing could be scored; and, by id, the score of every picture that
        has a file.

    Raises:
        UserError: a file cannot be read, or does not fit the classes or its picture.

    Source: the reference's evaluation, which turns predicted 255 into background.
    """
    count = len(source.class_names) + 1
    matrix, unsure, of_pictures = np.zeros((count, count)), 0, {}

    def counted(mask: np.ndarray, truth: np.ndarray | None) -> tuple:
        if truth is None:
            return 0, 0, PictureScore(classes_in(mask), classes_in(truth), {}, float("nan"))
        confusion = picture_confusion(truth, np.where(mask == IGNORE, 0, mask), count)
        miou = {"mask": np.nanmean(iou(confusion.astype(np.float32)), keepdims=True)}
        score = PictureScore(classes_in(mask), classes_in(truth), miou, float("nan"))
        return confusion, int(((mask == IGNORE) & (truth != IGNORE)).sum()), score

    for name, (confusion, number, score) in _of_each(masks, source, counted):
        of_pictures[name] = score
        matrix, unsure = matrix + confusion, unsure + number
    of_pictures = _of_all_processes(of_pictures, source)
    matrix, unsure = np.sum(processes.gather(matrix), axis=0), sum(processes.gather_values(unsure))
    result = {**_counts(of_pictures, source), "unsure_pixels": unsure}
    if result["scored"]:
        result["scores"] = {
            **_scores(matrix),
            "confusion": matrix.astype(int).tolist(),
            "miou_of_pictures": {
                name: _numbers(*score.miou["mask"]) for name, score in of_pictures.items() if score.miou
            },
        }
    return result, of_pictures


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


def _disagreement(arrays: dict[str, np.ndarray]) -> float:
    if not {"cam", "lpcam"} <= arrays.keys() or not len(arrays["cam"]):
        return float("nan")
    return float(np.abs(arrays["cam"] - arrays["lpcam"]).mean())


def _of_all_processes(of_pictures: dict[str, PictureScore], source: RecordSource) -> dict[str, PictureScore]:
    """The scores of the pictures of all processes, in the order of the data set."""
    facts = [
        (name, score.classes.tolist(), score.truth.tolist(), list(score.miou), score.disagreement)
        for name, score in of_pictures.items()
    ]
    curves = [curve for score in of_pictures.values() for curve in score.miou.values()]  # of equal lengths
    everything = processes.gather_values(facts), processes.gather(np.concatenate([np.zeros(0, np.float32), *curves]))
    found = {}
    for facts, numbers in zip(*everything, strict=True):
        count = sum(len(methods) for _, _, _, methods, _ in facts)
        curve = iter(np.split(numbers, max(count, 1)))
        for name, classes, truth, methods, disagreement in facts:
            miou = {method: next(curve) for method in methods}
            found[name] = PictureScore(np.array(classes, int), np.array(truth, int), miou, disagreement)
    return {name: found[name] for name in source.ids if name in found}


def _counts(of_pictures: dict[str, PictureScore], source: RecordSource) -> dict[str, Any]:
    scored = sum(bool(score.miou) for score in of_pictures.values())
    missing = [name for name in source.ids if name not in of_pictures]
    return {
        "scored": scored,
        "without_truth": len(of_pictures) - scored,
        "missing": len(missing),
        "first_missing": missing[:5],
    }


def _of_each(
    folder: MapFolder | MaskFolder, source: RecordSource, counted: Callable[[Any, np.ndarray | None], T]
) -> Iterator[tuple[str, T]]:
    """Id of every picture of the share that has a file, and what is counted of its prediction and truth, in threads."""
    classes = len(source.class_names)

    def read(index: int) -> tuple[str, T]:
        name = source.ids[index]
        prediction, size = folder.read(name, classes=classes)
        truth = true_mask(source, index) if source.has_masks else None
        if truth is None or (truth == IGNORE).all():
            return name, counted(prediction, None)
        if size != truth.shape:
            raise UserError(
                f"{folder.file(name)} is {size[1]}x{size[0]}, the mask of its picture {truth.shape[1]}x"
                f"{truth.shape[0]} (width x height); store predictions of the picture's size."
            )
        return name, counted(prediction, truth)

    share = processes.share(range(len(source.ids)))
    present = [index for index in share if folder.file(source.ids[index]).exists()]
    return tqdm(map_ahead(read, present), "scoring", len(present), unit="img", disable=not source.has_masks)


def _scores(matrix: np.ndarray) -> dict[str, Any]:
    matrix = matrix.astype(np.float32)
    scores = {name: _numbers(value) for name, value in seed_scores(matrix)._asdict().items()}
    return {**scores, "iou": _numbers(iou(matrix))}


def _numbers(values: Any) -> Any:
    """Arrays as floats of seven digits; NaN, which JSON does not have, becomes None."""
    if np.ndim(values):
        return [_numbers(value) for value in np.asarray(values)]
    return None if np.isnan(values) else float(f"{float(values):.7g}")
