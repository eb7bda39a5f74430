"""A folder of heat maps: written picture by picture, continued after a stop, scored as a whole.

    maps/ID.npz       classes (n,) and their names; by method float16 (n, H, W), in [0, 1]: of a classifier cam,
                      lpcam_f, lpcam, and taught where that was, and probabilities (c,) of all classes; of AMN amn, and
                      the maps that it started from. No pickle.
    overlays/ID.png   picture, seed, truth, and every class's maps side by side
    seeds/ID.png      seed mask of the last of these as a palette PNG: 0 background, class n + 1
    pseudo_masks/     the same, refined (`refinement`), unless that is not wanted
    index.html        all of them (`heatmap_gallery`), to filter, sort and threshold; gallery/ holds its pictures
    metrics.json      Table 1, confusion matrices, and what they were made with; thresholds.png its curve (both where
                      there are masks)
    protocol.json     what the maps were made with

The npz is written last: where it stands, the picture is done. (A folder from before there was a gallery is made anew.)
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from . import processes
from .data.masks import MaskFolder
from .data.records import Record, RecordSource
from .files import write_atomically
from .heatmap_gallery import gallery_layers, pseudo_mask_line, shown_methods, write_heatmap_gallery
from .inference import PictureMaps
from .predictions import MapFolder
from .refinement import Refiner, cut
from .report.curve import seed_curves
from .report.gallery import layer_file, write_layer
from .report.names import title
from .report.overlays import panel, png
from .report.palette import mask_png
from .report.table import empty_maps_line, seed_tables
from .results import ResultFolder, all_skipped, skipped_line
from .scoring import score_maps, score_masks


class HeatMapFolder(ResultFolder):
    """The folder, of one model and one protocol.

    Args:
        directory: made when it is not there.
        class_names: c names.
        methods: of the maps; seeds are cut from the last.
        protocol: plain JSON values that say how the maps are made, among them "classes", which says whose maps there
            are: where it is "predicted", probabilities are shown. A folder with another protocol is refused.
        refined: what becomes of the last method's maps beside their seeds; None: nothing.

    Raises:
        UserError: as `ResultFolder`.
    """

    def __init__(
        self,
        directory: str | Path,
        class_names: tuple[str, ...],
        methods: tuple[str, ...],
        protocol: dict[str, Any],
        *,
        refined: Refiner | None = None,
    ):
        super().__init__(directory, protocol, what="heat maps")
        self.class_names, self.refined = class_names, refined
        self.maps = MapFolder(self.directory / "maps", methods)
        self.pseudo_masks = MaskFolder(self.directory / "pseudo_masks")

    def is_done(self, name: str) -> bool:
        """Whether the picture's outputs are all there."""
        return self.maps.file(name).exists() and layer_file(self.directory, "photo", name).exists()

    def missing(self, source: RecordSource) -> list[int]:
        """Which of the pictures that are this process's share are not done."""
        return [index for index in processes.share(range(len(source))) if not self.is_done(source.ids[index])]

    def write(self, record: Record, result: PictureMaps, *, background: float) -> None:
        """Write one picture's outputs.

        Args:
            record: the picture.
            result: its maps.
            background: seed threshold.
        """
        values = np.concatenate([[0], result.classes + 1]).astype(np.uint8)
        best = result.maps[self.maps.methods[-1]]
        seed = values[cut(best, background)]
        refined = values[self.refined(record, best)] if self.refined else None
        stored = {method: np.moveaxis(result.maps[method], -1, 0) for method in self.maps.methods}
        names, more = [self.class_names[n] for n in result.classes], {}
        if result.probabilities is not None:
            more["probabilities"] = result.probabilities.astype(np.float32)
            if record.labels is None:
                names = [f"{name} {result.probabilities[n]:.0%}" for name, n in zip(names, result.classes, strict=True)]
        picture = panel(
            record.image,
            {title(method): maps for method, maps in stored.items()},
            names,
            seed,
            record.mask,
            refined=refined,
            class_values=[int(n) + 1 for n in result.classes],
        )
        for key, layer in gallery_layers(record, result.classes, stored, refined):
            write_layer(self.directory, key, record.id, layer)
        write_atomically(self.file("overlays", record.id, "png"), png(picture))
        write_atomically(self.file("seeds", record.id, "png"), mask_png(seed))
        if refined is not None:
            write_atomically(self.pseudo_masks.file(record.id), mask_png(refined))
        self.maps.write(record.id, result.classes, self.class_names, stored, **more)

    def finish(
        self,
        source: RecordSource,
        skipped: Sequence[str],
        *,
        pages: Callable[[], Sequence[tuple[str, str]]] = list,
    ) -> dict[str, Any] | None:
        """Score all pictures and write the page, once every process has written its own.

        Args:
            source: the pictures.
            skipped: one line for every picture that this process could not read.
            pages: writes other pages, then, and returns what leads to them: (text, file beside index.html) each.

        Returns:
            What was written to metrics.json; None in all processes but the first.

        Raises:
            UserError: no picture could be read, or the folder cannot be written.
        """
        skipped = all_skipped(skipped, source)
        if not processes.is_first():
            return None
        scores, of_pictures = score_maps(self.maps, source)
        metrics = {
            "pictures": len(source) - len(skipped),
            "skipped": skipped,
            "protocol": self.protocol,
            **scores,
        }
        if "scores" in metrics and self.refined:
            metrics["pseudo_masks"] = score_masks(self.pseudo_masks, source)[0]["scores"]
        if "scores" in metrics:
            seed_curves(self.directory / "thresholds.png", metrics["scores"], pictures=metrics["scored"])
        self.write_json("metrics.json", metrics)
        write_heatmap_gallery(
            self.directory,
            self.maps,
            self.class_names,
            metrics,
            {name: one for name, one in of_pictures.items() if self.is_done(name)},
            has_masks=source.has_masks,
            refined=bool(self.refined),
            links=pages(),
        )
        return metrics


def describe(metrics: dict[str, Any]) -> Iterator[str]:
    """What a person wants to read of the metrics, line by line."""
    if "scores" in metrics:
        scores = metrics["scores"]
        yield from seed_tables(scores, metrics["protocol"]["class_names"])
        methods = shown_methods(list(scores))
        for other, one in pairwise(methods):
            best, fixed = (100 * (scores[one][at]["miou"] - scores[other][at]["miou"]) for at in ("best", "fixed"))
            yield (
                f"{title(one)} against {title(other)} on {metrics['scored']} pictures: {best:+.1f} points of mIoU, "
                f"each at its own best threshold; {fixed:+.1f} at {scores[one]['fixed']['threshold']:g}."
            )
        yield from pseudo_mask_line(metrics)
    yield from empty_maps_line(metrics["empty_maps"])
    yield from skipped_line(metrics["skipped"])
