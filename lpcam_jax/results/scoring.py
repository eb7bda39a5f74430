"""Scoring folders of predictions against masks: Table 1 of the paper and its confusion matrix.

Of several processes each scores its share of the pictures, and all have the scores of all.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..data.masks import MaskFolder
from ..data.records import RecordSource, true_mask
from ..machine import processes
from ..machine.errors import UserError
from ..machine.threads import map_ahead
from ..metrics import iou
from ..seeds import IGNORE
from .counts import RULE, SeedScoring, classes_in, json_numbers, picture_confusion, scores_of, seed_counts
from .map_folder import MapFolder

T = TypeVar("T")


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
            **scores_of(matrix),
            "confusion": matrix.astype(int).tolist(),
            "miou_of_pictures": {
                name: json_numbers(*score.miou["mask"]) for name, score in of_pictures.items() if score.miou
            },
        }
    return result, of_pictures


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
