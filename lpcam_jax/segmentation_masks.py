"""A folder of segmentation masks: written picture by picture, continued after a stop, scored as a whole.

    masks/ID.png      palette PNG: 0 background, class n + 1
    overlays/ID.png   picture, mask and truth side by side
    index.html        all of them, to filter and sort; gallery/ holds its pictures
    metrics.json      mIoU, IoU of each class, confusion matrix, and what they were made with; confusion.png the matrix
                      (where there are true masks)
    protocol.json     what the masks were made with

The mask is written last: where it stands, the picture is done.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from . import __version__, processes
from .config import SegmentationInference, at_precision
from .data.masks import MaskFolder
from .data.pictures import picture_size
from .data.records import Record, RecordSource
from .files import write_atomically
from .models.folding import fold_batch_norm
from .report.confusion import confusion_picture
from .report.gallery import Entry, Gallery, Look, Pane, layer_file, write_gallery, write_layer
from .report.layers import mask_layer, photo_layer, picture_colors
from .report.overlays import mask_panel, png
from .report.palette import mask_png
from .report.table import mask_tables
from .results import ResultFolder, all_skipped, fingerprint, skipped_line, write_all
from .scoring import PictureScore, classes_in, score_masks
from .segmentation import segment_pictures
from .training.checkpoints import TrainState
from .training.run import Run
from .training.state import graph_of

_PANES = (Pane("mask", "segmentation", "mask", "mask"), Pane("truth", "ground truth", "mask"))


def make_masks(
    run: Run,
    state: TrainState,
    source: RecordSource,
    out: str | Path,
    *,
    inference: SegmentationInference,
    devices: Mesh,
) -> dict[str, Any] | None:
    """Segment every picture that has no mask yet, then score all of them.

    Args:
        run: of the segmentation network.
        state: its parameters and statistics.
        source: the pictures.
        out: the folder.
        inference: scales and mirror images.
        devices: the mesh of this process.

    Returns:
        What was written to metrics.json; None in all processes but the first.

    Raises:
        UserError: the folder cannot be written, or no picture could be read.
    """
    folder = ResultFolder(out, protocol_of(run, state, inference), what="masks")
    masks = MaskFolder(folder.directory / "masks")
    skipped: list[str] = []

    def is_done(name: str) -> bool:
        return masks.file(name).exists() and layer_file(folder.directory, "photo", name).exists()

    missing = [index for index in processes.share(range(len(source))) if not is_done(source.ids[index])]
    if missing:
        graph, *_ = graph_of(at_precision(run.config, inference), len(run.class_names))
        graph, *folded = fold_batch_norm(graph, state.parameters, state.batch_stats)
        segment = segment_pictures(graph, inference=inference, devices=devices)
        results = segment(folded, source, skipped=skipped, only=missing)

        def write(_: int, record: Record, mask: np.ndarray) -> None:
            picture = mask_panel(record.image, mask, record.mask, run.class_names)
            for key, layer in _layers(record, mask):
                write_layer(folder.directory, key, record.id, layer)
            write_atomically(folder.file("overlays", record.id, "png"), png(picture))
            write_atomically(masks.file(record.id), mask_png(mask))

        write_all(results, write)
    skipped = all_skipped(skipped, source)
    if not processes.is_first():
        return None
    scores, of_pictures = score_masks(masks, source)
    metrics = {
        "pictures": len(source) - len(skipped),
        "skipped": skipped,
        "protocol": folder.protocol,
        **scores,
    }
    if "scores" in metrics:
        confusion = np.array(metrics["scores"]["confusion"])
        confusion_picture(folder.directory / "confusion.png", {"masks": confusion}, run.class_names)
    folder.write_json("metrics.json", metrics)
    entries = [_entry(folder.directory, *one, run.class_names) for one in of_pictures.items() if is_done(one[0])]
    panes = [one for one in _PANES if one.key == "mask" or source.has_masks]
    look = Look("masks", tuple(one.key for one in panes))
    gallery = Gallery("Segmentation masks", panes, [look], rank="mask", summary=list(_summary(metrics)))
    write_gallery(folder.directory / "index.html", gallery, entries)
    return metrics


def protocol_of(run: Run, state: TrainState, inference: SegmentationInference) -> dict[str, Any]:
    """How the masks of this model are made, as plain JSON values; other parameters give another `model`."""
    return {
        "version": __version__,
        "model": fingerprint((state.parameters, state.batch_stats)),
        "step": int(state.step),
        "trained_on": Path(run.config.data.masks).name or run.config.data.masks or "true masks",
        "class_names": list(run.class_names),
        "scales": list(inference.scales),
        "precision": at_precision(run.config, inference).model.precision,
        "mirror": inference.mirror,
        "crf": False,
    }


def describe(metrics: dict[str, Any]) -> Iterator[str]:
    """What a person wants to read of the metrics, line by line."""
    if "scores" in metrics:
        yield from mask_tables(metrics["scores"], metrics["protocol"]["class_names"])
    yield from _summary(metrics)


def _summary(metrics: dict[str, Any]) -> Iterator[str]:
    if "scores" in metrics:
        yield f"mIoU {100 * metrics['scores']['miou']:.1f} on {metrics['scored']} pictures"
    yield from skipped_line(metrics["skipped"])


def _layers(record: Record, mask: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """What the gallery lays over the photograph, and that."""
    classes = [*map(int, np.union1d(classes_in(mask), classes_in(record.mask)))]
    colors = picture_colors(classes)
    yield "photo", photo_layer(record.image)
    yield "mask", mask_layer(mask, classes, colors)
    if record.mask is not None:
        yield "truth", mask_layer(record.mask, classes, colors)


def _entry(folder: Path, name: str, score: PictureScore, class_names: tuple[str, ...]) -> Entry:
    """The picture in the gallery; its classes are those of the mask, and then those that only the truth has."""
    classes = [*map(int, score.classes), *(int(n) for n in score.truth if n not in score.classes)]
    return Entry(
        name,
        picture_size(layer_file(folder, "photo", name))[::-1],
        tuple(class_names[n] for n in classes),
        tuple(picture_colors(classes)),
        iou=score.miou,
        missing=() if layer_file(folder, "truth", name).exists() else ("truth",),
    )
