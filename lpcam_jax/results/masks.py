"""A folder of masks, predicted or pseudo, written picture by picture, resumable, and scored together.

    masks/ID.png      palette PNG: 0 background, n + 1 class n
    overlays/ID.jpg   picture, mask and truth side by side
    index.html        a gallery to filter and sort; gallery/ holds its pictures. Of more than 2,000 pictures only a
                      sample has overlays and is in the gallery (`shown`)
    metrics.json      protocol and, if there are true masks, mIoU, IoU of each class and confusion matrix
    confusion.png     the confusion matrix, if there are true masks
    origins.N.jsonl   which pictures, and maps, they were made from (`origins`)
    protocol.json     how the masks were made

The mask is written last: it marks a finished picture.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.masks import MaskFolder, expect_numbered
from ..data.pictures import picture_size
from ..data.records import Record, RecordSource
from ..machine import processes
from ..machine.files import write_atomically
from ..report.confusion import confusion_picture
from ..report.gallery import Entry, Gallery, Look, Pane, layer_file, write_gallery, write_layers
from ..report.layers import mask_layer, photo_layer, picture_colors
from ..report.names import counted
from ..report.overlays import jpeg, mask_panel
from ..report.palette import mask_png
from ..report.table import mask_tables
from .counts import classes_in
from .folder import PictureResults, sample_line, skipped_line
from .scoring import PictureScore, score_masks
from .shown import Pages


class MaskResults(PictureResults):
    """The folder, of one model and one protocol.

    Args:
        directory: the folder; created if missing.
        protocol: how the masks are made, as plain JSON values, including "class_names".
        title: heading of the page.
        caption: caption of a mask.
        pages: which pictures have overlays and a place in the gallery; "none": there is no gallery.

    Raises:
        UserError: see `ResultFolder`; or there are more classes than masks can number.
    """

    def __init__(
        self, directory: str | Path, protocol: dict[str, Any], *, title: str, caption: str, pages: Pages = "sample"
    ):
        count = len(protocol["class_names"])
        expect_numbered(count, title, "choose some of them for the training, with --data.classes")
        super().__init__(directory, protocol, what="masks")
        self.title, self.caption, self.pages = title, caption, pages
        self.class_names = tuple(protocol["class_names"])
        self.masks = MaskFolder(self.directory / "masks")

    def marker(self, name: str) -> Path:
        """Its mask."""
        return self.masks.file(name)

    def write(self, record: Record, mask: np.ndarray) -> None:
        """Write one picture's outputs.

        Args:
            record: the picture.
            mask: uint8 (H, W), 0 background, n + 1 class n.
        """
        if self.shows(record.id):
            picture = mask_panel(record.image, mask, record.mask, self.class_names, caption=self.caption)
            write_layers(self.directory, record.id, _layers(record, mask), ("mask", "truth"))
            write_atomically(self.file("overlays", record.id, "jpg"), jpeg(picture), durably=False)
        self.note_origin(record.id)
        write_atomically(self.masks.file(record.id), mask_png(mask))

    def finish(
        self, source: RecordSource, skipped: Sequence[str], *, more: Callable[[], dict[str, Any]] = dict
    ) -> dict[str, Any] | None:
        """Score all pictures, each process its share, and write the page, once every process has written its share.

        Args:
            source: the pictures.
            skipped: one line for every picture that this process could not read.
            more: computes further entries of metrics.json, in every process.

        Returns:
            The contents of metrics.json; None in every process but the first.

        Raises:
            UserError: no picture could be read, or the folder cannot be written.
        """
        metrics = self.base_metrics(source, skipped)
        scores, of_pictures = score_masks(self.masks, source)
        metrics |= {**more(), **scores}
        if not processes.is_first():
            return None
        if "scores" in metrics:
            confusion = np.array(metrics["scores"]["confusion"])
            confusion_picture(self.directory / "confusion.png", {"masks": confusion}, self.class_names)
        self.write_json("metrics.json", metrics)
        if self.pages == "none":
            self.remove_pages()
        else:
            self._write_gallery(metrics, of_pictures, has_masks=source.has_masks)
        return metrics

    def _write_gallery(
        self, metrics: dict[str, Any], of_pictures: Mapping[str, PictureScore], *, has_masks: bool
    ) -> None:
        """Write index.html."""
        shown = {name: picture for name, picture in of_pictures.items() if self.shows(name) and self.is_done(name)}
        entries = [self._entry(name, picture) for name, picture in shown.items()]
        summary = [*_summary(metrics), *sample_line(len(entries), metrics["pictures"])]
        panes = [Pane("mask", self.caption, "mask", "mask")]
        if has_masks:
            panes.append(Pane("truth", "ground truth", "mask"))
        look = Look("masks", tuple(pane.key for pane in panes))
        gallery = Gallery(self.title, panes, [look], rank="mask", summary=summary)
        write_gallery(self.directory / "index.html", gallery, entries)

    def _entry(self, name: str, score: PictureScore) -> Entry:
        """The picture's entry in the gallery; its classes are those of the mask, then those only in the truth."""
        classes = [*map(int, score.classes), *(int(n) for n in score.truth if n not in score.classes)]
        return Entry(
            name,
            picture_size(layer_file(self.directory, "photo", name))[::-1],
            tuple(self.class_names[n] for n in classes),
            tuple(picture_colors(classes)),
            iou=score.miou,
            missing=() if layer_file(self.directory, "truth", name).exists() else ("truth",),
        )


def describe(metrics: dict[str, Any]) -> Iterator[str]:
    """Summarize the metrics for the terminal, line by line."""
    if "scores" in metrics:
        yield from mask_tables(metrics["scores"], metrics["protocol"]["class_names"])
    yield from _summary(metrics)


def _summary(metrics: dict[str, Any]) -> Iterator[str]:
    if "scores" in metrics:
        yield f"mIoU {100 * metrics['scores']['miou']:.1f} on {counted(metrics['scored'], 'picture')}"
    yield from skipped_line(metrics["skipped"])


def _layers(record: Record, mask: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """The photograph and the gallery's layers over it, by key."""
    classes = [*map(int, np.union1d(classes_in(mask), classes_in(record.mask)))]
    colors = picture_colors(classes)
    yield "photo", photo_layer(record.image)
    yield "mask", mask_layer(mask, classes, colors)
    if record.mask is not None:
        yield "truth", mask_layer(record.mask, classes, colors)
