"""Score a folder of predictions against the masks of a data set.

    python -m lpcam_jax evaluate configs/shapes.py --predictions heatmaps/ --out scores/
    python -m lpcam_jax evaluate configs/voc12.py --data.root DIR --data.seeds val --predictions masks/ --out val/

The folder was written by infer.py, or holds maps (ID.npz: classes, and a float (n, H, W) array per method) or masks
(ID.png: palette or 8-bit grey). Pseudo masks beside the maps of infer.py are scored, too. The pictures are those of
--data.seeds; only the data set of the recipe is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from ..config.recipes import parse_with_recipe
from ..config.registry import title
from ..data.made_for import expect_classes
from ..data.records import RecordSource
from ..data.sources import seed_source
from ..machine import devices
from ..machine.errors import UserError
from ..machine.files import write_json
from ..report.confusion import confusion_picture
from ..report.curve import seed_curves
from ..report.table import empty_maps_line, mask_tables, seed_tables
from ..results.apart import keep_apart, whole_folder
from ..results.map_folder import MapFolder
from ..results.predictions import find_predictions, pseudo_masks_beside, read_protocol
from ..results.scoring import score_maps, score_masks, scoring_protocol
from ..seeds import IGNORE


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Data set, predictions, and output folder."""

    recipe: tyro.conf.Positional[str]
    """file with get_config(), e.g. configs/voc12.py; the flags below override it"""
    predictions: str
    """output folder of infer.py, or folder of maps (ID.npz) or masks (ID.png)"""
    out: str
    """folder for metrics.json, confusion.png and, for maps, thresholds.png"""


def main(words: list[str]) -> None:
    """Score the predictions, print and write the scores.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there is nothing to score, or a prediction does not match its picture, or the scores would be written
            among the predictions.
    """
    config, arguments = parse_with_recipe(Arguments, words, command="evaluate", description=__doc__)
    out = Path(arguments.out)
    devices.start()
    source = seed_source(config)
    if not source.has_masks:
        raise UserError(f"the data set {config.data.root or config.data.source} has no masks to score against.")
    folder = find_predictions(arguments.predictions, source.ids)
    made_with = read_protocol(folder)
    if isinstance(folder, MapFolder):
        folder.expect_classes(source.class_names, ids=source.ids)
    else:
        expect_classes(folder.directory, source.class_names)
    keep_apart(out, whole_folder(folder.directory))
    is_maps = isinstance(folder, MapFolder)
    result, _ = (score_maps if is_maps else score_masks)(folder, source)
    if not result["scored"]:
        raise UserError(f"no picture with a prediction in {folder.directory} has a labelled pixel: nothing to score.")
    scores = result["scores"]
    metrics = {"pictures": len(source), "protocol": _protocol(config, source, folder, made_with), **result}
    pseudo_masks = pseudo_masks_beside(folder) if is_maps else None
    refined = score_masks(pseudo_masks, source)[0].get("scores") if pseudo_masks else None
    metrics |= {"pseudo_masks": refined} if refined else {}

    for text in (seed_tables if is_maps else mask_tables)(scores, source.class_names):
        print(text)
    if refined:
        print(f"pseudo masks beside the maps: mIoU {100 * refined['miou']:.1f}")
    for line in _remarks(metrics):
        print(line)
    write_json(out / "metrics.json", metrics)  # before the pictures, which are no reason to lose the numbers
    if is_maps:
        seed_curves(out / "thresholds.png", scores, pictures=result["scored"])
        by_caption = {f"{title(k)}, threshold {score['best']['threshold']:g}": score for k, score in scores.items()}
    else:
        by_caption = {"masks": scores}
    matrices = {caption: np.array(score["confusion"]) for caption, score in by_caption.items()}
    confusion_picture(out / "confusion.png", matrices, source.class_names)
    print(f"{result['scored']} of {len(source)} pictures are scored; numbers, protocol and pictures are in {out}.")


def _protocol(config: Any, source: RecordSource, folder: Any, made_with: dict[str, Any] | None) -> dict[str, Any]:
    """Everything the numbers depend on, as plain JSON values."""
    is_maps = isinstance(folder, MapFolder)
    protocol = scoring_protocol(config, source)
    return {
        **protocol,
        "rule": protocol["rule"] if is_maps else "masks are scored as they are",
        "predictions": "maps" if is_maps else "masks",
        "crf": "unknown" if made_with is None else made_with.get("crf", "unknown"),
        "made_with": made_with,
    }


def _remarks(metrics: dict[str, Any]) -> Iterator[str]:
    """Remarks on the numbers, line by line."""
    yield from empty_maps_line(metrics.get("empty_maps", {}))
    if count := metrics.get("unsure_pixels"):
        yield f"pixels predicted as {IGNORE} (unsure), counted as background: {count}"
    if count := metrics["without_truth"]:
        yield f"left out, without a mask or with ignored pixels only: {count}"
    if count := metrics["missing"]:
        ellipsis = ", ..." if count > len(metrics["first_missing"]) else ""
        yield f"left out, without a prediction: {count} ({', '.join(metrics['first_missing'])}{ellipsis})"
